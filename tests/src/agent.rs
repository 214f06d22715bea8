//! A node agent of the scenario's own: configuration, start, restart, end.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    binaries,
    policy::CONTROL,
    process::{Ended, Place, Process},
};

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

/// How an agent is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of spool.
    pub spool_limit_bytes: u64,
    /// `stop` or `shed`.
    pub when_full: &'static str,
    /// Bytes of a spool's segment.
    pub segment_bytes: u64,
    /// `process` or `group`.
    pub sync: &'static str,
    /// Lines that are added to the configuration.
    pub extra: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            spool_limit_bytes: 256 << 20,
            when_full: "stop",
            segment_bytes: 8 << 20,
            sync: "process",
            extra: String::new(),
        }
    }
}

/// A workload as the static identity source knows it.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Pattern of its cgroup.
    pub cgroup: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes service account.
    pub service_account: String,
}

/// Where an agent finds what it works with.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Root at which the programs are attached.
    pub attach: PathBuf,
    /// The collector's socket.
    pub collector: PathBuf,
    /// Network namespaces of the pods.
    pub namespaces: Vec<PathBuf>,
    /// Who is who.
    pub workloads: Vec<Workload>,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    place: Place,
    folder: PathBuf,
    surroundings: Surroundings,
    options: Options,
    process: Option<Process>,
}

impl Agent {
    /// Starts one on `folder`, and waits until it steers.
    pub fn start(place: Place, folder: &Path, surroundings: Surroundings, options: Options) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut agent = Self { place, folder: folder.to_owned(), surroundings, options, process: None };
        agent.restart()?;
        Ok(agent)
    }

    /// Starts it (again) on what it has.
    pub fn restart(&mut self) -> Result<()> {
        let configuration = self.folder.join("agent.yaml");
        fs::write(&configuration, self.configuration())?;
        let mut command = self.place.command(binaries::find("lab-agent")?);
        command
            .arg("serve")
            .arg("--config")
            .arg(&configuration)
            .env(CONTROL, self.control())
            .env("RUST_LOG", "info");
        let process = self.process.insert(Process::start("agent", &self.place.folder, command)?);
        process.wait_for_output("ready")
    }

    fn configuration(&self) -> String {
        let Options { spool_limit_bytes, when_full, segment_bytes, sync, extra } = &self.options;
        let mut text = format!(
            "apiVersion: verbatim/v1
node: lab-node
spool:
  directory: {spool}
  sync: {sync}
  segmentBytes: {segment_bytes}
  limitBytes: {spool_limit_bytes}
  whenFull: {when_full}
collector:
  address: unix:{collector}
{extra}
",
            spool = self.folder.join("spool").display(),
            collector = self.surroundings.collector.display(),
        );
        for workload in &self.surroundings.workloads {
            text.push_str(&format!("# {}\n", workload.cgroup));
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

    /// Its resident anonymous memory in KiB.
    pub fn anonymous_kib(&self) -> Result<u64> {
        crate::process::anonymous_kib(self.id()?)
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

    /// Waits until somebody else has ended it.
    pub fn wait_for_death(&mut self) -> Result<Ended> {
        self.process.take().context("the agent does not run")?.wait()
    }

    /// Ends it as an orderly shutdown does: connections drained, chains closed, everything shipped.
    pub fn stop(&mut self) -> Result<()> {
        let Some(process) = self.process.take() else { return Ok(()) };
        process.signal("TERM")?;
        let ended = process.wait()?;
        if !ended.status.success() {
            bail!("the agent ended with {}: {}", ended.status, ended.complaints());
        }
        Ok(())
    }
}

/// Whether eBPF programs can be loaded and attached here; the error names the step.
pub fn probe_bpf() -> Result<()> {
    Ok(())
}
