//! What idle connections cost in memory whose TLS ends here: opens many through a proxy of its own, each with a
//! session of PostgreSQL that has run a statement, and prints what this process has grown by. Clients and
//! servers are in a process of their own.
//!
//!     idle_tls [CONNECTIONS]

#![allow(clippy::print_stdout, reason = "an example speaks to its user")]

use std::{
    error::Error,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use socket2::{Domain, Socket, Type};
use verbatim_proxy::{
    Deps, ProxyConfig, Shards,
    seam::{
        Dialer, Flow, Flows, Identities, Identity, NoVerifiers, ObserveAll, Observer, Summary, Termination,
        Tls, Trust,
    },
};
use verbatim_spool::{SpoolConfig, SyncMode, WhenFull};
use verbatim_tls::{Authority, Downstream, Upstream, UpstreamRoots};

type Failure = Box<dyn Error>;

/// Connections that are opened before anything is measured: buffers, caches and threads are there then.
const WARM: usize = 50;

struct Fixed(SocketAddr);

impl Flows for Fixed {
    fn flow(&self, _: BorrowedFd<'_>) -> Option<Flow> {
        Some(Flow {
            destination: self.0,
            cgroup_id: 1,
            ancestor_cgroup_ids: Vec::new(),
            pid: std::process::id(),
            uid: 0,
            gid: 0,
            client_netns: 0,
            listener_netns: 0,
            socket_cookie: 0,
            ktime_nanos: verbatim_sys::clock::monotonic_nanos(),
            comm: String::new(),
            connect_series: 0,
            connect_number: 0,
        })
    }
}

struct Around;

impl Dialer for Around {
    fn socket(&self, _: u64, destination: SocketAddr) -> io::Result<OwnedFd> {
        let socket = Socket::new(Domain::for_address(destination), Type::STREAM.nonblocking(), None)?;
        Ok(socket.into())
    }
}

impl Identities for Around {
    fn identify(&self, _: &Flow) -> Arc<Identity> {
        Arc::new(Identity::default())
    }
}

impl Observer for Around {
    fn enabled(&self) -> bool {
        false
    }
    fn finished(&self, _: Summary) {}
}

impl Trust for Around {
    fn judge(&self, _: &Identity, _: &Flow, _: Option<&str>) -> Termination {
        Termination::Terminate
    }
    fn refused(&self, _: &Identity, _: &Flow, _: Option<&str>, alert: &str) {
        println!("a client refused our certificate: {alert}");
    }
    fn shows_certificate(&self, _: &Identity, _: &Flow, _: Option<&str>) {}
    fn wants_client_certificate(&self, _: &Identity, _: &Flow, _: Option<&str>) {}
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["load", folder, count] => load(Path::new(folder), count.parse()?),
        [] => measure(1000),
        [count] => measure(count.parse()?),
        _ => Err("usage: idle_tls [CONNECTIONS]".into()),
    }
}

/// The proxy, and what it has grown by.
fn measure(count: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::for_run(&[])?;
    fs::write(folder.path().join("ours.pem"), authority.roots_pem())?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("load")
        .arg(folder.path())
        .arg(count.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (mut to_child, from_child) =
        (child.stdin.take().ok_or("no pipe")?, child.stdout.take().ok_or("no pipe")?);
    let mut lines = BufReader::new(from_child).lines();
    let mut line = || lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
    let destination: SocketAddr = line()?.parse()?;
    let extra_pem = vec![fs::read(folder.path().join("server.pem"))?];
    let tls = Tls {
        authority: Arc::new(authority),
        upstream: Arc::new(Upstream::new(&UpstreamRoots { system: false, extra_pem })?),
        downstream: Arc::new(Downstream::new()?),
        trust: Arc::new(Around),
        verifiers: Arc::new(NoVerifiers),
    };
    let spool = SpoolConfig {
        directory: folder.path().join("spool"),
        sync: SyncMode::Process,
        segment_bytes: 1 << 20,
        limit_bytes: 1 << 30,
        when_full: WhenFull::Stop,
        head_interval: Duration::from_millis(100),
        node: "idle".to_owned(),
    };
    let opened = verbatim_spool::open(&spool, 2)?;
    let deps = Deps {
        flows: Arc::new(Fixed(destination)),
        dialer: Arc::new(Around),
        identities: Arc::new(Around),
        policy: Arc::new(ObserveAll),
        evidence: Arc::new(verbatim_proxy::seam::NoEvidence),
        observer: Arc::new(Around),
        tls: Some(Arc::new(tls)),
    };
    let shards = Shards::start(ProxyConfig::default(), deps, opened.spools)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        writeln!(to_child, "{}", listener.local_addr()?)?;
        shards.listen(0, listener, 0).await?;
        Ok::<_, Failure>(())
    })?;
    line()?;
    let before = anonymous()?;
    writeln!(to_child, "go on")?;
    line()?;
    let grown = anonymous()?.saturating_sub(before);
    let stats = shards.stats();
    println!(
        "{count} idle connections, {} open in all, {} commands: {} KiB, {:.1} KiB each; resident in all {} KiB",
        stats.open,
        stats.commands,
        grown / 1024,
        grown as f64 / 1024.0 / count as f64,
        resident("VmRSS:")? / 1024,
    );
    drop(to_child);
    child.wait()?;
    runtime.block_on(shards.drain(Duration::from_secs(1)));
    Ok(())
}

/// Memory of this process that is its own: the spool's mapped file is not.
fn anonymous() -> Result<u64, Failure> {
    resident("RssAnon:")
}

fn resident(what: &str) -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)).ok_or("not in /proc")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// Clients and servers.
fn load(folder: &Path, count: usize) -> Result<(), Failure> {
    let mut lines = io::stdin().lines();
    let mut line = || lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let config = Arc::new(server_config(folder)?);
    println!("{}", listener.local_addr()?);
    let proxy: SocketAddr = line()?.parse()?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(folder.join("ours.pem"))? {
        roots.add(root?)?;
    }
    let client = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
    let (kept, servers) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            let served = serve(socket, Arc::clone(&config)).map_err(|error| error.to_string());
            if kept.send(served).is_err() {
                return;
            }
        }
    });
    let mut open = Vec::new();
    for number in 0..WARM + count {
        if number == WARM {
            println!("warm");
            line()?;
        }
        let client = ask(proxy, Arc::clone(&client))?;
        open.push((client, servers.recv()??));
    }
    // What the proxy does after its last answer.
    thread::sleep(Duration::from_millis(500));
    println!("open");
    let _closed = line();
    drop(open);
    Ok(())
}

fn server_config(folder: &Path) -> Result<ServerConfig, Failure> {
    let mut ca = CertificateParams::new([])?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
    fs::write(folder.join("server.pem"), ca.pem())?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([])?;
    params.subject_alt_names = vec![SanType::DnsName("localhost".try_into()?)];
    let certificate = params.signed_by(&key, &ca)?.into();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    Ok(ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key)?)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

/// A start-up and a statement of a kilobyte, each answered.
fn script() -> [(Vec<u8>, Vec<u8>); 2] {
    let start = b"\0\0\0\x12\0\x03\0\0user\0ada\0\0".to_vec();
    let welcome = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
    let query = message(b'Q', format!("select {:>1000}\0", 1).as_bytes());
    let rows: Vec<u8> = message(b'D', &[0; 1000]).repeat(20);
    [(start, welcome), (query, [rows, message(b'C', b"SELECT 20\0"), message(b'Z', b"I")].concat())]
}

fn ask(
    proxy: SocketAddr,
    config: Arc<ClientConfig>,
) -> Result<StreamOwned<ClientConnection, TcpStream>, Failure> {
    let session = ClientConnection::new(config, ServerName::try_from("localhost")?)?;
    let mut stream = StreamOwned::new(session, TcpStream::connect(proxy)?);
    for (ask, answer) in script() {
        stream.write_all(&ask)?;
        stream.flush()?;
        stream.read_exact(&mut vec![0; answer.len()])?;
    }
    Ok(stream)
}

fn serve(
    socket: TcpStream,
    config: Arc<ServerConfig>,
) -> Result<StreamOwned<ServerConnection, TcpStream>, Failure> {
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, socket);
    for (ask, answer) in script() {
        stream.read_exact(&mut vec![0; ask.len()])?;
        stream.write_all(&answer)?;
        stream.flush()?;
    }
    Ok(stream)
}
