//! Bytes that nobody decodes: what passes in a second, and the processor time of whoever passes them on.
//!
//! iperf3 speaks a protocol of its own, so Verbatim sees an unknown one and splices. Envoy's `tcp_proxy` is the peer.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{
    Bench, Options,
    capture::{AGENT, Capture, Trail},
    pairs::Pairs,
    peers::{self, Peers},
    processes,
    report::Section,
};
use crate::{
    command,
    daemon::{self, Daemon},
    place,
};

/// What iperf3 is told, and how the report says it.
const LOADS: [(&[&str], &str); 4] = [
    (&[], "`iperf3`, one stream up"),
    (&["--reverse"], "`iperf3 -R`, one stream down"),
    (&["--parallel", "8"], "`iperf3 -P 8`, eight streams up"),
    (&["--parallel", "8", "--reverse"], "`iperf3 -P 8 -R`, eight streams down"),
];

/// Between two looks at how much processor time was used.
const LOOK: Duration = Duration::from_millis(20);

/// Around iperf3: a file says that it begins, another one that it has ended; the pause is for a last look.
const BRACKET: &str = "begun=$1; ended=$2; shift 2; touch \"$begun\"; \"$@\"; status=$?; touch \"$ended\"; \
                       sleep 0.2; exit $status";

enum Way<'a> {
    Direct,
    Peer(&'a peers::Peer),
    Verbatim(Capture),
}

/// Runs all rounds; the answer is the report's section.
pub(super) fn run(bench: &Bench<'_>, options: &Options) -> Result<Section> {
    let server = Server::start(bench)?;
    let mut peers = Peers::default();
    peers.add("Envoy", || peers::envoy::tcp(bench, server.port));
    let mut ways = vec![("direct", Way::Direct)];
    ways.extend(peers.here().map(|peer| (peer.name, Way::Peer(peer))));
    let yardsticks: Vec<usize> = (0..ways.len()).collect();
    if !options.peers_only {
        ways.push(("Verbatim", Way::Verbatim(Capture::process())));
    }
    let names: Vec<String> = ways.iter().map(|(name, _)| (*name).to_owned()).collect();
    let loads: Vec<String> = LOADS.iter().map(|(_, words)| (*words).to_owned()).collect();
    let spent = std::cell::RefCell::new(vec![vec![Vec::new(); ways.len()]; LOADS.len()]);
    let pairs = Pairs::run(options.rounds, names.clone(), loads.clone(), "MB/s", |load, contestant| {
        let done = once(bench, &server, &ways[contestant].1, LOADS[load].0, options.each)?;
        spent.borrow_mut()[load][contestant].push(done.processor_seconds_per_gigabyte);
        Ok(done.megabytes_per_second)
    })?;
    let mut text = pairs.tables(&yardsticks);
    text.push_str("\nProcessor time of whoever passes it on, median, ms per GB:\n\n| |");
    names.iter().skip(1).for_each(|name| text.push_str(&format!(" {name} |")));
    text.push_str(&format!("\n|---|{}\n", "--:|".repeat(names.len() - 1)));
    for (load, spent) in loads.iter().zip(spent.borrow().iter()) {
        text.push_str(&format!("| {load} |"));
        for rounds in spent.iter().skip(1) {
            text.push_str(&format!(" {:.0} |", super::report::median(rounds) * 1000.0));
        }
        text.push('\n');
    }
    Ok(Section { name: "passing", text: text + &peers.shown() })
}

/// What one run did.
struct Done {
    megabytes_per_second: f64,
    /// Of the proxy alone; 0 where there is none.
    processor_seconds_per_gigabyte: f64,
}

fn once(bench: &Bench<'_>, server: &Server, way: &Way<'_>, load: &[&str], each: Duration) -> Result<Done> {
    let port = match way {
        Way::Direct | Way::Verbatim(_) => server.port,
        Way::Peer(peer) => peer.port,
    };
    let marks = Marks::new(bench.scratch.path());
    let mut client = Command::new("sh");
    client.args(["-c", BRACKET, "sh"]).args([&marks.begun, &marks.ended]);
    client.args(["iperf3", "--client", "127.0.0.1", "--json", "--port", &port.to_string()]);
    client.args(["--time", &each.as_secs().to_string()]).args(load);
    let trail = Trail(bench.scratch.path().join("trail"));
    let mut client = match way {
        Way::Direct | Way::Peer(_) => client,
        Way::Verbatim(capture) => capture.command(bench, &trail.0, &client)?,
    };
    let child = client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let own = std::process::id();
    let spent = marks.spent(child, || match way {
        Way::Direct => Ok(Duration::ZERO),
        Way::Peer(peer) => Ok(processes::of(peer.id())?.processor),
        Way::Verbatim(_) => Ok(processes::named_below(own, AGENT)?.processor),
    })?;
    let said: Value = serde_json::from_str(&spent.printed).context("iperf3's report as JSON")?;
    let received = &said["end"]["sum_received"];
    let number = |name: &str| {
        received[name].as_f64().with_context(|| format!("iperf3 did not say {name}:\n{}", spent.printed))
    };
    let (bytes, bits_per_second) = (number("bytes")?, number("bits_per_second")?);
    if matches!(way, Way::Verbatim(_)) {
        passed_undecoded(bench, &trail, bytes)?;
    }
    Ok(Done {
        megabytes_per_second: bits_per_second / 8e6,
        processor_seconds_per_gigabyte: spent.processor.as_secs_f64() / (bytes / 1e9),
    })
}

/// A capture that did not see these bytes pass is no contestant.
fn passed_undecoded(bench: &Bench<'_>, trail: &Trail, bytes: f64) -> Result<()> {
    let mut verbatim = command::as_root(bench.binaries.join("verbatim"))?;
    verbatim.arg("--data").arg(&trail.0).args(["sessions", "--limit", "1000", "--output", "json"]);
    let mut passed = 0.0;
    for line in command::output(&mut verbatim)?.lines() {
        let session: Value = serde_json::from_str(line).context("a session as JSON")?;
        if session["capture"] == "seen-not-decoded" {
            let count = |name: &str| {
                session[name].as_f64().with_context(|| format!("a session without {name}: {line}"))
            };
            passed += count("bytesSent")? + count("bytesReceived")?;
        }
    }
    if passed < bytes {
        bail!("{bytes} bytes were passed on, and the trail has {passed}");
    }
    Ok(())
}

/// Files by which a client says that it begins and has ended.
struct Marks {
    begun: PathBuf,
    ended: PathBuf,
}

/// What was spent between them.
struct Spent {
    printed: String,
    processor: Duration,
}

impl Marks {
    fn new(folder: &Path) -> Self {
        let marks = Self { begun: folder.join("begun"), ended: folder.join("ended") };
        marks.remove();
        marks
    }

    fn remove(&self) {
        // They may not be there.
        drop(fs::remove_file(&self.begun));
        drop(fs::remove_file(&self.ended));
    }

    /// Waits for the child; `look` says how much was spent up to now.
    fn spent(&self, mut child: Child, look: impl Fn() -> Result<Duration>) -> Result<Spent> {
        let reading = child.stdout.take().context("its output")?;
        let reader = thread::spawn(move || std::io::read_to_string(reading));
        let complaining = child.stderr.take().context("its errors")?;
        let complaints = thread::spawn(move || std::io::read_to_string(complaining));
        let (mut first, mut last) = (None, None);
        let status = loop {
            if first.is_none() && self.begun.exists() {
                first = Some(look()?);
            }
            if last.is_none() && self.ended.exists() {
                last = Some(look()?);
            }
            if let Some(status) = child.try_wait()? {
                break status;
            }
            thread::sleep(LOOK);
        };
        self.remove();
        let text = |reader: thread::JoinHandle<std::io::Result<String>>| match reader.join() {
            Ok(text) => text.context("what the client printed"),
            Err(_panic) => bail!("the thread that reads the client's output died"),
        };
        let (printed, complained) = (text(reader)?, text(complaints)?);
        if !status.success() {
            bail!("the client failed: {status}\n{printed}\n{complained}");
        }
        let (first, last) = first.zip(last).context("the client was too fast to be looked at")?;
        Ok(Spent { printed, processor: last.saturating_sub(first) })
    }
}

/// A running iperf3.
struct Server {
    port: u16,
    _server: Daemon,
}

impl Server {
    fn start(bench: &Bench<'_>) -> Result<Self> {
        let program = place::program("iperf3").context("iperf3 is not installed")?;
        let port = daemon::free_port()?;
        let mut command = daemon::tied(program, "TERM", None);
        command.args(["--server", "--bind", "127.0.0.1", "--port", &port.to_string()]);
        let log = bench.scratch.path().join("iperf3.log");
        let mut server = Daemon::start(&mut command, "TERM", &log)?;
        server.wait_until("iperf3", || daemon::listens(port))?;
        Ok(Self { port, _server: server })
    }
}
