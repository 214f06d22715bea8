//! Load, extract and copy jobs, what is asked about jobs, and resources.

use crate::{
    message::{Abort, talk::*},
    model::allow_all,
    seam::{Event, Operation, Status},
};

const STARTED: &str =
    r#"{"jobReference": {"projectId": "p", "jobId": "j", "location": "US"}, "status": {"state": "RUNNING"}}"#;

#[test]
fn jobs_that_move_data_are_recorded_with_source_and_destination() {
    let cases = [
        (
            r#"{"configuration": {"load": {"sourceUris": ["gs://b/1.csv", "gs://b/2.csv"], "sourceFormat": "CSV", "schema": {"fields": [{"name": "a"}]},
               "destinationTable": {"projectId": "p", "datasetId": "d", "tableId": "t"}, "writeDisposition": "WRITE_APPEND"}}}"#,
            Operation::Load,
            "projects/p/datasets/d/tables/t",
            &[
                ("source_uris", "gs://b/1.csv\ngs://b/2.csv"),
                ("source_format", "CSV"),
                ("write_disposition", "WRITE_APPEND"),
            ][..],
        ),
        (
            r#"{"configuration": {"extract": {"sourceTable": {"projectId": "q", "datasetId": "d", "tableId": "t"},
               "destinationUris": ["gs://out/*"], "destinationFormat": "AVRO"}}}"#,
            Operation::Extract,
            "projects/q/datasets/d/tables/t",
            &[("destination_uris", "gs://out/*"), ("destination_format", "AVRO")][..],
        ),
        (
            r#"{"configuration": {"copy": {"sourceTables": [{"projectId": "p", "datasetId": "a", "tableId": "x"}],
               "destinationTable": {"datasetId": "d", "tableId": "y"}, "operationType": "CLONE"}}}"#,
            Operation::Copy,
            "projects/p/datasets/d/tables/y",
            &[("source_tables", "projects/p/datasets/a/tables/x"), ("operation_type", "CLONE")][..],
        ),
    ];
    for (body, operation, resource, attributes) in cases {
        let model = bigquery("POST", "/bigquery/v2/projects/p/jobs").json(body).answered(200, STARTED).run();
        let command = &model.commands()[0];
        assert_eq!((command.operation, command.resource.as_str()), (operation, resource));
        assert_eq!(command.statement.bytes, body.as_bytes());
        for (name, value) in attributes {
            assert_eq!(of(&command.attributes, name), *value, "{name}");
        }
        assert_eq!(model.outcome().status, Status::Accepted);
        assert!(model.events.iter().any(|event| matches!(event, Event::ChainBegun { .. })));
    }
}

#[test]
fn the_end_of_a_job_is_what_a_later_look_at_it_says() {
    let done = r#"{"jobReference": {"projectId": "p", "jobId": "j", "location": "US"}, "status": {"state": "DONE"},
        "statistics": {"load": {"outputRows": "12", "outputBytes": "99", "inputFiles": "1", "badRecords": "0"}}}"#;
    let failed = r#"{"jobReference": {"projectId": "p", "jobId": "j", "location": "US"}, "status": {"state": "DONE",
        "errorResult": {"reason": "invalid", "message": "bad csv", "location": "gs://b/1.csv"}, "errors": [{"reason": "invalid", "message": "row 3"}]}}"#;
    let end = |path: &str, method: &str, body: &str| {
        let model = bigquery(method, path).answered(200, body).run();
        let ended = model.events.iter().find_map(|event| match event {
            Event::ChainEnded { chain, outcome } => Some((text(&chain.id).to_owned(), outcome.clone())),
            _ => None,
        });
        (model.outcome().status, ended)
    };
    let get = "/bigquery/v2/projects/p/jobs/j?location=US";
    assert_eq!(end(get, "GET", STARTED), (Status::Ok, None));
    let (status, ended) = end(get, "GET", done);
    let (chain, outcome) = ended.expect("an end");
    assert_eq!(
        (status, chain.as_str(), outcome.status, outcome.rows),
        (Status::Ok, "p:us.j", Status::Ok, Some(12))
    );
    let (status, ended) = end(get, "GET", failed);
    let (_, outcome) = ended.expect("an end");
    assert_eq!((status, outcome.status), (Status::Ok, Status::Error));
    assert_eq!(outcome.error.map(|error| error.code).as_deref(), Some("invalid"));
    assert_eq!(outcome.notices.len(), 1);
    let cancelled = format!("{{\"kind\": \"bigquery#jobCancelResponse\", \"job\": {failed}}}");
    let (_, ended) = end("/bigquery/v2/projects/p/jobs/j/cancel", "POST", &cancelled);
    assert!(ended.is_some());
}

/// What an exchange that is cut after so much of it says that its command may have begun.
fn begun_by(request: &Talk, answer: &str) -> (Status, Vec<String>) {
    let mut model = request.begin(allow_all());
    model.request(&request.body);
    model.request_end();
    if !answer.is_empty() {
        model.response_head(&request.answer);
        model.response(answer.as_bytes());
    }
    model.abort(Abort::Server);
    let chain = |event: &Event| match event {
        Event::ChainBegun { chain, .. } => Some(text(&chain.id).to_owned()),
        _ => None,
    };
    (model.outcome().status, model.events.iter().filter_map(chain).collect())
}

#[test]
fn a_job_that_its_request_names_may_have_begun_although_no_answer_says_so() {
    let named = r#"{"jobReference": {"projectId": "p", "jobId": "j", "location": "EU"}, "configuration": {"query": {"query": "SELECT 1"}}}"#;
    let nowhere = r#"{"configuration": {"query": {"query": "SELECT 1"}}, "jobReference": {"jobId": "j"}}"#;
    let nameless = r#"{"configuration": {"query": {"query": "SELECT 1"}}}"#;
    let insert = |body: &str| bigquery("POST", "/bigquery/v2/projects/p/jobs").json(body);
    let cases = [
        (insert(named), "", &["p:eu.j"][..]),
        (insert(named), r#"{"jobReference": {"projectId": "p""#, &["p:eu.j"]),
        (insert(nowhere), "", &["p:.j"]),
        (insert(nameless), "", &[]),
        (bigquery("POST", "/bigquery/v2/projects/p/queries").json(r#"{"query": "SELECT 1"}"#), "", &[]),
        // What is begun is an upload, and the job only when that is whole.
        (bigquery("POST", "/upload/bigquery/v2/projects/p/jobs?uploadType=resumable").json(named), "", &[]),
        (bigquery("GET", "/bigquery/v2/projects/p/jobs/j"), "", &[]),
    ];
    for (request, answer, expected) in cases {
        let (status, begun) = begun_by(&request, answer);
        assert_eq!(status, Status::OutcomeUnknown);
        assert_eq!(begun, expected, "{:?}", text(&request.body));
    }
}

#[test]
fn a_job_whose_request_never_went_on_has_not_begun() {
    let body = r#"{"jobReference": {"projectId": "p", "jobId": "j"}, "configuration": {"query": {"query": "SELECT 1"}}}"#;
    let request = bigquery("POST", "/bigquery/v2/projects/p/jobs").json(body);
    let mut model = request.begin(allow_all());
    model.request(&request.body[..20]);
    model.abort(Abort::Client);
    assert_eq!(model.outcome().status, Status::NotForwarded);
    assert!(!model.events.iter().any(|event| matches!(event, Event::ChainBegun { .. })));
}

#[test]
fn a_job_that_fails_at_once_is_a_failure() {
    let answer = r#"{"jobReference": {"projectId": "p", "jobId": "j"}, "status": {"state": "DONE",
        "errorResult": {"reason": "notFound", "message": "no such table"}}}"#;
    let body = r#"{"configuration": {"query": {"query": "SELECT 1 FROM x"}}}"#;
    let (_, outcome) =
        bigquery("POST", "/bigquery/v2/projects/p/jobs").json(body).answered(200, answer).record();
    assert_eq!(outcome.status, Status::Error);
    assert_eq!(text(&outcome.error.expect("an error").message), "no such table");
}

#[test]
fn calls_about_resources_are_recorded_with_their_body() {
    let body = r#"{"tableReference": {"projectId": "p", "datasetId": "d", "tableId": "t"}, "view": {"query": "SELECT 1"}}"#;
    let (command, outcome) =
        bigquery("POST", "/bigquery/v2/projects/p/datasets/d/tables").json(body).answered(200, body).record();
    assert_eq!((command.operation, command.method.as_str()), (Operation::Create, "bigquery.tables.insert"));
    assert_eq!(command.resource, "projects/p/datasets/d/tables/t");
    assert_eq!(command.statement.bytes, body.as_bytes());
    assert_eq!(outcome.status, Status::Ok);
    let policy = r#"{"policy": {"bindings": [{"role": "roles/bigquery.admin", "members": ["allUsers"]}]}}"#;
    let path = "/bigquery/v2/projects/p/datasets/d/tables/t:setIamPolicy";
    let (command, _) = bigquery("POST", path).json(policy).record();
    assert_eq!(
        (command.operation, command.statement.bytes.as_slice()),
        (Operation::Update, policy.as_bytes())
    );
    let list = r#"{"kind": "bigquery#tableList", "tables": [{"id": "a"}, {"id": "b"}], "totalItems": 2}"#;
    let (command, outcome) =
        bigquery("GET", "/bigquery/v2/projects/p/datasets/d/tables").answered(200, list).record();
    assert_eq!((command.operation, outcome.rows), (Operation::List, Some(2)));
    let (command, outcome) = bigquery("DELETE", "/bigquery/v2/projects/p/datasets/d?deleteContents=true")
        .answered(204, "")
        .record();
    assert_eq!((command.operation, outcome.status), (Operation::Delete, Status::Ok));
    assert_eq!(
        text(&command.statement.bytes),
        "DELETE /bigquery/v2/projects/p/datasets/d?deleteContents=true"
    );
}

#[test]
fn an_unknown_method_under_the_host_is_recorded_by_method_path_and_status() {
    let talk = bigquery("POST", "/bigquery/v2/projects/p/things?key=s3cret").json("{}").answered(404, "{}");
    assert_eq!(talk.service(), "bigquery");
    let (command, outcome) = talk.record();
    assert_eq!((command.operation, command.method.as_str()), (Operation::HttpRequest, "POST"));
    assert_eq!(command.resource, "bigquery.googleapis.com/bigquery/v2/projects/p/things");
    assert_eq!(text(&command.statement.bytes), "POST /bigquery/v2/projects/p/things?key=[redacted]");
    assert_eq!((outcome.status, outcome.http_status), (Status::Error, Some(404)));
}

#[test]
fn a_batch_is_recorded_as_not_understood() {
    let body =
        b"--b\r\nContent-Type: application/http\r\n\r\nDELETE /bigquery/v2/projects/p/datasets/d\r\n--b--";
    let talk = bigquery("POST", "/batch/bigquery/v2")
        .header("content-type", "multipart/mixed; boundary=b")
        .body(body);
    let (command, _) = talk.record();
    assert_eq!(command.method, "bigquery.batch");
    assert_eq!(command.statement.bytes, body);
    assert!(command.partly.is_some());
}

#[test]
fn a_get_that_comes_as_a_post_is_recorded_as_what_it_is_and_its_form_as_unread() {
    let talk = bigquery("POST", "/bigquery/v2/projects/p/jobs").header("x-http-method-override", "GET");
    let (command, _) = talk.body(b"maxResults=1&access_token=s3cret").record();
    assert_eq!((command.operation, command.method.as_str()), (Operation::List, "bigquery.jobs.list"));
    assert_eq!(of(&command.attributes, "method_override"), "GET");
    assert_eq!(of(&command.attributes, "body_undecoded"), "a form");
    assert!(command.partly.is_some());
}
