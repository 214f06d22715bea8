//! The agent's memory: at rest, and while a client has stopped reading in the middle of 1 GiB.
//!
//! Counted is what the agent's processes have for themselves (anonymous memory), beside what is resident: the
//! spool's segments are mapped files, which the kernel writes back and drops as it likes.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{Bench, report::Section};
use crate::{command, daemon::Daemon, say};

/// How long the reader stands still.
const STOPPED_SECONDS: &str = "60";

/// The agent's program, as the kernel names its processes.
const AGENT: &str = "verbatim-agent";

/// Memory of some processes, in KiB.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
struct Memory {
    resident: u64,
    anonymous: u64,
}

pub(super) fn run(bench: &Bench<'_>) -> Result<Section> {
    let mut text = String::from("\n| | resident, MiB | of it anonymous, MiB |\n|---|--:|--:|\n");
    let mut row = |name: &str, memory: Memory| {
        say::line(&format!("{name}: {} KiB resident, {} KiB anonymous", memory.resident, memory.anonymous));
        let mib = |kib: u64| kib as f64 / 1024.0;
        text.push_str(&format!("| {name} | {:.1} | {:.1} |\n", mib(memory.resident), mib(memory.anonymous)));
    };
    say::heading("Memory at rest");
    row("`serve` at rest", at_rest(bench)?);
    say::heading(&format!("A client that stops reading for {STOPPED_SECONDS} s in the middle of 1 GiB"));
    let stalled = stalled(bench)?;
    for (phase, name) in [
        ("before", "`run`, four siblings alone"),
        ("reading", "`run`, while the result is read"),
        ("stopped", "`run`, while its reader stands still, siblings beside it"),
        ("after", "`run`, after the result"),
    ] {
        row(name, *stalled.peak.get(phase).context("a phase of the workload was not seen")?);
    }
    let latency =
        |phase: &str| stalled.latency.get(phase).copied().context("a latency of the siblings is missing");
    text.push_str(&format!(
        "\nThe siblings' average latency: {} ms before, {} ms while the reader stands still. The reader got all of \
         its 1 GiB in the end.\n",
        latency("before")?,
        latency("stopped")?
    ));
    Ok(Section { name: "memory", text })
}

/// `serve`, steering a cgroup in which nothing runs, beside a collector.
fn at_rest(bench: &Bench<'_>) -> Result<Memory> {
    let folder = bench.scratch.path().join("rest");
    fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    let cgroup = Cgroup::create()?;
    let at = folder.display();
    let agent_configuration = folder.join("agent.yaml");
    write(
        &agent_configuration,
        &format!(
            "apiVersion: verbatim.v1\nkind: NodeAgent\nnode: bench\nattach: {{cgroup: {}}}\n\
             destinations: [{{cidr: 127.0.0.0/8, ports: [5432], action: steer}}]\n\
             selectors: [{{set: {{capture: steer, failMode: open}}}}]\nspool: {{directory: {at}/spool}}\n\
             collector: {{address: 'unix:{at}/ingest.sock'}}\n",
            cgroup.name
        ),
    )?;
    let serve = |program: &str, arguments: &[String]| -> Result<Daemon> {
        // In the cgroup at which the agent's programs are attached: it has to see its own sockets, too.
        let mut command = command::as_root("sh")?;
        command.args(["-c", "echo $$ >\"$0\" && exec setpriv --pdeathsig=TERM -- \"$@\""]);
        command.arg(cgroup.path.join("cgroup.procs")).arg(bench.binaries.join(program));
        command.arg("serve").args(arguments);
        Daemon::start(&mut command, "TERM", &folder.join(format!("{program}.log")))
    };
    let ingest = folder.join("ingest.sock");
    let mut collector = serve(
        "verbatim-collector",
        &[
            format!("--data={at}/data"),
            format!("--ingest=unix:{}", ingest.display()),
            format!("--audit=unix:{at}/audit.sock"),
        ],
    )?;
    collector.wait_until("the collector", || ingest.exists())?;
    let mut agent = serve(AGENT, &[format!("--config={}", agent_configuration.display())])?;
    let log = folder.join(format!("{AGENT}.log"));
    agent.wait_until("the agent", || {
        fs::read_to_string(&log).is_ok_and(|printed| printed.contains("ready"))
    })?;
    // Long enough for a heartbeat record and its way to the collector.
    thread::sleep(Duration::from_secs(15));
    of_agents_below(agent.id())
}

/// What was seen while the workload ran.
#[derive(Default)]
struct Stalled {
    /// The highest memory in each phase.
    peak: BTreeMap<String, Memory>,
    /// The siblings' average latency, in milliseconds.
    latency: BTreeMap<String, f64>,
}

fn stalled(bench: &Bench<'_>) -> Result<Stalled> {
    let script = bench.scratch.path().join("stalled.py");
    write(&script, include_str!("stalled.py"))?;
    let trail = bench.scratch.path().join("stalled-trail");
    let address = format!("postgresql://postgres@127.0.0.1:{}/bench", bench.postgres.port());
    let mut capture = command::as_root(bench.binaries.join(AGENT))?;
    capture
        .args(["run", "--live", "off", "--data"])
        .arg(&trail)
        .arg("--")
        .arg(bench.place.python())
        .arg(&script);
    capture.arg(address).arg(bench.postgres.program("pgbench")).arg(STOPPED_SECONDS);
    let mut child =
        capture.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting the capture")?;
    let lines = BufReader::new(child.stdout.take().context("the capture's output")?).lines();
    let (sender, receiver) = channel();
    let reader = thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));

    let mut seen = Stalled::default();
    let mut phase = String::new();
    let mut bytes = 0_u64;
    loop {
        match receiver.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => match line.split(' ').collect::<Vec<_>>()[..] {
                ["phase", name] => name.clone_into(&mut phase),
                ["latency", name, milliseconds] => {
                    seen.latency.insert(name.to_owned(), milliseconds.parse().context("a latency")?);
                }
                ["bytes", count] => bytes = count.parse().context("a count of bytes")?,
                _ => {}
            },
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let memory = of_agents_below(child.id())?;
        let peak = seen.peak.entry(phase.clone()).or_default();
        peak.resident = peak.resident.max(memory.resident);
        peak.anonymous = peak.anonymous.max(memory.anonymous);
    }
    let status = child.wait()?;
    // The thread has ended: it holds the other end of the channel.
    drop(reader.join());
    command::quiet(command::as_root("rm")?.arg("-rf").arg(&trail))?;
    if !status.success() || bytes < 1 << 30 {
        bail!("the capture ended with {status}, and its reader got {bytes} bytes");
    }
    Ok(seen)
}

/// All agents among this process and those below it.
fn of_agents_below(ancestor: u32) -> Result<Memory> {
    let mut statuses: BTreeMap<u32, Status> = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("/proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end between the listing and the look.
        if let Ok(text) = fs::read_to_string(entry.path().join("status")) {
            statuses.insert(id, Status::parse(&text));
        }
    }
    let is_below = |mut id: u32| {
        while id != ancestor {
            match statuses.get(&id) {
                Some(status) => id = status.parent,
                None => return false,
            }
        }
        true
    };
    let mut sum = Memory::default();
    for (id, status) in &statuses {
        if status.name == AGENT && is_below(*id) {
            sum.resident += status.memory.resident;
            sum.anonymous += status.memory.anonymous;
        }
    }
    Ok(sum)
}

/// What `/proc/PID/status` says.
#[derive(Default, Debug, PartialEq)]
struct Status {
    name: String,
    parent: u32,
    memory: Memory,
}

impl Status {
    fn parse(text: &str) -> Self {
        let mut status = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(":\t") else { continue };
            let number = || value.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or_default();
            match key {
                "Name" => value.clone_into(&mut status.name),
                "PPid" => status.parent = u32::try_from(number()).unwrap_or_default(),
                "VmRSS" => status.memory.resident = number(),
                "RssAnon" => status.memory.anonymous = number(),
                _ => {}
            }
        }
        status
    }
}

/// A cgroup for the length of a measurement.
struct Cgroup {
    name: String,
    path: PathBuf,
}

impl Cgroup {
    fn create() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
        let mounted = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (at, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then_some(at)
        });
        let name = format!("verbatim-bench-{}", std::process::id());
        let path = Path::new(mounted.context("no cgroup v2 is mounted")?).join(&name);
        command::quiet(command::as_root("mkdir")?.arg(&path))?;
        Ok(Self { name, path })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let removed = command::as_root("rmdir").and_then(|mut rmdir| command::quiet(rmdir.arg(&self.path)));
        if let Err(error) = removed {
            say::note(&format!("{} is still there, remove it: {error:#}", self.path.display()));
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_parent_are_read_from_a_process_status() {
        let text =
            "Name:\tverbatim-agent\nUmask:\t0022\nPPid:\t17\nVmRSS:\t  2048 kB\nRssAnon:\t    1024 kB\n";
        let expected = Status {
            name: "verbatim-agent".into(),
            parent: 17,
            memory: Memory { resident: 2048, anonymous: 1024 },
        };
        assert_eq!(Status::parse(text), expected);
    }
}
