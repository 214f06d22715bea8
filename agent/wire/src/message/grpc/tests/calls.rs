//! Calls that no decoder knows more about.

use http::{HeaderMap, HeaderValue};

use super::message;
use crate::{
    message::{Abort, talk::*},
    model::allow_all,
    seam::{Decision, Operation, RefusalKind, Status},
};

fn call(path: &str) -> Talk {
    let mut talk = request("POST", &format!("https://spanner.googleapis.com{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", "Bearer s3cret")
        .header("grpc-timeout", "30S")
        .body(&[message(0, b"abc"), message(0, b"")].concat())
        .answered(200, "")
        .answer_header("content-type", "application/grpc");
    talk.answer_body = [message(0, b"one"), message(1, b"two")].concat();
    talk.trailers = Some(trailers("0", ""));
    talk
}

fn trailers(status: &str, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_str(status).expect("a value"));
    trailers.insert("grpc-message", HeaderValue::from_str(message).expect("a value"));
    trailers
}

const COMMIT: &str = "/google.spanner.v1.Spanner/Commit";

#[test]
fn a_call_is_recorded_by_method_resource_and_status() {
    let talk =
        call(COMMIT).header("x-goog-request-params", "session=projects%2Fp%2Finstances%2Fi%2Fsessions%2Fs");
    assert_eq!(talk.service(), "grpc");
    let (command, outcome) = talk.record();
    assert_eq!(
        (command.operation, command.method.as_str()),
        (Operation::GrpcCall, "google.spanner.v1.Spanner/Commit")
    );
    assert_eq!(command.resource, "projects/p/instances/i/sessions/s");
    assert_eq!(of(&command.attributes, "grpc_timeout"), "30S");
    assert!(!format!("{command:?}").contains("s3cret"));
    assert_eq!((outcome.status, outcome.grpc_status, outcome.http_status), (Status::Ok, Some(0), Some(200)));
    assert_eq!(of(&outcome.attributes, "messages_sent"), "2");
    assert_eq!(of(&outcome.attributes, "messages_received"), "2");
    assert_eq!((outcome.bytes_sent, outcome.bytes_received), (13, 16));
}

#[test]
fn the_resource_may_come_in_a_header_of_its_own() {
    let talk = call("/google.firestore.v1.Firestore/Listen")
        .header("google-cloud-resource-prefix", "projects/p/databases/d");
    assert_eq!(talk.record().0.resource, "projects/p/databases/d");
    let talk = call(COMMIT).header("x-goog-request-params", "a=x&table_name=projects/p/t");
    assert_eq!(talk.record().0.resource, "projects/p/t");
}

#[test]
fn a_failure_is_read_from_trailers_and_from_trailers_only() {
    let mut talk = call(COMMIT);
    talk.trailers = Some(trailers("5", "no such session: %C3%A4"));
    let (_, outcome) = talk.record();
    assert_eq!((outcome.status, outcome.grpc_status), (Status::Error, Some(5)));
    let error = outcome.error.expect("an error");
    assert_eq!((error.code.as_str(), text(&error.message)), ("NOT_FOUND", "no such session: ä"));
    let mut talk = call(COMMIT).answer_header("grpc-status", "16").answer_header("grpc-message", "who?");
    talk.answer_body.clear();
    talk.trailers = None;
    let (_, outcome) = talk.record();
    assert_eq!(outcome.error.map(|error| error.code).as_deref(), Some("UNAUTHENTICATED"));
}

#[test]
fn an_answer_without_a_status_is_no_success() {
    let mut talk = call(COMMIT);
    talk.trailers = None;
    assert_eq!(talk.record().1.status, Status::OutcomeUnknown);
    talk.answer.status = http::StatusCode::BAD_GATEWAY;
    let (_, outcome) = talk.record();
    assert_eq!((outcome.status, outcome.http_status), (Status::Error, Some(502)));
}

#[test]
fn a_stream_goes_on_as_soon_as_its_head_is_decided() {
    let talk = call("/google.firestore.v1.Firestore/Listen");
    let mut model = talk.begin(Box::new(|_| None));
    assert!(model.holds() && !model.head);
    model.release(&Decision::Allow);
    assert!(model.head && model.rest);
    model.response_head(&talk.answer);
    model.response(&message(0, b"server first"));
    model.request(&message(0, b"listen")[..4]);
    model.abort(Abort::Client);
    let outcome = model.outcome();
    assert_eq!((outcome.status, outcome.http_status), (Status::OutcomeUnknown, Some(200)));
    assert_eq!(of(&outcome.attributes, "messages_received"), "1");
    assert_eq!(of(&outcome.attributes, "request_framing"), "cut");
}

#[test]
fn a_refused_call_is_answered_by_trailers_only() {
    let model = call(COMMIT).run_with(refuse_all(RefusalKind::Denied));
    let answer = model.answer.as_ref().expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.headers["grpc-status"].as_bytes()), (200, &b"7"[..]));
    assert_eq!((answer.headers["grpc-message"].as_bytes(), answer.body.len()), (&b"not today"[..], 0));
    assert!(!model.head);
    assert_eq!(model.outcome().status, Status::NotForwarded);
}

#[test]
fn what_is_no_message_passes_and_is_said() {
    let talk = call(COMMIT).body(b"garbage without any frame");
    let (_, outcome) = talk.record();
    assert_eq!(of(&outcome.attributes, "request_framing"), "malformed");
    assert_eq!(talk.run_with(allow_all()).output(), talk.body);
}

#[test]
fn other_protocols_under_a_similar_type_are_plain_http() {
    for kind in ["application/grpc-web", "application/grpc-web+proto", "application/grpcx", "text/plain"] {
        assert_eq!(call(COMMIT).header("content-type", kind).service(), "http", "{kind}");
    }
    for kind in ["application/grpc+proto", "Application/gRPC; x=y"] {
        assert_eq!(call(COMMIT).header("content-type", kind).service(), "grpc", "{kind}");
    }
}
