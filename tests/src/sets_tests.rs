//! The harness proves itself: whatever is dropped, invented or changed makes the comparison fail.

use verbatim_api::v1::{
    self, Capture, Decision, OpaqueReason, Operation, Protocol, Status, TransactionState,
};

use super::compare;
use crate::{
    audit::Seen,
    did::{Did, ids},
    pglog::{How, Logged},
};

fn seen(principal: &str, text: &str) -> Seen {
    Seen {
        record: Vec::new(),
        flow: Vec::new(),
        wall_nanos: 0,
        ids: ids(text.as_bytes()),
        principal: principal.to_owned(),
        protocol: Protocol::Postgresql,
        operation: Operation::Query,
        statement: text.as_bytes().to_vec(),
        full_length: text.len() as u64,
        full_sha256: Vec::new(),
        status: Status::Ok,
        rows: Some(1),
        sqlstate: String::new(),
        parameters: Vec::new(),
        decision: Decision::Allowed,
        capture: Capture::Decoded,
        opaque_reason: OpaqueReason::Unspecified,
        bytes_sent: 0,
        bytes_received: 0,
        namespace: String::new(),
        service_account: String::new(),
        target: v1::Target::default(),
        attributes: Vec::new(),
        notices: Vec::new(),
        note: String::new(),
        transaction: TransactionState::Idle,
        method: String::new(),
        resource: String::new(),
        http_status: 0,
        grpc_status: None,
        parent: Vec::new(),
        findings: Vec::new(),
        tls: None,
    }
}

fn logged(text: &str) -> Logged {
    Logged { session: "s".into(), how: How::Query, text: text.to_owned() }
}

/// Three sets that agree: two principals, a failure, a denial, and a statement without an id.
fn sets() -> (Vec<Did>, Vec<Seen>, Vec<Logged>) {
    let texts = ["SELECT 1 /* id:a */", "SELECT 2 /* id:b */", "SELECT 1/0 /* id:c */", "DROP /* id:d */"];
    let did = vec![
        Did::query("one", "a", texts[0]).rows(1),
        Did::query("two", "b", texts[1]).rows(1),
        Did::query("one", "c", texts[2]).failed("22012"),
        Did::query("one", "d", texts[3]).refused(Decision::Denied),
    ];
    let mut recorded =
        vec![seen("one", texts[0]), seen("two", texts[1]), seen("one", texts[2]), seen("one", texts[3])];
    recorded[2].status = Status::Error;
    recorded[2].sqlstate = "22012".into();
    recorded[3].status = Status::NotForwarded;
    recorded[3].decision = Decision::Denied;
    recorded.push(seen("one", "BEGIN"));
    let log = vec![logged(texts[0]), logged(texts[1]), logged(texts[2]), logged("BEGIN;")];
    (did, recorded, log)
}

#[test]
fn equal_sets_are_equal() {
    let (did, seen, log) = sets();
    compare(&did, &seen, &log).unwrap();
}

#[test]
fn dropping_any_one_record_of_any_set_is_found() {
    let (did, seen, log) = sets();
    for index in 0..did.len() {
        let mut did = did.clone();
        did.remove(index);
        assert!(compare(&did, &seen, &log).is_err(), "done: {index}");
    }
    for index in 0..seen.len() {
        let mut seen = seen.clone();
        seen.remove(index);
        assert!(compare(&did, &seen, &log).is_err(), "recorded: {index}");
    }
    for index in 0..log.len() {
        let mut log = log.clone();
        log.remove(index);
        assert!(compare(&did, &seen, &log).is_err(), "logged: {index}");
    }
}

#[test]
fn inventing_a_record_in_any_set_is_found() {
    let (did, recorded, log) = sets();
    for text in ["SELECT 9 /* id:z */", "COMMIT"] {
        let mut recorded = recorded.clone();
        recorded.push(seen("one", text));
        assert!(compare(&did, &recorded, &log).is_err(), "recorded: {text}");
        let mut log = log.clone();
        log.push(logged(text));
        assert!(compare(&did, &sets().1, &log).is_err(), "logged: {text}");
    }
    // The same once more, too.
    for index in 0..recorded.len() {
        let mut recorded = recorded.clone();
        recorded.push(recorded[index].clone());
        assert!(compare(&did, &recorded, &log).is_err(), "recorded twice: {index}");
    }
    let mut did = did;
    did.push(Did::query("one", "y", "SELECT 8 /* id:y */"));
    assert!(compare(&did, &recorded, &log).is_err());
}

#[test]
fn renaming_a_record_or_its_principal_is_found() {
    let (did, recorded, log) = sets();
    let mut renamed = recorded.clone();
    renamed[0].ids = vec!["other".into()];
    assert!(compare(&did, &renamed, &log).is_err());
    let mut swapped = recorded.clone();
    swapped[0].principal = "two".into();
    assert!(compare(&did, &swapped, &log).is_err());
}

#[test]
fn every_field_of_a_record_counts() {
    type Change = fn(&mut Seen);
    let changes: [(&str, Change); 8] = [
        ("operation", |seen| seen.operation = Operation::Execute),
        ("statement", |seen| seen.statement.push(b' ')),
        ("status", |seen| seen.status = Status::OutcomeUnknown),
        ("rows", |seen| seen.rows = None),
        ("sqlstate", |seen| seen.sqlstate = "42601".into()),
        ("decision", |seen| seen.decision = Decision::Expired),
        ("capture", |seen| seen.capture = Capture::Partly),
        ("principal", |seen| seen.principal = String::new()),
    ];
    for (name, change) in changes {
        let (did, mut seen, log) = sets();
        change(&mut seen[0]);
        assert!(compare(&did, &seen, &log).is_err(), "{name}");
    }
    let (mut did, seen, log) = sets();
    did[0].parameters = Some(vec![Some("1".into())]);
    assert!(compare(&did, &seen, &log).is_err(), "parameters");
}

#[test]
fn a_refused_statement_that_reached_the_server_is_found() {
    let (did, seen, mut log) = sets();
    log.push(logged("DROP /* id:d */"));
    assert!(compare(&did, &seen, &log).is_err());
}
