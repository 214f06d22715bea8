use super::{
    bytes::*,
    conversation::{Conversation, Run},
};
use crate::seam::{OpaqueReason, Operation, ParameterFormat, Status, TransactionState};

fn statuses(run: &Run) -> Vec<Status> {
    run.ends().into_iter().map(|(_, status)| status).collect()
}

#[test]
fn an_execute_has_the_text_and_parameters_behind_its_portal() {
    let client = [
        parse("s", "select $1, $2, $3", &[23, 25, 0]),
        bind("p", "s", &[1, 0, 0], &[Some(&42i32.to_be_bytes()), Some(b"x"), None]),
        describe(b'P', "p"),
        execute("p", 0),
        sync(),
    ];
    let server =
        [PARSED.to_vec(), BOUND.to_vec(), ROWS.to_vec(), row("1"), complete("SELECT 1"), ready(b'I')];
    let run = Conversation::started().client(client.concat()).server(server.concat()).observed();
    let (command, outcome) = run.only();
    assert_eq!(command.operation, Operation::Execute);
    assert_eq!(command.statement.bytes, b"select $1, $2, $3");
    assert_eq!((&command.statement_name[..], &command.portal_name[..]), (&b"s"[..], &b"p"[..]));
    let rendered: Vec<_> = command.parameters.iter().map(|p| p.rendered.as_deref()).collect();
    assert_eq!(rendered, [Some("42"), Some("x"), None]);
    assert_eq!(command.parameters[0].format, ParameterFormat::Binary);
    assert_eq!(command.parameters[2].value, None);
    assert_eq!(outcome.status, Status::Ok);
    assert_eq!((outcome.rows, outcome.transaction), (Some(1), Some(TransactionState::Idle)));
    let sent: usize = client[..4].iter().map(Vec::len).sum();
    assert_eq!(outcome.bytes_sent, sent as u64);
}

#[test]
fn types_that_the_server_told_are_used() {
    let run = Conversation::started()
        .client([parse("s", "select $1", &[]), describe(b'S', "s"), sync()].concat())
        .server([PARSED, &message(b't', b"\0\x01\0\0\0\x14"), ROWS, &ready(b'I')].concat())
        .client([bind("", "s", &[1], &[Some(&7i64.to_be_bytes())]), execute("", 0), sync()].concat())
        .server([BOUND, &complete("SELECT 0"), &ready(b'I')].concat())
        .observed();
    let parameter = &run.only().0.parameters[0];
    assert_eq!((parameter.type_oid, parameter.rendered.as_deref()), (20, Some("7")));
}

#[test]
fn a_named_statement_serves_many_executes() {
    let one = [bind("", "s", &[], &[]), execute("", 0), sync()].concat();
    let answer = [BOUND, &complete("SELECT 0"), &ready(b'I')].concat();
    let run = Conversation::started()
        .client([parse("s", "select 1", &[]), sync()].concat())
        .server([PARSED, &ready(b'I')].concat())
        .client(&one)
        .server(&answer)
        .client(&one)
        .server(&answer)
        .observed();
    assert_eq!(run.ends(), vec![("select 1".to_owned(), Status::Ok); 2]);
}

#[test]
fn a_suspended_portal_is_gone_on_with() {
    let run = Conversation::started()
        .client([parse("", "select 1", &[]), bind("", "", &[], &[]), execute("", 2), sync()].concat())
        .server([PARSED, BOUND, &row("a"), &row("b"), SUSPENDED, &ready(b'T')].concat())
        .client([execute("", 2), sync()].concat())
        .server([row("c"), complete("SELECT 1"), ready(b'T')].concat())
        .observed();
    let commands = run.commands();
    assert_eq!((commands[0].operation, commands[1].operation), (Operation::Execute, Operation::Fetch));
    assert_eq!(commands[1].statement.bytes, b"select 1");
    assert_eq!(statuses(&run), [Status::Suspended, Status::Ok]);
    assert_eq!(run.outcome(commands[0].id).rows, Some(2));
    assert_eq!(commands[0].attributes, [("max_rows", b"2".to_vec())]);
}

#[test]
fn after_an_error_a_pipeline_is_skipped_to_its_sync() {
    let one = |text: &str| [parse("", text, &[]), bind("", "", &[], &[]), execute("", 0)].concat();
    let run = Conversation::started()
        .client([one("a"), one("b"), one("c"), sync(), one("d"), sync()].concat())
        .server([PARSED, BOUND, &complete("A"), PARSED, BOUND, &error("22012", "x"), &ready(b'I')].concat())
        .server([PARSED, BOUND, &complete("D"), &ready(b'I')].concat())
        .observed();
    assert_eq!(statuses(&run), [Status::Ok, Status::Error, Status::NotExecuted, Status::Ok]);
}

#[test]
fn a_rejected_parse_is_the_error_of_the_execute_behind_it() {
    let run = Conversation::started()
        .client([parse("", "selec", &[]), bind("", "", &[], &[]), execute("", 0), sync()].concat())
        .server([error("42601", "syntax"), ready(b'I')].concat())
        .observed();
    let (command, outcome) = run.only();
    assert_eq!(command.statement.bytes, b"selec");
    assert_eq!(outcome.status, Status::Error);
    assert_eq!(outcome.error.as_ref().map(|error| error.code.as_str()), Some("42601"));
    assert!(command.attributes.is_empty());
}

#[test]
fn a_rejected_parse_without_an_execute_becomes_a_command() {
    let run = Conversation::started()
        .client([parse("s", "selec", &[]), describe(b'S', "s"), sync()].concat())
        .server([error("42601", "syntax"), ready(b'E')].concat())
        .observed();
    let (command, outcome) = run.only();
    assert_eq!(command.statement.bytes, b"selec");
    assert_eq!(command.attributes, [("rejected", b"parse".to_vec())]);
    assert_eq!((outcome.status, outcome.transaction), (Status::Error, Some(TransactionState::Failed)));
}

#[test]
fn a_rejected_bind_without_an_execute_has_its_parameters() {
    let run = Conversation::started()
        .client([parse("s", "select $1", &[23]), sync()].concat())
        .server([PARSED, &ready(b'I')].concat())
        .client([bind("", "s", &[], &[Some(b"x")]), sync()].concat())
        .server([error("22P02", "invalid"), ready(b'I')].concat())
        .observed();
    let (command, outcome) = run.only();
    assert_eq!(command.attributes, [("rejected", b"bind".to_vec())]);
    assert_eq!(command.parameters[0].rendered.as_deref(), Some("x"));
    assert_eq!(outcome.status, Status::Error);
}

#[test]
fn another_statement_in_a_rejected_pipeline_does_not_take_the_error() {
    let run = Conversation::started()
        .client([parse("good", "select 1", &[]), sync()].concat())
        .server([PARSED, &ready(b'I')].concat())
        .client([parse("bad", "selec", &[]), bind("", "good", &[], &[]), execute("", 0), sync()].concat())
        .server([error("42601", "syntax"), ready(b'I')].concat())
        .observed();
    let ends = run.ends();
    assert_eq!(ends[0], ("select 1".to_owned(), Status::NotExecuted));
    assert_eq!(ends[1], ("selec".to_owned(), Status::Error));
}

#[test]
fn a_name_that_the_server_did_not_take_keeps_its_meaning() {
    let use_it = [bind("", "s", &[], &[]), execute("", 0), sync()].concat();
    let run = Conversation::started()
        .client([parse("s", "first", &[]), sync()].concat())
        .server([PARSED, &ready(b'I')].concat())
        .client([parse("s", "second", &[]), sync(), use_it.clone()].concat())
        .server([error("42P05", "exists"), ready(b'I')].concat())
        .server([BOUND, &complete("A"), &ready(b'I')].concat())
        .client(use_it)
        .server([BOUND, &complete("A"), &ready(b'I')].concat())
        .observed();
    assert_eq!(run.ends().last(), Some(&("first".to_owned(), Status::Ok)));
}

#[test]
fn closed_and_deallocated_names_mean_nothing_any_more() {
    let use_it = [bind("", "s", &[], &[]), execute("", 0), sync()].concat();
    let refused = [error("26000", "no such"), ready(b'I')].concat();
    let define = || Conversation::started().client([parse("s", "x", &[]), sync()].concat());
    let closed = define()
        .server([PARSED, &ready(b'I')].concat())
        .client([close(b'S', "s"), sync()].concat())
        .server([CLOSED, &ready(b'I')].concat())
        .client(&use_it)
        .server(&refused)
        .observed();
    let deallocated = define()
        .server([PARSED, &ready(b'I')].concat())
        .client(query("DEALLOCATE s"))
        .server([complete("DEALLOCATE"), ready(b'I')].concat())
        .client(&use_it)
        .server(&refused)
        .observed();
    for run in [closed, deallocated] {
        let command = *run.commands().last().expect("an execute");
        assert_eq!(command.statement.bytes, b"");
        assert_eq!(command.partly, Some(OpaqueReason::Desynchronised));
        assert_eq!(run.outcome(command.id).status, Status::Error);
    }
}

#[test]
fn an_error_upon_commit_belongs_to_the_command_before_it() {
    let run = Conversation::started()
        .client([parse("", "insert", &[]), bind("", "", &[], &[]), execute("", 0), sync()].concat())
        .server([PARSED, BOUND, &complete("INSERT 0 1"), &error("23503", "fk"), &ready(b'I')].concat())
        .observed();
    let (_, outcome) = run.only();
    assert_eq!((outcome.status, outcome.rows), (Status::Error, Some(1)));
}

#[test]
fn a_simple_query_takes_the_unnamed_statement_away() {
    let run = Conversation::started()
        .client([parse("", "x", &[]), sync()].concat())
        .server([PARSED, &ready(b'I')].concat())
        .client(query("q"))
        .server([complete("Q"), ready(b'I')].concat())
        .client([bind("", "", &[], &[]), execute("", 0), sync()].concat())
        .server([error("26000", "no such"), ready(b'I')].concat())
        .observed();
    assert_eq!(run.commands()[1].partly, Some(OpaqueReason::Desynchronised));
}

#[test]
fn a_flushed_execute_ends_before_its_sync() {
    let run = Conversation::started()
        .client([parse("", "x", &[]), bind("", "", &[], &[]), execute("", 0), message(b'H', b"")].concat())
        .server([PARSED, BOUND, &complete("X")].concat())
        .client(sync())
        .server(error("23503", "fk"))
        .server(ready(b'I'))
        .observed();
    let ends = run.ends();
    assert_eq!(ends[0], ("x".to_owned(), Status::Ok));
    // The error must not be lost, though its command had ended.
    assert_eq!(ends[1], (String::new(), Status::Error));
    assert_eq!(run.commands()[1].attributes, [("rejected", b"sync".to_vec())]);
}

#[test]
fn describe_without_rows_and_close_are_answered_in_order() {
    let client = [
        parse("s", "x", &[]),
        describe(b'S', "s"),
        bind("p", "s", &[], &[]),
        describe(b'P', "p"),
        execute("p", 0),
        close(b'P', "p"),
        sync(),
    ];
    let server =
        [PARSED, &message(b't', b"\0\0"), NO_DATA, BOUND, NO_DATA, &complete("X"), CLOSED, &ready(b'I')];
    let run = Conversation::started().client(client.concat()).server(server.concat()).observed();
    assert_eq!(run.only().1.transaction, Some(TransactionState::Idle));
    assert_eq!(run.opaque(), None);
}
