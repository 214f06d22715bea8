//! Google's side of the lab: a namespace with Google's private addresses, an emulator behind TLS under the
//! real names, signed by a root of the lab's own, and a metadata server for each pod.

mod certificates;
mod compare;
mod methods;
pub mod names;

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

pub use certificates::{Root, Shown};
pub use compare::{calls, compare};
pub use methods::method;

use crate::{
    agent::PROJECT_NUMBER,
    binaries,
    front::{self, ClientCertificates, Config, Listener, Request},
    lab::{Ground, identity},
    netns::{Namespace, connect},
    network::Pod,
    parts,
    pglog::{How, Logged},
    process::{Place, Process},
};
use names::{
    ASKING, EXPIRED, GOOGLE, GRPC, HOSTS, INSISTING, METADATA, ODD, OUTSIDE, PROJECT, SELF_SIGNED, WRONG_NAME,
};

/// What runs on Google's side beside the front.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// BigQuery's emulator.
    pub emulator: bool,
    /// The gRPC service.
    pub grpc: bool,
    /// The server that behaves as none should.
    pub odd: bool,
}

/// All of it, running. Fields are dropped in this order.
#[derive(Debug)]
pub struct Google {
    /// The emulator, the front, the others.
    processes: Vec<(&'static str, Process)>,
    root: Root,
    log: std::path::PathBuf,
    _namespace: Namespace,
}

impl Google {
    /// Starts it and waits until it answers.
    pub fn start(ground: &Ground, options: Options) -> Result<Self> {
        let namespace = network(ground)?;
        let folder = ground.path("google");
        let root = Root::create(&folder, "Root of the lab's Google")?;
        let log = folder.join("requests.jsonl");
        let mut google = Self { processes: Vec::new(), root, log, _namespace: namespace };
        let place = |what: &str| -> Result<Place> {
            let cgroup = ground.tree.make(format!("google/{what}"))?;
            Ok(Place::within(cgroup, &google._namespace, ground.folder.path()))
        };
        let mut started = Vec::new();
        if options.emulator {
            started.push(("emulator", emulator(&place("emulator")?)?));
        }
        let shown = google.root.issue("google", &["*.googleapis.com", "googleapis.com"])?;
        for (wanted, name, script, address) in
            [(options.grpc, "grpc", "grpc_peer.py", GRPC), (options.odd, "odd", "odd_peer.py", ODD)]
        {
            if wanted {
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script);
                let mut command = place(name)?.command(parts::python());
                command.arg(script).args([address, "443"]).arg(&shown.certificate).arg(&shown.key);
                command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUNBUFFERED", "1");
                let mut process = Process::start(name, ground.folder.path(), command)?;
                process.wait_for_output("listening")?;
                started.push((name, process));
            }
        }
        started.push(("front", google.front(&place("front")?, &shown, options)?));
        google.processes = started;
        for pod in Pod::ALL {
            google.processes.push(("metadata", metadata(ground, pod)?));
        }
        Ok(google)
    }

    fn front(&self, place: &Place, google: &Shown, options: Options) -> Result<Process> {
        let listener = |address: &str, shown: &Shown, clients| -> Result<Listener> {
            Ok(Listener {
                address: format!("{address}:443").parse()?,
                certificate: shown.certificate.clone(),
                key: shown.key.clone(),
                clients,
            })
        };
        let own = |name| self.root.issue(name, &[&format!("{name}.googleapis.com")]);
        let authority = || self.root.certificate();
        let config = Config {
            listeners: vec![
                listener(GOOGLE, google, ClientCertificates::None)?,
                listener(ASKING, &own("asking")?, ClientCertificates::Requested(authority()))?,
                listener(INSISTING, &own("insisting")?, ClientCertificates::Required(authority()))?,
                listener(
                    EXPIRED,
                    &self.root.issue_expired("expired", &["expired.googleapis.com"])?,
                    ClientCertificates::None,
                )?,
                listener(
                    WRONG_NAME,
                    &self.root.issue("wrong-name", &["other.googleapis.com"])?,
                    ClientCertificates::None,
                )?,
                listener(
                    SELF_SIGNED,
                    &self.root.self_signed("self-signed", &["self-signed.googleapis.com"])?,
                    ClientCertificates::None,
                )?,
                listener(
                    OUTSIDE,
                    &self.root.issue("outside", &["api.lab.example"])?,
                    ClientCertificates::None,
                )?,
            ],
            log: self.log.clone(),
            emulator: options.emulator.then(|| EMULATOR.parse()).transpose()?,
        };
        let file = self.log.with_file_name("front.json");
        fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
        let mut command = place.command(binaries::find("lab-google")?);
        command.arg("front").arg(&file);
        let mut process = Process::start("front", &place.folder, command)?;
        process.wait_for_output("listening")?;
        Ok(process)
    }

    /// The root that only the proxy's upstream trusts.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Every request that the front has seen so far.
    pub fn requests(&self) -> Result<Vec<Request>> {
        front::read(&fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// Where the front writes its log.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// What one of its processes wrote to standard output: `grpc`, `odd`.
    #[must_use]
    pub fn output(&self, name: &str) -> String {
        self.processes.iter().filter(|(other, _)| *other == name).map(|(_, one)| one.output()).collect()
    }
}

/// The front's log as the comparison of statements wants it: requests of BigQuery's that carry an id.
#[must_use]
pub fn logged(request: &Request) -> Option<Logged> {
    let ids: Vec<String> = request.ids.iter().map(|id| format!("id:{id} ")).collect();
    let session = format!("front-{}", request.connection);
    let is_statement = method(&request.method, &request.path).is_some() && !ids.is_empty();
    is_statement.then(|| Logged { session, how: How::Request, text: ids.concat() })
}

/// The access token that the metadata server gives to a pod.
#[must_use]
pub fn token(pod: Pod) -> String {
    format!("ya29.lab-secret-of-pod-{}", pod.letter())
}

/// Where the emulator listens within the namespace.
pub(crate) const EMULATOR: &str = "127.0.0.1:9050";

fn network(ground: &Ground) -> Result<Namespace> {
    let namespace = Namespace::create(format!("{}-google", ground.name))?;
    let vpc = &ground.network.vpc;
    connect((vpc, "google"), (&namespace, "eth0"))?;
    vpc.ip(&["address", "add", "10.61.8.1/24", "dev", "google"])?;
    vpc.sysctl("net.ipv4.ip_forward=1")?;
    namespace.ip(&["address", "add", "10.61.8.2/24", "dev", "eth0"])?;
    namespace.ip(&["route", "add", "default", "via", "10.61.8.1"])?;
    let mut lines = String::new();
    for (address, hosts) in HOSTS {
        namespace.ip(&["address", "add", &format!("{address}/32"), "dev", "lo"])?;
        vpc.ip(&["route", "add", &format!("{address}/32"), "via", "10.61.8.2"])?;
        lines.push_str(&format!("{address} {}\n", hosts.join(" ")));
    }
    namespace.hosts("127.0.0.1 localhost\n::1 localhost\n")?;
    lines.push_str(&format!("{} {}\n", METADATA.0, METADATA.1.join(" ")));
    for pod in Pod::ALL {
        ground.network.add_hosts(pod, &lines)?;
        ground.network.pod(pod).ip(&["address", "add", &format!("{}/32", METADATA.0), "dev", "lo"])?;
    }
    Ok(namespace)
}

pub(crate) fn emulator(place: &Place) -> Result<Process> {
    let folder = parts::emulator();
    let mut command = place.command(folder.join("venv/bin/python"));
    command
        .args(["-m", "bqemulator", "start", "--ephemeral", "--rest-host", "127.0.0.1", "--rest-port", "9050"])
        .args(["--grpc-port", "0", "--project", PROJECT, "--log-level", "warning", "--no-admin"])
        // Its extensions are below its home; it fetches none.
        .env("HOME", folder.join("home"))
        .env("BQEMU_ENABLE_FORMAT_EXTENSIONS", "false")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Process::start("emulator", &place.folder, command)
}

fn metadata(ground: &Ground, pod: Pod) -> Result<Process> {
    let name = format!("metadata-{}", pod.letter());
    let cgroup = ground.tree.make(format!("google/{name}"))?;
    let place = Place::within(cgroup, ground.network.pod(pod), ground.folder.path());
    let mut command = place.command(binaries::find("lab-google")?);
    let (_, account) = identity(pod);
    command.args(["metadata", &format!("{}:80", METADATA.0), PROJECT, &PROJECT_NUMBER.to_string()]);
    command.args([format!("{account}@{PROJECT}.iam.gserviceaccount.com"), token(pod)]);
    let mut process = Process::start(&name, ground.folder.path(), command)?;
    process.wait_for_output("listening").context("the metadata server")?;
    Ok(process)
}
