//! Lists, watches and questions against an API server of our own, which hangs up, forgets, garbles and lies.

mod lookups;
mod metadata;
mod server;
mod watching;

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use verbatim_kube::{Keep, Known, Pace, Store, follow};

use server::Server;

/// Nothing here is a measurement: what is waited for comes, or the test has failed.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn uid(number: u32) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

pub(crate) fn pod(number: u32, name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": uid(number), "labels": {"app": name}},
        "spec": {"nodeName": "node-1", "serviceAccountName": "checkout",
            "containers": [{"name": "app", "image": "app:1"}]},
    })
}

/// A watch that runs until it is dropped.
pub(crate) struct Watching {
    pub(crate) store: Arc<Store>,
    task: JoinHandle<()>,
    folder: std::path::PathBuf,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

impl Watching {
    pub(crate) async fn start(server: &Server) -> Self {
        Self::within(server, PATIENCE).await
    }

    /// The same, which waits so long for an answer.
    pub(crate) async fn within(server: &Server, patience: Duration) -> Self {
        let folder =
            std::env::temp_dir().join(format!("verbatim-kube-{}-{}", std::process::id(), server.port));
        std::fs::create_dir_all(&folder).expect("folder");
        let path = folder.join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{}", server.port)}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(&path, text.to_string()).expect("written");
        let client = verbatim_kube::patient_client(Some(&path), patience).await.expect("client");
        let store = Store::new(|| {});
        let keep = Keep { node: "node-1".into(), labels: vec!["app".into()] };
        let pace = Pace {
            list: patience,
            early: (Duration::from_millis(50), Duration::from_secs(1)),
            fresh: Duration::from_millis(200),
            tick: Duration::from_millis(50),
            holds: Duration::from_millis(500),
        };
        let task = tokio::spawn(follow(client, keep, pace, Arc::clone(&store)));
        Self { store, task, folder }
    }

    pub(crate) fn known(&self, number: u32) -> Option<Arc<Known>> {
        self.store.snapshot().get(&uid(number)).cloned()
    }

    pub(crate) fn name(&self, number: u32) -> Option<String> {
        self.known(number).map(|known| known.pod.name.clone())
    }

    /// Waits until it holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        until(what, || holds(self)).await;
    }
}

pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}
