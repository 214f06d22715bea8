//! Bodies that are long, deep, broken or cut.

use crate::{
    message::{Abort, talk::*},
    model::allow_all,
    seam::{Decision, Event, OpaqueReason, Refusal, RefusalKind, Status},
};

const QUERIES: &str = "/bigquery/v2/projects/p/queries";

#[test]
fn a_query_beyond_the_limit_is_decided_by_its_first_part() {
    let body = format!("{{\"query\": \"SELECT '{}'\", \"location\": \"EU\"}}", "x".repeat(5000));
    let talk = bigquery("POST", QUERIES).json(&body).limit(1000).by(100);
    let model = talk.run_with(allow_all());
    let prefix = model.events.iter().find_map(|event| match event {
        Event::Prefix { commands, .. } => Some(commands[0].clone()),
        _ => None,
    });
    let prefix = prefix.expect("a prefix");
    assert!(text(&prefix.statement.bytes).starts_with("SELECT 'xxx"));
    assert_eq!(prefix.partly, Some(OpaqueReason::Limit));
    let whole = &model.commands()[0];
    assert_eq!((whole.statement.full_length, whole.statement.bytes.len()), (5009, 1000));
    assert!(whole.statement.full_sha256.is_some());
    assert_eq!(model.output(), body.as_bytes());
    assert_eq!(model.outcome().status, Status::Ok);
}

#[test]
fn the_last_byte_of_a_long_query_waits_for_its_end() {
    let body = format!("{{\"query\": \"{}\"}}", "x".repeat(5000));
    let talk = bigquery("POST", QUERIES).json(&body).limit(1000);
    let mut model = talk.begin(Box::new(|_| None));
    model.request(&body.as_bytes()[..2000]);
    assert!(model.holds() && !model.head);
    model.release(&Decision::Allow);
    assert_eq!(model.output().len(), 1999);
    model.request(&body.as_bytes()[2000..]);
    assert_eq!(model.output().len(), body.len() - 1);
    model.request_end();
    assert!(model.holds());
    let refusal = Refusal { kind: RefusalKind::Denied, message: "no".to_owned() };
    model.release(&Decision::Refuse(refusal));
    assert!(model.answer.is_some());
    assert_eq!(model.output().len(), body.len() - 1);
}

#[test]
fn an_answer_before_the_end_of_a_long_query_ends_it() {
    let body = format!("{{\"query\": \"{}", "x".repeat(5000));
    let talk = bigquery("POST", QUERIES).limit(1000).answered(413, "{}");
    let mut model = talk.begin(allow_all());
    model.request(body.as_bytes());
    talk.answer(&mut model);
    assert_eq!((model.outcome().status, model.outcome().http_status), (Status::Error, Some(413)));
    model.request(b"more");
    model.request_end();
    model.abort(Abort::Server);
}

#[test]
fn json_nested_ten_thousand_deep_is_recorded_as_it_is() {
    let body = format!("{{\"query\": \"SELECT 1\", \"x\": {}", "[".repeat(10_000));
    let (command, _) = bigquery("POST", QUERIES).json(&body).by(500).record();
    assert_eq!(command.partly, Some(OpaqueReason::Limit));
    assert_eq!(text(&command.statement.bytes), "SELECT 1");
    let body = "[".repeat(10_000);
    let model = bigquery("POST", QUERIES).json(&body).run_with(allow_all());
    let command = &model.commands()[0];
    assert_eq!(
        (command.partly, command.statement.bytes.as_slice()),
        (Some(OpaqueReason::Limit), body.as_bytes())
    );
}

#[test]
fn a_body_that_is_no_json_is_recorded_as_sent() {
    for body in ["SELECT 1", "{\"query\": \"SELECT", "{]", "query=SELECT+1"] {
        let (command, _) = bigquery("POST", QUERIES).json(body).answered(400, "{}").record();
        assert_eq!(command.partly, Some(OpaqueReason::Malformed), "{body}");
        let text = text(&command.statement.bytes);
        assert!(text == body || text == "SELECT", "{text}");
    }
}

#[test]
fn a_bomb_is_recorded_as_not_decoded() {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b' '; 32 << 20]).expect("memory");
    let talk = bigquery("POST", QUERIES)
        .header("content-encoding", "gzip")
        .body(&encoder.finish().expect("memory"))
        .by(1000);
    let model = talk.run_with(allow_all());
    let command = &model.commands()[0];
    assert_eq!(command.partly, Some(OpaqueReason::Limit));
    assert_eq!(of(&command.attributes, "body_undecoded"), "more than is decoded");
    assert_eq!(command.statement.bytes.len(), talk.limits.capture_bytes);
}

#[test]
fn a_coding_that_is_not_known_is_said() {
    let talk = bigquery("POST", QUERIES).header("content-encoding", "br").body(b"\x1b\x00");
    let (command, _) = talk.record();
    assert_eq!(command.partly, Some(OpaqueReason::UnsupportedVersion));
    assert_eq!(of(&command.attributes, "body_undecoded"), "a content-coding that is not decoded");
    assert_eq!(text(&command.statement.bytes), format!("POST {QUERIES}"));
}

#[test]
fn a_body_that_ends_early_is_recorded_and_never_goes_on() {
    let talk = bigquery("POST", QUERIES).json("{\"query\": \"SELECT 1");
    let mut model = talk.begin(allow_all());
    model.request(&talk.body);
    model.abort(Abort::Client);
    let command = &model.commands()[0];
    assert_eq!(text(&command.statement.bytes), "SELECT 1");
    assert!(command.partly.is_some() && !of(&command.attributes, "rejected").is_empty());
    assert_eq!(model.outcome().status, Status::NotForwarded);
    assert!(!model.head);
}

#[test]
fn whoever_goes_away_leaves_an_end_that_says_what_is_known() {
    let talk = bigquery("POST", QUERIES).json("{\"query\": \"SELECT 1\"}");
    let mut held = talk.run_with(Box::new(|_| None));
    held.abort(Abort::Client);
    assert_eq!(held.outcome().status, Status::NotForwarded);
    let mut sent = talk.begin(allow_all());
    sent.request(&talk.body);
    sent.request_end();
    sent.response_head(&talk.answer);
    sent.response(br#"{"jobReference": {"jobId": "j"}, "rows": [1,"#);
    sent.abort(Abort::Server);
    let outcome = sent.outcome();
    assert_eq!((outcome.status, outcome.http_status), (Status::OutcomeUnknown, Some(200)));
    assert_eq!(of(&outcome.attributes, "job_id"), "j");
}

#[test]
fn an_answer_that_is_broken_or_deep_is_said_to_be() {
    for (body, why) in [("{\"rows\": [", "malformed"), (&"[".repeat(10_000), "malformed")] {
        let talk = bigquery("POST", QUERIES).json("{\"query\": \"SELECT 1\"}").answered(200, body).by(900);
        let outcome = talk.run_with(allow_all()).outcome();
        assert_eq!((outcome.status, of(&outcome.attributes, "answer_undecoded")), (Status::Ok, why));
    }
}
