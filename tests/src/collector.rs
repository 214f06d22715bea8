//! A collector of the scenario's own.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    ops::Deref,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    asking::Audit,
    binaries,
    certificates::{Authority, Issued},
    process::{Ended, Place, Process},
    wait,
};

/// A running collector.
#[derive(Debug)]
pub struct Collector {
    place: Place,
    folder: PathBuf,
    process: Option<Process>,
    audit: Audit,
    network: Option<Network>,
}

/// How nodes reach a collector over the network.
#[derive(Debug)]
struct Network {
    address: IpAddr,
    port: u16,
    authority: Authority,
    own: Issued,
    node: Issued,
}

impl Collector {
    /// Starts one on `folder`, and waits until it answers.
    pub fn start(place: Place, folder: &Path, over_tls: bool) -> Result<Self> {
        Self::start_at(place, folder, over_tls.then_some(Ipv4Addr::LOCALHOST.into()))
    }

    /// The same for nodes that reach it over the network at this address.
    pub fn start_at(place: Place, folder: &Path, address: Option<IpAddr>) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let audit = Audit::new(audit_socket(folder))?;
        let network = address.map(|address| network(folder, address)).transpose()?;
        let mut collector = Self { place, folder: folder.to_owned(), process: None, audit, network };
        collector.restart()?;
        Ok(collector)
    }

    /// Starts it (again) on what it has.
    pub fn restart(&mut self) -> Result<()> {
        self.process = Some(self.begin()?);
        wait::until("the collector to answer", || {
            if !self.process.as_mut().is_some_and(Process::running) {
                anyhow::bail!("it ended: {}", self.complaints());
            }
            self.commands().map(|_| Some(()))
        })
    }

    fn begin(&self) -> Result<Process> {
        let configuration = self.folder.join("collector.yaml");
        fs::write(&configuration, self.configuration())?;
        let mut command = self.place.command(binaries::find("verbatim-collector")?);
        command.arg("serve").arg("--config").arg(&configuration).env("VERBATIM_LOG", "info");
        Process::start("collector", &self.place.folder, command)
    }

    /// Starts it (again), although it is not expected to come up: how it ended.
    pub fn fail_to_start(&mut self) -> Result<Ended> {
        self.process = None;
        self.begin()?.wait()
    }

    /// Its process id.
    pub fn id(&self) -> Result<u32> {
        self.process.as_ref().map(Process::id).context("the collector does not run")
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_death(&mut self) -> Result<Ended> {
        self.process.take().context("the collector does not run")?.wait()
    }

    fn configuration(&self) -> String {
        format!(
            "\
apiVersion: verbatim.v1
kind: Collector
data: {data}
ingest: {ingest}
audit: {{listen: 'unix:{audit}'}}
",
            data = self.data().display(),
            ingest = self.ingest(),
            audit = self.audit_socket().display(),
        )
    }

    /// Where it keeps its log and its index.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Its listener for nodes, as its configuration has it.
    fn ingest(&self) -> String {
        match &self.network {
            None => format!("{{listen: 'unix:{}'}}", self.ingest_socket().display()),
            Some(Network { address, port, authority, own, .. }) => format!(
                "{{listen: 'tcp:{address}:{port}', tls: {{certificate: {}, key: {}, clientCa: {}}}}}",
                own.certificate.display(),
                own.key.display(),
                authority.certificate().display()
            ),
        }
    }

    /// How a node reaches it, as the node's configuration has it.
    #[must_use]
    pub fn target(&self) -> String {
        match &self.network {
            None => format!("{{address: 'unix:{}'}}", self.ingest_socket().display()),
            Some(Network { address, port, authority, node, .. }) => format!(
                "{{address: 'https://{address}:{port}', tls: {{ca: {}, certificate: {}, key: {}, serverName: \
                 collector.lab}}}}",
                authority.certificate().display(),
                node.certificate.display(),
                node.key.display()
            ),
        }
    }

    fn ingest_socket(&self) -> PathBuf {
        self.folder.join("ingest.sock")
    }

    /// Where people ask.
    #[must_use]
    pub fn audit_socket(&self) -> PathBuf {
        audit_socket(&self.folder)
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it wrote to standard error.
    #[must_use]
    pub fn complaints(&self) -> String {
        self.process.as_ref().map(Process::complaints).unwrap_or_default()
    }

    /// Deletes the index of a collector that does not run; says how many files that were.
    pub fn delete_index(&self) -> Result<usize> {
        let store = self.data();
        let mut deleted = 0;
        for entry in fs::read_dir(&store).with_context(|| format!("cannot read {}", store.display()))? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with("index.sqlite") {
                fs::remove_file(&path)?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        self.process = None;
    }
}

impl Deref for Collector {
    type Target = Audit;

    /// What it answers.
    fn deref(&self) -> &Audit {
        &self.audit
    }
}

fn audit_socket(folder: &Path) -> PathBuf {
    folder.join("audit.sock")
}

/// Certificates and a port that is free now.
fn network(folder: &Path, address: IpAddr) -> Result<Network> {
    let authority = Authority::create(&folder.join("certificates"))?;
    let own = authority.issue("collector.lab", &address.to_string())?;
    let node = authority.issue("node.lab", &address.to_string())?;
    // Where it is not this namespace's address, all of them are free.
    let port = match address.is_loopback() {
        true => verbatim_missing::port::free()?.port(),
        false => 4317,
    };
    Ok(Network { address, port, authority, own, node })
}
