//! `verbatim-agent serve`: captures the workloads of this node until SIGTERM.
//!
//! Owns how a configuration file becomes a worker's plan. Which cgroup is whose is `workloads`' business.

mod namespaces;

use std::{
    io::{self, Write},
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
    identity::Table,
    logging,
    trust::{Judge, Keeper, Material, MaterialError, TrustError, TrustFolder},
    waiting,
    worker::{Plan, Seams, StartError, Worker},
    workloads::{self, Nudge, Walker},
};
use verbatim_agent_config::{self as config, Capture, ConfigError, NodeAgent, Setting};
use verbatim_ship::{Target, TlsFiles};

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
    Start(#[from] StartError),
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

/// Serves until it is told to end.
pub(crate) fn serve(args: &ServeArgs, policy: Arc<dyn Policy>) -> u8 {
    match prepared(args, policy) {
        Ok(()) => 0,
        Err(error) => {
            crate::say(&error.to_string());
            1
        }
    }
}

fn prepared(args: &ServeArgs, policy: Arc<dyn Policy>) -> Result<(), ServeError> {
    let config = config::load(&args.config)?;
    let target = target(&config)?;
    let material = config.tls.as_ref().map(Material::configured).transpose()?;
    if args.check {
        crate::say(&format!("{} can be used", args.config.display()));
        return Ok(());
    }
    let environment = std::env::var("RUST_LOG").ok();
    let level = args.log.as_deref().or(config.log.level.as_deref()).or(environment.as_deref());
    logging::start(level.unwrap_or("info"), args.log_format.unwrap_or(config.log.format))?;
    let missing = privilege::missing(&NEEDED).map_err(system("look at capabilities"))?;
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|capability| capability.name()).collect();
        return Err(ServeError::Privileges(names.join(", ")));
    }
    process::raise_descriptor_limit().map_err(system("raise the limit of open files"))?;
    let signals = Signals::new(&[SIGTERM, SIGINT, SIGHUP, SIGQUIT]).map_err(system("take signals"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(system("make a runtime"))?.block_on(serving(&config, target, material, policy, signals))
}

fn target(config: &NodeAgent) -> Result<Target, ServeError> {
    let tls = config.collector.tls.as_ref().map(|tls| TlsFiles {
        ca: tls.ca.clone(),
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        server_name: tls.server_name.clone(),
    });
    Ok(Target::parse(&config.collector.address, tls.as_ref())?)
}

async fn serving(
    config: &NodeAgent,
    target: Target,
    material: Option<Material>,
    policy: Arc<dyn Policy>,
    signals: Signals,
) -> Result<(), ServeError> {
    let mut signals = waiting::signals(signals).map_err(system("wait for signals"))?;
    let place = Place::find(config)?;
    let node = config.node.clone().unwrap_or_else(process::host_name);
    let (nudge, nudged) = Nudge::new().map_err(system("make a socket pair"))?;
    let table = Arc::new(Table::new(config, &node, move |_id| nudge.nudge()));
    let plan = plan(config, &place, &table, node, target)?;
    let keeper = keeper(config)?;
    let tls = match (&material, &keeper) {
        (Some(material), Some(keeper)) => {
            give_trust(config, material)?;
            let standings = Arc::<Table>::clone(&table);
            Some(material.tls(Judge::new(standings, Arc::clone(keeper.refusals()), Arc::default())))
        }
        _ => None,
    };
    let standing = Arc::clone(&table);
    let seams = Seams {
        identities: Arc::<Table>::clone(&table),
        policy,
        observer: Arc::new(Nobody),
        tls,
        resets: Arc::new(move |cgroup| standing.resets(cgroup)),
    };
    let worker = Worker::start(plan, seams)?;
    let mut control = Control::start(config, &worker, HEARTBEAT_TIMEOUT);

    let refusals = keeper.as_ref().map(|keeper| Arc::clone(keeper.refusals()));
    let gone = move |path: &str| {
        if let Some(refusals) = &refusals {
            refusals.forget(path);
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
    control.scanned();
    worker.attach().await?;
    control.take_orders(&config.run_directory).map_err(system("make the control socket"))?;
    tracing::info!(attach = %place.attach.path().display(), "steering");
    // For whoever started us.
    writeln!(io::stdout(), "ready").ok();

    match signals.recv().await {
        Some(received) => tracing::info!(signal = received.signal, "ending"),
        None => tracing::error!("ending, because signals are not heard any more"),
    }
    // Nothing new: neither namespaces nor verdicts nor, with the last heartbeat, connections.
    control.drain().await;
    listening.abort();
    listening.await.ok();
    drop(watcher);
    walking.stop();
    let ended = worker.stop(config.drain_deadline.0, tokio::time::sleep(SHIP_LIMIT)).await;
    if let Some(keeper) = keeper {
        keeper.stop();
    }
    if !ended.shipped {
        let spool = config.spool.directory.display();
        tracing::warn!(%spool, "the collector has not acknowledged everything: the next start sends the rest");
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
    for problem in folder.fill(&plan, &material.authority)? {
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
        let own = mount.join(cgroup::own_path().map_err(system("find our own cgroup"))?);
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
) -> Result<Plan, ServeError> {
    let own = place.own.id().map_err(system("read our own cgroup's id"))?;
    let steer = SteerConfig {
        own_cgroups: vec![own],
        heartbeat_timeout: HEARTBEAT_TIMEOUT,
        default_verdict: verdict(table.default_setting()),
        shards: crate::shards(config.shards),
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

fn destinations(config: &NodeAgent) -> Result<Vec<DestinationRule>, SteerError> {
    let mut rules = Vec::new();
    for destination in &config.destinations {
        let prefix = Prefix::new(destination.cidr.address, destination.cidr.prefix)?;
        let action = match destination.action {
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
