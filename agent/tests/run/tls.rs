//! A TLS server of the test's own, whose root nobody trusts but who is told to.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
};

use libtest_mimic::Failed;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};

use crate::support::Bench;

/// What it answers to every request.
pub(crate) const BODY: &str = "the server's own words\n";

/// Runs until the process ends.
pub(crate) struct TlsServer {
    /// On 127.0.0.1.
    pub(crate) address: SocketAddr,
    /// The root of its certificate, PEM, which everybody can read.
    pub(crate) root: PathBuf,
}

impl TlsServer {
    /// Answers under its address and these names.
    pub(crate) fn start(bench: &Bench, names: &[&str]) -> Result<Self, Failed> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Root of the test's server");
        let root = params.self_signed(&key)?;
        let issuer = Issuer::new(params, key);
        let names = names.iter().copied().chain(["127.0.0.1"]).map(ToOwned::to_owned);
        let leaf_key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, "Server of the test");
        let leaf = params.signed_by(&leaf_key, &issuer)?;
        let path = bench.path("open").join("root.pem");
        fs::write(&path, root.pem())?;

        let key = PrivateKeyDer::Pkcs8(leaf_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)?;
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let config = Arc::clone(&config);
                // Who goes away has had enough.
                std::thread::spawn(move || answer(stream, config).ok());
            }
        });
        Ok(Self { address, root: path })
    }

    /// Its root as an option.
    pub(crate) fn trusted(&self) -> [String; 2] {
        ["--upstream-ca".to_owned(), self.root.display().to_string()]
    }

    /// `https://` with its address.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }
}

fn answer(stream: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    let session = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(session, stream);
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => request.extend_from_slice(&buffer[..read]),
        }
    }
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", BODY.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(BODY.as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()
}
