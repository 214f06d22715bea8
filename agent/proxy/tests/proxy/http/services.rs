//! The decoders of the product behind the proxy, as a workload meets them.

use std::sync::Arc;

use verbatim_api::v1;
use verbatim_proxy::{Builtin, ProxyConfig};

use super::{Scene, play_with};
use crate::support::{
    Options,
    origin::{Raw, soon},
    spool::each_start_has_one_end,
};

fn options() -> Options {
    let config = ProxyConfig::default();
    Options {
        protocols: Arc::new(Builtin { limits: config.limits }),
        config,
        shards: 2,
        ..Options::default()
    }
}

async fn ask(client: &mut Raw, method: &str, path: &str, body: &str) {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: bigquery.googleapis.com\r\nauthorization: Bearer of-ada\r\n"
    );
    client
        .send(&format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"))
        .await;
}

async fn answer(server: &mut Raw, body: &str) {
    let length = body.len();
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    server.send(&format!("{head}{body}")).await;
}

#[test]
fn a_bigquery_job_is_followed_to_its_end_on_another_connection_and_its_token_is_in_no_record() {
    play_with(options(), async |scene: &Scene| {
        let (mut client, mut server) = scene.world.raw().await;
        let body = r#"{"configuration":{"query":{"query":"select name from t"}},"jobReference":{"projectId":"p","jobId":"j1"}}"#;
        ask(&mut client, "POST", "/bigquery/v2/projects/p/jobs", body).await;
        let got = server.until("\"}}").await;
        assert!(got.contains("Bearer of-ada"), "{got}");
        let reference = r#""jobReference":{"projectId":"p","jobId":"j1","location":"EU"}"#;
        answer(&mut server, &format!(r#"{{"id":"p:EU.j1",{reference},"status":{{"state":"RUNNING"}}}}"#))
            .await;
        client.until("}}").await;
        assert_eq!(scene.story(), ["started allowed select name from t", "finished accepted"]);

        let (mut client, mut server) = scene.world.raw_of(1).await;
        ask(&mut client, "GET", "/bigquery/v2/projects/p/queries/j1?location=EU", "").await;
        server.until("\r\n\r\n").await;
        answer(
            &mut server,
            &format!(r#"{{{reference},"jobComplete":true,"totalRows":"2","totalBytesProcessed":"10"}}"#),
        )
        .await;
        client.until("\"10\"}").await;
        let other = &scene.world.spools[1];
        let progress = soon("the job's end", || other.of_kind(v1::RecordKind::Progress).pop()).await;
        let started = other.of_kind(v1::RecordKind::Started).remove(0);
        assert_eq!(started.envelope.parent_command_id, progress.envelope.command_id);
        assert_eq!((progress.envelope.status(), progress.envelope.rows), (v1::Status::Ok, Some(2)));
        let job = scene.world.spool().of_kind(v1::RecordKind::Started).remove(0);
        let target = job.content.unwrap().target.unwrap();
        assert_eq!((target.service.as_str(), target.host.as_str()), ("bigquery", "bigquery.googleapis.com"));
        assert_eq!(target.method, "bigquery.jobs.insert");
        let all = format!("{:?}{:?}", scene.world.spool().records(), other.records());
        assert!(
            !all.contains("of-ada") && !all.contains(format!("{:?}", b"of-ada").trim_matches(['[', ']']))
        );
        scene.world.spools.iter().for_each(each_start_has_one_end);
    });
}

#[test]
fn the_end_of_a_job_whose_answer_was_lost_is_said_of_the_request_that_named_it() {
    play_with(options(), async |scene: &Scene| {
        let (mut client, mut server) = scene.world.raw().await;
        let body = r#"{"configuration":{"query":{"query":"select name from t"}},"jobReference":{"projectId":"p","jobId":"j1"}}"#;
        ask(&mut client, "POST", "/bigquery/v2/projects/p/jobs", body).await;
        server.until("\"}}").await;
        drop(server);
        let story = ["started allowed select name from t", "finished outcome_unknown"];
        soon("the end", || (scene.story() == story).then_some(())).await;

        // The client tries again, is told that there is such a job, and asks for it.
        let (mut client, mut server) = scene.world.raw_of(1).await;
        ask(&mut client, "POST", "/bigquery/v2/projects/p/jobs", body).await;
        server.until("\"}}").await;
        let said = r#"{"reason":"duplicate","message":"Already Exists: Job p:EU.j1"}"#;
        let known = format!(r#"{{"error":{{"code":409,"message":"Already Exists","errors":[{said}]}}}}"#);
        let head = "HTTP/1.1 409 Conflict\r\ncontent-type: application/json";
        server.send(&format!("{head}\r\ncontent-length: {}\r\n\r\n{known}", known.len())).await;
        client.until("]}}").await;
        ask(&mut client, "GET", "/bigquery/v2/projects/p/jobs/j1?location=EU", "").await;
        server.until("\r\n\r\n").await;
        let reference = r#""jobReference":{"projectId":"p","jobId":"j1","location":"EU"}"#;
        answer(&mut server, &format!(r#"{{"id":"p:EU.j1",{reference},"status":{{"state":"DONE"}}}}"#)).await;
        client.until("\"}}").await;
        let other = &scene.world.spools[1];
        let progress = soon("the job's end", || other.of_kind(v1::RecordKind::Progress).pop()).await;
        let unknown = scene.world.spool().of_kind(v1::RecordKind::Finished).remove(0);
        assert_eq!(progress.envelope.command_id, unknown.envelope.command_id, "of the first request");
        assert_eq!(progress.envelope.status(), v1::Status::Ok);
        let asked = other.of_kind(v1::RecordKind::Started).pop().unwrap();
        assert_eq!(asked.envelope.parent_command_id, unknown.envelope.command_id);
        scene.world.spools.iter().for_each(each_start_has_one_end);
    });
}

#[test]
fn what_a_job_whose_statement_held_a_password_is_told_later_does_not_quote_it() {
    play_with(options(), async |scene: &Scene| {
        let (mut client, mut server) = scene.world.raw().await;
        let body = r#"{"configuration":{"query":{"query":"select 1 where password 's3cret'"}},"jobReference":{"projectId":"p","jobId":"j1"}}"#;
        ask(&mut client, "POST", "/bigquery/v2/projects/p/jobs", body).await;
        server.until("\"}}").await;
        let reference = r#""jobReference":{"projectId":"p","jobId":"j1","location":"EU"}"#;
        answer(&mut server, &format!(r#"{{"id":"p:EU.j1",{reference},"status":{{"state":"RUNNING"}}}}"#))
            .await;
        client.until("}}").await;

        let said = r#"{"reason":"invalidQuery","message":"Unexpected string literal 's3cret' at [1:24]"}"#;
        let (mut client, mut server) = scene.world.raw_of(1).await;
        ask(&mut client, "GET", "/bigquery/v2/projects/p/jobs/j1?location=EU", "").await;
        server.until("\r\n\r\n").await;
        let status = format!(r#""status":{{"state":"DONE","errorResult":{said},"errors":[{said}]}}"#);
        answer(&mut server, &format!(r#"{{"id":"p:EU.j1",{reference},{status}}}"#)).await;
        client.until("]}}").await;
        ask(&mut client, "GET", "/bigquery/v2/projects/p/queries/j1?location=EU", "").await;
        server.until("\r\n\r\n").await;
        let body = format!(r#"{{"error":{{"code":400,"message":"Bad value: s3cret","errors":[{said}]}}}}"#);
        let length = body.len();
        let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json";
        server.send(&format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}")).await;
        client.until("]}}").await;

        let other = &scene.world.spools[1];
        let progress = soon("the job's end", || other.of_kind(v1::RecordKind::Progress).pop()).await;
        assert_eq!(progress.content.clone().unwrap().error.unwrap().code, "invalidQuery");
        let failed =
            soon("the last end", || other.of_kind(v1::RecordKind::Finished).into_iter().nth(1)).await;
        assert_eq!((failed.envelope.status(), failed.envelope.http_status), (v1::Status::Error, 400));
        let all = format!("{:?}{:?}", scene.world.spool().records(), other.records());
        let bytes = format!("{:?}", b"s3cret");
        assert!(!all.contains("s3cret") && !all.contains(bytes.trim_matches(['[', ']'])), "{all}");
    });
}

#[test]
fn a_denied_request_is_answered_as_the_service_answers() {
    play_with(options(), async |scene: &Scene| {
        let (mut client, _server) = scene.world.raw().await;
        let body = r#"{"query":"deny this"}"#;
        ask(&mut client, "POST", "/bigquery/v2/projects/p/queries", body).await;
        let answered = client.rest().await;
        assert!(answered.starts_with("HTTP/1.1 403 "), "{answered}");
        assert!(answered.contains("deny it is") && answered.contains(r#""code":403"#), "{answered}");
        let story = scene.story();
        assert_eq!(story, ["started denied deny this", "finished not_forwarded", "injected"]);
    });
}
