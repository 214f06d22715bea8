//! `verbatim-agent run -- COMMAND`: captures one command, and leaves the machine as it was.
//!
//! Owns the order in which a run's parts are made and taken down: private folders, trust, cgroups, collector,
//! worker, command. What each does is in its own file.

mod cgroups;
mod collector;
mod command;
mod folders;
mod planning;
mod summary;
mod supervise;
mod trail;
mod trusting;
mod watcher;
mod weighing;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use verbatim_api::v1::CoverageEvent;
use verbatim_proxy::seam::Policy;
use verbatim_sys::{
    cgroup::{self, Cgroup},
    privilege::{self, Capability, Person},
    signal::{self, Signals},
};

use crate::{
    cli::RunArgs,
    evidence::Engine,
    identity::Fixed,
    live::{Sink, View},
    logging,
    worker::{self, Ended, Inheritance, Leave, Seams, Worker},
};
use cgroups::Cgroups;
use collector::Collector;
use folders::Folders;
use planning::{Destination, believed, cgroup_id, identity, plan};
use supervise::Supervisor;
use trusting::Trusting;
use verbatim_ship::Target;
use watcher::{Traces, Watcher};

/// Exit code where the agent itself failed.
pub(crate) const FAILED: u8 = 125;

/// How long what is left may take to be shipped.
const SHIP_LIMIT: Duration = Duration::from_secs(10);
/// How long children that outlive the command may take to end by themselves.
const STRAGGLERS_GRACE: Duration = Duration::from_millis(250);
/// How long the killed may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// What the connections of a command that is gone may take to end.
const DRAIN: Duration = Duration::from_secs(2);

/// What the agent must be able to do.
const NEEDED: [Capability; 10] = [
    Capability::Bpf,
    Capability::NetAdmin,
    Capability::Perfmon,
    Capability::SysAdmin,
    Capability::SysPtrace,
    Capability::SetUid,
    Capability::SetGid,
    Capability::SetPcap,
    Capability::DacOverride,
    Capability::Kill,
];

/// Why nothing was captured.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(
        "missing privileges ({0}): capturing needs root, so run `sudo verbatim-agent run …`; the command itself \
         then runs as you"
    )]
    Privileges(String),
    #[error(transparent)]
    Logging(#[from] logging::LoggingError),
    #[error("cannot write the live view to {path}: {source}")]
    Live { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Folder(#[from] folders::FolderError),
    #[error(transparent)]
    Trusting(#[from] trusting::TrustingError),
    #[error(transparent)]
    Cgroup(#[from] cgroups::CgroupError),
    #[error(transparent)]
    Collector(#[from] collector::CollectorError),
    #[error(transparent)]
    Target(#[from] verbatim_ship::TargetError),
    #[error(transparent)]
    Command(#[from] command::CommandError),
    #[error(transparent)]
    Start(#[from] worker::StartError),
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: io::Error },
}

impl RunError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Command(error) => error.exit_code(),
            _ => FAILED,
        }
    }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::System { what, source }
}

/// Runs the command; its exit code, or ours.
pub(crate) fn run(args: &RunArgs, policy: Arc<dyn Policy>) -> u8 {
    match prepared(args, policy) {
        Ok(code) => code,
        Err(error) => {
            crate::say(&error.to_string());
            error.exit_code()
        }
    }
}

/// Everything that has to be made before the first thread, and is taken down after the last.
fn prepared(args: &RunArgs, policy: Arc<dyn Policy>) -> Result<u8, RunError> {
    logging::start(&args.log, args.log_format)?;
    check_privileges()?;
    let person = command::invoker()?;
    let mount = cgroup::mount_point().map_err(cgroups::CgroupError::NoMount)?;
    let sink = Sink::open(args.live.as_deref())
        .map_err(|source| RunError::Live { path: args.live.clone().unwrap_or_default(), source })?;
    let destination = Destination::of(args)?;
    let id = crate::short_id();
    let folders = Folders::plan(&id, args.data.as_deref())?;
    let place = if args.no_tls { None } else { Some(trusting::place(&id, &person)?) };

    let signals = Signals::new(&[signal::SIGINT, signal::SIGTERM, signal::SIGHUP, signal::SIGQUIT])
        .map_err(system("take signals"))?;
    // What it is to remove is named before it is made.
    let watcher = Watcher::start(Traces {
        cgroup: cgroups::root_path(&mount, &id),
        private: folders.private.clone(),
        trust: place.clone(),
        place: folders.place().map(ToOwned::to_owned),
        keep: (folders.kept.is_none() && !destination.is_own()).then(|| folders.data.clone()),
    })
    .map_err(system("start the watcher"))?;

    let trusting = place.map(|place| Trusting::make(args, &place)).transpose()?.flatten();
    let around = Surroundings { person, mount, id, folders, destination, trusting };
    let code = in_folders(args, policy, &around, sink, signals);
    drop(around);
    drop(watcher);
    code
}

/// What a run has to go by.
struct Surroundings {
    person: Person,
    mount: PathBuf,
    id: String,
    folders: Folders,
    destination: Destination,
    /// `None`: no TLS is looked into.
    trusting: Option<Trusting>,
}

fn check_privileges() -> Result<(), RunError> {
    let missing = privilege::missing(&NEEDED).map_err(system("look at capabilities"))?;
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|capability| capability.name()).collect();
    Err(RunError::Privileges(names.join(", ")))
}

fn in_folders(
    args: &RunArgs,
    policy: Arc<dyn Policy>,
    around: &Surroundings,
    sink: Sink,
    signals: Signals,
) -> Result<u8, RunError> {
    let made = around.folders.make();
    let run = made.map_err(RunError::from).and_then(|()| in_cgroups(args, policy, around, sink, signals));
    // Where the collector has not got everything, the spool is all there is, however the run has ended.
    around.folders.remove(run.as_ref().is_ok_and(|run| !run.shipped));
    run.and_then(|run| run.code)
}

/// How a run has ended that had begun to record.
struct Run {
    /// The exit code.
    code: Result<u8, RunError>,
    /// Whether everything was shipped.
    shipped: bool,
}

fn in_cgroups(
    args: &RunArgs,
    policy: Arc<dyn Policy>,
    around: &Surroundings,
    sink: Sink,
    signals: Signals,
) -> Result<Run, RunError> {
    match cgroups::sweep(&around.mount) {
        Ok(0) => {}
        Ok(swept) => tracing::warn!(swept, "cgroups of runs removed that were killed with their watchers"),
        Err(error) => tracing::debug!(%error, "cgroups cannot be listed"),
    }
    let cgroups = Cgroups::make(&around.mount, &around.id)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime
        .map_err(system("make a runtime"))
        .and_then(|runtime| runtime.block_on(captured(args, policy, around, sink, signals, &cgroups)));
    cgroups.leave();
    outcome
}

/// The run itself. An error: nothing was recorded.
async fn captured(
    args: &RunArgs,
    policy: Arc<dyn Policy>,
    around: &Surroundings,
    sink: Sink,
    signals: Signals,
    cgroups: &Cgroups,
) -> Result<Run, RunError> {
    let mut supervisor = Supervisor::new(signals).map_err(system("wait for signals"))?;
    let workload = cgroups.workload.path();
    let (collector, target) = match &around.destination {
        Destination::Own(program) => {
            let collector = Collector::start(program, &around.folders, workload)?;
            (Some(collector), Target::unix(around.folders.ingest()))
        }
        Destination::Other(target) => (None, Target::clone(target)),
    };
    let view = View::start(sink).map_err(system("start the live view"))?;
    let identity = identity(args, around, &cgroups.workload);
    let tls = around.trusting.as_ref().map(|trusting| {
        let name = identity.cgroup.as_deref().unwrap_or_default();
        Ok::<_, RunError>(trusting.tls(args, cgroup_id(&cgroups.workload)?, name))
    });
    let (evidence, looking) = Engine::for_run(&believed(args));
    let seams = Seams {
        identities: Arc::new(Fixed::new(identity)),
        policy,
        evidence,
        observer: Arc::new(view.watching()),
        tls: tls.transpose()?,
        // Its cgroup is new: whatever it has that was not steered is cut off, and should say so.
        resets: Arc::new(|_| true),
    };
    let worker = Worker::start(plan(args, around, cgroups, target.clone())?, seams, Inheritance::default())?;
    let run = attached(args, around, cgroups, &worker, &mut supervisor);
    let outcome = match &collector {
        Some(collector) => {
            let vitals = worker.vitals();
            let outcome = tokio::select! {
                outcome = run => outcome,
                never = weighing::hold_back(collector, &vitals) => match never {},
            };
            // From now on somebody waits for it.
            collector.catch_up();
            outcome
        }
        None => run.await,
    };

    let limit = supervisor.limit(SHIP_LIMIT, collector.as_ref());
    let Ended { shipped, stats, .. } = worker.stop(Leave::Detached, DRAIN, limit).await;
    drop(looking);
    view.finish();
    drop(collector);
    let moved = around.folders.moved();
    summary::say(around, &target, shipped, &stats, moved.as_deref());
    // What is under that name now is no record of this run, however the command ended.
    let code = outcome.map(|code| if moved.is_some() { FAILED } else { code });
    Ok(Run { code, shipped })
}

/// From attaching to the end of everything that the command has started.
async fn attached(
    args: &RunArgs,
    around: &Surroundings,
    cgroups: &Cgroups,
    worker: &Worker,
    supervisor: &mut Supervisor,
) -> Result<u8, RunError> {
    let made = worker.steering().namespaces().add_current("here").map_err(worker::StartError::from)?;
    worker::listen(worker.shards(), made).await.map_err(worker::StartError::from)?;
    worker.attach("").await?;
    if let Some(signal) = supervisor.earlier() {
        return Ok(u8::try_from(128 + signal).unwrap_or(FAILED));
    }
    let variables = around.trusting.as_ref().map(|trusting| &*trusting.variables).unwrap_or_default();
    let child =
        command::start(&args.command, &around.person, &cgroups.workload, variables, around.folders.place())?;
    let status = supervisor.wait(child, &cgroups.workload).await.map_err(system("wait for the command"));
    end_stragglers(&cgroups.workload, worker).await?;
    Ok(command::exit_code(status?))
}

/// Names and kills what the command has left running.
async fn end_stragglers(workload: &Cgroup, worker: &Worker) -> Result<(), RunError> {
    let failed = system("end what the command has left running");
    if workload.wait_empty(STRAGGLERS_GRACE).map_err(&failed)? {
        return Ok(());
    }
    let left = workload.members().map_err(&failed)?;
    workload.kill().map_err(&failed)?;
    if !workload.wait_empty(KILL_LIMIT).map_err(&failed)? {
        tracing::error!("processes of the command do not end; their cgroup is left behind");
    }
    if left.is_empty() {
        return Ok(());
    }
    let names: Vec<String> =
        left.iter().map(|member| format!("{} ({})", member.pid, member.comm.escape_debug())).collect();
    let names = names.join(", ");
    crate::say(&format!("the command left processes running, which were ended: {names}"));
    let count = u64::try_from(left.len()).unwrap_or(u64::MAX);
    worker.cover(CoverageEvent::StragglersKilled, count, names).await;
    Ok(())
}
