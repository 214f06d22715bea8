//! Clients as they are installed: curl and Node against HTTPS, with our trust and without.

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use rcgen::KeyPair;
use rustls::ServerConfig;
use verbatim_api::v1;

use crate::support::{
    World,
    database::out,
    eventually,
    tls::{Lab, params, shake_server},
};

/// Answers every request of HTTP/1.1 with a word, over TLS.
fn serve(world: &World, config: ServerConfig) {
    let config = Arc::new(config);
    let listener = world.server.try_clone().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut stream) = shake_server(socket.unwrap(), Arc::clone(&config)) else { continue };
            thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while let Ok(1) = stream.read(&mut byte) {
                    head.push(byte[0]);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
                        if stream.write_all(answer).and_then(|()| stream.flush()).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
}

/// A file with certificates for a client to trust.
fn roots(pem: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), pem).unwrap();
    file
}

fn url(world: &World) -> String {
    format!("https://localhost:{}/path", world.proxies[0].port())
}

fn closings(world: &World) -> Vec<(v1::Envelope, v1::Content)> {
    eventually("the ends", || (world.shards.stats().open == 0).then_some(()));
    let mut records = world.spool().of_kind(v1::RecordKind::Connection);
    records.retain(|record| record.envelope.status() != v1::Status::Pending);
    records.into_iter().map(|record| (record.envelope, record.content.unwrap())).collect()
}

fn curl(world: &World, trusted: &tempfile::NamedTempFile, arguments: &[&str]) -> (String, String) {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "20", "--cacert"]).arg(trusted.path()).args(arguments).arg(url(world));
    out(&curl.output().unwrap())
}

#[test]
fn curl_speaks_http_1_1_over_tls_and_its_request_is_recorded() {
    if !verbatim_missing::has("curl") {
        return;
    }
    let lab = Lab::new();
    let world = lab.real_world(1);
    let mut config = lab.server(&["localhost"]);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    serve(&world, config);
    let (body, errors) = curl(&world, &roots(&lab.authority.roots_pem()), &["-d", "a=b"]);
    assert_eq!((body.as_str(), errors.as_str()), ("hello", ""));
    let started = &world.spool().of_kind(v1::RecordKind::Started)[0];
    assert_eq!(started.envelope.operation(), v1::Operation::HttpRequest);
    let (envelope, content) = closings(&world).remove(0);
    assert_eq!(envelope.protocol(), v1::Protocol::Http1);
    let tls = content.tls.unwrap();
    assert_eq!(tls.client.unwrap().alpn, "http/1.1");
    assert_eq!(content.target.unwrap().host, "localhost");
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn curl_speaks_http_2_over_tls_and_its_requests_are_recorded() {
    if !verbatim_missing::has("curl") || !verbatim_missing::has("nghttpd") {
        return;
    }
    let lab = Lab::new();
    let world = lab.real_world(1);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("path"), "hello").unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params(&["localhost"]).signed_by(&key, &lab.root).unwrap();
    fs::write(folder.path().join("key"), key.serialize_pem()).unwrap();
    fs::write(folder.path().join("certificate"), certificate.pem()).unwrap();
    let port = verbatim_missing::port::free().unwrap().port();
    let mut nghttpd = Command::new("nghttpd");
    nghttpd.args(["-a", "127.0.0.1", "-d"]).arg(folder.path()).arg(port.to_string());
    nghttpd.arg(folder.path().join("key")).arg(folder.path().join("certificate"));
    let _server = Killed(nghttpd.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    eventually("nghttpd", || std::net::TcpStream::connect(address).ok());
    *world.flows.0.lock().unwrap() = Some(address);
    let again = url(&world);
    let (body, errors) = curl(&world, &roots(&lab.authority.roots_pem()), &["--http2", &again]);
    assert_eq!((body.as_str(), errors.as_str()), ("hellohello", ""));
    let started = world.spool().of_kind(v1::RecordKind::Started);
    assert_eq!(started.len(), 2, "both on one connection");
    let (envelope, content) = closings(&world).remove(0);
    assert_eq!(envelope.protocol(), v1::Protocol::Http2);
    let tls = content.tls.unwrap();
    assert_eq!((tls.client.unwrap().alpn.as_str(), tls.server.unwrap().alpn.as_str()), ("h2", "h2"));
}

fn node(world: &World, trusted: &tempfile::NamedTempFile) -> (String, String) {
    let script = format!(
        "fetch('{}').then(r => r.text()).then(console.log, e => console.log(String(e.cause && e.cause.code)))",
        url(world)
    );
    let mut node = Command::new("node");
    node.arg("-e").arg(script).env("NODE_EXTRA_CA_CERTS", trusted.path());
    out(&node.output().unwrap())
}

#[test]
fn node_with_our_trust_is_decoded_and_without_it_loses_one_connection() {
    if !verbatim_missing::has("node") {
        return;
    }
    let lab = Lab::new();
    let world = lab.real_world(1);
    serve(&world, lab.server(&["localhost"]));
    let pinned = roots(&lab.root.pem());
    let (told, _) = node(&world, &pinned);
    assert_ne!(told.trim(), "hello", "it does not trust us");
    let (told, _) = node(&world, &pinned);
    assert_eq!(told.trim(), "hello", "passed on");
    let closings = closings(&world);
    let reasons: Vec<_> = closings.iter().map(|(envelope, _)| envelope.opaque_reason()).collect();
    assert_eq!(reasons, [v1::OpaqueReason::ClientDoesNotTrustUs; 2], "{closings:?}");

    let lab = Lab::new();
    let world = lab.real_world(1);
    serve(&world, lab.server(&["localhost"]));
    let (told, _) = node(&world, &roots(&lab.authority.roots_pem()));
    assert_eq!(told.trim(), "hello");
    assert_eq!(world.spool().of_kind(v1::RecordKind::Started).len(), 1);
}
