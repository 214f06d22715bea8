//! Multipart and resumable uploads.

use crate::{
    message::talk::*,
    seam::{ChainKey, ChainKind, Decision, Event, OpaqueReason, Operation, RefusalKind, Status},
};

const CONFIGURATION: &str = r#"{"configuration": {"load": {"destinationTable": {"projectId": "p", "datasetId": "d", "tableId": "t"}, "sourceFormat": "CSV"}}}"#;
const RUNNING: &str =
    r#"{"jobReference": {"projectId": "p", "jobId": "j", "location": "US"}, "status": {"state": "RUNNING"}}"#;

fn multipart(boundary: &str, media: &[u8]) -> Vec<u8> {
    let head = format!(
        "--{boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{CONFIGURATION}\r\n--{boundary}\r\ncontent-type: */*\r\n\r\n"
    );
    [head.as_bytes(), media, format!("\r\n--{boundary}--\r\n").as_bytes()].concat()
}

fn chains(events: &[Event]) -> (Vec<ChainKey>, Vec<(ChainKey, Status)>) {
    let begun = events.iter().filter_map(|event| match event {
        Event::ChainBegun { chain, .. } => Some(chain.clone()),
        _ => None,
    });
    let ended = events.iter().filter_map(|event| match event {
        Event::ChainEnded { chain, outcome } => Some((chain.clone(), outcome.status)),
        _ => None,
    });
    (begun.collect(), ended.collect())
}

fn upload(id: &str) -> ChainKey {
    ChainKey { kind: ChainKind::Upload, id: id.as_bytes().to_vec() }
}

fn job() -> ChainKey {
    ChainKey { kind: ChainKind::BigQueryJob, id: b"p:us.j".to_vec() }
}

#[test]
fn a_multipart_upload_is_decided_by_its_first_part() {
    let body = multipart("===1==", b"a,b\n1,2\n");
    for content_type in ["multipart/related; boundary=\"===1==\"", "multipart/related; boundary='===1=='"] {
        let talk = bigquery("POST", "/upload/bigquery/v2/projects/p/jobs?uploadType=multipart")
            .header("content-type", content_type)
            .body(&body)
            .answered(200, RUNNING);
        let model = talk.run();
        let command = &model.commands()[0];
        assert_eq!(
            (command.operation, command.resource.as_str()),
            (Operation::Load, "projects/p/datasets/d/tables/t")
        );
        assert_eq!(text(&command.statement.bytes), CONFIGURATION);
        assert_eq!(command.partly, None);
        assert_eq!(
            (model.outcome().status, model.outcome().bytes_sent),
            (Status::Accepted, body.len() as u64)
        );
        assert_eq!(chains(&model.events), (vec![job()], vec![]));
    }
}

#[test]
fn a_multipart_upload_whose_first_part_is_not_found_is_recorded_by_its_beginning() {
    let endless = [b"--b\r\n".to_vec(), b"a: b\r\n".repeat(10_000), b"\r\n{}\r\n--b--\r\n".to_vec()].concat();
    for (boundary, body) in [("no", multipart("b", b"1,2\n")), ("b", endless)] {
        let talk = bigquery("POST", "/upload/bigquery/v2/projects/p/jobs?uploadType=multipart")
            .header("content-type", &format!("multipart/related; boundary={boundary}"))
            .body(&body)
            .answered(200, RUNNING);
        let model = talk.run();
        let command = &model.commands()[0];
        assert_eq!(command.partly, Some(OpaqueReason::Malformed), "{boundary}");
        assert!(command.statement.bytes.starts_with(b"--b\r\n"), "{}", text(&command.statement.bytes));
        assert_eq!(model.outcome().bytes_sent, body.len() as u64);
    }
}

#[test]
fn data_of_an_upload_wait_for_the_decision_about_it_and_then_for_nothing() {
    let body = multipart("b", &vec![b'x'; 1_000_000]);
    let talk = bigquery("POST", "/upload/bigquery/v2/projects/p/jobs?uploadType=multipart")
        .header("content-type", "multipart/related; boundary=b")
        .body(&body)
        .by(16_384);
    let mut model = talk.begin(Box::new(|_| None));
    model.request(&body[..1000]);
    assert!(model.holds() && model.output().is_empty());
    model.release(&Decision::Allow);
    model.request(&body[1000..]);
    assert_eq!(model.output(), body);
    assert!(!model.events.iter().any(|event| matches!(event, Event::Prefix { .. })));
}

#[test]
fn a_resumable_upload_is_one_chain_across_its_requests() {
    let first = bigquery("POST", "/resumable/upload/bigquery/v2/projects/p/jobs?uploadType=resumable")
        .json(CONFIGURATION)
        .header("x-upload-content-type", "*/*")
        .answered(200, "")
        .answer_header("x-guploader-uploadid", "S3CRET")
        .answer_header(
            "location",
            "https://bigquery.googleapis.com/resumable/upload/bigquery/v2/projects/p/jobs?uploadType=resumable&upload_id=S3CRET",
        );
    let model = first.run();
    assert_eq!((model.commands()[0].operation, model.outcome().status), (Operation::Load, Status::Accepted));
    let key = upload("bigquery.googleapis.com S3CRET");
    assert_eq!(chains(&model.events), (vec![key.clone()], vec![]));

    let path = "/resumable/upload/bigquery/v2/projects/p/jobs?uploadType=resumable&upload_id=S3CRET";
    let chunk =
        bigquery("PUT", path).header("content-range", "bytes 0-7/16").body(b"a,b\n1,2\n").answered(308, "");
    let model = chunk.run();
    let command = &model.commands()[0];
    assert_eq!((command.operation, &command.continues), (Operation::Upload, &Some(key.clone())));
    assert_eq!(of(&command.attributes, "content_range"), "bytes 0-7/16");
    assert!(!format!("{:?}{}", command.attributes, text(&command.statement.bytes)).contains("S3CRET"));
    assert_eq!((model.outcome().status, chains(&model.events)), (Status::Ok, (vec![], vec![])));

    let model = bigquery("PUT", path)
        .header("content-range", "bytes 8-15/16")
        .body(b"a,b\n1,2\n")
        .answered(200, RUNNING)
        .run();
    assert_eq!(chains(&model.events), (vec![job()], vec![(key, Status::Accepted)]));
    assert_eq!(model.outcome().status, Status::Accepted);
}

#[test]
fn an_upload_without_a_boundary_is_held_and_recorded_as_broken() {
    let talk = bigquery("POST", "/upload/bigquery/v2/projects/p/jobs?uploadType=multipart")
        .body(b"data")
        .answered(400, "{}");
    let (command, _) = talk.record();
    assert!(command.partly.is_some());
    assert_eq!(command.statement.bytes, b"data");
}

#[test]
fn a_refused_upload_is_answered_and_nothing_of_it_goes_on() {
    let talk = bigquery("POST", "/upload/bigquery/v2/projects/p/jobs?uploadType=multipart")
        .header("content-type", "multipart/related; boundary=b")
        .body(&multipart("b", b"data"));
    let model = talk.run_with(refuse_all(RefusalKind::Denied));
    assert!(!model.head);
    assert_eq!(model.answer.as_ref().map(|answer| answer.status.as_u16()), Some(403));
    assert_eq!(model.outcome().status, Status::NotForwarded);
}

#[test]
fn an_upload_that_is_taken_away_or_forgotten_has_ended() {
    let path = "/resumable/upload/bigquery/v2/projects/p/jobs?uploadType=resumable&upload_id=S3CRET";
    let key = upload("bigquery.googleapis.com S3CRET");
    for (method, status) in [("DELETE", 499), ("DELETE", 204), ("PUT", 410), ("PUT", 404)] {
        let model = bigquery(method, path).answered(status, "").run();
        assert_eq!(chains(&model.events), (vec![], vec![(key.clone(), Status::Error)]), "{method} {status}");
    }
    let model = bigquery("PUT", path).answered(503, "").run();
    assert_eq!(chains(&model.events), (vec![], vec![]));
}
