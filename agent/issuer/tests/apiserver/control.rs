//! etcd and an API server on loopback, as an ordinary user.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use rustls::{
    ClientConfig, ServerConfig,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

/// The API server's own.
pub(crate) const AUDIENCE: &str = "https://kubernetes.default.svc";
const ADMIN: &str = "the-tests-own-token";
/// One at a time: each takes 0.4 GB.
static ONE: Mutex<()> = Mutex::new(());

pub(crate) fn free_port() -> u16 {
    verbatim_missing::port::free().expect("a port").port()
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

pub(crate) struct Control {
    port: u16,
    programs: PathBuf,
    folder: tempfile::TempDir,
    api_server: Running,
    _etcd: Running,
    _alone: MutexGuard<'static, ()>,
}

/// Where set-up keeps them.
fn programs() -> Option<PathBuf> {
    let cache = std::env::var_os("VERBATIM_CACHE").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/verbatim"));
    Some(cache.or_else(home)?.join("kubernetes")).filter(|folder| folder.join("version").is_file())
}

/// Why there can be none on this machine.
pub(crate) fn missing() -> Option<String> {
    let built = programs().is_some();
    (!built)
        .then(|| "set-up has not built Kubernetes".to_owned())
        .or_else(|| verbatim_missing::programs(&["etcd"]))
}

impl Control {
    pub(crate) fn start() -> Self {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let programs = programs().expect("looked for when the tests were listed");
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let mut etcd = Command::new("etcd");
        etcd.arg("--data-dir").arg(at("etcd")).args(["--unsafe-no-fsync", "--log-level=error"]);
        etcd.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        etcd.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        etcd.args(["--initial-cluster", &format!("default={peer}")]);
        let etcd = Running(etcd.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("etcd"));

        std::fs::write(at("tokens.csv"), format!("{ADMIN},admin,admin,\"system:masters\"\n"))
            .expect("written");
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
        std::fs::write(at("accounts.key"), key.serialize_pem()).expect("written");
        std::fs::write(at("accounts.pub"), key.public_key_pem()).expect("written");
        let mut server = Command::new(programs.join("kube-apiserver"));
        server.args([&format!("--etcd-servers={client}"), &format!("--secure-port={port}")]);
        server.args([
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
        ]);
        server.arg("--cert-dir").arg(at("certificates")).arg("--token-auth-file").arg(at("tokens.csv"));
        server.arg("--service-account-key-file").arg(at("accounts.pub"));
        server.arg("--service-account-signing-key-file").arg(at("accounts.key"));
        server
            .args([&format!("--service-account-issuer={AUDIENCE}"), &format!("--api-audiences={AUDIENCE}")]);
        server.args(["--authorization-mode=RBAC", "--feature-gates=BoundServiceAccountTokenVolume=true"]);
        server.args(["--service-cluster-ip-range=10.0.0.0/24", "--allow-privileged=true"]);
        let log = std::fs::File::create(at("apiserver.log")).expect("log");
        let server = server.stdout(Stdio::null()).stderr(log).spawn();
        let server = Running(server.expect("the API server"));
        let mut control = Self { port, programs, folder, api_server: server, _etcd: etcd, _alone: alone };
        let start = Instant::now();
        while control.kubectl(&["get", "--raw", "/readyz"], "").is_err() {
            let running = control.api_server.0.try_wait().is_ok_and(|ended| ended.is_none());
            assert!(running, "the API server has ended: {}", control.log());
            assert!(start.elapsed() < Duration::from_secs(120), "not ready: {}", control.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        let labels = json!({"verbatim-audit.github.io/capture": "enabled"});
        for (name, labels) in [("verbatim", json!({})), ("shop", labels), ("other", json!({}))] {
            let metadata = json!({"name": name, "labels": labels});
            control.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}));
        }
        for (namespace, name) in [("shop", "default"), ("other", "default"), ("verbatim", "verbatim-agent")] {
            let metadata = json!({"name": name, "namespace": namespace});
            control.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}));
        }
        control
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("apiserver.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n")
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        use std::io::Write as _;
        let mut command = Command::new(self.programs.join("kubectl"));
        command.arg(format!("--server=https://127.0.0.1:{}", self.port)).arg(format!("--token={ADMIN}"));
        command.arg("--insecure-skip-tls-verify").args(arguments).env("HOME", self.folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.env_remove("KUBECONFIG").spawn().expect("kubectl");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).ok();
        let output = child.wait_with_output().expect("kubectl");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    pub(crate) fn apply(&self, object: &Value) {
        self.kubectl(&["apply", "-f", "-"], &object.to_string()).expect("applied");
    }

    /// A file of those that are shipped.
    pub(crate) fn manifest(&self, name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/deploy").join(name);
        self.kubectl(&["apply", "-f", &path.display().to_string()], "").expect("applied");
    }

    /// A token of an account in `verbatim`, as kubelet asks for it.
    pub(crate) fn token(&self, account: &str, spec: &Value) -> String {
        let path = format!("/api/v1/namespaces/verbatim/serviceaccounts/{account}/token");
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let answer =
            self.kubectl(&["create", "--raw", &path, "-f", "-"], &request.to_string()).expect("a token");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer["status"]["token"].as_str().expect("a token").to_owned()
    }

    pub(crate) fn client(&self, token: &str) -> Client {
        let mut config = Config::new(format!("https://127.0.0.1:{}", self.port).parse().expect("address"));
        // Its certificate is its own; what is tested is what it says.
        config.accept_invalid_certs = true;
        config.auth_info.token = Some(token.to_owned().into());
        Client::try_from(config).expect("client")
    }

    pub(crate) fn admin(&self) -> Client {
        self.client(ADMIN)
    }
}

/// A server with this certificate.
pub(crate) fn server(identity: &verbatim_tls::Identity) -> ServerConfig {
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).expect("certificate");
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("key");
    ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).expect("accepted")
}

/// Believes everybody.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Status and body.
pub(crate) async fn post(port: u16, path: &str, token: &str, body: String) -> (u16, String) {
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Anybody));
    let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("connect");
    let name = ServerName::try_from("127.0.0.1").expect("name");
    let stream = connector.connect(name, stream).await.expect("handshake");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let request =
        http::Request::post(path).header("host", "issuer").header("authorization", format!("Bearer {token}"));
    let request = request.body(Full::new(axum::body::Bytes::from(body))).expect("request");
    let response = sender.send_request(request).await.expect("answer");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}
