//! What a client that does not wait for answers can make us keep and do.

use super::{bytes::*, conversation::Conversation};
use crate::{
    model::{Model, allow_all},
    postgres::PostgresDecoder,
    seam::{Command, Direction, Event, Limits, OpaqueReason},
};

use Direction::{ToClient, ToServer};

/// A session whose server says nothing while a query runs.
fn busy(limits: Limits) -> Model<PostgresDecoder> {
    let mut relay = Model::new(PostgresDecoder::new(limits), allow_all());
    relay.feed(ToServer, &startup(&[("user", "bob")]));
    relay.feed(ToClient, &[&b"R\0\0\0\x08\0\0\0\0"[..], &ready(b'I')].concat());
    relay.feed(ToServer, &query("select pg_sleep(60)"));
    relay
}

fn last(relay: &Model<PostgresDecoder>) -> &Command {
    let commands = relay.events.iter().rev().find_map(|event| match event {
        Event::Started { commands, .. } => commands.last(),
        _ => None,
    });
    commands.expect("a command")
}

fn alternatives(command: &Command) -> Vec<&[u8]> {
    let texts = command.attributes.iter().filter(|(name, _)| *name == "alternative_statement");
    texts.map(|(_, text)| text.as_slice()).collect()
}

fn distinct(texts: usize, length: usize) -> Vec<u8> {
    let pad = "x".repeat(length);
    (0..texts).flat_map(|index| [parse("", &format!("select {index}{pad}"), &[]), sync()].concat()).collect()
}

#[test]
fn portals_of_one_statement_have_no_text_to_run_instead() {
    let mut relay = busy(Limits::default());
    relay.feed(ToServer, &parse("", &"x".repeat(1000), &[]));
    relay.feed(ToServer, &[bind("", "", &[], &[]), sync()].concat().repeat(200));
    relay.feed(ToServer, &execute("", 0));
    let command = last(&relay);
    assert_eq!(alternatives(command), [b""; 0]);
    assert_eq!((command.statement.bytes.len(), command.partly), (1000, Some(OpaqueReason::Limit)));
}

#[test]
fn texts_that_may_run_instead_are_limited_by_number_and_the_record_says_so() {
    let mut relay = busy(Limits::default());
    relay.feed(ToServer, &distinct(10, 0));
    relay.feed(ToServer, &[bind("", "", &[], &[]), execute("", 0)].concat());
    let command = last(&relay);
    assert_eq!((alternatives(command).len(), command.partly), (9, Some(OpaqueReason::Desynchronised)));
    relay.feed(ToServer, &distinct(200, 0));
    // Each portal may be what is executed, and each has statements of its own.
    relay.feed(ToServer, &[distinct(3, 9), bind("", "", &[], &[]), sync()].concat().repeat(40));
    relay.feed(ToServer, &execute("", 0));
    let command = last(&relay);
    assert_eq!((alternatives(command).len(), command.partly), (16, Some(OpaqueReason::Limit)));
}

#[test]
fn texts_that_may_run_instead_are_limited_by_their_bytes_together() {
    let mut relay = busy(Limits { capture_bytes: 10_000, ..Limits::default() });
    relay.feed(ToServer, &distinct(9, 3_000));
    relay.feed(ToServer, &[bind("", "", &[], &[]), execute("", 0)].concat());
    let command = last(&relay);
    assert_eq!((alternatives(command).len(), command.partly), (3, Some(OpaqueReason::Limit)));
}

#[test]
fn a_long_pipeline_of_complete_commands_is_not_in_doubt() {
    let mut relay = busy(Limits::default());
    for index in 0..300 {
        let text = format!("select {index}");
        let one = [parse("", &text, &[]), bind("", "", &[], &[]), execute("", 0), sync()].concat();
        relay.feed(ToServer, &one);
        let command = last(&relay);
        assert_eq!((command.statement.bytes.as_slice(), command.partly), (text.as_bytes(), None));
        assert_eq!(alternatives(command), [b""; 0]);
    }
}

#[test]
fn what_a_failed_pipeline_leaves_unsettled_is_taken_back_one_by_one() {
    // As long as it may be: looking through all of them for each of them would take minutes.
    let mut relay = busy(Limits::default());
    relay.feed(ToServer, &parse("broken", "selec", &[]));
    relay.feed(ToServer, &bind("", "", &[], &[]).repeat(49_000));
    relay.feed(ToServer, &parse("", "select 1", &[]).repeat(50_000));
    relay.feed(ToServer, &[sync(), bind("", "", &[], &[]), execute("", 0), sync()].concat());
    relay
        .feed(ToClient, &[complete("SELECT 1"), ready(b'I'), error("42601", "syntax"), ready(b'I')].concat());
    relay.feed(ToClient, &[BOUND, &complete("SELECT 1"), &ready(b'I')].concat());
    assert!(!relay.events.iter().any(|event| matches!(event, Event::Opaque(_))));
    let ends = relay.events.iter().filter(|event| matches!(event, Event::Finished { .. }));
    assert_eq!(ends.count(), 3);
}

#[test]
fn as_many_portals_as_may_be_in_flight_are_forgotten_one_by_one() {
    let mut relay = busy(Limits::default());
    relay.feed(ToServer, &[bind("", "", &[], &[]), sync()].concat().repeat(49_000));
    relay.feed(ToClient, &[complete("SELECT 1"), ready(b'I')].concat());
    relay.feed(ToClient, &[BOUND, &ready(b'I')].concat().repeat(49_000));
    relay.feed(ToServer, &execute("", 0));
    assert_eq!(last(&relay).partly, Some(OpaqueReason::Desynchronised));
}

#[test]
fn named_portals_of_later_transactions_are_not_looked_through_at_each_end_of_one() {
    let mut relay = busy(Limits::default());
    relay.feed(ToServer, &sync().repeat(89_000));
    let portals: Vec<_> = (0..9_990).flat_map(|index| bind(&format!("p{index}"), "", &[], &[])).collect();
    relay.feed(ToServer, &portals);
    relay.feed(ToClient, &[complete("SELECT 1"), ready(b'I')].concat());
    relay.feed(ToClient, &ready(b'I').repeat(89_000));
    relay.feed(ToServer, &execute("p7", 0));
    assert_eq!(last(&relay).portal_name, b"p7");
}

#[test]
fn each_statement_of_a_message_has_its_own_redactions_and_is_looked_at_for_no_others() {
    let mut relay =
        Model::new(PostgresDecoder::new(Limits { capture_bytes: 1 << 25, ..Limits::default() }), allow_all());
    relay.feed(ToServer, &startup(&[("user", "bob")]));
    relay.feed(ToClient, &[&b"R\0\0\0\x08\0\0\0\0"[..], &ready(b'I')].concat());
    let statement = format!("{};", "password 'a' ".repeat(40));
    relay.feed(ToServer, &query(&statement.repeat(10_000)));
    let started = relay.events.iter().rev().find_map(|event| match event {
        Event::Started { commands, .. } => Some(commands),
        _ => None,
    });
    let commands = started.expect("a unit");
    assert_eq!(commands.len(), 10_000);
    for command in commands {
        assert_eq!(command.redactions.len(), 40);
        for cut in &command.redactions {
            let at = usize::try_from(cut.offset).expect("short");
            assert_eq!(&command.statement.bytes[at..][..10], b"[redacted]");
        }
    }
}

#[test]
fn of_a_name_no_more_is_kept_than_the_server_tells_apart() {
    let long = "n".repeat(1000);
    let use_it = [bind(&long, &long, &[], &[]), execute(&long, 0), sync()].concat();
    let run = Conversation::started()
        .client([parse(&long, "select 1", &[]), use_it].concat())
        .server([PARSED, BOUND, &complete("SELECT 1"), &ready(b'I')].concat())
        .client([close(b'S', &long), execute(&long, 0), sync()].concat())
        .server([CLOSED, &error("34000", "no such"), &ready(b'I')].concat())
        .observed();
    let kept = &long.as_bytes()[..63];
    let commands = run.commands();
    assert_eq!((&commands[0].statement_name[..], &commands[0].portal_name[..]), (kept, kept));
    assert_eq!(commands[0].statement.bytes, b"select 1");
    assert_eq!((&commands[1].portal_name[..], &commands[1].statement.bytes[..]), (kept, &b""[..]));
}

#[test]
fn declared_types_count_toward_the_cache() {
    let mut relay =
        busy(Limits { statement_cache_bytes: 100_000, capture_bytes: 50_000, ..Limits::default() });
    for index in 0..3 {
        relay.feed(ToServer, &parse(&format!("s{index}"), "select 1", &[23; 10_000]));
        let value: &[Option<&[u8]>] = &[Some(b"\0\0\0\x07")];
        relay.feed(ToServer, &[bind("", &format!("s{index}"), &[1], value), execute("", 0)].concat());
        let command = last(&relay);
        let kept = (command.parameters[0].type_oid, command.partly);
        assert_eq!(kept, if index < 2 { (23, None) } else { (0, Some(OpaqueReason::Limit)) });
    }
}
