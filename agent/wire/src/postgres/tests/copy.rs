use super::{bytes::*, conversation::Conversation};
use crate::seam::{OpaqueReason, Status};

const COPY_IN: &[u8] = b"G\0\0\0\x07\0\0\0";
const COPY_OUT: &[u8] = b"H\0\0\0\x07\0\0\0";
const COPY_BOTH: &[u8] = b"W\0\0\0\x07\0\0\0";

fn data(text: &str) -> Vec<u8> {
    message(b'd', text.as_bytes())
}

#[test]
fn copy_in_counts_what_is_sent() {
    let done = message(b'c', b"");
    let run = Conversation::started()
        .client(query("copy t from stdin"))
        .server(COPY_IN)
        .client([data("1\n"), data("2\n"), done].concat())
        .server([complete("COPY 2"), ready(b'I')].concat())
        .observed();
    let (_, outcome) = run.only();
    assert_eq!((outcome.status, outcome.rows), (Status::Ok, Some(2)));
    assert_eq!(outcome.bytes_sent, (query("copy t from stdin").len() + 7 + 7 + 5) as u64);
}

#[test]
fn copy_out_counts_what_is_received() {
    let answer = [COPY_OUT, &data("1\n"), &message(b'c', b""), &complete("COPY 1"), &ready(b'I')].concat();
    let run = Conversation::started().client(query("copy t to stdout")).server(&answer).observed();
    assert_eq!(run.only().1.bytes_received, answer.len() as u64);
}

#[test]
fn a_sync_in_the_middle_of_copy_data_is_not_answered() {
    let open = [parse("", "copy t from stdin", &[]), bind("", "", &[], &[]), execute("", 0), sync()];
    let run = Conversation::started()
        .client(open.concat())
        .server([PARSED, BOUND, COPY_IN].concat())
        .client([data("1\n"), sync(), message(b'c', b""), sync()].concat())
        .server([complete("COPY 1"), ready(b'I')].concat())
        .client(query("after"))
        .server([complete("X"), ready(b'I')].concat())
        .observed();
    assert_eq!(run.opaque(), None);
    assert_eq!(run.commands().len(), 2);
    assert!(run.ends().iter().all(|(_, status)| *status == Status::Ok));
}

#[test]
fn copy_data_may_be_sent_without_waiting() {
    let open = [parse("", "copy t from stdin", &[]), bind("", "", &[], &[]), execute("", 0)];
    let run = Conversation::started()
        .client([open.concat(), data("1\n"), message(b'c', b""), sync()].concat())
        .server([PARSED, BOUND, COPY_IN, &complete("COPY 1"), &ready(b'I')].concat())
        .observed();
    assert_eq!(run.only().1.status, Status::Ok);
    assert_eq!(run.opaque(), None);
}

#[test]
fn copy_that_fails_leaves_the_session_in_step() {
    let run = Conversation::started()
        .client(query("copy t from stdin"))
        .server(COPY_IN)
        .client(data("x"))
        .server(error("22P02", "invalid"))
        .client([data("y"), message(b'f', b"no\0")].concat())
        .server(ready(b'I'))
        .client(query("after"))
        .server([complete("X"), ready(b'I')].concat())
        .observed();
    assert_eq!(run.opaque(), None);
    let statuses: Vec<_> = run.ends().into_iter().map(|(_, status)| status).collect();
    assert_eq!(statuses, [Status::Error, Status::Ok]);
}

#[test]
fn copy_in_both_directions_is_replication() {
    let run = Conversation::started().client(query("start_replication")).server(COPY_BOTH).observed();
    assert_eq!(run.opaque(), Some(OpaqueReason::Replication));
    assert_eq!(run.only().1.status, Status::OutcomeUnknown);
}
