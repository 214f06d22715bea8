//! Google's side of the cluster's lab: BigQuery's emulator behind TLS under the real names, and a metadata server,
//! both outside of any pod. Pods reach them by Google's own addresses.

use std::fs;

use anyhow::Result;

use super::Cluster;
use crate::{
    agent::PROJECT_NUMBER,
    binaries,
    front::{self, ClientCertificates, Config, Listener, Request},
    google::{
        EMULATOR, Root, emulator,
        names::{GOOGLE, HOSTS, METADATA, PROJECT},
    },
    process::Process,
};

/// The access token that pods are given; never to be seen in a record.
pub const TOKEN: &str = "ya29.lab-secret-of-the-cluster";

/// Running servers.
#[derive(Debug)]
pub struct Google {
    _processes: Vec<Process>,
    log: std::path::PathBuf,
}

impl Google {
    /// Starts them. `root` vouches for the names.
    pub fn start(cluster: &Cluster, root: &Root) -> Result<Self> {
        for address in [GOOGLE, METADATA.0] {
            cluster.namespace().ip(&["address", "add", &format!("{address}/32"), "dev", "lo"])?;
        }
        let folder = cluster.folder();
        let log = folder.join("requests.jsonl");
        let emulator = emulator(&cluster.place("emulator")?)?;
        let shown = root.issue("google", &["*.googleapis.com", "googleapis.com"])?;
        let config = Config {
            listeners: vec![Listener {
                address: format!("{GOOGLE}:443").parse()?,
                certificate: shown.certificate,
                key: shown.key,
                clients: ClientCertificates::None,
            }],
            log: log.clone(),
            emulator: Some(EMULATOR.parse()?),
        };
        let file = folder.join("front.json");
        fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
        let mut command = cluster.place("front")?.command(binaries::find("lab-google")?);
        command.arg("front").arg(&file);
        let mut front = Process::start("front", folder, command)?;
        front.wait_for_output("listening")?;

        let mut command = cluster.place("metadata")?.command(binaries::find("lab-google")?);
        command.args(["metadata", &format!("{}:80", METADATA.0), PROJECT, &PROJECT_NUMBER.to_string()]);
        command.args([&format!("reader@{PROJECT}.iam.gserviceaccount.com"), TOKEN]);
        let mut metadata = Process::start("metadata", folder, command)?;
        metadata.wait_for_output("listening")?;
        Ok(Self { _processes: vec![emulator, front, metadata], log })
    }

    /// Every request that the front has seen so far.
    pub fn requests(&self) -> Result<Vec<Request>> {
        front::read(&fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// Addresses and their names, for hosts files: the lab has no DNS.
    #[must_use]
    pub fn hosts() -> Vec<(&'static str, &'static [&'static str])> {
        let all = HOSTS.iter().filter(|(address, _)| *address == GOOGLE);
        all.copied().chain([(METADATA.0, &METADATA.1[..1])]).collect()
    }
}
