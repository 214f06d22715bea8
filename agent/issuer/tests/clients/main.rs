//! Real clients with exactly what an injected container has: its variables, and the bundle's two files.
//!
//! The tests of a client that is not on this machine count as ignored, or as failed where `REQUIRE_LAB=1` says so.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};
use verbatim_inject::{Options, RootId, inject};
use verbatim_missing::Case;
use verbatim_tls::{
    Authority, AuthorityMaterial, Downstream, IssuingRoot, LeafName, NameClass, Request, Roots, trust_files,
    variables,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A server under a leaf for `localhost` of an intermediate that was issued to a node, and the cluster's bundle.
struct Cluster {
    address: SocketAddr,
    root: RootId,
    folder: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Self {
        let root = IssuingRoot::make(NameClass::Databases, &[], HOUR).expect("root");
        let request = Request::make().expect("made");
        let issued = root.intermediate(&request.pem().expect("PEM"), "node-1", HOUR).expect("issued");
        let intermediates = vec![format!("{}{}", issued.certificate, *request.key_pem())];
        let material = AuthorityMaterial { roots: root.certificate_pem(), intermediates };
        let authority = Authority::from_pem(&material).expect("authority");
        let leaf = authority.leaf(&LeafName::parse("localhost").expect("name")).expect("leaf");
        let config = Downstream::new().expect("downstream").config(leaf, None);
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("address");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_read_timeout(Some(Duration::from_secs(20))).ok();
                let Ok(connection) = ServerConnection::new(Arc::clone(&config)) else { continue };
                let mut stream = StreamOwned::new(connection, stream);
                let mut request = [0; 1024];
                // A client that refuses us is what some cases are about.
                if stream.read(&mut request).is_ok_and(|read| read > 0) {
                    stream
                        .write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                        .ok();
                    stream.conn.send_close_notify();
                    stream.flush().ok();
                }
            }
        });
        let folder = tempfile::tempdir().expect("folder");
        let mut roots = Roots::default();
        roots.add_system().ok();
        roots.add_pem(root.certificate_pem().as_bytes());
        let (pem, store) = trust_files(&roots);
        std::fs::write(folder.path().join(variables::BUNDLE), pem).expect("written");
        std::fs::write(folder.path().join(variables::TRUST_STORE), store).expect("written");
        // A root that is another's, for pods that have their own.
        let other = IssuingRoot::make(NameClass::Databases, &[], HOUR).expect("root");
        std::fs::write(folder.path().join("own.pem"), other.certificate_pem()).expect("written");
        let mut own = Roots::default();
        own.add_pem(other.certificate_pem().as_bytes());
        std::fs::write(folder.path().join("own.p12"), trust_files(&own).1).expect("written");
        Self { address, root: root.id(), folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The variables of a container that sets these itself, as the webhook leaves it.
    fn variables(&self, own: &[(&str, &str)]) -> Vec<(String, String)> {
        let env: Vec<_> = own.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "app", "env": env}]}});
        let typed: Pod = serde_json::from_value(pod.clone()).expect("a pod");
        let folder = self.folder.path().display().to_string();
        let options = Options { folder, ..Options::new([self.root.clone()]) };
        json_patch::patch(&mut pod, &inject(&typed, &options).patch).expect("it fits");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let env = pod["spec"]["containers"][0]["env"].as_array().cloned().unwrap_or_default();
        env.iter().map(|one| (text(&one["name"]), text(&one["value"]))).collect()
    }

    /// Whether a client takes the server for what it says it is.
    fn accepted(&self, words: &[&str], own: &[(&str, &str)]) -> bool {
        let url = format!("https://localhost:{}/", self.address.port());
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(&url).env_clear().envs(self.variables(own));
        for kept in ["PATH", "HOME", "PYENV_ROOT", "LD_LIBRARY_PATH"] {
            command.envs(std::env::var_os(kept).map(|value| (kept, value)));
        }
        let output = command.stdin(Stdio::null()).output().expect("it was there when the tests were listed");
        let said = String::from_utf8_lossy(&output.stdout);
        let ok = output.status.success() && said.trim_end().ends_with("ok");
        if !ok {
            let why = String::from_utf8_lossy(&output.stderr).to_lowercase();
            let trust =
                ["certificate", "unable to find valid certification path", "self-signed", "self signed"];
            assert!(
                trust.iter().any(|word| why.contains(word)),
                "{words:?} failed for another reason: {why}"
            );
        }
        ok
    }
}

const PYTHON: &str = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())";
/// A client that has its own roots built in.
const PINNED: &str = "import ssl, sys, urllib.request; \
    print(urllib.request.urlopen(sys.argv[2], context=ssl.create_default_context(cafile=sys.argv[1])).read().decode())";
const NODE: &str = "require('https').get(process.argv[1], r => r.on('data', d => console.log('' + d)))\
    .on('error', e => { console.error(e.message); process.exit(1) })";
const JAVA: &str = "
import java.net.URI;
import java.net.http.*;
class Get {
    public static void main(String[] a) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(a[0])).build();
        System.out.println(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body());
    }
}
";

fn main() -> ExitCode {
    let case = |name, programs: &[_], run| Case { name, missing: verbatim_missing::programs(programs), run };
    verbatim_missing::main(vec![
        case(
            "curl_in_an_injected_container_trusts_us_without_being_told",
            &["curl"],
            curl_in_an_injected_container_trusts_us_without_being_told,
        ),
        case(
            "python_in_an_injected_container_trusts_us_without_being_told",
            &["python3"],
            python_in_an_injected_container_trusts_us_without_being_told,
        ),
        case(
            "node_in_an_injected_container_trusts_us_without_being_told",
            &["node"],
            node_in_an_injected_container_trusts_us_without_being_told,
        ),
        case(
            "java_trusts_us_by_its_own_trust_store_and_keeps_its_options",
            &["java"],
            java_trusts_us_by_its_own_trust_store_and_keeps_its_options,
        ),
        case(
            "curl_with_roots_of_its_own_keeps_them_and_refuses_us",
            &["curl"],
            curl_with_roots_of_its_own_keeps_them_and_refuses_us,
        ),
        case(
            "python_with_roots_of_its_own_keeps_them_and_refuses_us",
            &["python3"],
            python_with_roots_of_its_own_keeps_them_and_refuses_us,
        ),
        case(
            "node_with_roots_of_its_own_keeps_them_and_refuses_us",
            &["node"],
            node_with_roots_of_its_own_keeps_them_and_refuses_us,
        ),
    ])
}

fn curl_in_an_injected_container_trusts_us_without_being_told() {
    assert!(Cluster::start().accepted(&["curl", "-sS"], &[]));
}

fn python_in_an_injected_container_trusts_us_without_being_told() {
    assert!(Cluster::start().accepted(&["python3", "-c", PYTHON], &[]));
}

fn node_in_an_injected_container_trusts_us_without_being_told() {
    assert!(Cluster::start().accepted(&["node", "-e", NODE], &[]));
}

fn java_trusts_us_by_its_own_trust_store_and_keeps_its_options() {
    let cluster = Cluster::start();
    let script = cluster.path("Get.java");
    std::fs::write(Path::new(&script), JAVA).expect("written");
    let words = ["java", "-XX:TieredStopAtLevel=1", &script];
    assert!(cluster.accepted(&words, &[("JAVA_TOOL_OPTIONS", "-Xmx64m -Dx='a b'")]));
    // One that has a trust store of its own keeps it, and so refuses us.
    let own = format!(
        "-Djavax.net.ssl.trustStore={} -Djavax.net.ssl.trustStoreType=PKCS12",
        cluster.path("own.p12")
    );
    assert!(!cluster.accepted(&words, &[("JAVA_TOOL_OPTIONS", &own)]));
    assert!(!cluster.accepted(&words, &[("_JAVA_OPTIONS", &own)]));
}

fn curl_with_roots_of_its_own_keeps_them_and_refuses_us() {
    let cluster = Cluster::start();
    assert!(!cluster.accepted(&["curl", "-sS"], &[("CURL_CA_BUNDLE", &cluster.path("own.pem"))]));
}

fn python_with_roots_of_its_own_keeps_them_and_refuses_us() {
    let cluster = Cluster::start();
    let own = cluster.path("own.pem");
    assert!(!cluster.accepted(&["python3", "-c", PYTHON], &[("SSL_CERT_FILE", &own)]));
    // By no variable at all: they are built in.
    assert!(!cluster.accepted(&["python3", "-c", PINNED, &own], &[]));
}

fn node_with_roots_of_its_own_keeps_them_and_refuses_us() {
    let cluster = Cluster::start();
    assert!(!cluster.accepted(&["node", "-e", NODE], &[("NODE_EXTRA_CA_CERTS", &cluster.path("own.pem"))]));
}
