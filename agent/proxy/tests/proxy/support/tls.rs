//! A lab for TLS: a root that only the proxy's upstream trusts, servers and clients of rustls.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, SanType};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::WebPkiClientVerifier,
};
use verbatim_api::v1;
use verbatim_proxy::{
    Builtin, Detected, Protocols, ProxyConfig,
    seam::{Flow, Identity, NoVerifiers, Termination, Tls, Trust},
};
use verbatim_tls::{Authority, Downstream, Upstream, UpstreamRoots};

use super::{Options, World, lines, lines::LineProtocol};

/// Lines, within TLS and without.
pub(crate) struct TlsAndLines;

impl Protocols for TlsAndLines {
    fn detect(&self, first: &[u8]) -> Detected {
        match first {
            [0x16, ..] => Builtin { limits: lines::limits() }.detect(first),
            _ => LineProtocol { limits: lines::limits() }.detect(first),
        }
    }
}

/// Trusts as it is told, and remembers what it is told.
pub(crate) struct TestTrust {
    pub(crate) judges: Mutex<Termination>,
    pub(crate) splices_all: AtomicBool,
    pub(crate) requires: AtomicBool,
    pub(crate) refused: Mutex<Vec<(Option<String>, String)>>,
    pub(crate) insisting: Mutex<Vec<Option<String>>>,
    pub(crate) showing: Mutex<Vec<Option<String>>>,
}

impl Trust for TestTrust {
    fn judge(&self, _: &Identity, _: &Flow, server_name: Option<&str>) -> Termination {
        let name = server_name.map(str::to_owned);
        if self.refused.lock().unwrap().iter().any(|(refused, _)| *refused == name) {
            return Termination::Splice(v1::OpaqueReason::ClientDoesNotTrustUs);
        }
        if self.insisting.lock().unwrap().contains(&name) || self.showing.lock().unwrap().contains(&name) {
            return Termination::Splice(v1::OpaqueReason::ClientCertificateRequired);
        }
        self.judges.lock().unwrap().clone()
    }

    fn refused(&self, _: &Identity, _: &Flow, server_name: Option<&str>, alert: &str) {
        self.refused.lock().unwrap().push((server_name.map(str::to_owned), alert.to_owned()));
    }

    fn wants_client_certificate(&self, _: &Identity, _: &Flow, server_name: Option<&str>) {
        self.insisting.lock().unwrap().push(server_name.map(str::to_owned));
    }

    fn shows_certificate(&self, _: &Identity, _: &Flow, server_name: Option<&str>) {
        self.showing.lock().unwrap().push(server_name.map(str::to_owned));
    }

    fn cannot(
        &self,
        _: &Identity,
        _: &Flow,
        _: Option<&str>,
        reason: v1::OpaqueReason,
        why: &str,
    ) -> Termination {
        let denied =
            reason == v1::OpaqueReason::ServerNotTrusted && !self.splices_all.load(Ordering::Relaxed);
        match denied {
            true => Termination::Deny { reason, why: why.to_owned() },
            false => Termination::Splice(reason),
        }
    }

    fn upstream_tls_required(&self, _: &Identity, _: &Flow) -> bool {
        self.requires.load(Ordering::Relaxed)
    }
}

/// Everything that TLS needs.
pub(crate) struct Lab {
    pub(crate) root: CertifiedIssuer<'static, KeyPair>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) trust: Arc<TestTrust>,
}

pub(crate) type Client = StreamOwned<ClientConnection, TcpStream>;
pub(crate) type Server = StreamOwned<ServerConnection, TcpStream>;

fn ca(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for a server.
pub(crate) fn params(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.subject_alt_names = names
        .iter()
        .map(|name| match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_name) => SanType::DnsName((*name).try_into().unwrap()),
        })
        .collect();
    params
}

impl Lab {
    pub(crate) fn new() -> Self {
        let judges = Mutex::new(Termination::Terminate);
        Self {
            root: ca("upstream"),
            authority: Arc::new(Authority::for_run(&["db.example".to_owned()]).unwrap()),
            trust: Arc::new(TestTrust {
                judges,
                splices_all: AtomicBool::new(false),
                requires: AtomicBool::new(false),
                refused: Mutex::default(),
                insisting: Mutex::default(),
                showing: Mutex::default(),
            }),
        }
    }

    pub(crate) fn tls(&self) -> Arc<Tls> {
        let extra_pem = vec![self.root.pem().into_bytes()];
        Arc::new(Tls {
            authority: Arc::clone(&self.authority),
            upstream: Arc::new(Upstream::new(&UpstreamRoots { system: false, extra_pem }).unwrap()),
            downstream: Arc::new(Downstream::new().unwrap()),
            trust: Arc::clone(&self.trust) as Arc<dyn Trust>,
            verifiers: Arc::new(NoVerifiers),
        })
    }

    pub(crate) fn options(&self) -> Options {
        Options { tls: Some(self.tls()), protocols: Arc::new(TlsAndLines), ..Options::default() }
    }

    pub(crate) fn world(&self) -> World {
        World::start(self.options())
    }

    /// A proxy with the real decoders.
    pub(crate) fn real_world(&self, shards: usize) -> World {
        let config = ProxyConfig::default();
        let protocols = Arc::new(Builtin { limits: config.limits });
        World::start(Options { config, protocols, shards, tls: Some(self.tls()), ..Options::default() })
    }

    pub(crate) fn signed(&self, params: &CertificateParams, key: &KeyPair) -> CertificateDer<'static> {
        params.signed_by(key, &self.root).unwrap().into()
    }

    /// A server with a certificate of the lab's root.
    pub(crate) fn server(&self, names: &[&str]) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let certificate = self.signed(&params(names), &key);
        server_config(certificate, &key)
    }

    /// A server that insists on a client's certificate.
    pub(crate) fn insisting_server(&self, names: &[&str]) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let certificate = self.signed(&params(names), &key);
        let mut roots = RootCertStore::empty();
        roots.add(self.root.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)
            .unwrap()
    }

    /// A client that trusts our authority alone.
    pub(crate) fn client(&self) -> ClientConfig {
        client_config(&self.authority.roots())
    }

    /// A client that trusts the server's root alone.
    pub(crate) fn pinning_client(&self) -> ClientConfig {
        client_config(&[self.root.der().clone()])
    }
}

pub(crate) fn server_config(certificate: CertificateDer<'static>, key: &KeyPair) -> ServerConfig {
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()
}

pub(crate) fn client_config(roots: &[CertificateDer<'static>]) -> ClientConfig {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).unwrap();
    }
    ClientConfig::builder().with_root_certificates(store).with_no_client_auth()
}

pub(crate) fn alpn(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// Accepts what the proxy dials next, and shakes hands.
pub(crate) fn serve(world: &World, config: ServerConfig) -> JoinHandle<io::Result<Server>> {
    let config = Arc::new(config);
    let listener = world.server.try_clone().unwrap();
    listener.set_nonblocking(false).unwrap();
    thread::spawn(move || {
        let (socket, _) = listener.accept()?;
        shake_server(socket, config)
    })
}

pub(crate) fn shake_server(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Server> {
    socket.set_read_timeout(Some(super::PATIENCE))?;
    socket.set_nodelay(true)?;
    let mut stream = StreamOwned::new(ServerConnection::new(config).map_err(io::Error::other)?, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    stream.flush()?;
    Ok(stream)
}

/// Dials the proxy and shakes hands.
pub(crate) fn shake(world: &World, config: ClientConfig, name: &str) -> io::Result<Client> {
    shake_over(world.client().stream, config, name)
}

pub(crate) fn shake_over(socket: TcpStream, config: ClientConfig, name: &str) -> io::Result<Client> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    stream.flush()?;
    Ok(stream)
}

/// Both ends of a new connection, its TLS ended in between.
pub(crate) fn connect(
    world: &World,
    client: ClientConfig,
    name: &str,
    server: ServerConfig,
) -> (Client, Server) {
    let serving = serve(world, server);
    let client = shake(world, client, name).unwrap();
    (client, serving.join().unwrap().unwrap())
}

/// Reads exactly these bytes.
#[track_caller]
pub(crate) fn expect(stream: &mut impl Read, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    stream.read_exact(&mut read).unwrap();
    assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(bytes));
}

pub(crate) fn say(stream: &mut impl Write, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    stream.flush().unwrap();
}

/// Says TLS's own end, and FIN.
pub(crate) fn close_client(client: &mut Client) {
    client.conn.send_close_notify();
    client.flush().unwrap();
    client.sock.shutdown(std::net::Shutdown::Write).unwrap();
}

pub(crate) fn close_server(server: &mut Server) {
    server.conn.send_close_notify();
    server.flush().unwrap();
    server.sock.shutdown(std::net::Shutdown::Write).unwrap();
}
