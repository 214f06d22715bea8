//! Requests and connections that end before their answers.

use std::time::Duration;

use verbatim_api::v1;

use super::{Scene, play};
use crate::support::{
    origin::{call, soon},
    spool::each_start_has_one_end,
};

#[test]
fn a_request_that_its_client_resets_has_an_unknown_outcome() {
    play(async |scene: &Scene| {
        let client = scene.http2().await;
        let asking = tokio::spawn({
            let client = client.clone();
            async move { client.post("/never/x", "forget it").await }
        });
        soon("the request", || (scene.origin.bodies() == ["forget it"]).then_some(())).await;
        asking.abort();
        let story = ["started allowed forget it", "finished outcome_unknown"];
        soon("the end", || (scene.story() == story).then_some(())).await;
        assert_eq!(client.post("/echo", "next").await.unwrap().body, "done");
    });
}

#[test]
fn what_is_open_when_the_agent_drains_is_reset_and_recorded() {
    play(async |scene: &Scene| {
        let (first, second) = (scene.http1().await, scene.http2().await);
        let asking = [
            (first, "/never/1", "one"),
            (second.clone(), "/never/2", "two"),
            (second, "/echo", "hold three"),
        ]
        .map(|(client, path, text)| tokio::spawn(async move { client.post(path, text).await }));
        soon("the requests", || (scene.story().len() == 3 && scene.origin.got().len() == 2).then_some(()))
            .await;
        scene.world.shards.drain(Duration::ZERO).await;
        for asking in asking {
            assert!(asking.await.unwrap().is_err());
        }
        let mut ends = scene.story().split_off(3);
        ends.sort();
        let expected = [
            "decided abandoned",
            "finished not_forwarded",
            "finished outcome_unknown",
            "finished outcome_unknown",
        ];
        assert_eq!(ends, expected);
        each_start_has_one_end(scene.world.spool());
        assert!(scene.world.spool().closed());
    });
}

#[test]
fn an_answer_that_is_not_recorded_when_the_agent_drains_is_when_there_is_room_just_in_time() {
    play(async |scene: &Scene| {
        let (mut client, mut server) = scene.world.raw().await;
        client.send("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\none").await;
        server.until("one").await;
        let spool = scene.world.spool();
        spool.room_for(0);
        server.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
        let waits =
            soon("the answer waits for room", || Some(spool.waits()).filter(|waits| *waits > 0)).await;
        let room = async {
            soon("the end of its connection does", || (spool.waits() > waits).then_some(())).await;
            spool.room_for(100);
        };
        tokio::join!(scene.world.shards.drain(Duration::ZERO), room);
        assert_eq!(scene.story(), ["started allowed one", "finished ok"]);
        assert!(spool.closed());
    });
}

#[test]
fn an_end_that_finds_the_spool_full_is_recorded_when_there_is_room_while_others_go_on() {
    play(async |scene: &Scene| {
        let client = scene.http2().await;
        let asking = tokio::spawn({
            let client = client.clone();
            async move { client.post("/never/x", "forget it").await }
        });
        soon("the request", || (scene.origin.bodies() == ["forget it"]).then_some(())).await;
        scene.world.spool().room_for(0);
        asking.abort();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(scene.story(), ["started allowed forget it"]);
        scene.world.spool().room_for(100);
        let story = ["started allowed forget it", "finished outcome_unknown"];
        soon("the end", || (scene.story() == story).then_some(())).await;
        assert_eq!(client.post("/echo", "next").await.unwrap().body, "done");
    });
}

#[test]
fn a_request_that_is_cut_off_before_it_is_whole_is_recorded_when_a_part_of_it_went_on() {
    play(async |scene: &Scene| {
        let (mut client, mut server) = scene.world.raw().await;
        let part = "x".repeat(70_000);
        client.send(&format!("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n{part}")).await;
        server.until("xxx").await;
        drop(client);
        let story = soon("the end", || Some(scene.story()).filter(|story| story.len() == 2)).await;
        assert!(story[0].starts_with("started allowed xxx"), "{}", story[0].len());
        assert_eq!(story[1], "finished not_forwarded");
        let finished = scene.world.spool().of_kind(v1::RecordKind::Finished).remove(0);
        assert_eq!(finished.content.unwrap().note, "the request ended before the command was whole");
    });
}

#[test]
fn messages_of_a_call_are_commands_of_their_own_and_end_with_it() {
    play(async |scene: &Scene| {
        let client = scene.http2().await;
        let (messages, request) = call();
        let answered = tokio::spawn(async move { client.send(request).await });
        for (n, message) in ["one\n", "two\n", "three\n"].into_iter().enumerate() {
            messages.send(message).unwrap();
            soon("the message", || (scene.story().len() == n + 1).then_some(())).await;
        }
        drop(messages);
        assert_eq!(answered.await.unwrap().unwrap().body, "done");
        let expected = [
            "started allowed one",
            "started allowed two",
            "started allowed three",
            "finished ok",
            "finished ok",
            "finished ok",
        ];
        assert_eq!(scene.story(), expected);
        assert_eq!(scene.origin.bodies(), ["one\ntwo\nthree\n"]);
        each_start_has_one_end(scene.world.spool());
    });
}

#[test]
fn a_server_that_goes_away_leaves_unknown_outcomes() {
    play(async |scene: &Scene| {
        let (mut client, mut server) = scene.world.raw().await;
        client.send("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\none").await;
        server.until("one").await;
        drop(server);
        let story = ["started allowed one", "finished outcome_unknown"];
        soon("the end", || (scene.story() == story).then_some(())).await;
        soon("the closing", || scene.world.spool().closing()).await;
    });
}

#[test]
fn a_request_whose_server_has_gone_before_it_was_sent_is_not_forwarded() {
    play(async |scene: &Scene| {
        let (mut client, server) = scene.world.raw().await;
        client.send("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nhold one").await;
        soon("the hold", || scene.world.policy.holds.lock().unwrap().first().map(drop)).await;
        drop(server);
        // When the shard has taken another connection it has seen the end of this one.
        let _other = scene.world.raw().await;
        scene.world.answer_hold(true);
        let story = ["started held hold one", "decided allowed", "finished not_forwarded"];
        soon("the end", || (scene.story() == story).then_some(())).await;
        each_start_has_one_end(scene.world.spool());
    });
}
