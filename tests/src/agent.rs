//! A node agent of the scenario's own: configuration, start, restart, end.

mod options;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use verbatim_missing::port;

use crate::{
    binaries,
    network::{DENIED, Pod},
    policy::CONTROL,
    process::{Ended, Place, Process},
    reaper::Guard,
    undo::Leftover,
    wait,
};

pub use options::{Ground, Options};

/// Project number of the lab's principals.
pub const PROJECT_NUMBER: u64 = 123_456_789_012;
/// Workload identity pool of the lab's principals.
pub const POOL: &str = "lab-project.svc.id.goog";

/// The federated principal of a service account (Google Cloud, workload identity federation for GKE).
#[must_use]
pub fn principal(namespace: &str, service_account: &str) -> String {
    format!(
        "principal://iam.googleapis.com/projects/{PROJECT_NUMBER}/locations/global/workloadIdentityPools/{POOL}/\
         subject/ns/{namespace}/sa/{service_account}"
    )
}

/// A workload as the static identity source knows it.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Pattern of its cgroup, with captures `{uid}` and `{container}`.
    pub cgroup: String,
    /// Kubernetes namespace.
    pub namespace: &'static str,
    /// Kubernetes service account.
    pub service_account: &'static str,
    /// Name of its pod.
    pub pod: String,
}

/// What an agent is to work with.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Root at which the programs are attached, relative to where cgroup v2 is mounted.
    pub attach: String,
    /// How the collector is reached, as the configuration has it.
    pub collector: String,
    /// Pattern of the names of the pods' network namespaces.
    pub namespaces: String,
    /// Who is who.
    pub workloads: Vec<Workload>,
    /// The `tls` section of the configuration, where TLS is terminated.
    pub tls: Option<String>,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    place: Place,
    folder: PathBuf,
    surroundings: Surroundings,
    options: Options,
    metrics: Option<SocketAddr>,
    process: Option<Process>,
    /// Whatever it has pinned goes after it.
    _pins: Guard,
}

impl Agent {
    /// Starts one on `folder`, and waits until it steers.
    pub fn start(place: Place, folder: &Path, surroundings: Surroundings, options: Options) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let _pins = Guard::new(Leftover::Pins(pins(&surroundings).display().to_string()))?;
        let metrics = options.metrics.then(port::free).transpose()?;
        let mut agent =
            Self { place, folder: folder.to_owned(), surroundings, options, metrics, process: None, _pins };
        agent.restart()?;
        Ok(agent)
    }

    /// Starts it (again) on what it has.
    pub fn restart(&mut self) -> Result<()> {
        let process = self.another()?;
        self.process.insert(process).wait_for_output("ready")
    }

    /// Starts another one on the same, which takes over; the one before, which drains.
    pub fn succeed(&mut self) -> Result<Process> {
        let mut process = self.another()?;
        process.wait_for_output("ready")?;
        self.process.replace(process).context("the agent does not run")
    }

    /// Starts another one, and says nothing about its coming to steer.
    pub fn another(&self) -> Result<Process> {
        let configuration = self.configuration_file();
        fs::write(&configuration, self.configuration())?;
        let mut command = self.place.command(binaries::find("lab-agent")?);
        command
            .arg("serve")
            .arg("--config")
            .arg(&configuration)
            .env(CONTROL, self.control())
            .env("RUST_LOG", "info");
        Process::start("agent", &self.place.folder, command)
    }

    /// Runs another command of the agent's with the same configuration, to its end.
    pub fn command(&self, name: &str) -> Result<Ended> {
        let mut command = self.place.command(binaries::find("lab-agent")?);
        command.arg(name).arg("--config").arg(self.folder.join("agent.yaml")).env(CONTROL, self.control());
        Process::start(name, &self.place.folder, command)?.wait()
    }

    /// Where its configuration lies.
    #[must_use]
    pub fn configuration_file(&self) -> PathBuf {
        self.folder.join("agent.yaml")
    }

    /// Where it answers about metrics and health.
    pub fn metrics(&self) -> Result<SocketAddr> {
        self.metrics.context("this scenario's agent has no metrics: say so in its options")
    }

    /// What it is started with. Only the pods' cgroups are steered, so that the database and the
    /// collector beside them in the same tree prove that nothing else is.
    #[must_use]
    pub fn configuration(&self) -> String {
        let Options { spool_limit, segment_size, when_full, sync, extra, untrusted, .. } = self.options;
        let Options { misdirected, drain_deadline, .. } = self.options;
        let Surroundings { attach, collector, namespaces, workloads, tls } = &self.surroundings;
        let set = |pod| match tls {
            Some(_) if self.options.trusting.contains(&pod) => {
                format!(", untrusted: {untrusted}, misdirected: {misdirected}, trust: injected")
            }
            Some(_) => format!(", untrusted: {untrusted}"),
            None => String::new(),
        };
        let (a, b) = (set(Pod::A), set(Pod::B));
        let [fails_a, fails_b] = self.options.fail_modes;
        let tls = tls.as_deref().unwrap_or_default();
        let mut text = format!(
            "\
apiVersion: verbatim.v1
kind: NodeAgent
node: lab-node
attach: {{cgroup: {attach}, pins: {pins}}}
runDirectory: {run}
namespaces: {{directory: /run/netns, pattern: '{namespaces}', host: false}}
destinations:
- {{cidr: 10.61.9.0/24, action: steer}}
- {{cidr: {DENIED}/32, action: deny}}
- {{cidr: 'fd61:9::/64', action: steer}}
- {{cidr: 199.36.153.4/30, action: steer}}
- {{cidr: 199.36.153.8/30, action: steer}}
selectors:
- {{match: {{cgroup: '{attach}/kubepods/**'}}, set: {{capture: steer, failMode: {fails_a}{a}}}}}
- {{match: {{cgroup: '{attach}/kubepods.slice/**'}}, set: {{capture: steer, failMode: {fails_b}{b}}}}}
- {{set: {{capture: pass, failMode: open}}}}
spool: {{directory: {spool}, sync: {sync}, segmentSize: {segment_size}, limit: {spool_limit}, whenFull: {when_full}}}
collector: {collector}
drainDeadline: {drain_deadline}
{tls}
{extra}
identities:
",
            pins = self.pins().display(),
            run = self.folder.join("run").display(),
            spool = self.spool().display(),
        );
        if self.options.metadata {
            let metadata = "destinations:\n- {cidr: 169.254.169.254/32, ports: [80], action: steer}";
            text = text.replace("destinations:", metadata);
        }
        if let Some(extra) = self.options.extra_in {
            text.insert_str(0, &extra(&self.place.folder));
        }
        if let Some(metrics) = self.metrics {
            text.insert_str(0, &format!("metrics: {{listen: '{metrics}'}}\n"));
        }
        for Workload { cgroup, namespace, service_account, pod } in workloads {
            text.push_str(&format!(
                "- {{cgroup: '{cgroup}', projectNumber: {PROJECT_NUMBER}, pool: {POOL}, namespace: {namespace}, \
                 serviceAccount: {service_account}, pod: {{name: {pod}, uid: '{{uid}}'}}, container: '{{container}}'}}\n"
            ));
        }
        text
    }

    /// Where the lab's policy and its approver meet.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.folder.join("control")
    }

    /// Folder of the spool.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.folder.join("spool")
    }

    /// Its process id.
    pub fn id(&self) -> Result<u32> {
        self.process.as_ref().map(Process::id).context("the agent does not run")
    }

    /// The process id of its worker, once there is one.
    pub fn worker(&self) -> Result<u32> {
        let id = self.id()?;
        let path = format!("/proc/{id}/task/{id}/children");
        wait::until("the agent's worker", || {
            let children = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            Ok(children.split_whitespace().next().and_then(|child| child.parse().ok()))
        })
    }

    /// Whether its programs stay where they are when it dies.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pins().exists()
    }

    /// All its processes, the one that was started first.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let own = self.id()?;
        let others = crate::cgroup::processes(&self.place.cgroup)?;
        Ok(std::iter::once(own).chain(others.into_iter().filter(|id| *id != own)).collect())
    }

    /// Kills the worker and waits until the next one steers.
    pub fn kill_worker(&self) -> Result<()> {
        let steering = |complaints: &str| complaints.matches(" steering ").count();
        let (worker, before) = (self.worker()?, steering(&self.complaints()));
        crate::shell::run("/bin/kill", &["-s", "KILL", &worker.to_string()])?;
        wait::until("the next worker to steer", || Ok((steering(&self.complaints()) > before).then_some(())))
    }

    /// Where its programs and maps are pinned.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        pins(&self.surroundings)
    }

    /// Resident anonymous memory of its worker in KiB.
    pub fn anonymous_kib(&self) -> Result<u64> {
        crate::process::anonymous_kib(self.worker()?)
    }

    /// The most memory that its worker ever had resident, in KiB.
    pub fn peak_kib(&self) -> Result<u64> {
        crate::process::peak_kib(self.worker()?)
    }

    /// Sends it a signal, by its name without SIG.
    pub fn signal(&self, name: &str) -> Result<()> {
        self.process.as_ref().context("the agent does not run")?.signal(name)
    }

    /// The same to all its processes.
    pub fn signal_all(&self, name: &str) -> Result<()> {
        let processes: Vec<String> = self.processes()?.iter().map(u32::to_string).collect();
        let arguments: Vec<&str> =
            ["-s", name].into_iter().chain(processes.iter().map(String::as_str)).collect();
        crate::shell::run("/bin/kill", &arguments).map(drop)
    }

    /// Whether it runs.
    pub fn running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::running)
    }

    /// What it wrote to standard error.
    #[must_use]
    pub fn complaints(&self) -> String {
        self.process.as_ref().map(Process::complaints).unwrap_or_default()
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it (again), although it is not expected to come up: how it ended.
    pub fn fail_to_start(&mut self) -> Result<Ended> {
        self.process = None;
        self.another()?.wait()
    }

    /// Waits until somebody else has ended it.
    pub fn wait_for_death(&mut self) -> Result<Ended> {
        self.process.take().context("the agent does not run")?.wait()
    }

    /// Ends it as an orderly shutdown does: connections drained, chains closed, everything shipped.
    pub fn stop(&mut self) -> Result<()> {
        self.end().map(drop)
    }

    /// The same; what it said.
    pub fn end(&mut self) -> Result<String> {
        let Some(process) = self.process.take() else { return Ok(String::new()) };
        process.signal("TERM")?;
        let ended = process.wait()?;
        if !ended.status.success() {
            bail!("the agent ended with {}: {}", ended.status, ended.complaints());
        }
        Ok(ended.complaints())
    }
}

fn pins(surroundings: &Surroundings) -> PathBuf {
    Path::new("/sys/fs/bpf").join(&surroundings.attach)
}

/// Whether eBPF programs can be loaded and attached here; the error names the step.
pub fn probe_bpf() -> Result<()> {
    verbatim_steer::Steering::probe()
        .map_err(|error| anyhow::anyhow!("{} at {}", error.cause(), error.step()))
}
