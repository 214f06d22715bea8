use std::time::Duration;

use serde_json::json;
use verbatim_kube::Reach;

use crate::{
    Watching, pod,
    server::{Mood, Server},
    uid, until,
};

#[tokio::test]
async fn pods_are_listed_in_pages_and_then_watched() {
    let server = Server::start().await;
    for number in 0..120 {
        server.put(pod(number, &format!("web-{number}")));
    }
    let watching = Watching::start(&server).await;
    watching.until("all are known", |at| at.store.snapshot().len() == 120).await;
    watching.until("synced", |at| at.store.reach() == Reach::Synced).await;
    server.put(pod(500, "late"));
    watching.until("the late one is known", |at| at.name(500).is_some()).await;
    server.remove(&uid(500));
    server.put(pod(501, "late"));
    watching.until("the next of that name is known", |at| at.name(501).is_some()).await;
    assert_eq!(watching.name(500).as_deref(), Some("late"), "and the one that went is remembered");
    assert_eq!(server.lists(), 3, "{:?}", server.requests());
}

#[tokio::test]
async fn a_watch_that_is_hung_up_on_goes_on_where_it_was() {
    let server = Server::start().await;
    server.put(pod(1, "a"));
    let watching = Watching::start(&server).await;
    until("a watch", || server.watches() == 1).await;
    watching.until("synced", |at| at.store.reach() == Reach::Synced).await;
    server.bookmark();
    server.hang_up();
    server.put(pod(2, "b"));
    watching.until("what happened meanwhile is known", |at| at.name(2).is_some()).await;
    assert_eq!(server.lists(), 1, "nothing was listed anew");
}

#[tokio::test]
async fn an_api_server_that_comes_back_without_news_is_believed_again() {
    let server = Server::start().await;
    server.put(pod(1, "a"));
    let watching = Watching::start(&server).await;
    until("a watch", || server.watches() == 1).await;
    watching.until("synced", |at| at.store.reach() == Reach::Synced).await;
    server.mood(Mood::HangsUp);
    server.hang_up();
    watching.until("the loss is noticed", |at| at.store.reach() == Reach::Lost).await;
    server.mood(Mood::Well);
    watching.until("it is believed again", |at| at.store.reach() == Reach::Synced).await;
    assert_eq!(server.lists(), 1, "nothing was listed anew");
}

#[tokio::test]
async fn after_410_in_an_event_or_as_an_answer_everything_is_listed_anew() {
    for mood in [Mood::Well, Mood::GoneByStatus] {
        let server = Server::start().await;
        server.put(pod(1, "a"));
        server.put(pod(2, "b"));
        let watching = Watching::start(&server).await;
        until("a watch", || server.watches() == 1).await;
        watching.until("both are known", |at| at.name(1).is_some() && at.name(2).is_some()).await;
        server.mood(mood);
        server.remove(&uid(2));
        server.compact();
        server.put(pod(3, "c"));
        watching.until("the new one is known", |at| at.name(3).is_some()).await;
        assert!(server.lists() >= 2, "{mood:?}");
        assert!(watching.name(1).is_some());
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_read_loses_no_pod() {
    let server = Server::start().await;
    let watching = Watching::start(&server).await;
    until("a watch", || server.watches() == 1).await;
    // The version moves on, and whoever resumes from there never hears of the pod.
    server.say("{\"type\": \"ADDED\", \"object\": {\"metadata\": 7}}");
    server.put(pod(1, "a"));
    server.say("not even JSON");
    server.put(pod(2, "b"));
    watching.until("both are known", |at| at.name(1).is_some() && at.name(2).is_some()).await;
    assert!(server.lists() >= 2);
}

#[tokio::test]
async fn while_the_api_server_is_away_what_it_said_last_holds() {
    for mood in [Mood::HangsUp, Mood::Silent, Mood::Garbled, Mood::Endless] {
        let server = Server::start().await;
        server.put(pod(1, "a"));
        let watching = Watching::within(&server, Duration::from_secs(2)).await;
        watching.until("synced", |at| at.store.reach() == Reach::Synced).await;
        until("a watch", || server.watches() == 1).await;
        server.mood(mood);
        server.compact();
        watching.until("the loss is noticed", |at| at.store.reach() == Reach::Lost).await;
        assert_eq!(watching.name(1).as_deref(), Some("a"), "{mood:?}");
        server.put(pod(2, "b"));
        server.mood(Mood::Well);
        watching.until("it is back", |at| at.name(2).is_some()).await;
        watching.until("and believed", |at| at.store.reach() == Reach::Synced).await;
        assert_eq!(watching.name(1).as_deref(), Some("a"), "{mood:?}");
    }
}

#[tokio::test]
async fn an_api_server_that_lies_names_nobody_wrongly() {
    let server = Server::start().await;
    let elsewhere = {
        let mut pod = pod(1, "a");
        pod["spec"]["nodeName"] = json!("node-2");
        pod
    };
    let forging = {
        let mut pod = pod(2, "b");
        pod["spec"]["serviceAccountName"] = json!("x/sa/admin");
        pod
    };
    server.put(elsewhere);
    server.put(forging);
    server.put(pod(3, "c"));
    let watching = Watching::start(&server).await;
    watching.until("the honest one is known", |at| at.name(3).is_some()).await;
    assert_eq!((watching.name(1), watching.name(2)), (None, None));
    let mut other = pod(3, "c");
    other["spec"]["serviceAccountName"] = json!("admin");
    server.put(other);
    watching.until("two accounts of one pod are none", |at| at.name(3).is_none()).await;
}

#[tokio::test]
async fn a_pod_that_is_missed_is_asked_for() {
    let server = Server::start().await;
    let watching = Watching::start(&server).await;
    watching.until("synced", |at| at.store.reach() == Reach::Synced).await;
    until("a watch", || server.watches() == 1).await;
    // As a connection that died without a word: the server has the pod, and the event never comes.
    server.hush(pod(1, "a"));
    watching.store.want();
    watching.until("it is known", |at| at.name(1).is_some()).await;
}

#[tokio::test]
async fn a_thousand_pods_at_once_are_all_known() {
    let server = Server::start().await;
    let watching = Watching::start(&server).await;
    until("a watch", || server.watches() == 1).await;
    for number in 0..1000 {
        server.put(pod(number, &format!("web-{number}")));
    }
    watching.until("all are known", |at| at.store.snapshot().len() == 1000).await;
    for number in 0..1000 {
        assert_eq!(watching.name(number), Some(format!("web-{number}")));
    }
}
