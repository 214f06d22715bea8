//! Requests that no decoder knows more about, and how a decoder is found.

use super::{Abort, Builtin, Messages, Peer, model::Model, talk::*};
use crate::{
    model::allow_all,
    seam::{Decision, Finding, Limits, Operation, RedactionReason, RefusalKind, Status},
};

fn post() -> Talk {
    request("POST", "https://api.example:8443/v1/things?access_token=s3cret&a=b")
        .header("authorization", "Bearer s3cret")
        .header("cookie", "a=s3cret")
        .header("user-agent", "agent/1")
        .header("traceparent", "00-1-2-01")
        .header("x-goog-user-project", "billed")
        .json("{\"secret\": 1}")
        .answered(201, "{\"id\": 7}")
}

#[test]
fn a_request_is_recorded_by_its_head_without_credentials() {
    let talk = post();
    assert_eq!(talk.service(), "http");
    let (command, outcome) = talk.record();
    assert_eq!((command.operation, command.method.as_str()), (Operation::HttpRequest, "POST"));
    assert_eq!(text(&command.statement.bytes), "POST /v1/things?access_token=[redacted]&a=b");
    assert_eq!(command.redactions[0].reason, RedactionReason::Token);
    assert_eq!(command.resource, "api.example/v1/things");
    for (name, value) in [
        ("user_agent", "agent/1"),
        ("traceparent", "00-1-2-01"),
        ("user_project", "billed"),
        ("content_type", "application/json"),
    ] {
        assert_eq!(of(&command.attributes, name), value, "{name}");
    }
    assert!(!format!("{command:?}").contains("s3cret"));
    assert_eq!((outcome.status, outcome.http_status, outcome.error), (Status::Ok, Some(201), None));
    assert_eq!((outcome.bytes_sent, outcome.bytes_received), (13, 9));
}

#[test]
fn a_failure_says_why_where_its_answer_does() {
    let error = |status: u16, body: &str| {
        let (_, outcome) = post().answered(status, body).record();
        assert_eq!((outcome.status, outcome.http_status), (Status::Error, Some(status)));
        let error = outcome.error.expect("an error");
        (error.code, String::from_utf8(error.message).expect("text"))
    };
    let google = r#"{"error": {"code": 403, "message": "Permission denied on x", "status": "PERMISSION_DENIED", "details": [{"a": {}}]}}"#;
    assert_eq!(error(403, google), ("PERMISSION_DENIED".to_owned(), "Permission denied on x".to_owned()));
    let oauth = r#"{"error": "invalid_grant", "error_description": "expired"}"#;
    assert_eq!(error(400, oauth), ("invalid_grant".to_owned(), "expired".to_owned()));
    assert_eq!(error(500, "<html>"), ("500".to_owned(), String::new()));
    assert_eq!(error(404, "[]"), ("404".to_owned(), String::new()));
}

#[test]
fn a_body_streams_once_the_head_is_decided() {
    let talk = post();
    let mut model = talk.begin(Box::new(|_| None));
    assert!(model.holds() && !model.head);
    model.release(&Decision::Allow);
    assert!(model.head && model.rest);
    model.request(b"{\"sec");
    assert_eq!(model.output(), b"{\"sec");
    model.response_head(&talk.answer);
    model.abort(Abort::Server);
    let outcome = model.outcome();
    assert_eq!(
        (outcome.status, outcome.http_status, outcome.bytes_sent),
        (Status::OutcomeUnknown, Some(201), 5)
    );
}

#[test]
fn a_refused_request_is_answered_in_googles_form() {
    for (kind, status) in [
        (RefusalKind::Denied, 403),
        (RefusalKind::Expired, 403),
        (RefusalKind::Misdirected, 421),
        (RefusalKind::Cancelled, 499),
    ] {
        let model = post().run_with(refuse_all(kind));
        let answer = model.answer.as_ref().expect("an answer");
        assert_eq!(answer.status.as_u16(), status);
        assert!(text(&answer.body).contains("\"message\":\"not today\""));
        assert!(!model.head);
        assert_eq!((model.outcome().status, model.outcome().http_status), (Status::NotForwarded, None));
    }
}

#[test]
fn another_host_than_that_of_tls_is_a_finding_with_every_decoder() {
    let talks = [
        post(),
        bigquery("POST", "/bigquery/v2/projects/p/queries").json("{\"query\": \"SELECT 1\"}"),
        bigquery("POST", "/a.B/C").header("content-type", "application/grpc"),
    ];
    for talk in talks {
        for (tls_name, findings) in
            [("front.example", vec![Finding::HostMismatch]), (talk.head.uri.host().expect("a host"), vec![])]
        {
            let peer = Peer { tls_name: Some(tls_name), destination: None };
            let (_, exchange) = Builtin { limits: Limits::default() }.exchange(&talk.head, peer);
            let mut model = Model::new(exchange, allow_all());
            model.request(&talk.body);
            model.request_end();
            assert_eq!(model.commands()[0].findings, findings, "{tls_name}");
            model.abort(Abort::Client);
        }
    }
}

#[test]
fn a_shared_host_is_told_by_its_path() {
    let service = |uri| request("GET", uri).service();
    assert_eq!(service("https://www.googleapis.com/bigquery/v2/projects/p/jobs"), "bigquery");
    assert_eq!(
        service("https://www.googleapis.com/upload/bigquery/v2/projects/p/jobs?upload_id=x"),
        "bigquery"
    );
    assert_eq!(service("https://www.googleapis.com/storage/v1/b"), "http");
    assert_eq!(service("https://bigquery-x.p.googleapis.com/bigquery/v2/projects"), "bigquery");
    assert_eq!(service("https://example.com/bigquery/v2/projects"), "http");
}

#[test]
fn a_host_without_authority_is_that_of_its_header() {
    let (command, _) = request("GET", "/v1/x").header("host", "api.example:80").record();
    assert_eq!(command.resource, "api.example/v1/x");
}
