//! A workload: this binary again, in a cgroup and a network namespace, doing what it is told line by
//! line. It is as unmodified as any client: plain sockets, and it reports what they say.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::SendFlags,
    process::{Resource, Rlimit},
    thread::{CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_setaffinity},
};
use socket2::{Domain, Protocol, Socket, Type};
use verbatim_sys::{netns, socket};

use crate::{proxy::fields, sockets::Kept};

const CGROUP: &str = "VERBATIM_STEER_WORKLOAD_CGROUP";
const NETNS: &str = "VERBATIM_STEER_WORKLOAD_NETNS";
/// `include/linux/socket.h`: connects by sending.
const MSG_FASTOPEN: u32 = 0x2000_0000;
/// More than an emulated machine takes for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running workload. Dies with its handle.
pub(crate) struct Workload {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Workload {
    pub(crate) fn start(cgroup: &Path, netns: Option<&Path>) -> Self {
        Self::started_by(Command::new(std::env::current_exe().expect("this binary")), cgroup, netns)
    }

    /// In a network namespace that it makes itself.
    pub(crate) fn unshared(cgroup: &Path) -> Self {
        let mut command = Command::new("unshare");
        command.arg("--net").arg(std::env::current_exe().expect("this binary"));
        Self::started_by(command, cgroup, None)
    }

    fn started_by(mut command: Command, cgroup: &Path, netns: Option<&Path>) -> Self {
        command.env(CGROUP, cgroup).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(netns) = netns {
            command.env(NETNS, netns);
        }
        let mut child = command.spawn().expect("start a workload");
        let orders = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut workload = Self { child, orders, answers };
        assert_eq!(workload.ask("ready"), "ready");
        workload
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it do something and says what came of it.
    pub(crate) fn ask(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").expect("the workload lives");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the workload lives");
        answer.trim_end().to_owned()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether this process is a workload and no test.
pub(crate) fn is_one() -> bool {
    std::env::var_os(CGROUP).is_some()
}

/// A workload's life.
pub(crate) fn live() -> ExitCode {
    let cgroup = std::env::var_os(CGROUP).expect("checked before");
    fs::write(Path::new(&cgroup).join("cgroup.procs"), std::process::id().to_string())
        .expect("join the cgroup");
    if let Some(path) = std::env::var_os(NETNS) {
        let netns = File::open(path).expect("open the namespace");
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&netns), Some(LinkNameSpaceType::Network))
            .expect("enter the namespace");
    }
    let mut kept = Kept::default();
    for order in io::stdin().lines() {
        let Ok(order) = order else { break };
        let (verb, rest) = order.split_once(' ').unwrap_or((&order, ""));
        let answer = match verb {
            "ready" => Ok("ready".to_owned()),
            "connect" => connect(rest),
            "bind" => bind(rest),
            "twice" => twice(rest),
            "many" => Ok(many(rest)),
            "latency" => latency(rest),
            "probe" => probe(),
            "listeners" => listeners(rest),
            _ => kept.act(verb, rest),
        };
        println!("{}", answer.unwrap_or_else(|error| format!("err={}", error.raw_os_error().unwrap_or(-1))));
    }
    ExitCode::SUCCESS
}

/// What it dials: `destination`, as a v4-mapped address with `mapped=1`; where it has a device, without brackets.
pub(crate) fn destination(order: &str) -> SocketAddr {
    let fields = fields(order);
    let to = fields["destination"].to_socket_addrs().ok().and_then(|mut found| found.next());
    let to = to.expect("address");
    if fields.contains_key("mapped") { mapped(to) } else { to }
}

fn mapped(to: SocketAddr) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), to.port()).into(),
        IpAddr::V6(_) => to,
    }
}

/// A socket as the order wants it: `bind`, `device`, `protocol`, `datagram`.
pub(crate) fn make(order: &str, to: SocketAddr) -> io::Result<Socket> {
    let fields = fields(order);
    let protocol = fields
        .get("protocol")
        .map_or(Protocol::TCP, |number| Protocol::from(number.parse::<i32>().expect("number")));
    let (kind, protocol) = match fields.get("datagram") {
        Some(_) => (Type::DGRAM, Protocol::UDP),
        None => (Type::STREAM, protocol),
    };
    let socket = Socket::new(Domain::for_address(to), kind, Some(protocol))?;
    if fields.contains_key("v6only") {
        socket.set_only_v6(true)?;
    }
    if let Some(device) = fields.get("device") {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    if let Some(address) = fields.get("bind") {
        let address: SocketAddr = address.parse().expect("address");
        socket.bind(&(if to.is_ipv6() { mapped(address) } else { address }).into())?;
    }
    Ok(socket)
}

/// Connects, and says what the socket then says of itself and what the other end said.
fn connect(order: &str) -> io::Result<String> {
    let to = destination(order);
    let socket = make(order, to)?;
    if fields(order).contains_key("nonblocking") {
        connect_nonblocking(&socket, to)?;
    } else if fields(order).contains_key("fastopen") {
        let data = fields(order).get("data").copied().unwrap_or_default();
        rustix::net::sendto(&socket, data.as_bytes(), SendFlags::from_bits_retain(MSG_FASTOPEN), &to)?;
        if !data.is_empty() {
            // The proxy does not read it, so that what it says is followed by a reset.
            return read_line(&socket);
        }
    } else {
        socket.connect(&to.into())?;
    }
    report(&socket)
}

fn connect_nonblocking(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
            poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&patience))?;
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
        }
        other => other?,
    }
    socket.set_nonblocking(false)
}

/// `peer`, `local`, `cookie`, `netns` and the line that was read.
pub(crate) fn report(socket: &Socket) -> io::Result<String> {
    let name = |address: socket2::SockAddr| address.as_socket().expect("an IP socket");
    let (peer, local) = (name(socket.peer_addr()?), name(socket.local_addr()?));
    let line = read_line(socket)?;
    let (cookie, netns) = (socket::cookie(socket)?, socket::netns_cookie(socket)?);
    Ok(format!("peer={peer} local={local} own_cookie={cookie} own_netns={netns} {line}"))
}

pub(crate) fn read_line(socket: &Socket) -> io::Result<String> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(Unbuffered(socket)).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

struct Unbuffered<'a>(&'a Socket);

impl Read for Unbuffered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut socket = self.0;
        socket.read(buffer)
    }
}

/// Binds and listens.
fn bind(order: &str) -> io::Result<String> {
    let address: SocketAddr = fields(order)["address"].parse().expect("address");
    let protocol = fields(order).get("protocol").map_or(Ok(6), |number| number.parse());
    let protocol = Protocol::from(protocol.expect("number"));
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(protocol))?;
    if fields(order).contains_key("share") {
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(8)?;
    Ok("bound".to_owned())
}

/// Connects, dissolves that by connect(AF_UNSPEC), and connects the same socket to `second`. Says
/// what the socket called itself in between.
fn twice(order: &str) -> io::Result<String> {
    let to = destination(order);
    let socket = make(order, to)?;
    socket.connect(&to.into())?;
    let first = report(&socket)?;
    rustix::net::connect_unspec(&socket)?;
    let between = socket.local_addr()?.as_socket().expect("an IP socket");
    let second: SocketAddr = fields(order)["second"].parse().expect("address");
    socket.connect(&second.into())?;
    Ok(format!("{} | between={between} | {}", first, report(&socket)?))
}

/// Connects `count` times to destinations that are all different and checks that each connection was
/// handed over as itself.
fn many(order: &str) -> String {
    let fields = fields(order);
    let number = |key: &str| fields[key].parse::<u32>().expect("number");
    let (count, network) = (number("count"), number("network"));
    let reset = fields.contains_key("reset");
    let (mut right, mut wrong, mut failed, mut first) = (0_u32, 0_u32, 0_u32, String::new());
    for index in 0..count {
        let [_, high, middle, low] = index.to_be_bytes();
        let to = match index % 3 {
            0 => SocketAddr::from(([10, network as u8 + high, middle, low], 5432)),
            1 => mapped(SocketAddr::from(([11, network as u8 + high, middle, low], 5433))),
            _ => {
                let low = u16::from_be_bytes([middle, low]);
                (Ipv6Addr::new(0xfd00, network as u16, 0, 0, 0, 0, u16::from(high), low), 5434).into()
            }
        };
        match one_of_many(to, reset) {
            Ok(None) => right += 1,
            Ok(Some(complaint)) => {
                wrong += 1;
                first = if first.is_empty() { complaint } else { first };
            }
            Err(error) => {
                failed += 1;
                first = if first.is_empty() { format!("{to}: {error}") } else { first };
            }
        }
    }
    format!("right={right} wrong={wrong} failed={failed} first:{first}")
}

/// `None`: the flow is this connection's.
fn one_of_many(to: SocketAddr, reset: bool) -> io::Result<Option<String>> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    if reset {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    socket.connect(&to.into())?;
    let line = read_line(&socket)?;
    let found = fields(&line);
    let plain = SocketAddr::new(to.ip().to_canonical(), to.port()).to_string();
    let expected = [
        ("destination", plain),
        ("cookie", socket::cookie(&socket)?.to_string()),
        ("client_netns", netns::cookie_here()?.to_string()),
        ("pid", std::process::id().to_string()),
    ];
    let wrong = expected.iter().find(|(key, value)| found.get(key) != Some(&value.as_str()));
    Ok(wrong.map(|(key, value)| format!("{to}: expected {key}={value}, got {line}")))
}

/// Becomes nobody and asks whether BPF is permitted.
fn probe() -> io::Result<String> {
    let nobody = rustix::process::Uid::from_raw(65_534);
    rustix::thread::set_thread_res_uid(nobody, nobody, nobody)?;
    Ok(match verbatim_steer::Steering::probe() {
        Ok(()) => "permitted".to_owned(),
        Err(error) => format!("{} at {}", error.cause(), error.step()),
    })
}

/// Stands for an agent: makes listeners in all these namespaces, and says what that took.
fn listeners(order: &str) -> io::Result<String> {
    let fields = fields(order);
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let mut config = verbatim_steer::SteerConfig::new(fields["root"]);
    config.shards = fields["shards"].parse().expect("number");
    let steering = verbatim_steer::Steering::load(&config).map_err(io::Error::other)?;
    let before = own_bytes()?;
    let mut made = Vec::new();
    for name in fields["names"].split(',') {
        let netns = File::open(Path::new("/run/netns").join(name))?;
        made.push(steering.namespaces().add(name, netns.into()).map_err(io::Error::other)?);
    }
    let process = own_bytes()?.saturating_sub(before);
    let v4 = made.iter().map(|one| one.shards.len() as u64).sum::<u64>();
    let v6 = made.iter().flat_map(|one| &one.shards).filter(|shard| shard.v6.is_some()).count() as u64;
    // What the kernel keeps for each socket, beside a hash's bucket.
    let common = slab("sock_inode_cache")? + slab("filp")? + slab("dentry")?;
    let kernel = v4 * (slab("TCP")? + common) + v6 * (slab("TCPv6")? + common);
    Ok(format!("sockets={} process_bytes={process} kernel_bytes={kernel}", v4 + v6))
}

/// What this process alone keeps in memory.
fn own_bytes() -> io::Result<u64> {
    let all = fs::read_to_string("/proc/self/smaps_rollup")?;
    let kib = all
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.ok_or(io::ErrorKind::InvalidData)? * 1024)
}

/// Size of one object of the kernel's; 1 KiB, which is generous, where it shares its cache with others.
fn slab(name: &str) -> io::Result<u64> {
    let all = fs::read_to_string("/proc/slabinfo")?;
    let size = all.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(name)).then(|| words.nth(2)?.parse().ok())?
    });
    Ok(size.unwrap_or(1024))
}

/// Keeps this thread, and those that it starts from now on, on one CPU.
pub(crate) fn stay_on(cpu: usize) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    Ok(sched_setaffinity(None, &cpus)?)
}

/// Median and 90th percentile of connect(), with `whole` of socket() as well, in nanoseconds.
fn latency(order: &str) -> io::Result<String> {
    stay_on(0)?;
    let to = destination(order);
    let count: usize = fields(order)["count"].parse().expect("number");
    // Where nobody listens the whole handshake is this thread's own work: nobody has to wake up.
    let refused = fields(order).contains_key("refused");
    let whole = fields(order).contains_key("whole");
    let mut nanos = Vec::with_capacity(count);
    for _ in 0..count {
        let before = Instant::now();
        let socket = make(order, to)?;
        let start = if whole { before } else { Instant::now() };
        let connected = socket.connect(&to.into());
        nanos.push(start.elapsed().as_nanos());
        if !refused {
            connected?;
            read_line(&socket)?;
        }
    }
    nanos.sort_unstable();
    Ok(format!("p50={} p90={}", nanos[count / 2], nanos[count * 9 / 10]))
}
