//! As much of an API server as the issuer asks, over HTTP: what it says can be made to be a lie, an error or nothing.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

/// Everything that is there, by its path.
#[derive(Default)]
struct Objects {
    by_path: BTreeMap<String, Value>,
    tokens: BTreeMap<String, Value>,
    /// What has happened: version, path, event.
    log: Vec<(u64, String, Value)>,
    /// Paths that are answered by this status instead.
    failing: BTreeMap<String, u16>,
}

pub(crate) struct Fake {
    objects: Mutex<Objects>,
    version: AtomicU64,
    changed: watch::Sender<()>,
    address: SocketAddr,
    /// How often each bundle was written.
    pub(crate) applied: AtomicU64,
    pub(crate) reviews: AtomicU64,
}

impl Fake {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let fake = Arc::new(Self {
            objects: Mutex::default(),
            version: AtomicU64::new(1),
            changed: watch::channel(()).0,
            address: listener.local_addr().expect("address"),
            applied: AtomicU64::new(0),
            reviews: AtomicU64::new(0),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&fake));
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    pub(crate) fn client(&self) -> Client {
        let mut config = Config::new(format!("http://{}", self.address).parse().expect("address"));
        config.default_namespace = "verbatim".to_owned();
        Client::try_from(config).expect("client")
    }

    /// Puts an object there, as somebody else would.
    pub(crate) fn put(&self, path: &str, mut object: Value) -> Value {
        let event = if self.get(path).is_some() { "MODIFIED" } else { "ADDED" };
        let version = self.version.fetch_add(1, Ordering::Relaxed) + 1;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let parts: Vec<_> = path.split('/').collect();
        object["metadata"]["name"] = json!(parts.last());
        if let Some(at) =
            parts.iter().position(|part| *part == "namespaces").filter(|at| parts.len() > at + 2)
        {
            object["metadata"]["namespace"] = json!(parts[at + 1]);
        }
        let mut objects = self.objects.lock().expect("objects");
        objects.by_path.insert(path.to_owned(), object.clone());
        objects.log.push((version, path.to_owned(), json!({"type": event, "object": object})));
        drop(objects);
        self.changed.send_replace(());
        object
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.objects.lock().expect("objects").by_path.get(path).cloned()
    }

    pub(crate) fn remove(&self, path: &str) {
        let version = self.version.fetch_add(1, Ordering::Relaxed) + 1;
        let mut objects = self.objects.lock().expect("objects");
        if let Some(mut object) = objects.by_path.remove(path) {
            object["metadata"]["resourceVersion"] = json!(version.to_string());
            objects.log.push((version, path.to_owned(), json!({"type": "DELETED", "object": object})));
        }
        drop(objects);
        self.changed.send_replace(());
    }

    /// What a review of this token says.
    pub(crate) fn token(&self, token: &str, status: Value) {
        self.objects.lock().expect("objects").tokens.insert(token.to_owned(), status);
    }

    /// Answers a path by this status; by what is there where it is 200.
    pub(crate) fn fail(&self, path: &str, status: u16) {
        let mut objects = self.objects.lock().expect("objects");
        match status {
            200 => objects.failing.remove(path),
            status => objects.failing.insert(path.to_owned(), status),
        };
    }
}

fn status(code: u16, reason: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason,
        "reason": reason, "code": code});
    (StatusCode::from_u16(code).expect("a status"), axum::Json(body)).into_response()
}

fn ok(object: &Value) -> Response {
    axum::Json(object).into_response()
}

/// Whether an object is in a list, and what of its path must be.
fn listed(list: &str, path: &str, query: &str) -> bool {
    let kind = list.rsplit('/').next().unwrap_or_default();
    let parts: Vec<_> = path.split('/').collect();
    let here = parts.len() >= 2 && parts[parts.len() - 2] == kind;
    let name = query.split('&').find_map(|part| part.strip_prefix("fieldSelector=metadata.name%3D"));
    here && name.is_none_or(|name| parts.last() == Some(&name))
}

async fn answer(State(fake): State<Arc<Fake>>, method: Method, uri: Uri, body: Bytes) -> Response {
    let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
    if let Some(code) = fake.objects.lock().expect("objects").failing.get(&path) {
        return status(*code, "made to fail");
    }
    let sent: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    match method {
        Method::GET if query.contains("watch=true") => watched(fake, path, query),
        Method::GET => {
            if let Some(object) = fake.get(&path) {
                return ok(&object);
            }
            let plural =
                ["/namespaces", "/configmaps", "/secrets"].iter().any(|plural| path.ends_with(plural));
            if !plural {
                return status(404, "NotFound");
            }
            let objects = fake.objects.lock().expect("objects");
            let items: Vec<_> = objects
                .by_path
                .iter()
                .filter(|(one, _)| listed(&path, one, &query))
                .map(|(_, one)| one)
                .collect();
            let version = fake.version.load(Ordering::Relaxed).to_string();
            ok(
                &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
            )
        }
        Method::POST if path.ends_with("/tokenreviews") => {
            fake.reviews.fetch_add(1, Ordering::Relaxed);
            let token = sent["spec"]["token"].as_str().unwrap_or_default();
            let found = fake.objects.lock().expect("objects").tokens.get(token).cloned();
            let found =
                found.unwrap_or_else(|| json!({"authenticated": false, "error": "invalid bearer token"}));
            let mut answer = sent.clone();
            answer["status"] = found;
            ok(&answer)
        }
        Method::POST => {
            let path = format!("{path}/{}", sent["metadata"]["name"].as_str().unwrap_or_default());
            if fake.get(&path).is_some() { status(409, "AlreadyExists") } else { ok(&fake.put(&path, sent)) }
        }
        Method::PUT => {
            let there = fake.get(&path).unwrap_or_default();
            if there["metadata"]["resourceVersion"] == sent["metadata"]["resourceVersion"] {
                ok(&fake.put(&path, sent))
            } else {
                status(409, "Conflict")
            }
        }
        Method::PATCH => {
            fake.applied.fetch_add(1, Ordering::Relaxed);
            let there = fake.get(&path);
            if let Some(webhooks) = sent["webhooks"].as_array() {
                let mut there = there.unwrap_or_default();
                for webhook in there["webhooks"].as_array_mut().into_iter().flatten() {
                    let name = webhook["name"].clone();
                    for patch in webhooks.iter().filter(|patch| patch["name"] == name) {
                        webhook["clientConfig"]["caBundle"] = patch["clientConfig"]["caBundle"].clone();
                    }
                }
                return ok(&fake.put(&path, there));
            }
            // What applies without changing anything gets no new version.
            match there {
                Some(there) if there["data"] == sent["data"] && there["binaryData"] == sent["binaryData"] => {
                    ok(&there)
                }
                _ => ok(&fake.put(&path, sent)),
            }
        }
        _ => status(405, "MethodNotAllowed"),
    }
}

fn watched(fake: Arc<Fake>, path: String, query: String) -> Response {
    let from = query
        .split('&')
        .find_map(|part| part.strip_prefix("resourceVersion="))
        .and_then(|from| from.parse().ok());
    let from: u64 = from.unwrap_or_default();
    let changed = fake.changed.subscribe();
    let start = (fake, changed, path, query, from);
    let events = stream::unfold(start, |(fake, mut changed, path, query, from)| async move {
        loop {
            let next = {
                let objects = fake.objects.lock().expect("objects");
                let next = objects
                    .log
                    .iter()
                    .find(|(version, one, _)| *version > from && listed(&path, one, &query));
                next.map(|(version, _, event)| (*version, format!("{event}\n")))
            };
            if let Some((version, line)) = next {
                return Some((Ok::<_, Infallible>(line), (fake, changed, path, query, version)));
            }
            changed.changed().await.ok()?;
        }
    });
    Body::from_stream(events).into_response()
}
