//! Real clients: what they accept of us, and what they refuse of a thief.
//!
//! Tests of a client that is not on this machine count as skipped.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread::JoinHandle,
    time::Duration,
};

use rustls::{ServerConnection, StreamOwned};

use super::*;
use crate::{Moment, Source, pkcs12_trust_store, refusal};

/// Answers every request with `ok`, under one chain; PostgreSQL's as an error with that text.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    /// How each client refused it, as the proxy would record it; `None` for one that did not.
    refusals: Arc<Mutex<Vec<Option<&'static str>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(chain: Arc<CertifiedKey>) -> Self {
        Self::start_at("127.0.0.1", chain).unwrap()
    }

    fn start_at(address: &str, chain: Arc<CertifiedKey>) -> std::io::Result<Self> {
        let listener = TcpListener::bind((address, 0))?;
        let address = listener.local_addr().unwrap();
        let config = Downstream::new().unwrap().config(chain, None);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let refusals = Arc::<Mutex<Vec<_>>>::default();
        let seen = Arc::clone(&refusals);
        let thread = std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                consent(&mut stream).ok();
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(connection, stream);
                let ended = answer(&mut stream).err();
                let moment =
                    if stream.conn.is_handshaking() { Moment::Handshake } else { Moment::Established };
                seen.lock().unwrap().push(ended.and_then(|error| refusal(&error, moment)));
            }
        });
        Ok(Self { address, stop, refusals, thread: Some(thread) })
    }
}

/// Lets a client of PostgreSQL have TLS (SSLRequest: eight bytes, answered by one).
fn consent(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut first = [0; 8];
    if stream.peek(&mut first)? > 0 && first[0] == 0 {
        stream.read_exact(&mut first)?;
        stream.write_all(b"S")?;
    }
    Ok(())
}

fn answer(stream: &mut StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<()> {
    let mut request = [0; 1024];
    let read = stream.read(&mut request)?;
    if request.starts_with(b"GET") {
        stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")?;
    } else if read > 0 {
        stream.write_all(b"E\0\0\0\x17SFATAL\0C28000\0Mok\0\0")?;
    }
    stream.conn.send_close_notify();
    stream.flush()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
        self.thread.take().into_iter().for_each(|thread| drop(thread.join()));
    }
}

/// A name, its server, and whether a client is to accept it.
struct Case {
    name: &'static str,
    server: Server,
    accepted: bool,
}

struct Cases {
    cases: Vec<Case>,
    authority: Authority,
    folder: tempfile::TempDir,
}

impl Cases {
    fn start() -> Self {
        let authority = authority();
        let genuine =
            ["bigquery.googleapis.com", "db.example", "localhost", "127.0.0.1", "10.1.2.3", "::1", "fd00::7"];
        let genuine = genuine.map(|text| (text, authority.leaf(&name(text)).unwrap(), true));
        let forged = FORGERIES.map(|(class, text)| (text, forged(&authority, class, text), false));
        let cases = genuine
            .into_iter()
            .chain(forged)
            .map(|(name, chain, accepted)| Case { name, server: Server::start(chain), accepted })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("roots.pem"), authority.roots_pem()).unwrap();
        Self { cases, authority, folder }
    }

    fn roots(&self) -> std::path::PathBuf {
        self.folder.path().join("roots.pem")
    }

    /// One process that tries all of them: arguments `PORT NAME` each; prints a line `ok` or `refused: …` for each.
    fn all_at_once(&self, client: &str, mut command: Command) {
        for case in &self.cases {
            command.arg(case.server.address.port().to_string()).arg(case.name);
        }
        let output = output(&mut command);
        let lines: Vec<_> =
            output.lines().filter(|line| line.starts_with("ok") || line.starts_with("refused")).collect();
        assert_eq!(lines.len(), self.cases.len(), "{client} said:\n{output}");
        for (case, line) in self.cases.iter().zip(lines) {
            assert_eq!(line == "ok", case.accepted, "{client} about {}: {line}", case.name);
        }
        self.refusals_were_recognised(client);
    }

    /// What the client did to forgeries reads as a refusal, and what it did to leaves does not.
    fn refusals_were_recognised(&self, client: &str) {
        for case in &self.cases {
            // The server may still be at it.
            let mut seen = Vec::new();
            for _ in 0..500 {
                seen.clone_from(&case.server.refusals.lock().unwrap());
                if !seen.is_empty() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(!seen.is_empty(), "{client} never came to {}", case.name);
            assert!(
                seen.iter().all(|seen| seen.is_none() == case.accepted),
                "{client} about {}: {seen:?}",
                case.name
            );
        }
    }

    fn one_by_one(&self, client: &str, command: impl Fn(&Case) -> Command) {
        for case in &self.cases {
            let output = output(&mut command(case));
            let accepted = output.trim_end().to_ascii_lowercase().ends_with("ok");
            assert_eq!(accepted, case.accepted, "{client} about {}:\n{output}", case.name);
        }
    }
}

/// What it wrote, errors included, with nothing of this process's own trust.
fn output(command: &mut Command) -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let output = command.env_clear().env("PATH", path).stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn script(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn curl_accepts_leaves_and_refuses_forgeries() {
    if !verbatim_missing::has("curl") {
        return;
    }
    let cases = Cases::start();
    cases.one_by_one("curl", |case| {
        let host = if case.name.contains(':') { format!("[{}]", case.name) } else { case.name.to_owned() };
        let mut command = Command::new("curl");
        command.args(["-q", "--silent", "--show-error", "--max-time", "10", "--noproxy", "*", "--cacert"]);
        command
            .arg(cases.roots())
            .arg("--connect-to")
            .arg(format!("::127.0.0.1:{}", case.server.address.port()));
        command.arg(format!("https://{host}/"));
        command
    });
    cases.refusals_were_recognised("curl");
}

#[test]
fn openssl_accepts_leaves_and_refuses_forgeries() {
    if !verbatim_missing::has("openssl") {
        return;
    }
    let cases = Cases::start();
    cases.one_by_one("openssl verify", |case| {
        let chain = match case.accepted {
            true => cases.authority.leaf(&name(case.name)).unwrap(),
            false => {
                let class = FORGERIES.iter().find(|(_, text)| *text == case.name).unwrap().0;
                forged(&cases.authority, class, case.name)
            }
        };
        let pem = crate::trust::pem_text(&chain.cert);
        let file = script(cases.folder.path(), "chain.pem", &pem);
        let mut command = Command::new("openssl");
        command.args(["verify", "-x509_strict", "-purpose", "sslserver", "-no-CApath", "-no-CAstore"]);
        let kind = if name(case.name).as_ip().is_some() { "-verify_ip" } else { "-verify_hostname" };
        command.args([kind, case.name, "-CAfile"]).arg(cases.roots()).arg("-untrusted").arg(&file).arg(&file);
        command
    });
}

#[test]
fn psql_accepts_leaves_and_refuses_forgeries() {
    if !verbatim_missing::has("psql") {
        return;
    }
    let cases = Cases::start();
    cases.one_by_one("psql", |case| {
        let mut command = Command::new("psql");
        let (name, port, roots) = (case.name, case.server.address.port(), cases.roots());
        command.arg(format!(
            "host={name} hostaddr=127.0.0.1 port={port} user=u dbname=d sslmode=verify-full gssencmode=disable \
             connect_timeout=10 sslrootcert={}",
            roots.display()
        ));
        command
    });
    cases.refusals_were_recognised("psql");
}

#[test]
fn python_accepts_leaves_and_refuses_forgeries() {
    if !verbatim_missing::has("python3") {
        return;
    }
    let cases = Cases::start();
    let script = script(
        cases.folder.path(),
        "client.py",
        r#"
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
for port, name in zip(sys.argv[2::2], sys.argv[3::2]):
    try:
        with socket.create_connection(("127.0.0.1", int(port)), 10) as plain:
            with context.wrap_socket(plain, server_hostname=name) as secure:
                secure.sendall(b"GET / HTTP/1.0\r\n\r\n")
                print("ok" if secure.recv(100) else "refused: no answer")
    except ssl.SSLCertVerificationError as error:
        print("refused:", error)
"#,
    );
    let mut command = Command::new("python3");
    command.arg(script).arg(cases.roots());
    cases.all_at_once("python", command);
}

#[test]
fn wget_accepts_leaves_and_refuses_forgeries() {
    if !verbatim_missing::has("wget") {
        return;
    }
    let (authority, folder) = (authority(), tempfile::tempdir().unwrap());
    let roots = script(folder.path(), "roots.pem", &authority.roots_pem());
    // It cannot be told where a name is: only names of this machine can be tried.
    for (text, address) in [("localhost", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        for class in [1, 0] {
            let Ok(server) = Server::start_at(address, forged(&authority, class, text)) else {
                verbatim_missing::skip(&format!("this machine has no {address}"));
                continue;
            };
            let host = if text.contains(':') { format!("[{text}]") } else { text.to_owned() };
            let mut command = Command::new("wget");
            command.args(["--no-config", "--no-proxy", "--tries=1", "--timeout=10", "--quiet", "--no-hsts"]);
            command.args([
                "--output-document=-",
                if address == "::1" { "--inet6-only" } else { "--inet4-only" },
            ]);
            command.arg("--ca-certificate").arg(&roots);
            command.arg(format!("https://{host}:{}/", server.address.port()));
            let output = output(&mut command);
            assert_eq!(
                output.trim_end() == "ok",
                class == 1,
                "wget about {text} of class {class}:\n{output}"
            );
        }
    }
}

#[test]
fn node_accepts_leaves_and_refuses_forgeries() {
    if !verbatim_missing::has("node") {
        return;
    }
    let cases = Cases::start();
    let script = script(
        cases.folder.path(),
        "client.js",
        r#"
const tls = require('node:tls'), net = require('node:net'), fs = require('node:fs');
const ca = fs.readFileSync(process.argv[2]);
const one = (port, name) => new Promise((done) => {
  const options = {host: '127.0.0.1', port, ca,
    checkServerIdentity: (_, certificate) => tls.checkServerIdentity(name, certificate)};
  if (!net.isIP(name)) options.servername = name;
  const socket = tls.connect(options, () => socket.write('GET / HTTP/1.0\r\n\r\n'));
  socket.once('data', () => { done('ok'); socket.destroy(); });
  socket.once('error', (error) => done('refused: ' + error.code));
});
(async () => {
  const rest = process.argv.slice(3);
  for (let i = 0; i < rest.length; i += 2) console.log(await one(Number(rest[i]), rest[i + 1]));
})();
"#,
    );
    let mut command = Command::new("node");
    command.arg(script).arg(cases.roots());
    cases.all_at_once("node", command);
}

#[test]
fn java_accepts_leaves_and_refuses_forgeries_with_our_trust_store() {
    if !verbatim_missing::has("java") {
        return;
    }
    let cases = Cases::start();
    // An empty source: nobody but us is trusted.
    let nobody = script(cases.folder.path(), "nobody.pem", "");
    let (store, _) = pkcs12_trust_store(&Source::Pem(vec![nobody]), &cases.authority);
    let path = cases.folder.path().join("truststore.p12");
    std::fs::write(&path, store).unwrap();
    let script = script(
        cases.folder.path(),
        "Client.java",
        r#"
import java.net.Socket;
import javax.net.ssl.*;
public class Client {
  public static void main(String[] args) throws Exception {
    var factory = (SSLSocketFactory) SSLSocketFactory.getDefault();
    for (int i = 0; i < args.length; i += 2) {
      try (var plain = new Socket("127.0.0.1", Integer.parseInt(args[i]));
           var secure = (SSLSocket) factory.createSocket(plain, args[i + 1], 443, true)) {
        var parameters = secure.getSSLParameters();
        parameters.setEndpointIdentificationAlgorithm("HTTPS");
        secure.setSSLParameters(parameters);
        secure.setSoTimeout(10000);
        secure.getOutputStream().write("GET / HTTP/1.0\r\n\r\n".getBytes());
        System.out.println(secure.getInputStream().read() > 0 ? "ok" : "refused: no answer");
      } catch (SSLException error) {
        System.out.println("refused: " + error.getMessage());
      }
    }
  }
}
"#,
    );
    let mut command = Command::new("java");
    command.arg(format!("-Djavax.net.ssl.trustStore={}", path.display()));
    command.arg("-Djavax.net.ssl.trustStoreType=PKCS12").arg("-XX:TieredStopAtLevel=1").arg(script);
    cases.all_at_once("java", command);
}
