//! Rows without a statement.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use crate::{
    message::talk::*,
    seam::{Operation, Status},
};

const INSERT: &str = "/bigquery/v2/projects/p/datasets/d/tables/t/insertAll";

#[test]
fn rows_that_were_not_inserted_are_a_failure_although_the_status_is_200() {
    let body = r#"{"kind": "x", "skipInvalidRows": true, "rows": [{"insertId": "1", "json": {"a": 1}}, {"json": {"a": {"rows": []}}}, {"json": {}}]}"#;
    let errors = r#"{"kind": "bigquery#tableDataInsertAllResponse", "insertErrors": [{"index": 1, "errors": [
        {"reason": "invalid", "location": "a", "debugInfo": "", "message": "no such field: a."}]},
        {"index": 2, "errors": [{"reason": "stopped", "message": ""}]}]}"#;
    let (command, outcome) = bigquery("POST", INSERT).json(body).answered(200, errors).record();
    assert_eq!(
        (command.operation, command.resource.as_str()),
        (Operation::InsertRows, "projects/p/datasets/d/tables/t")
    );
    assert_eq!(command.statement.bytes, body.as_bytes());
    assert_eq!(of(&command.attributes, "rows"), "3");
    assert_eq!(of(&command.attributes, "skip_invalid_rows"), "true");
    assert_eq!((outcome.status, outcome.http_status, outcome.rows), (Status::Error, Some(200), None));
    let error = outcome.error.expect("an error");
    assert_eq!((error.code.as_str(), text(&error.message)), ("insertErrors", "2 rows were not inserted"));
    assert_eq!(text(&error.detail), "row 1: invalid: no such field: a. a\nrow 2: stopped:  ");
    assert_eq!(of(&outcome.attributes, "rows_failed"), "2");
    let (_, outcome) = bigquery("POST", INSERT).json(body).answered(200, r#"{"kind": "x"}"#).record();
    assert_eq!((outcome.status, outcome.rows), (Status::Ok, Some(3)));
}

#[test]
fn a_hundred_thousand_failed_rows_are_counted_and_cost_little() {
    let row = r#"{"index": 1, "errors": [{"reason": "invalid", "message": "no"}]}"#;
    let errors = format!("{{\"insertErrors\": [{}{row}]}}", format!("{row},").repeat(99_999));
    let talk = bigquery("POST", INSERT).json(r#"{"rows": []}"#).answered(200, &errors).by(16_384);
    let outcome = talk.run_with(crate::model::allow_all()).outcome();
    assert_eq!(text(&outcome.error.expect("an error").message), "100000 rows were not inserted");
    assert_eq!(of(&outcome.attributes, "answer_undecoded"), "long");
}

#[test]
fn rows_of_a_table_are_counted_and_not_kept() {
    let answer = r#"{"kind": "bigquery#tableDataList", "totalRows": "100", "pageToken": "x", "rows": [{"f": [{"v": "1"}]}, {"f": []}]}"#;
    let (command, outcome) = bigquery("GET", "/bigquery/v2/projects/p/datasets/d/tables/t/data?maxResults=2")
        .answered(200, answer)
        .record();
    assert_eq!((command.operation, outcome.rows), (Operation::ReadRows, Some(2)));
    assert_eq!(of(&outcome.attributes, "total_rows"), "100");
}

#[test]
fn bodies_are_read_through_gzip_in_both_directions() {
    let gzip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).expect("memory");
        encoder.finish().expect("memory")
    };
    let mut talk = bigquery("POST", "/bigquery/v2/projects/p/queries")
        .header("content-type", "application/json")
        .header("content-encoding", "gzip")
        .body(&gzip(r#"{"query": "SELECT 1"}"#))
        .answer_header("content-encoding", "gzip");
    talk.answer_body = gzip(r#"{"jobComplete": true, "totalRows": "1"}"#);
    let (command, outcome) = talk.record();
    assert_eq!(text(&command.statement.bytes), "SELECT 1");
    assert_eq!(outcome.rows, Some(1));
    assert_eq!(outcome.bytes_sent, talk.body.len() as u64);
}
