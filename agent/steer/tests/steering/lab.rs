//! What a test needs around it: cgroups, network namespaces, a server. All of it goes with its owner.

use std::{
    fs::{self, File},
    io::Write,
    net::{IpAddr, SocketAddr, TcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use verbatim_steer::{
    Action, CgroupVerdict, DestinationRule, FailMode, NamespaceListeners, Namespaces, SteerConfig, Steering,
};
use verbatim_sys::netns;

use crate::{Outcome, proxy::Proxy, workload::Workload};

/// Where the programs are attached: everything that the tests make lives below it.
static BASE: OnceLock<PathBuf> = OnceLock::new();
const BASE_PREFIX: &str = "verbatim-steer-";

/// Why the tests cannot run here: `<error> at <step>`.
pub(crate) fn hindrance() -> Option<String> {
    if let Err(error) = Steering::probe() {
        return Some(format!("{} at {}", error.cause(), error.step()));
    }
    if cgroup2().is_none() {
        return Some("no cgroup v2 hierarchy is mounted at finding cgroups".to_owned());
    }
    match Command::new("ip").arg("-V").output() {
        Ok(output) if output.status.success() => None,
        _ => Some("no `ip` command (package iproute2) at finding tools".to_owned()),
    }
}

/// Where the cgroup v2 hierarchy is mounted.
fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = left.split_ascii_whitespace().nth(4)?;
        right.starts_with("cgroup2 ").then(|| PathBuf::from(point))
    })
}

/// This process's cgroup below the base, for as long as the tests run.
pub(crate) struct Base {
    path: PathBuf,
    before: PathBuf,
}

impl Base {
    pub(crate) fn enter() -> Self {
        let mount = cgroup2().expect("checked before");
        sweep(&mount);
        let own = fs::read_to_string("/proc/self/cgroup").expect("own cgroup");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("cgroup v2 entry");
        let path = mount.join(format!("{BASE_PREFIX}{}", std::process::id()));
        let base = Self { before: mount.join(own), path };
        fs::create_dir_all(base.path.join("agent")).expect("make the base cgroup");
        join(&base.path.join("agent"));
        BASE.set(base.path.clone()).expect("entered once");
        base
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        join(&self.before);
        remove(&self.path.join("agent"));
        remove(&self.path);
    }
}

/// Removes what an earlier run left behind that was killed.
fn sweep(mount: &Path) {
    for entry in fs::read_dir(mount).expect("read cgroups").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(BASE_PREFIX) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            remove_tree(&entry.path());
            delete_namespaces(&format!("vst{pid}-"));
        }
    }
}

fn delete_namespaces(prefix: &str) {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            ip(&["netns", "delete", &name]);
        }
    }
}

fn remove_tree(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_tree(&entry.path());
        }
    }
    remove(path);
}

/// A process that has just ended leaves its cgroup a moment later.
fn remove(path: &Path) {
    for _ in 0..200 {
        match fs::remove_dir(path) {
            Ok(()) => return,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
    LEFT_BEHIND.store(true, Ordering::Relaxed);
    eprintln!("cgroup {} is left behind", path.display());
}

static LEFT_BEHIND: AtomicBool = AtomicBool::new(false);

/// Whether a cgroup could not be removed: that fails the run.
pub(crate) fn left_something_behind() -> bool {
    LEFT_BEHIND.load(Ordering::Relaxed)
}

fn join(cgroup: &Path) {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).expect("join a cgroup");
}

/// A cgroup below the base.
pub(crate) struct Cgroup {
    pub(crate) path: PathBuf,
}

impl Cgroup {
    pub(crate) fn below(parent: &Path, name: &str) -> Self {
        let path = parent.join(name);
        fs::create_dir(&path).expect("make a cgroup");
        Self { path }
    }

    pub(crate) fn id(&self) -> u64 {
        id(&self.path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::write(self.path.join("cgroup.kill"), "1") {
            eprintln!("cannot kill {}: {error}", self.path.display());
        }
        remove(&self.path);
    }
}

pub(crate) fn id(cgroup: &Path) -> u64 {
    fs::metadata(cgroup).expect("cgroup").ino()
}

pub(crate) fn base() -> &'static Path {
    BASE.get().expect("the base is entered before any test runs")
}

pub(crate) fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("run ip");
    assert!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A named network namespace with loopback up.
pub(crate) struct Netns {
    pub(crate) name: String,
}

impl Netns {
    pub(crate) fn new() -> Self {
        let netns = Self::bare();
        netns.ip(&["link", "set", "lo", "up"]);
        netns
    }

    /// As a runtime leaves it at first: loopback is down.
    pub(crate) fn bare() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("vst{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        Self { name }
    }

    pub(crate) fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", &self.name], arguments].concat());
    }

    pub(crate) fn open(&self) -> OwnedFd {
        File::open(self.path()).expect("open the namespace").into()
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Does something in it.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let home = netns::current().expect("own namespace");
        netns::within(home.as_fd(), self.open().as_fd(), work).expect("enter the namespace")
    }

    pub(crate) fn cookie(&self) -> u64 {
        self.within(|| netns::cookie_here().expect("cookie"))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        ip(&["netns", "delete", &self.name]);
    }
}

/// Two namespaces with a cable between them: a workload's and that of a server.
pub(crate) struct Pair {
    pub(crate) client: Netns,
    pub(crate) server: Netns,
}

impl Pair {
    pub(crate) const CLIENT_V4: &str = "10.77.0.1";
    pub(crate) const CLIENT_V6: &str = "fd77::1";
    pub(crate) const SERVER_V4: &str = "10.77.0.2";
    pub(crate) const SERVER_V6: &str = "fd77::2";

    pub(crate) fn new() -> Self {
        let pair = Self { client: Netns::new(), server: Netns::new() };
        ip(&[
            "link",
            "add",
            "eth0",
            "netns",
            &pair.client.name,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            &pair.server.name,
        ]);
        for (netns, v4, v6) in [
            (&pair.client, Self::CLIENT_V4, Self::CLIENT_V6),
            (&pair.server, Self::SERVER_V4, Self::SERVER_V6),
        ] {
            netns.ip(&["address", "add", &format!("{v4}/24"), "dev", "eth0"]);
            netns.ip(&["address", "add", &format!("{v6}/64"), "dev", "eth0", "nodad"]);
            netns.ip(&["link", "set", "eth0", "up"]);
        }
        pair
    }
}

/// A server that answers each connection with `server <the client's end>` and closes it.
pub(crate) struct Server {
    pub(crate) port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn on(netns: &Netns, address: &str) -> Self {
        let address: IpAddr = address.parse().expect("address");
        Self::from(netns.within(|| TcpListener::bind((address, 0)).expect("listen")))
    }

    fn from(listener: TcpListener) -> Self {
        let port = listener.local_addr().expect("port").port();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            accept_all(&[&listener], &stopped, |mut stream, peer| {
                drop(writeln!(stream, "server {peer}"));
            });
        });
        Self { port, stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Accepts from all listeners until told to stop.
pub(crate) fn accept_all(
    listeners: &[&TcpListener],
    stop: &AtomicBool,
    mut serve: impl FnMut(std::net::TcpStream, SocketAddr),
) {
    for listener in listeners {
        listener.set_nonblocking(true).expect("non-blocking");
    }
    while !stop.load(Ordering::Relaxed) {
        let mut fds: Vec<_> =
            listeners.iter().map(|listener| PollFd::new(*listener, PollFlags::IN)).collect();
        let patience = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        if poll(&mut fds, Some(&patience)).is_err() {
            continue;
        }
        for listener in listeners {
            while let Ok((stream, peer)) = listener.accept() {
                stream.set_nonblocking(false).expect("blocking");
                serve(stream, peer);
            }
        }
    }
}

/// A steering of a test's own, with a cgroup whose workloads it steers.
///
/// Fields are dropped in this order: workloads' cgroups last, when nothing runs in them any more.
pub(crate) struct Lab {
    pub(crate) steering: Steering,
    pub(crate) steered: Cgroup,
    pub(crate) other: Cgroup,
    test: Cgroup,
}

pub(crate) const STEER_CLOSED: CgroupVerdict =
    CgroupVerdict { action: Action::Steer, fail_mode: FailMode::Closed };
pub(crate) const STEER_OPEN: CgroupVerdict =
    CgroupVerdict { action: Action::Steer, fail_mode: FailMode::Open };

impl Lab {
    /// Steers all TCP of one cgroup and nothing of another; attached, beating once.
    pub(crate) fn new(name: &str) -> Self {
        let lab = Self::configured(name, |_| {});
        lab.steering.attach().expect("attach");
        lab
    }

    /// The same with another configuration, not attached.
    pub(crate) fn configured(name: &str, configure: impl FnOnce(&mut SteerConfig)) -> Self {
        Self::below(name, base(), configure)
    }

    /// The same with another attach root.
    pub(crate) fn below(name: &str, root: &Path, configure: impl FnOnce(&mut SteerConfig)) -> Self {
        let test = Cgroup::below(root, name);
        let (steered, other) = (Cgroup::below(&test.path, "steered"), Cgroup::below(&test.path, "other"));
        let mut config = SteerConfig::new(root);
        config.own_cgroups = vec![id(&base().join("agent"))];
        config.heartbeat_timeout = Duration::from_secs(3600);
        configure(&mut config);
        let steering = Steering::load(&config).expect("load");
        steering.set_cgroup(steered.id(), STEER_CLOSED).expect("verdict");
        steering.set_destinations(&DestinationRule::steer_everything()).expect("rules");
        Self { steering, steered, other, test }
    }

    pub(crate) fn namespaces(&self) -> Namespaces {
        self.steering.namespaces()
    }

    /// A listener in a namespace, and a proxy behind it.
    pub(crate) fn proxy(&self, netns: &Netns) -> (Proxy, u64, u16) {
        let listeners = self.namespaces().add(&netns.name, netns.open()).expect("listener");
        let NamespaceListeners { cookie, port, shards, .. } = listeners;
        (Proxy::start(self.steering.flows(), shards), cookie, port)
    }

    pub(crate) fn workload(&self, netns: &Netns) -> Workload {
        Workload::start(&self.steered.path, Some(&netns.path()))
    }

    pub(crate) fn unsteered(&self, netns: &Netns) -> Workload {
        Workload::start(&self.other.path, Some(&netns.path()))
    }

    /// Drops the steering; its cgroups stay, in the order in which they may be dropped.
    pub(crate) fn into_cgroups(self) -> [Cgroup; 3] {
        [self.steered, self.other, self.test]
    }

    /// Ends steering in order; the rest as [`Self::into_cgroups`].
    pub(crate) fn detach(self) -> Result<[Cgroup; 3], verbatim_steer::SteerError> {
        self.steering.detach().map(|()| [self.steered, self.other, self.test])
    }

    /// A counter's value.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let counters = self.steering.counters().expect("counters");
        counters.iter().find(|(found, _)| *found == name).expect("counter of that name").1
    }
}

/// A BPF file system of the test's own.
pub(crate) struct Bpffs(tempfile::TempDir);

impl Bpffs {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn mount() -> Result<Self, Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(directory.path()).status()?;
        if mounted.success() { Ok(Self(directory)) } else { Err("cannot mount a BPF file system".into()) }
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.0.path()).status());
    }
}

/// Asks until the answer is the one that something of ours that has just gone leaves: a child that another test is just
/// starting holds our descriptors until its exec.
pub(crate) fn soon(what: &str, workload: &mut Workload, order: &str, fits: impl Fn(&str) -> bool) -> Outcome {
    let mut tries = 0;
    loop {
        let answer = workload.ask(order);
        if fits(&answer) {
            return Ok(());
        }
        tries += 1;
        equal(&format!("{what}: {answer}"), &(tries < 100), &true)?;
        thread::sleep(Duration::from_millis(50));
    }
}

/// Fails a test with both sides of what should be equal.
pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Outcome {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{what}: found {found:?}, expected {expected:?}").into())
    }
}
