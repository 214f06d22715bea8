//! A pair between two real sockets, and exchanges that write down what they are shown.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, request, response};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::{JoinHandle, LocalSet},
    time::timeout,
};
use verbatim_http::{
    Ended, HttpConfig, Version,
    seam::{Cut, Exchange, Exchanges, Step, Violation},
    serve,
};

/// Long enough for a machine that is busy; nothing is asserted about it but that it does not run out.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) mod frames;
pub(crate) mod scripted;

/// Runs a test on one thread, as a shard does.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    LocalSet::new().block_on(&runtime, async {
        timeout(PATIENCE, test).await.expect("nothing hangs");
    });
}

/// What one exchange was shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) request: Vec<u8>,
    pub(crate) request_ended: bool,
    pub(crate) request_trailers: Option<HeaderMap>,
    pub(crate) status: Option<u16>,
    pub(crate) response_headers: HeaderMap,
    pub(crate) response: Vec<u8>,
    pub(crate) response_ended: bool,
    pub(crate) response_trailers: Option<HeaderMap>,
    pub(crate) cut: Option<Cut>,
}

/// What the exchanges of a connection were shown, and what holds them.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) exchanges: RefCell<Vec<Rc<RefCell<Seen>>>>,
    pub(crate) violations: RefCell<Vec<Violation>>,
    pub(crate) interim: RefCell<Vec<u16>>,
    gate: Rc<Gate>,
    unrecorded: Rc<Gate>,
}

#[derive(Default)]
struct Gate {
    open: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl Gate {
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.open.get() {
            return Poll::Ready(());
        }
        self.wakers.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    }

    fn open(&self) {
        self.open.set(true);
        for waker in self.wakers.take() {
            waker.wake();
        }
    }
}

impl Recorder {
    pub(crate) fn seen(&self, index: usize) -> Seen {
        self.exchanges.borrow().get(index).expect("an exchange").borrow().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.exchanges.borrow().len()
    }

    /// Lets go what `/hold` holds.
    pub(crate) fn release(&self) {
        self.gate.open();
    }

    /// Has what `/slow-record` was shown be recorded.
    pub(crate) fn record(&self) {
        self.unrecorded.open();
    }

    pub(crate) fn violation(&self, part: &str) -> Option<Violation> {
        self.violations.borrow().iter().find(|violation| violation.what.contains(part)).cloned()
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, so: impl Fn(&Self) -> bool) {
        while !so(self) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

pub(crate) struct Recording {
    seen: Rc<RefCell<Seen>>,
    mode: Mode,
    steps: VecDeque<Step>,
    held: u64,
    gate: Rc<Gate>,
    unrecorded: Rc<Gate>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Everything waits for [`Recorder::release`].
    Hold,
    /// The head goes on with the last byte of the body.
    Whole,
    /// The head goes on, each piece of the body by itself, then the end.
    Pieces,
    Deny,
    DenyGrpc,
    /// The head and ten bytes go on, the rest is denied.
    DenyLate,
    Reset,
    SlowRecord,
    Unrecordable,
}

impl Exchanges for Recorder {
    type Exchange = Recording;

    fn exchange(&self, head: &request::Parts) -> Recording {
        let seen = Rc::new(RefCell::new(Seen {
            method: head.method.to_string(),
            uri: head.uri.to_string(),
            ..Seen::default()
        }));
        self.exchanges.borrow_mut().push(Rc::clone(&seen));
        let replaced = head
            .headers
            .contains_key("x-replace")
            .then(|| (HeaderName::from_static("authorization"), HeaderValue::from_static("Bearer replaced")));
        let pass = || Step::Head(replaced.clone().into_iter().collect());
        let (mode, steps) = match head.uri.path() {
            "/hold" => (Mode::Hold, vec![pass(), Step::Rest]),
            "/whole" => (Mode::Whole, vec![pass()]),
            "/pieces" => (Mode::Pieces, vec![pass()]),
            "/deny" => (Mode::Deny, vec![]),
            "/deny-grpc" => (Mode::DenyGrpc, vec![]),
            "/deny-late" => (Mode::DenyLate, vec![pass(), Step::Body(10)]),
            "/reset" => (Mode::Reset, vec![]),
            "/slow-record" => (Mode::SlowRecord, vec![pass(), Step::Rest]),
            "/unrecordable" => (Mode::Unrecordable, vec![pass(), Step::Rest]),
            _ => (Mode::Pass, vec![pass(), Step::Rest]),
        };
        Recording {
            seen,
            mode,
            steps: steps.into(),
            held: 0,
            gate: Rc::clone(&self.gate),
            unrecorded: Rc::clone(&self.unrecorded),
        }
    }

    fn violation(&self, violation: Violation) {
        self.violations.borrow_mut().push(violation);
    }

    fn interim_dropped(&self, status: u16) {
        self.interim.borrow_mut().push(status);
    }
}

impl Exchange for Recording {
    fn request(&mut self, bytes: &Bytes) {
        self.held += bytes.len() as u64;
        self.seen.borrow_mut().request.extend_from_slice(bytes);
        if self.mode == Mode::Pieces {
            self.steps.push_back(Step::Body(bytes.len() as u64));
        }
    }

    fn request_end(&mut self, trailers: Option<&HeaderMap>) {
        let mut seen = self.seen.borrow_mut();
        assert!(!seen.request_ended, "a request ends once");
        seen.request_ended = true;
        seen.request_trailers = trailers.cloned();
        match self.mode {
            Mode::Whole => self.steps.extend([Step::Body(self.held), Step::End]),
            Mode::Pieces => self.steps.push_back(Step::End),
            Mode::Deny => {
                let answer = Response::builder().status(StatusCode::FORBIDDEN).body(Bytes::from("denied"));
                self.steps.push_back(Step::Answer(answer.expect("answer")));
            }
            Mode::DenyGrpc => {
                let answer = Response::builder()
                    .header("content-type", "application/grpc")
                    .header("grpc-status", "7")
                    .body(Bytes::new());
                self.steps.push_back(Step::Answer(answer.expect("answer")));
            }
            _ => {}
        }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let waits = match self.mode {
            Mode::Hold => self.gate.poll(cx).is_pending(),
            Mode::Whole => !self.seen.borrow().request_ended,
            Mode::Reset => return Poll::Ready(Step::Reset),
            _ => false,
        };
        if waits {
            return Poll::Pending;
        }
        if let Some(step) = self.steps.pop_front() {
            return Poll::Ready(step);
        }
        if self.mode == Mode::DenyLate && self.held > 10 {
            self.held = 0;
            let answer = Response::builder().status(StatusCode::FORBIDDEN).body(Bytes::from("denied late"));
            return Poll::Ready(Step::Answer(answer.expect("answer")));
        }
        Poll::Pending
    }

    fn response_head(&mut self, head: &response::Parts) {
        let mut seen = self.seen.borrow_mut();
        seen.status = Some(head.status.as_u16());
        seen.response_headers = head.headers.clone();
    }

    fn response(&mut self, bytes: &Bytes) {
        let mut seen = self.seen.borrow_mut();
        // Large answers are counted by their first megabyte.
        if seen.response.len() < 1 << 20 {
            seen.response.extend_from_slice(bytes);
        }
    }

    fn response_end(&mut self, trailers: Option<&HeaderMap>) {
        let mut seen = self.seen.borrow_mut();
        assert!(!seen.response_ended, "an answer ends once");
        seen.response_ended = true;
        seen.response_trailers = trailers.cloned();
    }

    fn poll_recorded(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match self.mode {
            Mode::Unrecordable => Poll::Ready(false),
            Mode::SlowRecord => self.unrecorded.poll(cx).map(|()| true),
            _ => Poll::Ready(true),
        }
    }

    fn cut(&mut self, cut: Cut) {
        let mut seen = self.seen.borrow_mut();
        assert!(seen.cut.is_none(), "an exchange is cut once");
        seen.cut = Some(cut);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let seen = self.seen.borrow();
        if !std::thread::panicking() {
            assert!(seen.response_ended || seen.cut.is_some(), "an exchange is told its end: {seen:?}");
        }
    }
}

/// Two ends of a connection.
pub(crate) async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listener");
    let address = listener.local_addr().expect("address");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, (far, _)) = (near.expect("connected"), far.expect("accepted"));
    near.set_nodelay(true).expect("nodelay");
    far.set_nodelay(true).expect("nodelay");
    (near, far)
}

/// A pair under test.
pub(crate) struct Paired {
    pub(crate) recorder: Rc<Recorder>,
    /// The client's end.
    pub(crate) client: Option<TcpStream>,
    /// The server's end.
    pub(crate) server: Option<TcpStream>,
    pub(crate) ended: JoinHandle<Ended<TcpStream, TcpStream>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Paired {
    pub(crate) async fn new(version: Version) -> Self {
        Self::with(version, HttpConfig::default()).await
    }

    pub(crate) async fn with(version: Version, config: HttpConfig) -> Self {
        let (client, ours) = sockets().await;
        let (upstream, server) = sockets().await;
        let recorder = Rc::new(Recorder::default());
        let (stop, stopped) = oneshot::channel();
        let exchanges = Rc::clone(&recorder);
        let ended = tokio::task::spawn_local(async move {
            let stop = async move {
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            serve(ours, upstream, version, &config, exchanges, stop).await
        });
        Self { recorder, client: Some(client), server: Some(server), ended, stop: Some(stop) }
    }

    pub(crate) fn client(&mut self) -> TcpStream {
        self.client.take().expect("the client's end")
    }

    pub(crate) fn server(&mut self) -> TcpStream {
        self.server.take().expect("the server's end")
    }

    pub(crate) fn stop(&mut self) {
        self.stop.take().expect("not stopped yet").send(()).expect("still served");
    }

    /// Waits for the end of the pair.
    pub(crate) async fn ended(self) -> (Ended<TcpStream, TcpStream>, Rc<Recorder>) {
        let Self { recorder, ended, client, server, stop } = self;
        drop((client, server));
        let ended = ended.await.expect("no panic");
        drop(stop);
        (ended, recorder)
    }
}
