//! An API server of a few objects: lists in pages, watches from a version on, forgets versions, and misbehaves when
//! it is told to.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode, body::Frame, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinHandle,
};

/// What it does instead of what it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Nothing.
    #[default]
    Well,
    /// Takes connections and closes them.
    HangsUp,
    /// Answers nothing.
    Silent,
    /// A watch is answered with 410 itself, not in an event.
    GoneByStatus,
    /// Lists do not end.
    Endless,
    /// Lists are no JSON.
    Garbled,
}

#[derive(Default)]
struct State {
    pods: BTreeMap<String, Value>,
    version: u64,
    /// Versions up to here are forgotten.
    compacted: u64,
    events: Vec<(u64, String)>,
    watchers: Vec<UnboundedSender<Bytes>>,
    objects: HashMap<String, (u16, Value)>,
    requests: Vec<String>,
    mood: Mood,
}

#[derive(Clone)]
pub(crate) struct Server {
    state: Arc<Mutex<State>>,
    pub(crate) port: u16,
    _accepting: Arc<Accepting>,
}

struct Accepting(JoinHandle<()>);

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let port = listener.local_addr().expect("address").port();
        let state = Arc::new(Mutex::new(State { version: 100, ..State::default() }));
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&shared)));
            }
        });
        Self { state, port, _accepting: Arc::new(Accepting(accepting)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds or changes a pod.
    pub(crate) fn put(&self, pod: Value) {
        self.lock().change("MODIFIED", pod);
    }

    /// The same, without a word to watchers.
    pub(crate) fn hush(&self, pod: Value) {
        let mut state = self.lock();
        let watchers = std::mem::take(&mut state.watchers);
        state.change("MODIFIED", pod);
        state.watchers = watchers;
    }

    pub(crate) fn remove(&self, uid: &str) {
        let mut state = self.lock();
        if let Some(pod) = state.pods.get(uid).cloned() {
            state.change("DELETED", pod);
        }
    }

    /// Sends watchers a line of its own.
    pub(crate) fn say(&self, line: &str) {
        self.lock().tell(line);
    }

    pub(crate) fn bookmark(&self) {
        let mut state = self.lock();
        state.version += 1;
        let version = state.version.to_string();
        let event = json!({"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1",
            "metadata": {"resourceVersion": version}}});
        state.tell(&event.to_string());
    }

    /// Forgets all versions up to now, and ends all watches.
    pub(crate) fn compact(&self) {
        let mut state = self.lock();
        state.version += 1;
        state.compacted = state.version;
        state.events.clear();
        state.watchers.clear();
    }

    pub(crate) fn hang_up(&self) {
        self.lock().watchers.clear();
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    /// What a path answers.
    pub(crate) fn answer(&self, path: &str, status: u16, answer: Value) {
        self.lock().objects.insert(path.to_owned(), (status, answer));
    }

    /// Paths with queries, in order.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    pub(crate) fn lists(&self) -> usize {
        let pods = |path: &&String| path.starts_with("/api/v1/pods?") && !path.contains("watch=true");
        self.requests().iter().filter(pods).count()
    }

    pub(crate) fn watches(&self) -> usize {
        self.requests().iter().filter(|path| path.contains("watch=true")).count()
    }
}

impl State {
    fn change(&mut self, kind: &str, mut pod: Value) {
        self.version += 1;
        pod["metadata"]["resourceVersion"] = json!(self.version.to_string());
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let line = json!({"type": kind, "object": pod}).to_string();
        if kind == "DELETED" {
            self.pods.remove(&uid);
        } else {
            self.pods.insert(uid, pod);
        }
        self.events.push((self.version, line.clone()));
        self.tell(&line);
    }

    fn tell(&mut self, line: &str) {
        let line = Bytes::from(format!("{line}\n"));
        self.watchers.retain(|watcher| watcher.send(line.clone()).is_ok());
    }
}

async fn serve(socket: TcpStream, state: Arc<Mutex<State>>) {
    if behaves(&state).await.is_err() {
        return;
    }
    let service = service_fn(|request| {
        let state = Arc::clone(&state);
        async move {
            // Connections are used again.
            behaves(&state).await?;
            Ok::<_, std::io::Error>(respond(&request, &state))
        }
    });
    // A client that goes is no error.
    http1::Builder::new().serve_connection(TokioIo::new(socket), service).await.ok();
}

/// An error hangs up.
async fn behaves(state: &Mutex<State>) -> std::io::Result<()> {
    let mood = state.lock().unwrap_or_else(PoisonError::into_inner).mood;
    match mood {
        Mood::HangsUp => Err(std::io::ErrorKind::ConnectionAborted.into()),
        Mood::Silent => std::future::pending().await,
        _ => Ok(()),
    }
}

fn respond(request: &Request<Incoming>, state: &Mutex<State>) -> Response<Body> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let path = request.uri().path().to_owned();
    let query: HashMap<String, String> = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    state.requests.push(request.uri().to_string());
    if path != "/api/v1/pods" {
        let missing = (404, status(404, "NotFound"));
        let (code, answer) = state.objects.get(&path).cloned().unwrap_or(missing);
        return json(code, &answer);
    }
    assert_eq!(query.get("fieldSelector").map(String::as_str), Some("spec.nodeName%3Dnode-1"));
    let number = |name: &str| query.get(name).and_then(|value| value.parse::<u64>().ok());
    if query.contains_key("watch") {
        return watch(&mut state, number("resourceVersion").unwrap_or_default());
    }
    match state.mood {
        Mood::Endless => return text(Bytes::from(vec![b' '; 40 << 20])),
        Mood::Garbled => return text(Bytes::from_static(b"<html>not what you think</html>")),
        _ => {}
    }
    let from = query.get("continue").and_then(|from| from.parse().ok()).unwrap_or(0);
    let most = number("limit").and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let items: Vec<&Value> = state.pods.values().skip(from).take(most).collect();
    let more = state.pods.len() > from + items.len();
    let next = if more { (from + items.len()).to_string() } else { String::new() };
    let metadata = json!({"resourceVersion": state.version.to_string(), "continue": next});
    json(200, &json!({"apiVersion": "v1", "kind": "PodList", "metadata": metadata, "items": items}))
}

fn watch(state: &mut State, from: u64) -> Response<Body> {
    let (sender, receiver) = unbounded_channel();
    if from < state.compacted {
        if state.mood == Mood::GoneByStatus {
            return json(410, &status(410, "Expired"));
        }
        let event = json!({"type": "ERROR", "object": status(410, "Expired")});
        sender.send(Bytes::from(format!("{event}\n"))).ok();
    } else {
        for (_, line) in state.events.iter().filter(|(version, _)| *version > from) {
            sender.send(Bytes::from(format!("{line}\n"))).ok();
        }
        state.watchers.push(sender);
    }
    let lines = stream::unfold(receiver, |mut receiver| async {
        let line = receiver.recv().await?;
        Some((Ok(Frame::data(line)), receiver))
    });
    Response::new(StreamBody::new(lines).boxed_unsync())
}

pub(crate) fn status(code: u16, reason: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": format!("the server says {reason}"), "metadata": {}})
}

fn json(code: u16, answer: &Value) -> Response<Body> {
    let mut response = text(Bytes::from(answer.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).expect("status");
    response
}

fn text(bytes: Bytes) -> Response<Body> {
    Response::new(Full::new(bytes).boxed_unsync())
}
