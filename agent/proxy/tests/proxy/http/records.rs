//! What is recorded of requests, and when.

use verbatim_api::v1;

use super::{Scene, play, play_with};
use crate::support::{
    Options,
    origin::{Client, request, soon},
    spool::{Mood, each_start_has_one_end},
};

async fn both(scene: &Scene) -> [Client; 2] {
    [scene.http1().await, scene.http2().await]
}

#[test]
fn a_request_is_recorded_with_where_it_went_and_how_it_was_answered() {
    play(async |scene: &Scene| {
        for (client, protocol) in
            both(scene).await.into_iter().zip([v1::Protocol::Http1, v1::Protocol::Http2])
        {
            let before = scene.world.spool().records().len();
            assert_eq!(client.post("/echo", "say it").await.unwrap().body, "done");
            assert_eq!(client.post("/missing/x", "say more").await.unwrap().status, 404);
            let mut records = scene.world.spool().records().split_off(before);
            records.retain(|record| record.envelope.kind() != v1::RecordKind::Connection);
            let [started, finished, _, failed] = &records[..] else { panic!("{records:?}") };
            assert_eq!(started.envelope.protocol(), protocol);
            let content = started.content.clone().unwrap();
            let target = content.target.unwrap();
            assert_eq!((target.service.as_str(), target.host.as_str()), ("words", "data.example"));
            assert_eq!((target.method.as_str(), target.resource.as_str()), ("POST", "/echo"));
            assert_eq!(content.statement.unwrap().text, b"say it");
            assert_eq!((finished.envelope.http_status, failed.envelope.http_status), (200, 404));
            assert_eq!(failed.envelope.status(), v1::Status::Error);
            assert_eq!(finished.envelope.bytes_sent, 6);
        }
        each_start_has_one_end(scene.world.spool());
        let shown = scene.world.seen.summaries.lock().unwrap().clone();
        assert_eq!(
            (shown[0].service, shown[0].method.as_str(), shown[0].http_status),
            ("words", "POST", Some(200))
        );
    });
}

#[test]
fn nothing_of_a_request_goes_on_before_its_start_is_recorded_and_nothing_of_the_end_before_its_end_is() {
    play(async |scene: &Scene| {
        for client in both(scene).await {
            client.post("/echo", "first").await.unwrap();
            let (records, requests) = (scene.world.spool().records().len(), scene.origin.got().len());
            scene.world.spool().room_for(0);
            let waiting = tokio::spawn({
                let client = client.clone();
                async move { client.post("/echo", "second").await }
            });
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            assert_eq!(scene.origin.got().len(), requests, "went on unrecorded");
            scene.world.spool().room_for(1);
            soon("the request", || (scene.origin.bodies().last()? == "second").then_some(())).await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            assert!(!waiting.is_finished(), "was answered, and that is not recorded");
            assert_eq!(scene.world.spool().records().len(), records + 1);
            scene.world.spool().room_for(100);
            assert_eq!(waiting.await.unwrap().unwrap().body, "done");
        }
    });
}

#[test]
fn a_request_waits_until_its_start_is_durable() {
    play(async |scene: &Scene| {
        for client in both(scene).await {
            scene.world.spool().group();
            let requests = scene.origin.got().len();
            let records = scene.world.spool().records().len();
            let waiting = tokio::spawn(async move { client.post("/echo", "safe first").await });
            soon("the start", || (scene.world.spool().records().len() > records).then_some(())).await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            assert_eq!(scene.origin.got().len(), requests, "went on before it was durable");
            scene.world.spool().sync();
            assert_eq!(waiting.await.unwrap().unwrap().body, "done");
        }
    });
}

#[test]
fn a_statement_longer_than_the_capture_limit_is_decided_by_its_first_part_and_recorded_when_it_is_whole() {
    play(async |scene: &Scene| {
        for client in both(scene).await {
            let before = scene.story().len();
            let long = "x".repeat(300_000);
            assert_eq!(client.post("/echo", &long).await.unwrap().body, "done");
            assert_eq!(scene.origin.got().last().unwrap().body.len(), long.len());
            let story = scene.story().split_off(before);
            assert_eq!(story.len(), 2, "{story:?}");
            let denied = format!("deny {long}");
            let answered = client.post("/echo", &denied).await;
            if let Ok(answered) = answered {
                assert_eq!(answered.status, 403);
            }
        }
        assert_eq!(scene.origin.got().len(), 2, "the denied ones went on");
        let started = scene.world.spool().of_kind(v1::RecordKind::Started);
        assert_eq!(started[0].content.as_ref().unwrap().statement.as_ref().unwrap().full_length, 300_000);
    });
}

#[test]
fn a_record_that_can_never_be_written_resets_its_request() {
    play(async |scene: &Scene| {
        let client = scene.http2().await;
        client.post("/echo", "one").await.unwrap();
        scene.world.spool().set(Mood::TooLarge);
        assert!(client.post("/echo", "too large").await.is_err());
        assert_eq!(scene.origin.bodies(), ["one"]);
        scene.world.spool().set(Mood::Takes);
        client.post("/echo", "two").await.unwrap();
        assert_eq!(scene.origin.bodies(), ["one", "two"]);
    });
}

#[test]
fn where_records_are_shed_requests_go_on() {
    play(async |scene: &Scene| {
        scene.world.spool().set(Mood::Sheds);
        let client = scene.http2().await;
        assert_eq!(client.post("/echo", "one").await.unwrap().body, "done");
        assert_eq!(scene.story(), [""; 0]);
    });
}

#[test]
fn a_decoder_or_a_policy_that_panics_loses_its_own_request_and_no_other() {
    play(async |scene: &Scene| {
        let client = scene.http2().await;
        let slow = tokio::spawn({
            let client = client.clone();
            async move { client.post("/echo", "hold me").await }
        });
        soon("the hold", || (scene.story() == ["started held hold me"]).then_some(())).await;
        assert!(client.post("/echo", "bug").await.is_err());
        assert!(client.post("/echo", "panic over this").await.is_err());
        scene.world.answer_hold(true);
        assert_eq!(slow.await.unwrap().unwrap().body, "done");
        assert_eq!(scene.world.shards.stats().panics, 2);
        assert_eq!(scene.origin.bodies(), ["hold me"]);
        let note = soon("the remark", || {
            let said = scene.world.spool().of_kind(v1::RecordKind::Progress);
            said.into_iter()
                .find(|record| record.envelope.opaque_reason() == v1::OpaqueReason::Desynchronised)
        });
        let note = note.await.content.unwrap().note;
        assert!(note.contains("because of an error in the node agent"), "{note}");
        each_start_has_one_end(scene.world.spool());
    });
}

#[test]
fn a_request_that_can_be_read_in_two_ways_is_refused_and_recorded() {
    play(async |scene: &Scene| {
        let (mut client, server) = scene.world.raw().await;
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").await;
        let answer = client.rest().await;
        drop(server);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
        let closing = soon("the closing", || scene.world.spool().closing()).await;
        assert_eq!(closing.envelope.opaque_reason(), v1::OpaqueReason::AmbiguousRequest);
        let said = &scene.world.spool().of_kind(v1::RecordKind::Progress)[0];
        assert_eq!(said.envelope.opaque_reason(), v1::OpaqueReason::AmbiguousRequest);
        assert!(said.content.as_ref().unwrap().note.starts_with("the workload: "), "{said:?}");
    });
}

#[test]
fn an_upgrade_is_recorded_and_what_follows_passes_undecoded() {
    play(async |scene: &Scene| {
        let (mut client, mut server) = scene.world.raw().await;
        client.send("POST /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: words\r\ncontent-length: 0\r\n\r\n").await;
        server.until("\r\n\r\n").await;
        server
            .send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: words\r\n\r\nhello")
            .await;
        let head = client.until("hello").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        client.send("and on").await;
        assert_eq!(server.until("on").await, "and on");
        let said = scene.world.spool().of_kind(v1::RecordKind::Progress);
        assert_eq!(said[0].envelope.opaque_reason(), v1::OpaqueReason::HttpUpgrade);
        each_start_has_one_end(scene.world.spool());
    });
}

#[test]
fn interim_answers_that_are_dropped_are_counted() {
    play(async |scene: &Scene| {
        let (mut client, mut server) = scene.world.raw().await;
        client.send("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
        server.until("\r\n\r\n").await;
        server.send("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        client.until("ok").await;
        drop((client, server));
        let closing = soon("the closing", || scene.world.spool().closing()).await;
        let attributes = closing.content.unwrap().attributes;
        let expected = v1::Attribute { name: "http_interim_dropped".to_owned(), value: b"103=1".to_vec() };
        assert!(attributes.contains(&expected), "{attributes:?}");
        assert!(closing.envelope.bytes_sent > 0 && closing.envelope.bytes_received > 0);
    });
}

#[test]
fn observing_lets_pass_what_would_be_denied_held_or_replaced_and_says_so() {
    play_with(Options { mode: v1::PolicyMode::Observe, ..Options::default() }, async |scene: &Scene| {
        let client = scene.http2().await;
        for text in ["deny this", "hold that", "replace those"] {
            let mut request = request("/echo", text);
            request.headers_mut().insert("authorization", http::HeaderValue::from_static("of-the-workload"));
            assert_eq!(client.send(request).await.unwrap().body, "done");
        }
        let kept = scene.origin.got().iter().all(|got| got.headers["authorization"] == "of-the-workload");
        assert!(kept, "{:?}", scene.origin.got());
        let reasons: Vec<_> =
            scene.world.spool().of_kind(v1::RecordKind::Started).into_iter().map(reason).collect();
        assert_eq!(
            reasons,
            [
                "observed only; would be denied: deny it is",
                "observed only; would be held: hold it is",
                "observed only; would be allowed with other headers: replace it is",
            ]
        );
    });
}

fn reason(started: verbatim_spool::Draft) -> String {
    started.content.and_then(|content| content.verdict).map(|verdict| verdict.reason).unwrap_or_default()
}
