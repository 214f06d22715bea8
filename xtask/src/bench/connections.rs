//! What TLS connections cost the agent: a thousand that are idle, one whose reader stopped in the middle of a
//! stream, new ones, and a certificate for a name.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{
    Bench,
    capture::Capture,
    certificates::Certificates,
    h2load::{self, Done, File, Server},
    peers::{
        Peers,
        envoy::{self, Upstream},
    },
    phases::{self, Phases},
    report::{MemoryTable, Section},
};
use crate::{
    command,
    daemon::{self, Daemon},
    say,
};

/// How long the reader stands still. nghttpd itself resets a stream that takes nothing for a minute.
const STOPPED_SECONDS: &str = "58";
/// Connections that are kept open without a request under way.
const IDLE: &str = "1000";

/// How long they are idle.
const IDLE_SECONDS: &str = "20";

/// Connections that are made one after the other, and how many of them in a tenth of a second: few enough that
/// nobody waits for a processor.
const NEW: u32 = 2000;
const NEW_EACH_TENTH: u32 = 10;

pub(super) fn run(bench: &Bench<'_>, certificates: &Certificates) -> Result<Section> {
    let server = Server::start(bench, certificates)?;
    let capture = Capture::process().trusting(&certificates.roots());
    let mut text = String::new();
    text.push_str(&memory(bench, certificates, &server, &capture)?);
    text.push_str(&new(bench, certificates, &server, &capture)?);
    text.push_str(&leaves(bench)?);
    Ok(Section { name: "connections", text })
}

fn memory(
    bench: &Bench<'_>,
    certificates: &Certificates,
    server: &Server,
    capture: &Capture,
) -> Result<String> {
    let python = |name: &str, script: &str, arguments: &[&str]| -> Result<Command> {
        let path = bench.scratch.path().join(name);
        std::fs::write(&path, script).with_context(|| path.display().to_string())?;
        let mut python = Command::new(bench.place.python());
        python.arg(path).args(arguments);
        Ok(python)
    };
    let mut table = MemoryTable::default();
    let http1 = Http1Server::start(bench, certificates)?;
    for (protocol, port) in [("h2", server.port), ("http/1.1", http1.port)] {
        say::heading(&format!("{IDLE} idle connections, {protocol}"));
        let client =
            python("idle.py", include_str!("idle.py"), &[protocol, &port.to_string(), IDLE, IDLE_SECONDS])?;
        let seen = phases::captured(bench, capture, &client)?;
        for (phase, name) in [("opening", "being opened"), ("idle", "idle"), ("asking", "asked once more")] {
            table.row(&format!("{IDLE} connections with `{protocol}`, {name}"), seen.peak(phase)?);
        }
    }
    say::heading(&format!("A stream that nobody reads for {STOPPED_SECONDS} s, in the middle of 1 GiB"));
    let arguments = [&server.port.to_string(), File::Huge.name(), File::Small.name(), STOPPED_SECONDS];
    let client = python("stalled_stream.py", include_str!("stalled_stream.py"), &arguments)?;
    let seen = phases::captured(bench, capture, &client)?;
    for (phase, name) in [
        ("before", "one connection, small requests alone"),
        ("reading", "while the answer is read"),
        ("stopped", "while its reader stands still, small requests beside it"),
        ("after", "after the answer"),
    ] {
        table.row(name, seen.peak(phase)?);
    }
    if seen.value("bytes")? != f64::from(1 << 30) {
        bail!("the reader got {} bytes", seen.value("bytes")?);
    }
    Ok(format!(
        "{}\nThe small requests' median latency: {} ms before, {} ms while the stream beside them on their \
         connection stands still; {} of them were answered meanwhile. The reader got all of its 1 GiB in the end.\n",
        table.text(),
        seen.value("latency-before")?,
        seen.value("latency-stopped")?,
        seen.value("answered-stopped")?,
    ))
}

/// Processor time for each new connection.
fn new(bench: &Bench<'_>, certificates: &Certificates, server: &Server, capture: &Capture) -> Result<String> {
    say::heading(&format!("{NEW} new connections"));
    let mut peers = Peers::default();
    peers.add("Envoy, unshared", || envoy::http(bench, server.port, certificates, Upstream::OneForEach));
    let mut text = format!(
        "\nProcessor time of {NEW} new connections to one name, TLS in full on the client's leg, one small request \
         each, {} a second:\n\n| | µs a connection |\n|---|--:|\n",
        NEW_EACH_TENTH * 10
    );
    let mut row = |name: &str, seen: &Phases| -> Result<()> {
        let done = Done::parse(&seen.printed)?.requests;
        let each = seen.processor("connecting", "after")?.as_secs_f64() / done * 1e6;
        say::line(&format!("{name}: {each:.0} µs"));
        text.push_str(&format!("| {name} | {each:.0} |\n"));
        Ok(())
    };
    row("the server, asked directly", &phases::beside(server.id(), &mut connecting(server.port))?)?;
    for peer in peers.here() {
        let name = format!("{}, both its legs", peer.name);
        row(&name, &phases::beside(peer.id(), &mut connecting(peer.port))?)?;
    }
    row(
        "Verbatim, both its legs and their records",
        &phases::captured(bench, capture, &connecting(server.port))?,
    )?;
    Ok(text + &peers.shown())
}

/// A client that has made a connection to the name before the counted ones begin, and whose last ones are over
/// before counting ends.
fn connecting(port: u16) -> Command {
    let h2load =
        |arguments: Vec<String>| command::shown(&h2load::command(arguments, port, File::Small, None));
    let first = h2load(vec!["--requests=1".to_owned()]);
    let others = h2load(vec![
        format!("--requests={NEW}"),
        format!("--clients={NEW}"),
        format!("--rate={NEW_EACH_TENTH}"),
        "--rate-period=100ms".to_owned(),
    ]);
    let mut shell = Command::new("sh");
    shell.args([
        "-ec",
        &format!(
            "{first} >/dev/null; sleep 1; echo phase connecting; {others}; sleep 1; echo phase after; sleep 1; \
             echo value requests {NEW}"
        ),
    ]);
    shell
}

/// Certificates for names, by the program that lies beside the code.
fn leaves(bench: &Bench<'_>) -> Result<String> {
    say::heading("Certificates for names");
    let mut cargo = bench.place.cargo();
    cargo.args(["run", "--quiet", "--locked", "--release", "--package", "verbatim-tls", "--example", "leaf"]);
    let output = command::output(&mut cargo)?;
    say::line(&output);
    Ok(format!(
        "\nA certificate for a name that was not seen before:\n\n```text\n{}\n```\n",
        output.trim_end()
    ))
}

/// A server of HTTP/1.1, which nghttpd is not.
struct Http1Server {
    port: u16,
    _server: Daemon,
}

impl Http1Server {
    fn start(bench: &Bench<'_>, certificates: &Certificates) -> Result<Self> {
        let script = bench.scratch.path().join("http1_server.py");
        std::fs::write(&script, include_str!("http1_server.py"))
            .with_context(|| script.display().to_string())?;
        let port = daemon::free_port()?;
        let mut command = daemon::tied("python3", "TERM", None);
        command.arg(&script).arg(port.to_string()).arg(certificates.server()).arg(certificates.server_key());
        let mut server = Daemon::start(&mut command, "TERM", &script.with_extension("log"))?;
        server.wait_until("the server of HTTP/1.1", || daemon::listens(port))?;
        Ok(Self { port, _server: server })
    }
}
