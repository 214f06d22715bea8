//! `jobs.query`, `jobs.insert` with a query, and their results.

use crate::{
    message::talk::*,
    seam::{ChainKey, ChainKind, Event, Operation, Status},
};

fn job(id: &str) -> ChainKey {
    ChainKey { kind: ChainKind::BigQueryJob, id: id.as_bytes().to_vec() }
}

/// As google-cloud-bigquery in Python does it with `query_and_wait`.
const QUERY: &str = r#"{"query": "SELECT \"ä\" AS a -- id-1\nFROM t WHERE b = @b", "useLegacySql": false,
    "parameterMode": "NAMED", "queryParameters": [
        {"parameterType": {"type": "INT64"}, "parameterValue": {"value": "42"}, "name": "b"},
        {"name": "list", "parameterType": {"type": "ARRAY", "arrayType": {"type": "STRING"}},
         "parameterValue": {"arrayValues": [{"value": "x"}, {"value": null}]}},
        {"name": "s", "parameterType": {"type": "STRUCT", "structTypes": [
            {"name": "i", "type": {"type": "INT64"}}, {"type": {"type": "RANGE", "rangeElementType": {"type": "DATE"}}}]},
         "parameterValue": {"structValues": {"i": {"value": "1"}}}},
        {"name": "n", "parameterType": {"type": "STRING"}, "parameterValue": {"value": null}}],
    "labels": {"adk-bigquery-tool": "execute_sql"}, "requestId": "5a0a2b", "formatOptions": {"useInt64Timestamp": true},
    "defaultDataset": {"projectId": "p", "datasetId": "d"}, "maximumBytesBilled": "1000", "location": "EU",
    "dryRun": false}"#;

const DONE: &str = r#"{"kind": "bigquery#queryResponse", "schema": {"fields": [{"name": "a", "type": "STRING"}]},
    "jobReference": {"projectId": "p", "jobId": "job_1", "location": "EU"}, "totalRows": "2",
    "rows": [{"f": [{"v": "ä"}]}, {"f": [{"v": {"rows": [1, 2]}}]}], "totalBytesProcessed": "77", "totalBytesBilled": "99",
    "jobComplete": true, "cacheHit": false, "queryId": "q1", "jobCreationReason": {"code": "REQUESTED"}}"#;

#[test]
fn a_query_is_recorded_with_everything_that_it_says() {
    let talk =
        bigquery("POST", "/bigquery/v2/projects/p/queries?prettyPrint=false").json(QUERY).answered(200, DONE);
    assert_eq!(talk.service(), "bigquery");
    let (command, outcome) = talk.record();
    assert_eq!((command.operation, command.method.as_str()), (Operation::Query, "bigquery.jobs.query"));
    assert_eq!(command.resource, "projects/p");
    assert_eq!(text(&command.statement.bytes), "SELECT \"ä\" AS a -- id-1\nFROM t WHERE b = @b");
    assert_eq!(command.partly, None);
    let seen: Vec<_> = command
        .parameters
        .iter()
        .map(|p| (p.name.as_str(), p.type_name.as_str(), p.value.as_ref().map(|value| text(&value.bytes))))
        .collect();
    assert_eq!(
        seen,
        [
            ("b", "INT64", Some("42")),
            ("list", "ARRAY<STRING>", Some("[\"x\", null]")),
            ("s", "STRUCT<i INT64, RANGE<DATE>>", Some("{\"i\": \"1\"}")),
            ("n", "STRING", None),
        ]
    );
    for (name, value) in [
        ("project", "p"),
        ("location", "EU"),
        ("default_dataset", "projects/p/datasets/d"),
        ("request_id", "5a0a2b"),
        ("maximum_bytes_billed", "1000"),
        ("use_legacy_sql", "false"),
        ("dry_run", "false"),
        ("parameter_mode", "NAMED"),
        ("labels", "{\"adk-bigquery-tool\": \"execute_sql\"}"),
        ("request", "POST /bigquery/v2/projects/p/queries?prettyPrint=false"),
    ] {
        assert_eq!(of(&command.attributes, name), value, "{name}");
    }
    assert_eq!((outcome.status, outcome.rows, outcome.http_status), (Status::Ok, Some(2), Some(200)));
    assert_eq!((outcome.bytes_sent, outcome.bytes_received), (QUERY.len() as u64, DONE.len() as u64));
    for (name, value) in [
        ("job_id", "job_1"),
        ("location", "EU"),
        ("bytes_processed", "77"),
        ("bytes_billed", "99"),
        ("cache_hit", "false"),
        ("total_rows", "2"),
        ("query_id", "q1"),
        ("job_creation_reason", "REQUESTED"),
    ] {
        assert_eq!(of(&outcome.attributes, name), value, "{name}");
    }
}

#[test]
fn nothing_of_a_query_goes_on_before_it_is_decided() {
    let talk = bigquery("POST", "/bigquery/v2/projects/p/queries").json(QUERY);
    let mut model = talk.run_with(Box::new(|_| None));
    assert!(model.holds() && !model.head && model.output().is_empty());
    model.release(&crate::seam::Decision::Allow);
    assert!(model.rest);
    assert_eq!(model.output(), QUERY.as_bytes());
    talk.answer(&mut model);
    assert_eq!(model.outcome().status, Status::Ok);
}

#[test]
fn a_query_that_goes_on_is_accepted_and_followed_to_its_end() {
    let begun =
        r#"{"jobReference": {"projectId": "p", "jobId": "j", "location": "EU"}, "jobComplete": false}"#;
    let model = bigquery("POST", "/bigquery/v2/projects/p/queries").json(QUERY).answered(200, begun).run();
    assert_eq!(model.outcome().status, Status::Accepted);
    let chains: Vec<_> = model
        .events
        .iter()
        .filter_map(|event| match event {
            Event::ChainBegun { chain, .. } => Some(chain.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(chains, [job("p:eu.j")]);

    let results = |body: &str| {
        bigquery("GET", "/bigquery/v2/projects/p/queries/j?location=EU&maxResults=0")
            .answered(200, body)
            .run()
    };
    let model = results(begun);
    let command = &model.commands()[0];
    assert_eq!((command.operation, &command.continues), (Operation::ReadRows, &Some(job("p:eu.j"))));
    assert_eq!(command.resource, "projects/p/jobs/j");
    assert_eq!(
        text(&command.statement.bytes),
        "GET /bigquery/v2/projects/p/queries/j?location=EU&maxResults=0"
    );
    assert_eq!(model.outcome().status, Status::Ok);
    assert!(!model.events.iter().any(|event| matches!(event, Event::ChainEnded { .. })));

    let model = results(
        &DONE.replace("job_1", "j").replace("\"totalRows\"", "\"numDmlAffectedRows\": \"7\", \"totalRows\""),
    );
    let ended = model.events.iter().find_map(|event| match event {
        Event::ChainEnded { chain, outcome } => Some((chain.clone(), outcome.clone())),
        _ => None,
    });
    let (chain, outcome) = ended.expect("an end");
    assert_eq!((chain, outcome.status, outcome.rows), (job("p:eu.j"), Status::Ok, Some(7)));
    assert_eq!(model.outcome().rows, Some(2), "rows of this page");
}

#[test]
fn a_job_with_a_query_is_recorded_by_its_configuration() {
    let body = r#"{"jobReference": {"jobId": "mine", "projectId": "p", "location": "US"}, "configuration": {"dryRun": true,
        "labels": {"mcp-toolbox-tool": "x"}, "query": {"query": "SELECT 1", "useLegacySql": false, "priority": "BATCH",
        "destinationTable": {"projectId": "p", "datasetId": "d", "tableId": "t"}, "writeDisposition": "WRITE_TRUNCATE",
        "createDisposition": "CREATE_IF_NEEDED", "queryParameters": [{"parameterType": {"type": "BOOL"}, "parameterValue": {"value": "true"}}],
        "connectionProperties": [{"key": "session_id", "value": "s1"}],
        "userDefinedFunctionResources": [{"inlineCode": "f()"}, {"resourceUri": "gs://b/f.js"}],
        "tableDefinitions": {"e": {"sourceUris": ["gs://b/e.csv"], "schema": {"fields": []}}}}}}"#;
    let answer = r#"{"kind": "bigquery#job", "configuration": {"jobType": "QUERY", "query": {"query": "SELECT 1"}},
        "status": {"state": "DONE"}, "statistics": {"totalBytesProcessed": "5", "query": {"statementType": "SELECT",
        "totalBytesBilled": "0", "cacheHit": true, "schema": {}, "referencedTables": [{"projectId": "p", "datasetId": "d", "tableId": "r"}]}},
        "jobReference": {"projectId": "p", "location": "US"}, "user_email": "a@b"}"#;
    let model = bigquery("POST", "/bigquery/v2/projects/p/jobs").json(body).answered(200, answer).run();
    let command = &model.commands()[0];
    assert_eq!((command.operation, command.method.as_str()), (Operation::Query, "bigquery.jobs.insert"));
    assert_eq!(text(&command.statement.bytes), "SELECT 1");
    assert_eq!(command.parameters[0].type_name, "BOOL");
    for (name, value) in [
        ("job_id", "mine"),
        ("location", "US"),
        ("dry_run", "true"),
        ("priority", "BATCH"),
        ("destination_table", "projects/p/datasets/d/tables/t"),
        ("write_disposition", "WRITE_TRUNCATE"),
        ("create_disposition", "CREATE_IF_NEEDED"),
        ("session_id", "s1"),
        ("user_defined_functions", "f()\ngs://b/f.js"),
        ("external_tables", "e=gs://b/e.csv"),
        ("labels", "{\"mcp-toolbox-tool\": \"x\"}"),
    ] {
        assert_eq!(of(&command.attributes, name), value, "{name}");
    }
    let outcome = model.outcome();
    assert_eq!(outcome.status, Status::Ok);
    for (name, value) in [
        ("state", "DONE"),
        ("statement_type", "SELECT"),
        ("bytes_processed", "5"),
        ("bytes_billed", "0"),
        ("cache_hit", "true"),
        ("user_email", "a@b"),
        ("referenced_tables", "projects/p/datasets/d/tables/r"),
    ] {
        assert_eq!(of(&outcome.attributes, name), value, "{name}");
    }
    let chained = |event: &Event| matches!(event, Event::ChainBegun { .. } | Event::ChainEnded { .. });
    assert!(!model.events.iter().any(chained), "a dry run begins no job");
}

#[test]
fn a_refused_query_is_an_error_with_the_servers_words() {
    let answer = r#"{"error": {"code": 400, "message": "Syntax error: Unexpected \"FORM\" at [1:10]", "errors": [
        {"message": "Syntax error", "domain": "global", "reason": "invalidQuery", "location": "q", "locationType": "parameter"}],
        "status": "INVALID_ARGUMENT"}}"#;
    let (_, outcome) =
        bigquery("POST", "/bigquery/v2/projects/p/queries").json(QUERY).answered(400, answer).record();
    assert_eq!((outcome.status, outcome.http_status), (Status::Error, Some(400)));
    let error = outcome.error.expect("an error");
    assert_eq!((error.code.as_str(), text(&error.detail)), ("invalidQuery", "q"));
    assert_eq!(text(&error.message), "Syntax error: Unexpected \"FORM\" at [1:10]");
}

#[test]
fn results_of_a_job_that_failed_say_how_it_ended() {
    let answer =
        r#"{"error": {"code": 400, "message": "stopped by a person", "errors": [{"reason": "stopped"}]}}"#;
    let model = bigquery("GET", "/bigquery/v2/projects/p/queries/j").answered(400, answer).run();
    let failed = model.events.iter().any(|event| {
        matches!(event, Event::ChainEnded { chain, outcome } if *chain == job("p:.j") && outcome.status == Status::Error)
    });
    assert!(failed);
    let answer = r#"{"error": {"code": 403, "message": "no", "errors": [{"reason": "accessDenied"}]}}"#;
    let model = bigquery("GET", "/bigquery/v2/projects/p/queries/j").answered(403, answer).run();
    assert!(!model.events.iter().any(|event| matches!(event, Event::ChainEnded { .. })));
}

#[test]
fn a_query_that_is_there_twice_is_kept_twice() {
    let body = r#"{"query": "DROP TABLE t", "use_legacy_sql": false, 'query': 'SELECT 1'}"#;
    let (command, _) = bigquery("POST", "/bigquery/v2/projects/p/queries").json(body).record();
    assert_eq!(text(&command.statement.bytes), "SELECT 1");
    assert_eq!(of(&command.attributes, "alternative_statement"), "DROP TABLE t");
    assert_eq!(of(&command.attributes, "use_legacy_sql"), "false");
}

#[test]
fn a_password_in_a_query_is_marked() {
    let body = r#"{"query": "SELECT * FROM EXTERNAL_QUERY('c', \"ALTER USER a PASSWORD 's3cret'\")"}"#;
    let (command, _) = bigquery("POST", "/bigquery/v2/projects/p/queries").json(body).record();
    assert!(!text(&command.statement.bytes).contains("s3cret"));
    assert_eq!(command.redactions.len(), 1);
}
