use sha2::{Digest, Sha256};

use super::{bytes::*, conversation::Conversation};
use crate::{
    model::{Model, allow_all},
    postgres::PostgresDecoder,
    seam::{Direction, Event, Limits, OpaqueReason, Status},
};

#[test]
fn a_long_query_is_announced_by_its_prefix_and_recorded_with_length_and_digest() {
    let text = "select 'abcdefghijklmnopqrstuvwxyz'";
    let run = Conversation::started()
        .limits(|limits| limits.capture_bytes = 10)
        .client(query(text))
        .server([complete("SELECT 1"), ready(b'I')].concat())
        .observed();
    let prefix = run.events.iter().find_map(|event| match event {
        Event::Prefix { commands, .. } => Some(&commands[0]),
        _ => None,
    });
    assert_eq!(prefix.map(|command| command.statement.bytes.as_slice()), Some(&b"select 'ab"[..]));
    let (command, outcome) = run.only();
    assert_eq!(command.statement.bytes, b"select 'ab");
    assert_eq!(command.statement.full_length, text.len() as u64);
    assert_eq!(command.statement.full_sha256, Some(Sha256::digest(text).into()));
    assert_eq!((outcome.status, outcome.bytes_sent), (Status::Ok, query(text).len() as u64));
}

#[test]
fn a_long_query_is_redacted_before_it_is_cut_or_digested() {
    let run = Conversation::started()
        .limits(|limits| limits.capture_bytes = 30)
        .client(query("alter role somebody password 'hunter2' valid until 'tomorrow'"))
        .server([complete("ALTER ROLE"), ready(b'I')].concat())
        .observed();
    let redacted = "alter role somebody password '[redacted]' valid until 'tomorrow'";
    let (command, _) = run.only();
    assert_eq!(command.statement.full_sha256, Some(Sha256::digest(redacted).into()));
    assert!(!format!("{:?}", run.events).contains("hunter2"));
}

#[test]
fn a_text_of_exactly_the_limit_is_not_long() {
    let run = Conversation::started()
        .limits(|limits| limits.capture_bytes = 10)
        .client(query("0123456789"))
        .server([complete("X"), ready(b'I')].concat())
        .observed();
    assert!(!run.events.iter().any(|event| matches!(event, Event::Prefix { .. })));
}

#[test]
fn a_long_query_whose_client_goes_was_never_forwarded() {
    let mut cut = query("select 'abcdefghijklmnopqrstuvwxyz'");
    cut.pop();
    let run = Conversation::started().limits(|limits| limits.capture_bytes = 10).client(cut).observed();
    let ended = run.events.iter().filter_map(|event| match event {
        Event::Finished { outcome, .. } => Some(outcome.status),
        _ => None,
    });
    assert_eq!(ended.collect::<Vec<_>>(), [Status::NotForwarded]);
}

#[test]
fn long_parses_and_binds_are_cut_in_the_cache() {
    let text = format!("select {}", "x".repeat(2000));
    let value = vec![b'v'; 3000];
    let client = [
        parse("s", &text, &[25, 23]),
        bind("", "s", &[0], &[Some(&value), Some(b""), None]),
        execute("", 0),
        sync(),
    ];
    let conversation = Conversation::started()
        .limits(|limits| limits.capture_bytes = 100)
        .client(client[0].as_slice())
        .client(client[1].as_slice())
        .client(client[2..].concat())
        .server([PARSED, BOUND, &complete("X"), &ready(b'I')].concat());
    let run = conversation.observed();
    let (command, _) = run.only();
    assert_eq!(command.statement.bytes, &text.as_bytes()[..100]);
    assert_eq!(command.statement.full_sha256, Some(Sha256::digest(&text).into()));
    let first = command.parameters[0].value.as_ref().expect("not NULL");
    assert_eq!((first.bytes.len(), first.full_length), (100, 3000));
    assert_eq!(first.full_sha256, Some(Sha256::digest(&value).into()));
    assert_eq!(command.parameters[1].value.as_ref().map(|value| value.full_length), Some(0));
    assert_eq!(command.parameters[2].value, None);
    assert_eq!(command.parameters[0].type_oid, 25);
}

#[test]
fn a_long_function_call_is_decided_by_its_prefix() {
    let mut body = b"\0\0\0\x07\0\0\0\x01".to_vec();
    body.extend(2000u32.to_be_bytes());
    body.extend([1; 2000]);
    body.extend([0, 0]);
    let run = Conversation::started()
        .limits(|limits| limits.capture_bytes = 10)
        .client(message(b'F', &body))
        .server([message(b'V', b"\xff\xff\xff\xff"), ready(b'I')].concat())
        .observed();
    let (command, outcome) = run.only();
    assert_eq!(command.attributes, [("function_oid", b"7".to_vec())]);
    assert_eq!((command.partly, outcome.status), (Some(OpaqueReason::Limit), Status::Ok));
}

#[test]
fn names_beyond_the_limit_are_seen_without_their_text() {
    let run = Conversation::started()
        .limits(|limits| limits.named_objects = 1)
        .client([parse("a", "x", &[]), parse("b", "y", &[]), bind("", "b", &[], &[])].concat())
        .client([execute("", 0), sync()].concat())
        .server([PARSED, PARSED, BOUND, &complete("X"), &ready(b'I')].concat())
        .observed();
    let (command, outcome) = run.only();
    assert_eq!((command.partly, outcome.status), (Some(OpaqueReason::Limit), Status::Ok));
}

#[test]
fn a_client_with_more_in_flight_than_is_kept_waits_for_answers() {
    let answer = [complete("X"), ready(b'I')].concat();
    let syncs = [parse("", "x", &[]), bind("", "", &[], &[]), execute("", 0), sync()].concat();
    let run = Conversation::started()
        .limits(|limits| limits.commands_in_flight = 2)
        .client([query("a"), query("b"), query("c"), sync(), query("d")].concat())
        .server(&answer)
        .server(&answer)
        .server([&answer, &ready(b'I')[..]].concat())
        .server(&answer)
        .observed();
    assert_eq!(run.ends(), ["a", "b", "c", "d"].map(|text| (text.to_owned(), Status::Ok)));
    assert_eq!(run.opaque(), None);
    let run = Conversation::started()
        .limits(|limits| limits.commands_in_flight = 4)
        .client([syncs.clone(), syncs].concat())
        .server(PARSED)
        .server(BOUND)
        .server(complete("X"))
        .server(ready(b'I'))
        .server([PARSED, BOUND, &answer].concat())
        .observed();
    assert_eq!(run.ends(), vec![("x".to_owned(), Status::Ok); 2]);
    assert_eq!(run.opaque(), None);
}

#[test]
fn more_in_flight_than_is_kept_is_opaque_where_no_answer_comes() {
    let limited = || Conversation::started().limits(|limits| limits.commands_in_flight = 2);
    // The server has gone.
    let run = limited().client([query("a"), query("b"), query("c")].concat()).observed();
    assert_eq!((run.opaque(), run.commands().len()), (Some(OpaqueReason::Limit), 2));
    // The server may wait for a Sync with its answers.
    let parses = [parse("a", "x", &[]), parse("b", "x", &[]), parse("c", "x", &[])];
    let run = limited().client(parses.concat()).client("more").observed();
    assert_eq!(run.opaque(), Some(OpaqueReason::Limit));
    // The server waits for data.
    let data = [message(b'd', b"row"), message(b'c', b""), sync(), sync(), sync()].concat();
    let run = limited()
        .client([query("copy t from stdin"), sync()].concat())
        .server(message(b'G', b"\0\0\0"))
        .client(data)
        .observed();
    assert_eq!(run.commands().len(), 1);
}

#[test]
fn garbage_of_the_client_is_opaque_after_what_is_in_flight_has_ended() {
    for garbage in [
        message(b'Q', b"no end"),
        message(b'Q', b"two\0ends\0"),
        b"Q\0\0\0\x03".to_vec(),
        b"Q\x7f\xff\xff\xff".to_vec(),
        b"E\0\0\xff\xff".to_vec(),
        message(b'y', b""),
        message(b'S', b"x"),
        message(b'p', b"late"),
        parse("", "x", &[])[..].iter().copied().chain([0]).collect::<Vec<u8>>(),
    ] {
        let run = Conversation::started().client([query("a"), garbage].concat()).observed();
        assert_eq!(run.ends(), [("a".to_owned(), Status::OutcomeUnknown)]);
        let trailing = run.opaque();
        assert!(matches!(trailing, Some(OpaqueReason::Malformed) | None));
    }
}

#[test]
fn garbage_of_the_server_is_opaque() {
    for (garbage, reason) in [
        (complete("NOT ASKED"), OpaqueReason::Desynchronised),
        (ready(b'I'), OpaqueReason::Desynchronised),
        (PARSED.to_vec(), OpaqueReason::Desynchronised),
        (message(b'R', b"\0\0\0\0"), OpaqueReason::Desynchronised),
        (row("1"), OpaqueReason::Desynchronised),
        (message(b'Z', b"Q"), OpaqueReason::Malformed),
        (b"Z\0\0\0\x00".to_vec(), OpaqueReason::Malformed),
        (b"Z\0\xff\0\0".to_vec(), OpaqueReason::Malformed),
        (message(b'~', b""), OpaqueReason::Malformed),
    ] {
        let run = Conversation::started().server(&garbage).client("rest").observed();
        assert_eq!(run.opaque(), Some(reason), "{garbage:?}");
    }
}

#[test]
fn a_start_up_packet_of_the_wrong_length_is_malformed() {
    for packet in [&b"\0\0\0\x07"[..], b"\0\0\x27\x11", b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n"] {
        let run = Conversation::raw().client(packet).server("x").observed();
        assert_eq!(run.opaque(), Some(OpaqueReason::Malformed));
    }
}

#[test]
fn a_statement_of_many_megabytes_is_seen_without_being_kept() {
    let mut relay = Model::new(PostgresDecoder::new(Limits::default()), allow_all());
    relay.feed(Direction::ToServer, &startup(&[("user", "bob")]));
    relay.feed(Direction::ToClient, &ready(b'I'));
    let length = 20u32 * 1024 * 1024;
    relay.feed(Direction::ToServer, &[&b"Q"[..], &(length + 5).to_be_bytes()].concat());
    let chunk = vec![b'x'; 64 * 1024];
    let mut hasher = Sha256::new();
    for _ in 0..length as usize / chunk.len() {
        hasher.update(&chunk);
        relay.feed(Direction::ToServer, &chunk);
    }
    relay.feed(Direction::ToServer, b"\0");
    let Some(Event::Started { commands, .. }) = relay.events.last() else { panic!("it was read whole") };
    assert_eq!(commands[0].statement.full_length, length.into());
    assert_eq!(commands[0].statement.bytes.len(), Limits::default().capture_bytes);
    assert_eq!(commands[0].statement.full_sha256, Some(hasher.finalize().into()));
    relay.end();
}
