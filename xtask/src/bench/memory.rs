//! The agent's memory: at rest, and while a client has stopped reading in the middle of 1 GiB.
//!
//! Counted is what the agent's processes have for themselves (anonymous memory), beside what is resident: the
//! spool's segments are mapped files, which the kernel writes back and drops as it likes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{
    Bench,
    capture::{AGENT, Capture},
    pgbench, phases,
    processes::{self, Used},
    report::{MemoryTable, Section},
};
use crate::{command, daemon::Daemon, say};

/// How long the reader stands still.
const STOPPED_SECONDS: &str = "60";

pub(super) fn run(bench: &Bench<'_>) -> Result<Section> {
    let mut table = MemoryTable::default();
    say::heading("Memory at rest");
    table.row("`serve` at rest", at_rest(bench)?);
    say::heading(&format!("A client that stops reading for {STOPPED_SECONDS} s in the middle of 1 GiB"));
    let script = bench.scratch.path().join("stalled.py");
    write(&script, include_str!("stalled.py"))?;
    let mut client = Command::new(bench.place.python());
    client.arg(&script).arg(pgbench::address(bench.postgres.port(), "sslmode=disable"));
    client.arg(bench.postgres.program("pgbench")).arg(STOPPED_SECONDS);
    let seen = phases::captured(bench, &Capture::process(), &client)?;
    for (phase, name) in [
        ("before", "`run`, four siblings alone"),
        ("reading", "`run`, while the result is read"),
        ("stopped", "`run`, while its reader stands still, siblings beside it"),
        ("after", "`run`, after the result"),
    ] {
        table.row(name, seen.peak(phase)?);
    }
    if seen.value("bytes")? < f64::from(1 << 30) {
        bail!("the reader got {} bytes", seen.value("bytes")?);
    }
    let text = format!(
        "{}\nThe siblings' average latency: {} ms before, {} ms while the reader stands still. The reader got all of \
         its 1 GiB in the end.\n",
        table.text(),
        seen.value("latency-before")?,
        seen.value("latency-stopped")?
    );
    Ok(Section { name: "memory", text })
}

/// `serve`, steering a cgroup in which nothing runs, beside a collector.
fn at_rest(bench: &Bench<'_>) -> Result<Used> {
    let folder = bench.scratch.path().join("rest");
    fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    let cgroup = Cgroup::create()?;
    let at = folder.display();
    let agent_configuration = folder.join("agent.yaml");
    write(
        &agent_configuration,
        &format!(
            "apiVersion: verbatim.v1\nkind: NodeAgent\nnode: bench\nattach: {{cgroup: {0}, pins: /sys/fs/bpf/{0}}}\n\
             runDirectory: {at}/run\n\
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
    processes::named_below(agent.id(), AGENT)
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
