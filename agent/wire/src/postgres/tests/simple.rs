use super::{
    bytes::{EMPTY, ROWS, complete, error, message, notice, query, ready, row, status},
    conversation::Conversation,
};
use crate::seam::{Operation, SessionFact, Status, TransactionState};

#[test]
fn a_query_is_a_command_with_its_rows_bytes_notices_and_transaction() {
    let answer = [ROWS.to_vec(), row("1"), notice("mind"), row("2"), complete("SELECT 2")].concat();
    let run = Conversation::started()
        .client(query("select 'gr\u{fc}n'"))
        .server([answer.clone(), ready(b'T')].concat())
        .observed();
    let (command, outcome) = run.only();
    assert_eq!(command.operation, Operation::Query);
    assert_eq!(command.statement.bytes, "select 'gr\u{fc}n'".as_bytes());
    assert_eq!(outcome.status, Status::Ok);
    assert_eq!(outcome.rows, Some(2));
    assert_eq!(outcome.command_tag, b"SELECT 2");
    assert_eq!(outcome.transaction, Some(TransactionState::InTransaction));
    assert_eq!(outcome.notices.len(), 1);
    assert_eq!(outcome.bytes_sent, query("select 'gr\u{fc}n'").len() as u64);
    assert_eq!(outcome.bytes_received, (answer.len() - notice("mind").len() + 6) as u64);
}

#[test]
fn text_that_is_not_utf8_is_kept_as_it_is() {
    let run = Conversation::started()
        .client(message(b'Q', b"select '\xff\xfe'\0"))
        .server([complete("SELECT 1"), ready(b'I')].concat())
        .observed();
    assert_eq!(run.only().0.statement.bytes, b"select '\xff\xfe'");
}

#[test]
fn an_empty_query_is_a_command_too() {
    let run =
        Conversation::started().client(query("")).server([EMPTY.to_vec(), ready(b'I')].concat()).observed();
    assert_eq!(run.ends(), [(String::new(), Status::Ok)]);
}

#[test]
fn each_statement_of_a_query_is_a_command_of_one_unit() {
    let run = Conversation::started()
        .client(query("select 1; select ';'; select 3"))
        .server([complete("SELECT 1"), complete("SELECT 1"), complete("SELECT 7"), ready(b'I')].concat())
        .observed();
    let ends = run.ends();
    let texts: Vec<_> = ends.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(texts, ["select 1;", " select ';';", " select 3"]);
    assert!(ends.iter().all(|(_, status)| *status == Status::Ok));
    let commands = run.commands();
    assert_eq!(commands.iter().map(|c| c.statement_index).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(run.outcome(commands[2].id).rows, Some(7));
    let sent: u64 = commands.iter().map(|command| run.outcome(command.id).bytes_sent).sum();
    assert_eq!(sent, query("select 1; select ';'; select 3").len() as u64);
}

#[test]
fn statements_after_a_failed_one_are_not_executed() {
    let run = Conversation::started()
        .client(query("a; b; c; d"))
        .server([complete("X"), error("42703", "no"), ready(b'I')].concat())
        .observed();
    let statuses: Vec<_> = run.ends().into_iter().map(|(_, status)| status).collect();
    assert_eq!(statuses, [Status::Ok, Status::Error, Status::NotExecuted, Status::NotExecuted]);
    let failed = run.commands()[1];
    let error = run.outcome(failed.id).error.as_ref().expect("an error");
    assert_eq!((error.code.as_str(), error.message.as_slice()), ("42703", &b"no"[..]));
}

#[test]
fn queries_sent_before_the_answers_come_are_told_apart() {
    let run = Conversation::started()
        .client([query("a"), query("b")].concat())
        .server([complete("A 1"), ready(b'I'), error("22012", "x"), ready(b'I')].concat())
        .observed();
    assert_eq!(run.ends(), [("a".to_owned(), Status::Ok), ("b".to_owned(), Status::Error)]);
}

#[test]
fn what_the_server_says_by_itself_disturbs_nothing() {
    let run = Conversation::started()
        .server(message(b'A', b"\0\0\0\x01ch\0\0"))
        .client(query("set TimeZone to x"))
        .server(
            [
                status("TimeZone", "x"),
                notice("n"),
                complete("SET"),
                message(b'A', b"\0\0\0\x01c\0\0"),
                ready(b'I'),
            ]
            .concat(),
        )
        .observed();
    assert_eq!(run.only().1.status, Status::Ok);
    let fact = SessionFact::Parameter(b"TimeZone".to_vec(), b"x".to_vec());
    assert!(run.facts().contains(&&fact));
}

#[test]
fn strings_are_read_as_the_session_has_them() {
    let run = Conversation::started()
        .client(query("set standard_conforming_strings to off"))
        .server([status("standard_conforming_strings", "off"), complete("SET"), ready(b'I')].concat())
        .client(query(r"select 'a\';b'; select 2"))
        .server([complete("SELECT 1"), complete("SELECT 1"), ready(b'I')].concat())
        .observed();
    assert_eq!(run.ends()[1].0, r"select 'a\';b';");
    assert_eq!(run.commands().len(), 3);
}

#[test]
fn a_connection_that_ends_leaves_the_outcome_unknown() {
    let run = Conversation::started().client(query("a; b")).server(complete("X")).observed();
    let statuses: Vec<_> = run.ends().into_iter().map(|(_, status)| status).collect();
    assert_eq!(statuses, [Status::Ok, Status::OutcomeUnknown]);
}

#[test]
fn a_function_call_is_a_command_with_its_oid_and_arguments() {
    let body = b"\0\0\x04\xd2\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\0";
    let run = Conversation::started()
        .client(message(b'F', body))
        .server([message(b'V', b"\0\0\0\x01x"), ready(b'I')].concat())
        .observed();
    let (command, outcome) = run.only();
    assert_eq!(command.operation, Operation::FunctionCall);
    assert_eq!(command.attributes, [("function_oid", b"1234".to_vec())]);
    assert_eq!(command.parameters.len(), 2);
    assert_eq!(command.parameters[1].value, None);
    assert_eq!((outcome.status, outcome.transaction), (Status::Ok, Some(TransactionState::Idle)));
}

#[test]
fn a_password_is_marked_and_counted_by_its_mark_in_each_statement() {
    let run = Conversation::started()
        .client(query("select 1; alter role a password 'hunter2'; select 2"))
        .server([complete("A"), complete("B"), complete("C"), ready(b'I')].concat())
        .observed();
    let command = run.commands()[1];
    assert_eq!(command.statement.bytes, b" alter role a password '[redacted]';");
    let redaction = command.redactions[0];
    assert_eq!((redaction.offset, redaction.length), (24, 10));
    assert!(run.commands()[0].redactions.is_empty() && run.commands()[2].redactions.is_empty());
}
