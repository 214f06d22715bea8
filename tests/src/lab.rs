//! A lab: network, cgroups, database, collector and node agent of one scenario.

use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context as _, Result};
use verbatim_api::v1::Operation;

use crate::{
    agent::{self, Agent, Surroundings, Workload, principal},
    audit::Seen,
    authority,
    cgroup::{Driver, Qos, Tree, container_path},
    clients::Clients,
    clock::Clock,
    collector::Collector,
    did::Did,
    disk::Disk,
    folder::Folder,
    google::{self, Google},
    link::Link,
    memory::MemoryLimit,
    name,
    netns::Namespace,
    network::{DATABASE, DATABASE_NAME, DATABASE_V6, Network, Pod},
    policy::Approver,
    postgres::{self, Offers, Server},
    process::Place,
    sets,
    trust::Trust,
    wait,
};

/// What a scenario stands on before any of our binaries runs. Fields are dropped in this order.
#[derive(Debug)]
pub struct Ground {
    /// cgroups; dropping them ends every process.
    pub tree: Tree,
    /// Namespaces.
    pub network: Network,
    /// Files.
    pub folder: Folder,
    /// Name of all of it.
    pub name: String,
}

impl Ground {
    /// Makes it.
    pub fn create(scenario: &str) -> Result<Self> {
        let name = name::unique(scenario);
        let folder = Folder::create(&name)?;
        let network = Network::create(&name)?;
        let tree = Tree::create(&name)?;
        Ok(Self { tree, network, folder, name })
    }

    /// A place in the VPC.
    pub fn vpc(&self, what: &str) -> Result<Place> {
        let cgroup = self.tree.make(format!("vpc/{what}"))?;
        Ok(Place::within(cgroup, &self.network.vpc, self.folder.path()))
    }

    /// A place on the node itself.
    pub fn node(&self, what: &str) -> Result<Place> {
        Ok(Place::node(self.tree.make(format!("node/{what}"))?, self.folder.path()))
    }

    /// A folder within the scenario's own.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts PostgreSQL in the VPC.
    pub fn postgres(&self, name: &str, address: &str, options: postgres::Options<'_>) -> Result<Server> {
        let folder = self.path(name);
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        Server::start(self.vpc(name)?, &folder, address, options)
    }
}

/// Namespace and service account of a pod.
#[must_use]
pub fn identity(pod: Pod) -> (&'static str, &'static str) {
    match pod {
        Pod::A => ("team-a", "reader"),
        Pod::B => ("team-b", "writer"),
    }
}

/// UID of a pod.
#[must_use]
pub fn uid(pod: Pod) -> &'static str {
    match pod {
        Pod::A => "0a6d4c4e-aaaa-4000-8000-0123456789ab",
        Pod::B => "0b6d4c4e-bbbb-4000-8000-0123456789ab",
    }
}

/// pod-a's cgroup is as the cgroupfs driver makes it, pod-b's as the systemd driver does.
fn container(pod: Pod) -> PathBuf {
    match pod {
        Pod::A => container_path(Driver::Cgroupfs, Qos::Burstable, uid(pod), "a1b2c3"),
        Pod::B => container_path(Driver::Systemd, Qos::Guaranteed, uid(pod), "d4e5f6"),
    }
}

/// What can be taken away from agent and collector, where the scenario asks for it.
#[derive(Debug, Default)]
pub struct Below {
    /// The disk with the spool, and that with the collector's data.
    pub disks: Option<(Disk, Disk)>,
    /// The way to the collector.
    pub link: Option<Link>,
    /// The agent's clock and the collector's.
    pub clocks: Option<(Clock, Clock)>,
    /// The agent's memory.
    pub memory: Option<MemoryLimit>,
}

impl Below {
    fn create(ground: &Ground, wanted: agent::Ground) -> Result<Self> {
        let disk = |image: &str, at: &str, size| Disk::mount(&ground.path(image), &ground.path(at), size);
        let disks = |size| -> Result<(Disk, Disk)> {
            Ok((disk("spool.ext4", "agent/spool", size)?, disk("data.ext4", "collector/data", size)?))
        };
        let clock = |name: &str| Clock::create(ground.path(name));
        let clocks = || -> Result<(Clock, Clock)> { Ok((clock("agent.clock")?, clock("collector.clock")?)) };
        let node = ground.tree.make("node/agent")?;
        Ok(Self {
            disks: wanted.disks.map(disks).transpose()?,
            link: wanted.link.then(|| Link::create(format!("{}-collector", ground.name))).transpose()?,
            clocks: wanted.clocks.then(clocks).transpose()?,
            memory: wanted.memory.then(|| MemoryLimit::create(&ground.name, &node)).transpose()?,
        })
    }

    fn agent(&self, ground: &Ground) -> Result<Place> {
        let mut place = ground.node("agent")?;
        if let Some(memory) = &self.memory {
            place.before.extend(memory.words());
        }
        if let Some((clock, _)) = &self.clocks {
            place.before.extend(clock.words()?);
        }
        Ok(place)
    }

    fn collector(&self, ground: &Ground) -> Result<Place> {
        let mut place = ground.node("collector")?;
        if let Some(link) = &self.link {
            place.namespace = Some(link.namespace().name().to_owned());
        }
        if let Some((_, clock)) = &self.clocks {
            place.before.extend(clock.words()?);
        }
        Ok(place)
    }
}

/// Everything together. Fields are dropped in this order.
#[derive(Debug)]
pub struct Lab {
    /// The node agent.
    pub agent: Agent,
    /// The collector.
    pub collector: Collector,
    /// The database.
    pub server: Server,
    google: Option<Google>,
    trust: Option<Trust>,
    verifiers: Option<PathBuf>,
    /// What of it a scenario can take away.
    pub below: Below,
    /// What all of it stands on.
    pub ground: Ground,
    separate: bool,
    trusting: &'static [Pod],
}

impl Lab {
    /// Starts all of it with an agent as usual.
    pub fn start(scenario: &str) -> Result<Self> {
        Self::with(scenario, agent::Options::default())
    }

    /// Starts all of it with an agent that is different.
    pub fn with(scenario: &str, options: agent::Options) -> Result<Self> {
        let ground = Ground::create(scenario)?;
        let google = options.google.map(|google| Google::start(&ground, google)).transpose()?;
        let shown = google
            .as_ref()
            .filter(|_| options.database != Offers::Plain)
            .map(|google| google.root().issue("database", &[DATABASE_NAME, DATABASE, DATABASE_V6]))
            .transpose()?;
        let newer = options.database == Offers::DirectTls;
        let with = postgres::Options { shown: shown.as_ref(), newer, ..Default::default() };
        let server = ground.postgres("postgres", DATABASE, with)?;
        let below = Below::create(&ground, options.ground)?;
        let address = below.link.as_ref().map(Link::address);
        let address = address.or(options.over_tls.then_some(Ipv4Addr::LOCALHOST.into()));
        let collector = Collector::start_at(below.collector(&ground)?, &ground.path("collector"), address)?;
        for pod in Pod::ALL {
            ground.tree.make(container(pod))?;
        }
        let mut surroundings = Surroundings {
            attach: ground.name.clone(),
            collector: collector.target(),
            namespaces: format!("{}-pod-*", ground.name),
            workloads: Pod::ALL.map(|pod| workload(&ground.name, pod)).into(),
            tls: None,
        };
        let mut trust = None;
        let mut verifiers = None;
        if let Some(google) = &google {
            let given = authority::create(&ground.path("authority"), google.root())?;
            surroundings.tls = Some(given.configuration);
            trust = Some(given.trust);
            verifiers = Some(given.verifiers);
        }
        let trusting = options.trusting;
        let agent = Agent::start(below.agent(&ground)?, &ground.path("agent"), surroundings, options)?;
        Ok(Self {
            agent,
            collector,
            server,
            google,
            trust,
            verifiers,
            below,
            ground,
            separate: false,
            trusting,
        })
    }

    /// Google's side of the lab.
    pub fn google(&self) -> Result<&Google> {
        self.google.as_ref().context("this scenario has no Google: name it in its options")
    }

    /// What injection gives to pods.
    pub fn trust(&self) -> Result<&Trust> {
        self.trust.as_ref().context("TLS is not terminated in this scenario")
    }

    /// Says what is known of PostgreSQL's passwords, and waits until the agent has read it.
    pub fn know(&self, verifiers: &str) -> Result<()> {
        let path = self.verifiers.as_ref().context("TLS is not terminated in this scenario")?;
        let read =
            || self.agent.complaints().matches("the verifiers have changed: the new ones are used").count();
        let (before, beside) = (read(), path.with_extension("new"));
        fs::write(&beside, verifiers)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&beside, path)?;
        wait::until("the agent to read the verifiers", || Ok((read() > before).then_some(())))
    }

    /// Google's clients in a pod, with the trust that injection has given it or, where it has given none,
    /// with what its image has.
    pub fn google_pod(&self, pod: Pod) -> Result<Clients> {
        let trust = match self.trusting.contains(&pod) {
            true => self.trust()?.clone(),
            false => Trust::without_us(self.ground.folder.path(), &self.google()?.root().certificate())?,
        };
        let state = self.ground.path(&format!("home-{}", pod.letter()));
        self.pod(pod).trusting(&trust).for_google(&state)
    }

    /// Clients in a pod.
    #[must_use]
    pub fn pod(&self, pod: Pod) -> Clients {
        let cgroup = self.ground.tree.root().join(container(pod));
        let place = Place::within(cgroup, self.ground.network.pod(pod), self.ground.folder.path());
        // Ids of the two pods never meet.
        let clients = Clients::new(place).with("VLAB_PREFIX", format!("{}-", pod.letter()));
        if self.separate && pod == Pod::B { clients.with("PGDATABASE", "shop_b") } else { clients }
    }

    /// Clients in a pod's cgroup and in a namespace that is not the pod's.
    #[must_use]
    pub fn pod_in(&self, pod: Pod, namespace: &Namespace) -> Clients {
        let cgroup = self.ground.tree.root().join(container(pod));
        Clients::new(Place::within(cgroup, namespace, self.ground.folder.path()))
    }

    /// Gives each pod a database of its own: for scripts that run in both at once.
    pub fn separate_databases(&mut self) -> Result<()> {
        self.server.admin("postgres", "CREATE DATABASE shop_b TEMPLATE shop")?;
        self.separate = true;
        Ok(())
    }

    /// Principal of a pod.
    #[must_use]
    pub fn principal(&self, pod: Pod) -> String {
        let (namespace, service_account) = identity(pod);
        principal(namespace, service_account)
    }

    /// Who answers holds.
    #[must_use]
    pub fn approver(&self) -> Approver {
        Approver::new(self.agent.control())
    }

    /// Waits until the three sets are equal, ends the agent in order, and compares once more: nothing may
    /// come late. Then the chains must be without a finding.
    pub fn compare(&mut self, did: &[Did]) -> Result<()> {
        self.agree(did)?;
        self.agent.stop()?;
        self.check(did).context("after the agent's end")?;
        let findings = self.collector.findings()?;
        anyhow::ensure!(findings.is_empty(), "the collector found {findings:?}");
        Ok(())
    }

    /// Waits until the three sets are equal.
    pub fn agree(&self, did: &[Did]) -> Result<()> {
        wait::until("the three sets to be equal", || self.check(did).map(Some))
    }

    fn check(&self, did: &[Did]) -> Result<()> {
        let (seen, mut logged) = (self.collector.seen()?, self.server.log()?);
        if let Some(google) = &self.google {
            let requests = google.requests()?;
            let principals = Pod::ALL.map(|pod| (pod.address(), self.principal(pod)));
            google::compare(&seen, &requests, &principals).with_context(|| brief(&seen))?;
            logged.extend(requests.iter().filter_map(google::logged));
        }
        // Requests that are no statements have been compared just now, as far as there is a witness.
        let said: Vec<Seen> = seen.iter().filter(|one| !is_plain_request(one)).cloned().collect();
        sets::compare(did, &said, &logged)?;
        for one in seen {
            let expected = Pod::ALL.map(|pod| (self.principal(pod), identity(pod)));
            let (_, (namespace, service_account)) = expected
                .iter()
                .find(|(principal, _)| *principal == one.principal)
                .with_context(|| format!("a record under no pod's name: {one:?}"))?;
            anyhow::ensure!(
                one.namespace == *namespace && one.service_account == *service_account,
                "namespace and service account are not the principal's: {one:?}"
            );
        }
        Ok(())
    }
}

/// What is recorded, a line each: for whoever has to find out why a scenario failed.
fn brief(seen: &[Seen]) -> String {
    let line = |one: &Seen| {
        let statement: String = String::from_utf8_lossy(&one.statement).chars().take(80).collect();
        format!(
            "  {} {} {} {} {} {} {} {statement}\n",
            one.operation.as_str_name(),
            one.status.as_str_name(),
            one.http_status,
            one.method,
            one.target.host,
            one.opaque_reason.as_str_name(),
            one.note
        )
    };
    format!("recorded:\n{}", seen.iter().map(line).collect::<String>())
}

fn is_plain_request(one: &Seen) -> bool {
    matches!(one.operation, Operation::HttpRequest | Operation::GrpcCall)
}

fn workload(root: &str, pod: Pod) -> Workload {
    let (namespace, service_account) = identity(pod);
    let path = match pod {
        Pod::A => container_path(Driver::Cgroupfs, Qos::Burstable, "{uid}", "{container}"),
        Pod::B => container_path(Driver::Systemd, Qos::Guaranteed, "{uid}", "{container}"),
    };
    Workload {
        cgroup: format!("{root}/{}", path.display()),
        namespace,
        service_account,
        pod: format!("pod-{}", pod.letter()),
    }
}
