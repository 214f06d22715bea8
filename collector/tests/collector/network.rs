//! Who may connect, and what happens to those who send something else.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use verbatim_api::v1::{self, audit_client::AuditClient, ingest_client::IngestClient};
use verbatim_collector::{
    Collector,
    config::{Address, Tls},
};

use crate::support::{Place, append, files_with, node::Node, search};

/// A certificate authority of a test's own.
pub(crate) struct Authority(pub(crate) CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("authority"))
    }

    /// Certificate and key, PEM.
    pub(crate) fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("name");
        (params.signed_by(&key, &self.0).expect("signed").pem(), key.serialize_pem())
    }
}

/// To a server that the authority vouches for.
pub(crate) async fn connect(
    to: SocketAddr,
    server: &Authority,
    identity: Option<(String, String)>,
) -> Result<Channel, String> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(server.0.pem()))
        .domain_name("collector.test");
    if let Some((certificate, key)) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{to}")).expect("endpoint");
    endpoint.tls_config(tls).expect("tls").connect().await.map_err(|e| e.to_string())
}

/// One batch.
pub(crate) async fn write(channel: Channel) -> Result<(), String> {
    let written = append(&mut IngestClient::new(channel), vec![Node::new().batch()]).await;
    written.map(drop).map_err(|e| e.to_string())
}

pub(crate) struct Network {
    pub(crate) place: Place,
    pub(crate) collector: Collector,
    pub(crate) server: Authority,
    pub(crate) nodes: Authority,
    auditors: Authority,
}

fn address(address: &Address) -> SocketAddr {
    match address {
        Address::Tcp(address) => *address,
        Address::Unix(path) => panic!("{}", path.display()),
    }
}

impl Network {
    pub(crate) async fn new(allowed_names: &[&str]) -> Self {
        let place = Place::new();
        let (server, nodes, auditors) = (Authority::new(), Authority::new(), Authority::new());
        let write = |name: &str, text: &str| {
            let path = place.path().join(name);
            std::fs::write(&path, text).expect("file");
            path
        };
        let (certificate, key) = server.issue("collector.test");
        let tls = |authority: &Authority, name: &str| {
            Some(Tls {
                certificate: write("certificate.pem", &certificate),
                key: write("key.pem", &key),
                client_ca: write(name, &authority.0.pem()),
            })
        };
        let mut config = place.config();
        config.ingest.listen = "tcp:127.0.0.1:0".parse().expect("address");
        config.ingest.tls = tls(&nodes, "nodes.pem");
        config.ingest.allowed_names = allowed_names.iter().map(|n| (*n).to_owned()).collect();
        config.audit.listen = "tcp:127.0.0.1:0".parse().expect("address");
        config.audit.tls = tls(&auditors, "auditors.pem");
        let collector = verbatim_collector::start(&config).await.expect("starts");
        Self { place, collector, server, nodes, auditors }
    }

    pub(crate) async fn connect(
        &self,
        to: &Address,
        identity: Option<(String, String)>,
    ) -> Result<Channel, String> {
        connect(address(to), &self.server, identity).await
    }

    pub(crate) async fn ingest(&self, identity: Option<(String, String)>) -> Result<(), String> {
        write(self.connect(&self.collector.ingest, identity).await?).await
    }

    async fn audit(&self, identity: Option<(String, String)>) -> Result<usize, String> {
        let channel = self.connect(&self.collector.audit, identity).await?;
        let request = v1::SearchRequest::default();
        let found = AuditClient::new(channel).search(request).await.map_err(|e| e.to_string())?;
        Ok(found.into_inner().commands.len())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_may_write_and_not_read_and_an_auditor_the_reverse() {
    let network = Network::new(&[]).await;
    let node = || Some(network.nodes.issue("node-7.cluster.test"));
    let auditor = || Some(network.auditors.issue("ada.test"));
    network.ingest(node()).await.expect("a node writes");
    network.audit(auditor()).await.expect("an auditor reads");
    network.audit(node()).await.expect_err("a node does not read");
    network.ingest(auditor()).await.expect_err("an auditor does not write");
    network.ingest(None).await.expect_err("nobody comes without a certificate");
    network.audit(None).await.expect_err("nobody comes without a certificate");
    network.ingest(Some(Authority::new().issue("node-7.cluster.test"))).await.expect_err("a stranger's");
    let Network { place, collector, .. } = network;
    collector.shut_down().await.expect("ends");
    let known = files_with(&place.data().join("log"), "certificate node-7.cluster.test from 127.0.0.1:");
    assert_eq!(known.len(), 1, "by whom is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_that_is_not_among_the_allowed_names_is_refused_by_name() {
    let network = Network::new(&["node-1.test", "node-2.test"]).await;
    network.ingest(Some(network.nodes.issue("node-2.test"))).await.expect("allowed");
    let refused = network.ingest(Some(network.nodes.issue("node-3.test"))).await.expect_err("not allowed");
    assert!(refused.contains("node-3.test") && refused.contains("allowedNames"), "{refused}");
    network.collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_garbage_and_silence_on_the_tls_port_disturb_nobody() {
    let network = Network::new(&[]).await;
    let to = address(&network.collector.ingest);
    let plaintext = Endpoint::from_shared(format!("http://{to}")).expect("endpoint").connect().await;
    if let Ok(channel) = plaintext {
        append(&mut IngestClient::new(channel), vec![Node::new().batch()])
            .await
            .expect_err("plaintext is refused");
    }
    let mut silent = Vec::new();
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b""]
    {
        let mut stream = std::net::TcpStream::connect(to).expect("connects");
        // The other side may have closed already.
        stream.write_all(garbage).ok();
        silent.push(stream);
    }
    network.ingest(Some(network.nodes.issue("node-1.test"))).await.expect("others are served");
    drop(silent);
    network.collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn message_above_the_limit_is_refused_and_the_next_one_taken() {
    let place = Place::new();
    let mut config = place.config();
    config.ingest.max_message = "64KiB".parse().expect("size");
    let collector = verbatim_collector::start(&config).await.expect("starts");
    let mut client = place.ingest_client().await;
    let mut node = Node::new();
    node.command(b"", &"x".repeat(70_000));
    let refused = append(&mut client, vec![node.batch()]).await.expect_err("refused");
    assert_eq!(refused.code(), tonic::Code::OutOfRange);
    assert!(refused.message().contains("65536"), "{}", refused.message());
    append(&mut client, vec![Node::new().batch()]).await.expect("taken");
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_unix_socket_disturbs_nobody() {
    let place = Place::new();
    let collector = place.start().await;
    for garbage in
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..], &[0xaa; 100_000], b"x"]
    {
        let mut stream = std::os::unix::net::UnixStream::connect(place.ingest()).expect("connects");
        stream.write_all(garbage).ok();
        stream.shutdown(std::net::Shutdown::Write).ok();
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        // Whatever it answers, it ends.
        stream.read_to_end(&mut Vec::new()).ok();
    }
    append(&mut place.ingest_client().await, vec![Node::new().batch()]).await.expect("others are served");
    collector.shut_down().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn socket_is_for_its_owner_alone_and_one_of_a_dead_process_is_replaced() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let mut process = place.spawn();
    for socket in [place.ingest(), place.audit()] {
        assert_eq!(std::fs::metadata(&socket).expect("socket").permissions().mode() & 0o777, 0o600);
    }
    process.kill();
    assert!(place.ingest().exists(), "a killed process leaves it behind");
    let _again = place.spawn();
    append(&mut place.ingest_client().await, vec![Node::new().batch()]).await.expect("served");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_answer_on_both_listeners() {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let place = Place::new();
    let collector = place.start().await;
    for (socket, service, other) in [
        (place.ingest(), "verbatim.v1.Ingest", "verbatim.v1.Audit"),
        (place.audit(), "verbatim.v1.Audit", "verbatim.v1.Ingest"),
    ] {
        let channel = crate::support::connect(&socket).await;
        let mut health = HealthClient::new(channel.clone());
        let check = |service: &str| HealthCheckRequest { service: service.to_owned() };
        let status = health.check(check(service)).await.expect("healthy").into_inner().status();
        assert_eq!(status, ServingStatus::Serving);
        assert!(health.check(check(other)).await.is_err(), "{other} is not served there");
        let ask = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::FileContainingSymbol(service.to_owned())),
        };
        let mut answers = ServerReflectionClient::new(channel)
            .server_reflection_info(tokio_stream::iter([ask]))
            .await
            .expect("reflects")
            .into_inner();
        let answer = answers.message().await.expect("message").and_then(|m| m.message_response);
        assert!(matches!(answer, Some(MessageResponse::FileDescriptorResponse(_))), "{answer:?}");
    }
    let mut audit = AuditClient::new(crate::support::connect(&place.ingest()).await);
    let refused = audit.search(v1::SearchRequest::default()).await.expect_err("a node reads nothing");
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
    assert_eq!(search(&mut place.audit_client().await, v1::Filter::default()).await, []);
    collector.shut_down().await.expect("ends");
}
