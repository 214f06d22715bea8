//! The proxy without steering: listens on an address and carries everything to another, under one
//! identity, with a real spool. For measuring and for looking at a decoder's records by hand.
//!
//!     plain_proxy LISTEN DESTINATION SPOOL-FOLDER [--group] [--shards N] [--tls SERVERS-ROOTS OUR-ROOTS]
//!
//! With `--tls` it ends TLS for everybody: it verifies servers by the certificates in the one file and writes
//! those that clients are to trust to the other.

#![allow(clippy::print_stderr, reason = "an example speaks to its user")]

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use verbatim_api::v1;
use verbatim_proxy::{
    Deps, ProxyConfig, Shards,
    seam::{
        Dialer, Flow, Flows, Identities, Identity, NoVerifiers, ObserveAll, Observer, Summary, Termination,
        Tls, Trust,
    },
};
use verbatim_spool::{SpoolConfig, SyncMode, WhenFull};
use verbatim_tls::{Authority, Downstream, Upstream, UpstreamRoots};

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

struct Here;

impl Dialer for Here {
    fn socket(&self, _: u64, destination: SocketAddr) -> io::Result<OwnedFd> {
        let socket = Socket::new(Domain::for_address(destination), Type::STREAM.nonblocking(), None)?;
        Ok(socket.into())
    }
}

struct Nobody(Arc<Identity>);

impl Identities for Nobody {
    fn identify(&self, _: &Flow) -> Arc<Identity> {
        Arc::clone(&self.0)
    }
}

struct Unwatched;

impl Observer for Unwatched {
    fn enabled(&self) -> bool {
        false
    }
    fn finished(&self, _: Summary) {}
}

struct Everybody;

impl Trust for Everybody {
    fn judge(&self, _: &Identity, _: &Flow, _: Option<&str>) -> Termination {
        Termination::Terminate
    }
    fn refused(&self, _: &Identity, _: &Flow, name: Option<&str>, alert: &str) {
        eprintln!("a client refused our certificate for {}: {alert}", name.unwrap_or("its address"));
    }
    fn shows_certificate(&self, _: &Identity, _: &Flow, name: Option<&str>) {
        eprintln!("a client shows a certificate to {}", name.unwrap_or("the server"));
    }

    fn wants_client_certificate(&self, _: &Identity, _: &Flow, name: Option<&str>) {
        eprintln!("{} insists on a client's certificate", name.unwrap_or("the server"));
    }
}

/// Ends TLS with roots of its own.
fn tls(servers_roots: &Path, our_roots: &Path) -> Result<Tls, Box<dyn std::error::Error>> {
    let authority = Authority::for_run(&[])?;
    fs::write(our_roots, authority.roots_pem())?;
    let roots = UpstreamRoots { system: false, extra_pem: vec![fs::read(servers_roots)?] };
    Ok(Tls {
        authority: Arc::new(authority),
        upstream: Arc::new(Upstream::new(&roots)?),
        downstream: Arc::new(Downstream::new()?),
        trust: Arc::new(Everybody),
        verifiers: Arc::new(NoVerifiers),
    })
}

struct Arguments {
    listen: SocketAddr,
    destination: SocketAddr,
    directory: PathBuf,
    sync: SyncMode,
    shards: usize,
    tls: Option<(PathBuf, PathBuf)>,
}

fn arguments() -> Option<Arguments> {
    let mut arguments = std::env::args().skip(1);
    let mut read = Arguments {
        listen: arguments.next()?.parse().ok()?,
        destination: arguments.next()?.parse().ok()?,
        directory: arguments.next()?.into(),
        sync: SyncMode::Process,
        shards: std::thread::available_parallelism().map_or(1, |n| n.get().min(4)),
        tls: None,
    };
    while let Some(option) = arguments.next() {
        match option.as_str() {
            "--group" => read.sync = SyncMode::Group,
            "--tls" => read.tls = Some((arguments.next()?.into(), arguments.next()?.into())),
            "--shards" => read.shards = arguments.next()?.parse().ok()?,
            _ => return None,
        }
    }
    Some(read)
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let usage = "usage: plain_proxy LISTEN DESTINATION SPOOL-FOLDER [--group] [--shards N] \
                 [--tls SERVERS-ROOTS OUR-ROOTS]";
    let arguments = arguments().ok_or(usage)?;
    let config = SpoolConfig {
        directory: arguments.directory,
        sync: arguments.sync,
        segment_bytes: 8 << 20,
        limit_bytes: 16 << 30,
        when_full: WhenFull::Stop,
        head_interval: Duration::from_millis(100),
        node: "plain".to_owned(),
    };
    let opened = verbatim_spool::open(&config, arguments.shards)?;
    let workload = v1::Workload {
        principal_kind: v1::PrincipalKind::Federated.into(),
        principal:
            "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/subject/\
                    ns/shop/sa/cart"
                .to_owned(),
        namespace: "shop".to_owned(),
        service_account: "cart".to_owned(),
        node: "plain".to_owned(),
        ..v1::Workload::default()
    };
    let deps = Deps {
        flows: Arc::new(Fixed(arguments.destination)),
        dialer: Arc::new(Here),
        identities: Arc::new(Nobody(Arc::new(Identity { workload, ..Identity::default() }))),
        policy: Arc::new(ObserveAll),
        evidence: Arc::new(verbatim_proxy::seam::NoEvidence),
        observer: Arc::new(Unwatched),
        tls: match &arguments.tls {
            Some((servers_roots, our_roots)) => Some(Arc::new(tls(servers_roots, our_roots)?)),
            None => None,
        },
    };
    let shards = Shards::start(ProxyConfig::default(), deps, opened.spools)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for shard in 0..shards.count() {
            shards.listen(shard, listener(arguments.listen)?, 0).await?;
        }
        // Until somebody closes standard input.
        tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await??;
        shards.drain(Duration::from_secs(1)).await;
        eprintln!("{:?}", shards.stats());
        Ok(())
    })
}
