use super::{
    bytes::{error, message, query, ready, request, startup, status},
    conversation::Conversation,
};
use crate::seam::{OpaqueReason, Operation, RefusalKind, SessionFact, Status};

const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

#[test]
fn a_session_says_who_starts_it_and_nothing_of_its_authentication() {
    let run = Conversation::raw()
        .client(startup(&[("user", "bob"), ("database", "shop"), ("application_name", "psql")]))
        .server(message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"))
        .client(message(b'p', b"SCRAM-SHA-256\0secret"))
        .server(message(b'R', b"\0\0\0\0"))
        .server(status("server_version", "15.1"))
        .server(message(b'K', b"\0\0\0\x07abcd"))
        .server(ready(b'I'))
        .observed();
    let parameter = |name: &str, value: &str| SessionFact::Parameter(name.into(), value.into());
    let expected = [
        SessionFact::User(b"bob".to_vec()),
        SessionFact::Database(b"shop".to_vec()),
        parameter("application_name", "psql"),
        parameter("server_version", "15.1"),
        SessionFact::CancelKey { process_id: 7, secret: b"abcd".to_vec() },
    ];
    assert_eq!(run.facts(), expected.iter().collect::<Vec<_>>());
    assert_eq!(run.events.len(), expected.len());
    assert!(!format!("{:?}", run.events).contains("secret\""));
}

#[test]
fn encryption_that_is_not_to_be_had_leaves_a_session_in_plain_text() {
    let run = Conversation::raw()
        .client(request(GSS))
        .server("N")
        .client(request(SSL))
        .server("N")
        .client(startup(&[("user", "bob")]))
        .server(ready(b'I'))
        .client(query("select 1"))
        .server([&b"C\0\0\0\x0dSELECT 1\0"[..], &ready(b'I')].concat())
        .observed();
    assert_eq!(run.ends(), [("select 1".to_owned(), Status::Ok)]);
}

#[test]
fn agreed_encryption_is_opaque() {
    let tls = Conversation::raw().client(request(SSL)).server("S").client([0x16, 3, 1]).server("xyz");
    assert_eq!(tls.observed().opaque(), Some(OpaqueReason::Tls));
    let gss = Conversation::raw().client(request(GSS)).server("G").client("token");
    assert_eq!(gss.observed().opaque(), Some(OpaqueReason::GssEncryption));
    let eager = Conversation::raw().client([request(SSL), vec![0x16, 3, 1, 0, 5]].concat()).server("S");
    assert_eq!(eager.observed().opaque(), Some(OpaqueReason::Tls));
}

#[test]
fn an_old_server_may_answer_a_request_for_encryption_with_an_error() {
    let run = Conversation::raw().client(request(SSL)).server(error("08P01", "unsupported")).observed();
    assert_eq!(run.opaque(), None);
}

#[test]
fn replication_and_unknown_versions_are_opaque() {
    let replication = Conversation::raw().client(startup(&[("user", "r"), ("replication", "database")]));
    assert_eq!(replication.server("x").observed().opaque(), Some(OpaqueReason::Replication));
    let plain = Conversation::raw().client(startup(&[("user", "r"), ("replication", "off")]));
    assert_eq!(plain.observed().opaque(), None);
    let version = Conversation::raw().client([0, 0, 0, 8, 0, 2, 0, 0]);
    assert_eq!(version.observed().opaque(), Some(OpaqueReason::UnsupportedVersion));
}

#[test]
fn a_newer_minor_version_may_be_negotiated_down() {
    let mut start = startup(&[("user", "bob")]);
    start[7] = 9;
    let run = Conversation::raw()
        .client(start)
        .server(message(b'v', b"\0\0\0\0\0\0\0\0"))
        .server(message(b'R', b"\0\0\0\0"))
        .server(message(b'K', &[&[0, 0, 0, 9][..], &[1; 256]].concat()))
        .server(ready(b'I'))
        .observed();
    assert_eq!(run.opaque(), None);
}

fn cancel() -> Conversation {
    let packet = [&16u32.to_be_bytes()[..], &80_877_102u32.to_be_bytes(), &7u32.to_be_bytes(), b"abcd"];
    Conversation::raw().client(packet.concat())
}

#[test]
fn a_cancel_request_is_a_command_without_its_secret() {
    let run = cancel().observed();
    let secret = b"abcd".to_vec();
    assert_eq!(run.facts(), [&SessionFact::CancelRequest { process_id: 7, secret }]);
    let (command, outcome) = run.only();
    assert_eq!(command.operation, Operation::Cancel);
    assert_eq!(command.attributes, [("process_id", b"7".to_vec())]);
    assert_eq!((outcome.status, outcome.bytes_sent), (Status::Ok, 16));
}

#[test]
fn a_refused_cancel_request_never_reaches_the_server() {
    let run = cancel().refuse("", RefusalKind::Denied).run();
    assert!(run.closed);
    assert_eq!(run.to_server, b"");
    assert_eq!(run.only().1.status, Status::NotForwarded);
}

#[test]
fn a_refused_login_ends_without_a_command() {
    let run = Conversation::raw()
        .client(startup(&[("user", "bob")]))
        .server(error("28P01", "password authentication failed"))
        .observed();
    assert_eq!(run.opaque(), None);
    assert!(run.commands().is_empty());
}

#[test]
fn commands_sent_before_authentication_ends_are_seen() {
    let run = Conversation::raw()
        .client([startup(&[("user", "bob")]), query("select 1")].concat())
        .server([message(b'R', b"\0\0\0\0"), ready(b'I')].concat())
        .server([&b"C\0\0\0\x0dSELECT 1\0"[..], &ready(b'I')].concat())
        .observed();
    assert_eq!(run.ends(), [("select 1".to_owned(), Status::Ok)]);
}

#[test]
fn a_server_that_shuts_down_while_idle_is_no_command_and_not_opaque() {
    let fatal = message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mterminating\0\0");
    let run = Conversation::started().server(fatal).observed();
    assert_eq!(run.opaque(), None);
    assert!(run.commands().is_empty());
}
