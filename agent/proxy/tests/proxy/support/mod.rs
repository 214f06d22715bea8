//! Doubles of everything around the proxy, over real loopback sockets.

pub(crate) mod database;
pub(crate) mod lines;
pub(crate) mod origin;
pub(crate) mod spool;
pub(crate) mod tls;
pub(crate) mod words;

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue};
use tokio::sync::oneshot;
use verbatim_api::v1;
use verbatim_proxy::{
    Deps, Protocols, ProxyConfig, Shards,
    seam::{
        Dialer, Flow, Flows, Grounds, HoldAnswer, Identities, Identity, Observer, Policy, Question, Summary,
        Tls, Verdict,
    },
};

use self::{lines::LineProtocol, spool::MemorySpool};

/// Longer than anything here takes: a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that was dialled goes here; nothing is steered when it is `None`.
pub(crate) struct FixedFlows(pub Mutex<Option<SocketAddr>>);

impl Flows for FixedFlows {
    fn flow(&self, _: BorrowedFd<'_>) -> Option<Flow> {
        let destination = (*self.0.lock().unwrap())?;
        Some(Flow {
            destination,
            cgroup_id: 4711,
            ancestor_cgroup_ids: vec![1],
            pid: std::process::id(),
            uid: 1000,
            gid: 1000,
            client_netns: 1,
            listener_netns: 1,
            socket_cookie: 7,
            ktime_nanos: verbatim_sys::clock::monotonic_nanos(),
            comm: "test-client".to_owned(),
            connect_series: 0,
            connect_number: 0,
        })
    }
}

pub(crate) struct PlainDialer;

impl Dialer for PlainDialer {
    fn socket(&self, _: u64, destination: SocketAddr) -> io::Result<OwnedFd> {
        let domain = socket2::Domain::for_address(destination);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM.nonblocking(), None)?;
        Ok(socket.into())
    }
}

pub(crate) struct OneIdentity;

impl Identities for OneIdentity {
    fn identify(&self, _: &Flow) -> Arc<Identity> {
        let workload = v1::Workload {
            principal_kind: v1::PrincipalKind::Local.into(),
            node: "node-1".to_owned(),
            ..v1::Workload::default()
        };
        Arc::new(Identity { workload, local_user: Some("local:box/ada".to_owned()), cgroup: None, pod: None })
    }
}

/// What a policy gives in the place of the workload's own credential.
pub(crate) const SECRET: &str = "Bearer of-the-policy";

/// Statements that start with `replace`, `deny`, `hold` or `panic` get that; holds can be answered.
pub(crate) struct WordPolicy {
    pub(crate) mode: v1::PolicyMode,
    pub deadline: Duration,
    pub holds: Mutex<Vec<oneshot::Sender<HoldAnswer>>>,
}

impl Policy for WordPolicy {
    fn decide(&self, question: &Question<'_>) -> Verdict {
        let grounds =
            |word: &str| Grounds { policies: vec![format!("{word}-words")], reason: format!("{word} it is") };
        for command in question.commands {
            let text = &command.statement.bytes;
            if text.starts_with(b"deny") {
                return Verdict::Deny(grounds("deny"));
            }
            if text.starts_with(b"hold") {
                let (sender, answer) = oneshot::channel();
                self.holds.lock().unwrap().push(sender);
                return Verdict::Hold { grounds: grounds("hold"), deadline: self.deadline, answer };
            }
            if text.starts_with(b"replace") {
                let headers =
                    vec![(HeaderName::from_static("authorization"), HeaderValue::from_static(SECRET))];
                return Verdict::Replace { grounds: grounds("replace"), headers };
            }
            assert!(!text.starts_with(b"panic"), "policy was told to panic");
        }
        Verdict::Allow(Grounds::default())
    }
    fn version(&self) -> &str {
        "words-1"
    }
    fn mode(&self) -> v1::PolicyMode {
        self.mode
    }
}

#[derive(Default)]
pub(crate) struct Seen {
    pub summaries: Mutex<Vec<Summary>>,
    pub on: AtomicBool,
}

impl Observer for Seen {
    fn enabled(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }
    fn finished(&self, summary: Summary) {
        self.summaries.lock().unwrap().push(summary);
    }
}

/// A running proxy in front of a server that the test plays.
pub(crate) struct World {
    pub shards: Shards,
    pub spools: Vec<MemorySpool>,
    pub proxies: Vec<SocketAddr>,
    pub server: TcpListener,
    pub flows: Arc<FixedFlows>,
    pub policy: Arc<WordPolicy>,
    pub seen: Arc<Seen>,
    runtime: tokio::runtime::Runtime,
}

pub(crate) struct Options {
    pub config: ProxyConfig,
    pub shards: usize,
    pub(crate) mode: v1::PolicyMode,
    pub deadline: Duration,
    pub protocols: Arc<dyn Protocols>,
    pub(crate) tls: Option<Arc<Tls>>,
}

impl Default for Options {
    fn default() -> Self {
        let config = ProxyConfig { limits: lines::limits(), ..ProxyConfig::default() };
        Self {
            shards: 1,
            mode: v1::PolicyMode::Enforce,
            deadline: PATIENCE,
            protocols: Arc::new(LineProtocol { limits: config.limits }),
            tls: None,
            config,
        }
    }
}

impl World {
    pub(crate) fn start(options: Options) -> Self {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        // Of accept() too, where nobody comes (socket(7), SO_RCVTIMEO).
        socket2::SockRef::from(&server).set_read_timeout(Some(PATIENCE)).unwrap();
        let flows = Arc::new(FixedFlows(Mutex::new(Some(server.local_addr().unwrap()))));
        let policy =
            Arc::new(WordPolicy { mode: options.mode, deadline: options.deadline, holds: Mutex::default() });
        let seen = Arc::new(Seen::default());
        seen.on.store(true, Ordering::Relaxed);
        let deps = Deps {
            flows: Arc::clone(&flows) as Arc<dyn Flows>,
            dialer: Arc::new(PlainDialer),
            identities: Arc::new(OneIdentity),
            policy: Arc::clone(&policy) as Arc<dyn Policy>,
            evidence: Arc::new(verbatim_proxy::seam::NoEvidence),
            observer: Arc::clone(&seen) as Arc<dyn Observer>,
            tls: options.tls,
        };
        let spools: Vec<_> = (0..options.shards).map(MemorySpool::new).collect();
        let shards = Shards::start_with(options.config, deps, options.protocols, spools.clone()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let proxies = (0..options.shards)
            .map(|shard| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                runtime.block_on(shards.listen(shard, listener, 1)).unwrap();
                address
            })
            .collect();
        Self { shards, spools, proxies, server, flows, policy, seen, runtime }
    }

    pub(crate) fn new() -> Self {
        Self::start(Options::default())
    }

    pub(crate) fn spool(&self) -> &MemorySpool {
        &self.spools[0]
    }

    pub(crate) fn client(&self) -> Peer {
        self.client_of(0)
    }

    pub(crate) fn client_of(&self, shard: usize) -> Peer {
        Peer::new(TcpStream::connect(self.proxies[shard]).unwrap())
    }

    /// The server's end of the next connection.
    pub(crate) fn accept(&self) -> Peer {
        self.server.set_nonblocking(true).unwrap();
        let accepted = eventually("a dial", || self.server.accept().ok());
        accepted.0.set_nonblocking(false).unwrap();
        Peer::new(accepted.0)
    }

    /// Both ends of a new connection.
    pub(crate) fn connect(&self) -> (Peer, Peer) {
        let client = self.client();
        let server = self.accept();
        (client, server)
    }

    pub(crate) fn answer_hold(&self, allowed: bool) {
        let sender = eventually("a hold", || self.policy.holds.lock().unwrap().pop());
        let answer = HoldAnswer {
            allowed,
            approver: "grace".to_owned(),
            approval_id: "a-1".to_owned(),
            reason: "looked at it".to_owned(),
        };
        sender.send(answer).expect("somebody waits");
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Stops at once and returns what shard 0 recorded.
    pub(crate) fn drain(&self) {
        self.block_on(self.shards.drain(Duration::ZERO));
    }
}

/// One end of a connection, with a deadline on everything.
pub(crate) struct Peer {
    pub stream: TcpStream,
    pub(crate) reader: BufReader<TcpStream>,
}

impl Peer {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    /// The socket alone; nothing else keeps it open.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    pub(crate) fn send(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).unwrap();
    }

    /// The next line; empty at the end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line
    }

    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// Whether nothing arrives for a while. For what must not happen: a failure is always right, success
    /// only likely.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
        let quiet = matches!(self.reader.fill_buf(), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        quiet
    }

    pub(crate) fn shut(&self) {
        match self.stream.shutdown(std::net::Shutdown::Write) {
            // Reset from the other end before.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            done => done.unwrap(),
        }
    }

    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub(crate) fn read_exactly(&mut self, bytes: &mut [u8]) {
        self.reader.read_exact(bytes).unwrap();
    }
}

/// Waits until there is something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
