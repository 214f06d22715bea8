//! Denied, held, expired and abandoned requests, and replaced headers.

use std::time::Duration;

use verbatim_api::v1;

use super::{Scene, play, play_with};
use crate::support::{
    Options, SECRET,
    origin::{call, request, soon},
    spool::each_start_has_one_end,
};

#[test]
fn a_denied_request_is_answered_here_and_its_client_goes_on() {
    play(async |scene: &Scene| {
        for version in [1, 2] {
            let client = if version == 1 { scene.http1().await } else { scene.http2().await };
            let before = scene.story().len();
            let answered = client.post("/echo", "deny this").await.unwrap();
            assert_eq!((answered.status, answered.body.as_str()), (403, "refused deny it is"));
            // A connection of HTTP/1.1 is closed after an answer of our own.
            let client = if version == 1 { scene.http1().await } else { client };
            assert_eq!(client.post("/echo", "next").await.unwrap().body, "done");
            let expected = [
                "started denied deny this",
                "finished not_forwarded",
                "injected",
                "started allowed next",
                "finished ok",
            ];
            assert_eq!(scene.story()[before..], expected);
        }
        assert_eq!(scene.origin.bodies(), ["next", "next"]);
        let injected = &scene.world.spool().of_kind(v1::RecordKind::Injected)[0].envelope;
        let expected = v1::Injected { toward: v1::Toward::Workload.into(), bytes: 18 };
        assert_eq!(injected.detail, Some(v1::envelope::Detail::Injected(expected)));
        assert_eq!(injected.command_id.len(), 16);
        assert_eq!(scene.world.shards.stats().denied, 2);
    });
}

#[test]
fn a_message_of_a_call_is_denied_in_trailers_only_and_the_call_upstream_is_reset() {
    play(async |scene: &Scene| {
        let client = scene.http2().await;
        let (messages, request) = call();
        let answered = tokio::spawn(async move { client.send(request).await });
        messages.send("first\n").unwrap();
        soon("the first message", || (scene.origin.bodies() == ["first\n"]).then_some(())).await;
        messages.send("deny second\n").unwrap();
        let answered = answered.await.unwrap().unwrap();
        assert_eq!((answered.status, answered.body.as_str()), (200, ""));
        assert_eq!(answered.headers["grpc-status"], "7");
        assert_eq!(scene.origin.bodies(), ["first\n"]);
        let story = soon("the ends", || Some(scene.story()).filter(|story| story.len() == 5)).await;
        assert_eq!(story[..2], ["started allowed first", "started denied deny second"]);
        let mut rest = story[2..].to_vec();
        rest.sort();
        assert_eq!(rest, ["finished not_forwarded", "finished outcome_unknown", "injected"]);
        each_start_has_one_end(scene.world.spool());
    });
}

#[test]
fn one_request_is_held_while_a_hundred_others_on_its_connection_pass() {
    play(async |scene: &Scene| {
        let client = scene.http2().await;
        let held = tokio::spawn({
            let client = client.clone();
            async move { client.post("/echo", "hold me").await }
        });
        soon("the hold", || (scene.story() == ["started held hold me"]).then_some(())).await;
        for round in 0..10 {
            let others = (0..10).map(|n| {
                let client = client.clone();
                tokio::spawn(async move { client.post("/echo", &format!("other {round} {n}")).await })
            });
            for other in others.collect::<Vec<_>>() {
                assert_eq!(other.await.unwrap().unwrap().body, "done");
            }
        }
        assert!(!held.is_finished());
        assert!(!scene.origin.bodies().contains(&"hold me".to_owned()), "went on while it was held");
        scene.world.answer_hold(true);
        assert_eq!(held.await.unwrap().unwrap().body, "done");
        let story = scene.story();
        assert_eq!(story.len(), 1 + 200 + 2);
        assert_eq!(story[201..], ["decided allowed", "finished ok"]);
        each_start_has_one_end(scene.world.spool());
    });
}

#[test]
fn a_held_request_that_a_person_refuses_or_nobody_decides_is_answered() {
    play(async |scene: &Scene| {
        for client in [scene.http1().await, scene.http2().await] {
            let answered = tokio::spawn(async move { client.post("/echo", "hold me").await });
            soon("the hold", || scene.world.policy.holds.lock().unwrap().first().map(drop)).await;
            scene.world.answer_hold(false);
            assert_eq!(answered.await.unwrap().unwrap().body, "refused looked at it");
        }
        assert_eq!(scene.origin.got().len(), 0);
    });
    let options = Options { deadline: Duration::from_millis(50), ..Options::default() };
    play_with(options, async |scene: &Scene| {
        let client = scene.http2().await;
        let answered = client.post("/echo", "hold me").await.unwrap();
        assert_eq!((answered.status, answered.body.as_str()), (403, "refused nobody decided in time"));
        let expected = ["started held hold me", "decided expired", "finished not_forwarded", "injected"];
        assert_eq!(scene.story(), expected);
        drop(scene.world.policy.holds.lock().unwrap().pop());
    });
}

#[test]
fn a_held_request_that_its_client_resets_is_abandoned_and_its_connection_goes_on() {
    play(async |scene: &Scene| {
        let client = scene.http2().await;
        let held = tokio::spawn({
            let client = client.clone();
            async move { client.post("/echo", "hold me").await }
        });
        soon("the hold", || (scene.story() == ["started held hold me"]).then_some(())).await;
        held.abort();
        let abandoned = ["started held hold me", "decided abandoned", "finished not_forwarded"];
        soon("the end", || (scene.story() == abandoned).then_some(())).await;
        let decided = &scene.world.spool().of_kind(v1::RecordKind::Decided)[0];
        let reason = decided.content.clone().unwrap().verdict.unwrap().reason;
        assert_eq!(reason, "the client has reset the request");
        assert_eq!(client.post("/echo", "next").await.unwrap().body, "done");
        assert_eq!(scene.origin.bodies(), ["next"]);
    });
}

#[test]
fn a_held_request_whose_client_closes_the_connection_is_abandoned() {
    play(async |scene: &Scene| {
        let client = scene.http1().await;
        let held = tokio::spawn(async move { client.post("/echo", "hold me").await });
        soon("the hold", || (scene.story() == ["started held hold me"]).then_some(())).await;
        held.abort();
        let abandoned = ["started held hold me", "decided abandoned", "finished not_forwarded"];
        soon("the end", || (scene.story() == abandoned).then_some(())).await;
        assert_eq!(scene.origin.got().len(), 0);
    });
}

#[test]
fn a_policy_replaces_a_header_and_its_value_is_in_no_record() {
    play(async |scene: &Scene| {
        for client in [scene.http1().await, scene.http2().await] {
            let mut request = request("/echo", "replace mine");
            request.headers_mut().insert("authorization", http::HeaderValue::from_static("of-the-workload"));
            assert_eq!(client.send(request).await.unwrap().body, "done");
        }
        let got = scene.origin.got();
        for got in &got {
            let values: Vec<_> = got.headers.get_all("authorization").iter().collect();
            assert_eq!(values, [SECRET]);
        }
        assert_eq!(got.len(), 2);
        let injected = scene.world.spool().of_kind(v1::RecordKind::Injected);
        let bytes = ("authorization".len() + SECRET.len()) as u64;
        let expected = v1::Injected { toward: v1::Toward::Server.into(), bytes };
        assert_eq!(injected[0].envelope.detail, Some(v1::envelope::Detail::Injected(expected)));
        assert_eq!(scene.story()[..2], ["started allowed replace mine", "injected"]);
        let all = format!("{:?}", scene.world.spool().records());
        let hidden = format!("{:?}", SECRET.as_bytes());
        assert!(!all.contains(SECRET) && !all.contains(hidden.trim_matches(['[', ']'])), "{all}");
    });
}

#[test]
fn headers_cannot_be_replaced_when_they_have_gone_on_and_the_record_says_so() {
    play(async |scene: &Scene| {
        let client = scene.http2().await;
        let (messages, request) = call();
        let answered = tokio::spawn(async move { client.send(request).await });
        messages.send("replace mine\n").unwrap();
        drop(messages);
        assert_eq!(answered.await.unwrap().unwrap().status, 200);
        let finished = &scene.world.spool().of_kind(v1::RecordKind::Finished)[0];
        let note = finished.content.clone().unwrap().note;
        assert_eq!(note, "the request's head had gone on: no header was replaced");
    });
}
