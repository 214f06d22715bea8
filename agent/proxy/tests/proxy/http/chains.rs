//! Jobs that go on beyond the request that began them.

use verbatim_api::v1;

use super::{Scene, play, play_with};
use crate::support::{
    Options,
    origin::{Client, request, soon},
};

fn goes_on_with(name: &'static str, path: &str, text: &str) -> http::Request<crate::support::origin::Sent> {
    let mut request = request(path, text);
    request.headers_mut().insert("x-goes-on-with", http::HeaderValue::from_static(name));
    request
}

#[test]
fn a_job_is_followed_across_connections_and_shards_and_its_end_is_said_of_what_began_it() {
    play_with(Options { shards: 2, ..Options::default() }, async |scene: &Scene| {
        let (first, second) = (Client::http1(&scene.world, 0).await, Client::http2(&scene.world, 1).await);
        first.post("/begin/p:us.j", "begin it").await.unwrap();
        assert_eq!(scene.story(), ["started allowed begin it", "finished accepted"]);
        second.send(goes_on_with("p:.j", "/echo", "is it done")).await.unwrap();
        second.send(goes_on_with("p:us.j", "/end/p:us.j", "and now")).await.unwrap();
        second.send(goes_on_with("p:us.j", "/end/p:us.j", "once more")).await.unwrap();
        let other = &scene.world.spools[1];
        let expected = [
            "started allowed is it done",
            "finished ok",
            "started allowed and now",
            "progress",
            "finished ok",
            "started allowed once more",
            "finished ok",
        ];
        assert_eq!(other.story(), expected, "the job ends once");
        let parents: Vec<_> = other
            .of_kind(v1::RecordKind::Started)
            .into_iter()
            .map(|r| r.envelope.parent_command_id)
            .collect();
        let progress = other.of_kind(v1::RecordKind::Progress).remove(0);
        let began = progress.envelope.command_id.clone();
        assert_eq!(began.first(), Some(&0xf0), "of the first shard");
        assert_eq!(parents, [began.clone(), began.clone(), began]);
        let envelope = &progress.envelope;
        assert_eq!((envelope.status(), envelope.rows), (v1::Status::Ok, Some(3)));
        assert_eq!(envelope.operation(), v1::Operation::HttpRequest);
        assert!(envelope.duration_nanos > 0);
        assert_eq!(progress.content.unwrap().attributes[0].value, b"10");
        let shown = scene.world.seen.summaries.lock().unwrap().clone();
        assert!(shown.iter().any(|line| line.statement == b"begin it" && line.rows == Some(3)), "{shown:?}");
    });
}

#[test]
fn what_nobody_remembers_has_no_parent_and_no_end() {
    play(async |scene: &Scene| {
        let client = scene.http2().await;
        client.send(goes_on_with("p:us.gone", "/end/p:us.gone", "is it done")).await.unwrap();
        soon("the end", || (scene.story() == ["started allowed is it done", "finished ok"]).then_some(()))
            .await;
        assert!(
            scene.world.spool().of_kind(v1::RecordKind::Started)[0].envelope.parent_command_id.is_empty()
        );
    });
}

#[test]
fn the_end_of_a_job_waits_for_room_and_is_recorded_once() {
    play(async |scene: &Scene| {
        let client = scene.http2().await;
        client.post("/begin/p:us.j", "begin it").await.unwrap();
        // For the start of the next request, but not for what its answer says of the job.
        scene.world.spool().room_for(1);
        let asking = tokio::spawn(async move { client.post("/end/p:us.j", "and now").await });
        soon("the start", || (scene.story().len() == 3).then_some(())).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert!(!asking.is_finished(), "answered, and the job's end is not recorded");
        scene.world.spool().room_for(100);
        asking.await.unwrap().unwrap();
        assert_eq!(scene.story()[3..], ["progress", "finished ok"]);
    });
}
