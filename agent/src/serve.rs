//! `verbatim-agent serve`: captures the workloads of this node until SIGTERM.
//!
//! Owns how a configuration file becomes a worker's plan. Which cgroup is whose is `workloads`' business.

mod issuing;
mod link;
mod namespaces;
mod pods;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;
use verbatim_proxy::{
    ProxyConfig,
    seam::{Observer, Policy, Summary},
};
use verbatim_spool::{SpoolConfig, SyncMode};
use verbatim_steer::{
    Action, CgroupVerdict, DestinationRule, FailMode, Prefix, Protocol, SteerConfig, SteerError,
};
use verbatim_sys::{
    cgroup::{self, Cgroup},
    privilege::{self, Capability},
    process,
    signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, Signals},
};
use verbatim_tls::{TrustPaths, plan as trust_plan};
use verbatim_wire::seam::Limits;

use crate::{
    cli::ServeArgs,
    control::Control,
    doctor::Doctor,
    evidence::{Engine, EvidenceError},
    handover::Message,
    identity::Table,
    logging,
    supervisor::{self, SupervisorError},
    trust::{Judge, Keeper, Material, MaterialError, TrustError, TrustFolder},
    waiting,
    worker::{Inheritance, Leave, Plan, Seams, StartError, Worker},
    workloads::{self, Nudge, Walker},
};
use link::Link;
use verbatim_agent_config::{self as config, Capture, ConfigError, NodeAgent, Setting, WhenStopped};
use verbatim_ship::{Issued, Target, TlsFiles};

/// How long what is left may take to be shipped.
const SHIP_LIMIT: Duration = Duration::from_secs(15);
/// Without a beat for this long, every workload's fail mode decides.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);
/// Namespaces that wait for their listeners to be taken over.
const WAITING: usize = 64;

const NEEDED: [Capability; 4] =
    [Capability::Bpf, Capability::NetAdmin, Capability::Perfmon, Capability::SysAdmin];

#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Logging(#[from] logging::LoggingError),
    #[error("missing privileges ({0}): run as root, or grant these capabilities")]
    Privileges(String),
    #[error(transparent)]
    Target(#[from] verbatim_ship::TargetError),
    #[error(transparent)]
    Material(#[from] MaterialError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    #[error("this is a part of `serve`, which starts it: {0}")]
    Alone(io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Pods(#[from] pods::PodsError),
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: io::Error },
    #[error("attach.cgroup {0}: no such cgroup; give it relative to {1}")]
    NoCgroup(PathBuf, PathBuf),
    #[error(
        "the agent lives in {own}, outside of attach.cgroup {attach}: its own sockets would not be seen; start it \
         in a cgroup below"
    )]
    Outside { own: PathBuf, attach: PathBuf },
}

fn system(what: &'static str) -> impl Fn(io::Error) -> ServeError {
    move |source| ServeError::System { what, source }
}

/// Nobody watches a node live.
struct Nobody;

impl Observer for Nobody {
    fn enabled(&self) -> bool {
        false
    }

    fn finished(&self, _: Summary) {}
}

/// Serves until it is told to end: by a worker, which is started again when it dies.
pub(crate) fn serve(args: &ServeArgs) -> u8 {
    said(supervised(args))
}

/// Is the worker of [`serve`].
pub(crate) fn work(args: &ServeArgs, policy: Arc<dyn Policy>) -> u8 {
    said(worked(args, policy).map(|()| 0))
}

fn said(outcome: Result<u8, ServeError>) -> u8 {
    outcome.unwrap_or_else(|error| {
        crate::say(&error.to_string());
        1
    })
}

fn supervised(args: &ServeArgs) -> Result<u8, ServeError> {
    let config = config::load(&args.config)?;
    // What the worker would refuse is refused before anything is touched.
    target(&config, &Issued::default())?;
    config.tls.as_ref().map(Material::configured).transpose()?;
    pods::check(&config)?;
    if args.check {
        crate::say(&format!("{} can be used", args.config.display()));
        return Ok(0);
    }
    config.kubernetes.as_ref().map(pods::node_name).transpose()?;
    let signals = prepare(args, &config)?;
    Ok(supervisor::run(args, &config, signals)?)
}

fn worked(args: &ServeArgs, policy: Arc<dyn Policy>) -> Result<(), ServeError> {
    // Said again, for an exec that brings capabilities forgets it.
    process::die_with(std::os::unix::process::parent_id()).map_err(ServeError::Alone)?;
    let link = Link::open().map_err(ServeError::Alone)?;
    let config = config::load(&args.config)?;
    let issued = Issued::default();
    let target = target(&config, &issued)?;
    let material = config.tls.as_ref().map(Material::configured).transpose()?;
    let signals = prepare(args, &config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(system("make a runtime"))?;
    runtime.block_on(serving(&config, (target, issued), material, policy, signals, link))
}

/// Logging, privileges, signals: before any thread.
fn prepare(args: &ServeArgs, config: &NodeAgent) -> Result<Signals, ServeError> {
    let environment = std::env::var("RUST_LOG").ok();
    let level = args.log.as_deref().or(config.log.level.as_deref()).or(environment.as_deref());
    logging::start(level.unwrap_or("info"), args.log_format.unwrap_or(config.log.format))?;
    let missing = privilege::missing(&NEEDED).map_err(system("look at capabilities"))?;
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|capability| capability.name()).collect();
        return Err(ServeError::Privileges(names.join(", ")));
    }
    process::raise_descriptor_limit().map_err(system("raise the limit of open files"))?;
    Signals::new(&[SIGTERM, SIGINT, SIGHUP, SIGQUIT]).map_err(system("take signals"))
}

fn target(config: &NodeAgent, issued: &Issued) -> Result<Target, ServeError> {
    let address = &config.collector.address;
    let tls = match &config.collector.tls {
        Some(tls) if tls.issuer => {
            let name = tls.server_name.as_deref();
            return Ok(Target::issued(address, &tls.ca, name, issued.clone())?);
        }
        Some(config::Tls { ca, certificate: Some(certificate), key: Some(key), server_name, .. }) => {
            let (ca, certificate, key) = (ca.clone(), certificate.clone(), key.clone());
            Some(TlsFiles { ca, certificate, key, server_name: server_name.clone() })
        }
        // One of them without the other is refused with the file.
        Some(_) | None => None,
    };
    Ok(Target::parse(address, tls.as_ref())?)
}

async fn serving(
    config: &NodeAgent,
    (target, issued): (Target, Issued),
    material: Option<Material>,
    policy: Arc<dyn Policy>,
    signals: Signals,
    mut link: Link,
) -> Result<(), ServeError> {
    let mut signals = waiting::signals(signals).map_err(system("wait for signals"))?;
    let mut orders = link.orders().map_err(system("start a thread"))?;
    let place = Place::find(config)?;
    let in_cluster = config.kubernetes.as_ref().map(pods::node_name).transpose()?;
    let node = config.node.clone().or(in_cluster).unwrap_or_else(process::host_name);
    let (nudge, nudged) = Nudge::new().map_err(system("make a socket pair"))?;
    let nudge = Arc::new(nudge);
    let unknown = Arc::clone(&nudge);
    let pods = pods::start(config, &nudge).await?;
    let store = pods.as_ref().map(|pods| Arc::clone(&pods.store));
    let table = Arc::new(Table::new(config, &node, pods, move |_id| unknown.nudge()));
    let own = place.own.id().map_err(system("read our own cgroup's id"))?;
    let mut plan = plan(config, &place, &table, node, target, [&[own], &*link.others].concat())?;
    plan.steer.waited_for = !link.handed.is_empty();
    let (steer, destinations) = (plan.steer.clone(), plan.destinations.clone());
    let keeper = keeper(config)?;
    let tls = match (&material, &keeper) {
        (Some(material), Some(keeper)) => {
            give_trust(config, material)?;
            let standings = Arc::<Table>::clone(&table);
            let authority = Arc::clone(&material.authority);
            Some(material.tls(Judge::new(
                authority,
                standings,
                Arc::clone(keeper.refusals()),
                Arc::default(),
            )))
        }
        _ => None,
    };
    let (evidence, looking) = Engine::configured(config)?;
    let issuing = issuing::follow(config, material.as_ref(), issued, &evidence);
    issuing.first().await;
    let standing = Arc::clone(&table);
    let seams = Seams {
        identities: Arc::<Table>::clone(&table),
        policy,
        evidence,
        observer: Arc::new(Nobody),
        tls,
        resets: Arc::new(move |cgroup| standing.resets(cgroup)),
    };
    let inherited = Inheritance { vault: Some(link.vault()), listeners: std::mem::take(&mut link.handed) };
    let worker = Worker::start(plan, seams, inherited)?;
    let mut control = Control::start(config, &worker, store, issuing.known.clone(), HEARTBEAT_TIMEOUT);

    let refusals = keeper.as_ref().map(|keeper| Arc::clone(keeper.refusals()));
    let authority = material.as_ref().map(|material| Arc::clone(&material.authority));
    let doctor = Doctor {
        table: Arc::clone(&table),
        tls: authority.zip(refusals.clone()),
        issuer: issuing.known.clone(),
    };
    let places = Arc::clone(&table);
    let gone = move |path: &str| {
        if let Some(refusals) = &refusals {
            refusals.forget(path);
            // A container that is started again has another path, and is the same to us until its pod is gone.
            if let Some(pod) = places.pod_at(path) {
                refusals.forget(&pod);
            }
        }
    };
    let attach = place.attach.path().to_owned();
    let walker = Walker::new(place.mount, attach, table, Arc::clone(worker.steering()), gone);
    let walking = workloads::start(walker, nudged).map_err(system("watch cgroups"))?;
    let (sender, changes) = mpsc::channel(WAITING);
    let listeners = worker.steering().namespaces();
    if config.namespaces.host {
        let made = listeners.add_current("node").map_err(StartError::from)?;
        sender.send(namespaces::Change::Appeared(made)).await.ok();
    }
    let listening = tokio::spawn(namespaces::follow(changes, Arc::clone(worker.shards()), listeners.clone()));
    let found = config.namespaces.clone();
    // Its first look waits for `follow` to take what it found, and so must not be made on this thread.
    let watcher = tokio::task::spawn_blocking(move || namespaces::watch(&found, listeners, sender))
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(system("watch namespaces"))?;
    control.scanned(watcher.troubles());
    let stale = worker.steering().namespaces().sweep().map_err(StartError::from)?;
    tracing::debug!(stale, "namespaces of a predecessor that are gone");
    worker
        .attach(if link.succeeding { "in the place of an agent that goes on draining" } else { "" })
        .await?;
    control.take_orders(&config.run_directory, doctor).map_err(system("make the control socket"))?;
    tracing::info!(attach = %place.attach.path().display(), "steering");
    link.say(&Message::Ready { cgroup: own });

    let leave = loop {
        let order = tokio::select! {
            received = signals.recv() => {
                match received {
                    Some(received) => tracing::info!(signal = received.signal, "ending"),
                    None => tracing::error!("ending, because signals are not heard any more"),
                }
                break match config.when_stopped {
                    WhenStopped::Detach => Leave::Detached,
                    WhenStopped::FailMode => Leave::ToFailModes,
                };
            }
            order = orders.recv() => order,
        };
        match order {
            Some(Message::Freeze) => {
                worker.steering().freeze();
                link.say(&Message::Frozen);
            }
            Some(Message::Thaw) => {
                let own = SteerConfig { own_cgroups: vec![own], ..steer.clone() };
                let thawed = worker.steering().thaw(&own);
                if let Err(error) = thawed.and_then(|()| worker.steering().set_destinations(&destinations)) {
                    tracing::error!(%error, "what a successor has changed may stay so");
                }
                walking.doubt();
                nudge.nudge();
            }
            Some(Message::Drain { detach: true }) => break Leave::ToStranger,
            Some(Message::Drain { detach: false }) => break Leave::ToSuccessor,
            Some(Message::Alone) => {
                if let Err(error) = worker.steering().set_own(&[own]) {
                    tracing::error!(%error, "the cgroup of an agent that is gone stays unsteered");
                }
            }
            Some(other) => tracing::debug!(?other, "the supervisor says something else"),
            // We are killed with it.
            None => std::future::pending().await,
        }
    };
    // Nothing new: neither namespaces nor verdicts nor, with the last heartbeat, connections.
    control.drain().await;
    listening.abort();
    listening.await.ok();
    drop(watcher);
    walking.stop();
    drop(issuing);
    let limit = tokio::time::sleep(SHIP_LIMIT);
    let ended = worker.stop(leave, config.drain_deadline.0, limit).await;
    drop(looking);
    if let Some(keeper) = keeper {
        keeper.stop();
    }
    let (reset, unacknowledged) = (ended.reset, ended.unacknowledged);
    if ended.shipped {
        tracing::info!(reset, unacknowledged, "ended");
    } else {
        let spool = config.spool.directory.display();
        tracing::warn!(
            reset,
            unacknowledged,
            %spool,
            "ended; the collector has not acknowledged everything: the next agent sends the rest"
        );
    }
    Ok(())
}

/// Starts to keep who has refused our certificates, where TLS is looked into.
fn keeper(config: &NodeAgent) -> Result<Option<Keeper>, ServeError> {
    let keeper = config.tls.as_ref().map(|tls| Keeper::start(tls.state_file.clone())).transpose();
    keeper.map_err(system("start a thread"))
}

/// Writes what workloads are to trust, where that is made here.
fn give_trust(config: &NodeAgent, material: &Material) -> Result<(), ServeError> {
    let Some(ephemeral) = config.tls.as_ref().and_then(|tls| tls.authority.ephemeral.as_ref()) else {
        return Ok(());
    };
    let folder = TrustFolder::make(&ephemeral.directory)?;
    // As for a workload whose environment names nothing.
    let plan = trust_plan(|_| None, &TrustPaths { folder: folder.path().to_owned() });
    let (_, problems) = folder.fill(&plan, &material.authority)?;
    for problem in problems {
        tracing::error!(%problem, "workloads that are given our trust lose some of their own");
    }
    tracing::info!(folder = %folder.path().display(), "trust for workloads is written");
    Ok(())
}

/// Where the programs are attached, and where we are ourselves.
struct Place {
    mount: PathBuf,
    attach: Cgroup,
    own: Cgroup,
}

impl Place {
    fn find(config: &NodeAgent) -> Result<Self, ServeError> {
        let mount = cgroup::mount_point().map_err(system("find cgroup v2"))?;
        let below = config.attach.cgroup.as_deref().unwrap_or(Path::new(""));
        let attach = mount.join(below.strip_prefix("/").unwrap_or(below));
        if !attach.is_dir() {
            return Err(ServeError::NoCgroup(below.to_owned(), mount));
        }
        let own = cgroup::own().map_err(system("find our own cgroup"))?;
        if !own.starts_with(&attach) {
            return Err(ServeError::Outside { own, attach });
        }
        Ok(Self { mount, attach: Cgroup::at(attach), own: Cgroup::at(own) })
    }
}

/// What the kernel is told about a setting.
pub(crate) fn verdict(setting: Setting) -> CgroupVerdict {
    CgroupVerdict {
        action: match setting.capture {
            Capture::Steer => Action::Steer,
            Capture::Pass => Action::Pass,
        },
        fail_mode: match setting.fail_mode {
            config::FailMode::Open => FailMode::Open,
            config::FailMode::Closed => FailMode::Closed,
        },
    }
}

fn plan(
    config: &NodeAgent,
    place: &Place,
    table: &Table,
    node: String,
    target: Target,
    own_cgroups: Vec<u64>,
) -> Result<Plan, ServeError> {
    let steer = SteerConfig {
        own_cgroups,
        pin_directory: Some(config.attach.pins.clone()),
        heartbeat_timeout: HEARTBEAT_TIMEOUT,
        default_verdict: verdict(table.default_setting()),
        shards: crate::shards(config.shards),
        treat_as_absent: treated_as_absent(),
        ..SteerConfig::new(place.attach.path())
    };
    let defaults = ProxyConfig::default();
    let limits = config.limits;
    let number = |size: config::ByteSize| usize::try_from(size.0).unwrap_or(usize::MAX);
    let proxy = ProxyConfig {
        limits: Limits {
            capture_bytes: limits.capture.map_or(defaults.limits.capture_bytes, number),
            ..defaults.limits
        },
        dial_timeout: limits.dial_timeout.map_or(defaults.dial_timeout, |time| time.0),
        connections_per_shard: limits
            .connections_per_shard
            .and_then(|most| usize::try_from(most).ok())
            .unwrap_or(defaults.connections_per_shard),
        ..defaults
    };
    let spool = &config.spool;
    Ok(Plan {
        steer,
        destinations: destinations(config).map_err(StartError::from)?,
        cgroups: Vec::new(),
        proxy,
        spool: SpoolConfig {
            directory: spool.directory.clone(),
            sync: match spool.sync {
                config::Sync::Process => SyncMode::Process,
                config::Sync::Group => SyncMode::Group,
            },
            segment_bytes: spool.segment_size.0,
            limit_bytes: spool.limit.0,
            when_full: match spool.when_full {
                config::WhenFull::Stop => verbatim_spool::WhenFull::Stop,
                config::WhenFull::Shed => verbatim_spool::WhenFull::Shed,
            },
            head_interval: crate::HEAD_INTERVAL,
            node,
        },
        target,
    })
}

/// Names of features of the kernel, separated by semicolons, that count as lacking: to try out what happens then.
const TREAT_AS_ABSENT: &str = "VERBATIM_TREAT_AS_ABSENT";

fn treated_as_absent() -> Vec<String> {
    let named = std::env::var(TREAT_AS_ABSENT).unwrap_or_default();
    named.split(';').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn destinations(config: &NodeAgent) -> Result<Vec<DestinationRule>, SteerError> {
    let mut rules = Vec::new();
    for destination in &config.destinations {
        let prefix = Prefix::new(destination.cidr.address, destination.cidr.prefix)?;
        let action = match destination.action {
            config::Action::Steer if destination.fail_mode == Some(config::FailMode::Open) => {
                Action::SteerOrPass
            }
            config::Action::Steer => Action::Steer,
            config::Action::Pass => Action::Pass,
            config::Action::Deny => Action::Deny,
        };
        let ports = destination.ports.iter().copied().map(Some);
        let any = destination.ports.is_empty().then_some(None);
        for port in ports.chain(any) {
            rules.push(DestinationRule { prefix, port, protocol: Protocol::Tcp, action });
        }
    }
    Ok(rules)
}
