use super::{
    bytes::*,
    conversation::{Conversation, Run},
};
use crate::{
    model::Model,
    postgres::{PostgresDecoder, messages::backend, refuse},
    seam::{Decision, Direction, Event, Limits, OpaqueReason, Refusal, RefusalKind, ServerMessage, Status},
};

/// What the server answers to the substitute.
fn syntax_error() -> Vec<u8> {
    error("42601", "syntax error at or near \"verbatim\"")
}

fn errors(output: &[u8]) -> Vec<ServerMessage> {
    let mut found = Vec::new();
    let mut rest = output;
    while let [kind, l0, l1, l2, l3, ..] = rest {
        let length = u32::from_be_bytes([*l0, *l1, *l2, *l3]) as usize;
        if *kind == b'E' {
            found.push(backend::fields(&rest[5..=length]));
        }
        rest = &rest[length + 1..];
    }
    found
}

fn statuses(run: &Run) -> Vec<Status> {
    run.ends().into_iter().map(|(_, status)| status).collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn a_query_that_is_refused_at_rest_is_answered_here_and_the_connection_stays_usable() {
    let conversation = Conversation::started()
        .refuse("drop", RefusalKind::Denied)
        .client(query("drop table t"))
        .client(query("select 1"))
        .server([complete("SELECT 1"), ready(b'I')].concat());
    let run = conversation.run();
    assert_eq!(statuses(&run), [Status::NotForwarded, Status::Ok]);
    assert_eq!(run.to_server, [startup(&[("user", "bob")]), query("select 1")].concat());
    let errors = errors(&run.to_client);
    assert_eq!(errors.len(), 1);
    assert_eq!((errors[0].code.as_str(), errors[0].severity.as_str()), ("42501", "ERROR"));
    assert_eq!(errors[0].message, b"refused for a test");
}

#[test]
fn a_query_that_is_refused_in_a_transaction_fails_it_as_the_servers_own_error_would() {
    let run = Conversation::started()
        .refuse("drop", RefusalKind::Expired)
        .client(query("begin"))
        .server([complete("BEGIN"), ready(b'T')].concat())
        .client(query("drop table t; select 2"))
        .server([syntax_error(), ready(b'E')].concat())
        .client(query("rollback"))
        .server([complete("ROLLBACK"), ready(b'I')].concat())
        .run();
    assert_eq!(statuses(&run), [Status::Ok, Status::NotForwarded, Status::NotForwarded, Status::Ok]);
    assert!(!contains(&run.to_server, b"drop"));
    assert!(contains(&run.to_server, &refuse::query()));
    let errors = errors(&run.to_client);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].code, "57014");
    assert!(contains(&run.to_client, &ready(b'E')));
}

#[test]
fn a_refused_query_behind_others_is_answered_in_its_turn() {
    let run = Conversation::started()
        .refuse("drop", RefusalKind::Denied)
        .client([query("select 1"), query("drop table t"), query("select 3")].concat())
        .server([complete("SELECT 1"), ready(b'I')].concat())
        .server([notice("n"), syntax_error(), ready(b'I')].concat())
        .server([complete("SELECT 3"), ready(b'I')].concat())
        .run();
    assert_eq!(statuses(&run), [Status::Ok, Status::NotForwarded, Status::Ok]);
    let refusal = Refusal { kind: RefusalKind::Denied, message: "refused for a test".into() };
    let session = [
        b"R\0\0\0\x08\0\0\0\0".to_vec(),
        ready(b'I'),
        complete("SELECT 1"),
        ready(b'I'),
        notice("n"),
        refuse::error(&refusal, "ERROR"),
        ready(b'I'),
        complete("SELECT 3"),
        ready(b'I'),
    ];
    assert_eq!(run.to_client, session.concat());
}

#[test]
fn a_refused_execute_makes_the_server_skip_to_the_sync() {
    let one = |text: &str| [parse("", text, &[]), bind("", "", &[], &[]), execute("", 0)].concat();
    let run = Conversation::started()
        .refuse("drop", RefusalKind::Denied)
        .client([one("a"), one("drop"), one("c"), sync(), one("d"), sync()].concat())
        .server([PARSED, BOUND, &complete("A"), PARSED, BOUND, &syntax_error(), &ready(b'I')].concat())
        .server([PARSED, BOUND, &complete("D"), &ready(b'I')].concat())
        .run();
    assert_eq!(statuses(&run), [Status::Ok, Status::NotForwarded, Status::NotExecuted, Status::Ok]);
    assert!(contains(&run.to_server, &refuse::parse()));
    let errors = errors(&run.to_client);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].code, "42501");
}

#[test]
fn a_refused_execute_behind_an_error_of_the_servers_own_adds_none() {
    let one = |text: &str| [parse("", text, &[]), bind("", "", &[], &[]), execute("", 0)].concat();
    let run = Conversation::started()
        .refuse("drop", RefusalKind::Denied)
        .client([one("a"), one("drop"), sync()].concat())
        .server([PARSED, BOUND, &error("22012", "x"), &ready(b'I')].concat())
        .run();
    assert_eq!(statuses(&run), [Status::Error, Status::NotForwarded]);
    assert_eq!(errors(&run.to_client).len(), 1);
    assert_eq!(errors(&run.to_client)[0].code, "22012");
}

#[test]
fn an_error_of_another_kind_passes_in_place_of_the_refusal() {
    let fatal = message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mterminating\0\0");
    let run = Conversation::started()
        .refuse("drop", RefusalKind::Denied)
        .client([query("a"), query("drop")].concat())
        .server([complete("A"), ready(b'I'), fatal].concat())
        .run();
    assert_eq!(errors(&run.to_client)[0].code, "57P01");
}

#[test]
fn a_refused_function_call_is_answered_like_a_query() {
    let call = message(b'F', b"\0\0\0\x01\0\0\0\0\0\0");
    let run = Conversation::started().refuse("", RefusalKind::Denied).client(call).run();
    assert_eq!(statuses(&run), [Status::NotForwarded]);
    assert_eq!(errors(&run.to_client).len(), 1);
    assert!(run.to_client.ends_with(&ready(b'I')));
}

#[test]
fn a_long_query_that_is_refused_by_its_prefix_closes_the_upstream() {
    let run = Conversation::started()
        .limits(|limits| limits.capture_bytes = 8)
        .refuse("drop", RefusalKind::Denied)
        .client(query("drop table t, u, v, w"))
        .client(query("x"))
        .run();
    assert!(run.closed);
    assert_eq!(run.to_server, startup(&[("user", "bob")]));
    assert_eq!(errors(&run.to_client)[0].severity, "FATAL");
}

fn session() -> Model<PostgresDecoder> {
    let hold: crate::model::Policy = Box::new(|_| None);
    let mut relay = Model::new(PostgresDecoder::new(Limits::default()), hold);
    relay.feed(Direction::ToServer, &startup(&[("user", "bob")]));
    relay.feed(Direction::ToClient, &ready(b'I'));
    relay
}

#[test]
fn a_held_query_keeps_what_comes_behind_it_until_it_is_released() {
    let mut relay = session();
    relay.feed(Direction::ToServer, &[query("a"), query("b")].concat());
    assert_eq!(relay.output(Direction::ToServer), startup(&[("user", "bob")]));
    relay.feed(Direction::ToClient, &notice("still here"));
    assert!(relay.output(Direction::ToClient).ends_with(&notice("still here")));
    relay.release(&Decision::Allow);
    assert!(relay.output(Direction::ToServer).ends_with(&query("a")));
    relay.feed(Direction::ToClient, &[complete("A"), ready(b'I')].concat());
    let message = "cancelled".to_owned();
    relay.release(&Decision::Refuse(Refusal { kind: RefusalKind::Cancelled, message }));
    assert_eq!(errors(relay.output(Direction::ToClient))[0].code, "57014");
    relay.end();
}

#[test]
fn a_held_query_whose_connection_ends_was_never_forwarded() {
    let mut relay = session();
    relay.feed(Direction::ToServer, &query("a"));
    relay.end();
    let ended = relay.events.iter().any(
        |event| matches!(event, Event::Finished { outcome, .. } if outcome.status == Status::NotForwarded),
    );
    assert!(ended);
}

#[test]
fn a_server_that_loses_us_does_not_free_what_is_held() {
    let mut relay = session();
    relay.feed(Direction::ToServer, &query("drop"));
    relay.feed(Direction::ToClient, &complete("NOT ASKED"));
    assert!(!contains(relay.output(Direction::ToServer), b"drop"));
    let message = "no".to_owned();
    relay.release(&Decision::Refuse(Refusal { kind: RefusalKind::Denied, message }));
    assert!(relay.closed);
    relay.end();
    assert!(!contains(relay.output(Direction::ToServer), b"drop"));
}

#[test]
fn a_held_query_that_is_allowed_after_the_server_lost_us_goes_on_undecoded() {
    let mut relay = session();
    relay.feed(Direction::ToServer, &query("a"));
    relay.feed(Direction::ToClient, &complete("NOT ASKED"));
    relay.release(&Decision::Allow);
    relay.end();
    assert_eq!(relay.events.last(), Some(&Event::Opaque(OpaqueReason::Desynchronised)));
    assert!(relay.output(Direction::ToServer).ends_with(&query("a")));
}

#[test]
fn what_was_rejected_while_a_unit_waits_is_announced_after_its_decision() {
    let mut relay = session();
    relay.feed(Direction::ToServer, &[parse("s", "selec", &[]), sync(), query("held")].concat());
    relay.feed(Direction::ToClient, &[error("42601", "syntax"), ready(b'I')].concat());
    let started = |relay: &Model<PostgresDecoder>| {
        relay.events.iter().filter(|event| matches!(event, Event::Started { .. })).count()
    };
    assert_eq!(started(&relay), 1);
    relay.release(&Decision::Allow);
    assert_eq!(started(&relay), 2);
    relay.end();
}
