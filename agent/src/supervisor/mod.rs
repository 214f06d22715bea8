//! The supervisor: starts the worker, starts it again, keeps its listeners, hands over to a successor.
//!
//! One thread, no runtime, and no byte from outside: what a workload says never reaches it.

mod child;
mod place;
mod predecessor;
mod succession;
mod tending;
mod vault;
mod vigil;

use std::{
    io,
    os::fd::AsFd,
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use verbatim_agent_config::{NodeAgent, WhenStopped, WhenSucceeded};
use verbatim_steer::SCHEMA_VERSION;
use verbatim_sys::{
    packets::{PacketListener, Packets},
    signal::Signals,
};

use crate::{
    cli::ServeArgs,
    handover::{self, Message},
};
use child::{Child, Restarts};
use place::Place;
pub(crate) use place::PlaceError;
use predecessor::Predecessor;
pub(crate) use predecessor::TakeOverError;
use succession::Successor;
use vault::Vault;
use vigil::Vigil;

/// Why there is no supervisor.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SupervisorError {
    /// Where it is found.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Who runs there.
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
    /// The system.
    #[error("supervisor: {0}")]
    Io(#[from] io::Error),
}

/// Whether an agent serves there.
pub(crate) fn serves(run_directory: &std::path::Path) -> Result<bool, PlaceError> {
    if !run_directory.exists() {
        return Ok(false);
    }
    Ok(Place::enter(run_directory)?.supervisor()?.is_some())
}

/// Serves until it is told to end, or has been taken over and has drained; the exit code.
pub(crate) fn run(args: &ServeArgs, config: &NodeAgent, signals: Signals) -> Result<u8, SupervisorError> {
    let place = Place::enter(&config.run_directory)?;
    let mut vault = Vault::default();
    let found = place.supervisor()?;
    let predecessor = found.map(|socket| Predecessor::succeed(socket, &mut vault)).transpose()?;
    let mut supervisor = Supervisor {
        args,
        pins: config.attach.pins.clone(),
        when_stopped: config.when_stopped,
        when_succeeded: config.when_succeeded,
        run_directory: config.run_directory.clone(),
        signals,
        listener: None,
        place: Some(place),
        vault,
        worker: None,
        cgroup: None,
        restarts: Restarts::default(),
        restart_at: None,
        vigil: None,
        successor: None,
        predecessor,
        was_ready: false,
        ending: None,
        told_to_end: false,
    };
    if let Some(predecessor) = &supervisor.predecessor {
        tracing::info!(schema = predecessor.schema, "taking over from the agent that runs");
        if predecessor.schema != SCHEMA_VERSION {
            supervisor.vault.clear();
        }
    } else {
        supervisor.be_found()?;
    }
    supervisor.start_worker()?;
    supervisor.supervise()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// By a signal.
    Stopped,
    /// A successor steers.
    HandedOver,
}

/// Who has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Signals,
    Worker,
    Death,
    Listener,
    Successor,
    Predecessor,
}

struct Supervisor<'a> {
    args: &'a ServeArgs,
    pins: PathBuf,
    when_stopped: WhenStopped,
    when_succeeded: WhenSucceeded,
    run_directory: PathBuf,
    signals: Signals,
    /// `None` while the predecessor is the one that is found.
    listener: Option<PacketListener>,
    /// Held while we start.
    place: Option<Place>,
    vault: Vault,
    worker: Option<Child>,
    /// The worker's.
    cgroup: Option<u64>,
    restarts: Restarts,
    restart_at: Option<Instant>,
    /// While a worker that steered is dead and another is on its way.
    vigil: Option<Vigil>,
    successor: Option<Successor>,
    predecessor: Option<Predecessor>,
    was_ready: bool,
    ending: Option<Ending>,
    /// By a signal, after it was taken over.
    told_to_end: bool,
}

impl Supervisor<'_> {
    fn supervise(&mut self) -> Result<u8, SupervisorError> {
        loop {
            for source in self.wait()? {
                if let Some(code) = self.attend(source)? {
                    return Ok(self.left(code));
                }
            }
            if self.restart_at.is_some_and(|at| at <= Instant::now()) {
                self.start_worker()?;
            }
            if self.vigil.as_ref().is_some_and(|vigil| !vigil.goes_on()) {
                tracing::error!("no worker has come in time: new connects are left to fail modes");
                self.vigil = None;
            }
            if self.successor_due().is_some_and(|due| due <= Instant::now()) {
                tracing::warn!("the successor does not come to steer: going on without it");
                self.successor_gone()?;
            }
        }
    }

    fn successor_due(&self) -> Option<Instant> {
        self.successor.as_ref().and_then(|successor| successor.due(self.ending))
    }

    /// Whoever has something to say, or nobody where it is time for something else.
    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut sources = vec![(Source::Signals, self.signals.as_fd())];
        if let Some(worker) = &self.worker {
            // What it said last is heard before its death.
            sources.push((Source::Worker, worker.socket.as_fd()));
            sources.push((Source::Death, worker.pidfd.as_fd()));
        }
        sources.extend(self.listener.as_ref().map(|listener| (Source::Listener, listener.as_fd())));
        sources.extend(self.successor.as_ref().map(|peer| (Source::Successor, peer.socket.as_fd())));
        sources.extend(self.predecessor.as_ref().map(|peer| (Source::Predecessor, peer.socket.as_fd())));
        let mut fds: Vec<_> =
            sources.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let until = self.restart_at.into_iter().chain(self.successor_due());
        let left = until
            .chain(self.vigil.as_ref().map(Vigil::next))
            .min()
            .map(|at| at.saturating_duration_since(Instant::now()));
        let patience = left.and_then(|left| Timespec::try_from(left + Duration::from_millis(1)).ok());
        match poll(&mut fds, patience.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ready = sources.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|((source, _), _)| *source).collect())
    }

    /// Does what a source wants; an exit code where that was the last.
    fn attend(&mut self, source: Source) -> Result<Option<u8>, SupervisorError> {
        match source {
            Source::Signals => return Ok(self.signalled(self.signals.wait()?.signal)),
            Source::Worker => self.hear_worker()?,
            Source::Death => return self.worker_died(),
            Source::Listener => self.admit()?,
            Source::Successor => return self.hear_successor(),
            Source::Predecessor => self.hear_predecessor(),
        }
        Ok(None)
    }

    fn signalled(&mut self, signal: i32) -> Option<u8> {
        tracing::info!(signal, "ending");
        if self.ending == Some(Ending::HandedOver) {
            self.told_to_end = true;
            // While it drains, its deadline holds.
            return self.worker.is_none().then_some(0);
        }
        self.ending = Some(Ending::Stopped);
        if self.predecessor.as_ref().is_some_and(|predecessor| !predecessor.told) {
            // What is pinned is still the predecessor's, which goes on once it has seen us go.
            self.worker = None;
            return Some(0);
        }
        (self.restart_at, self.vigil) = (None, None);
        match &self.worker {
            Some(worker) => {
                worker.signal(signal);
                None
            }
            None => {
                self.tidy();
                Some(0)
            }
        }
    }

    fn be_found(&mut self) -> Result<(), SupervisorError> {
        if let Some(place) = &self.place {
            self.listener = Some(place.listen()?);
        }
        Ok(())
    }

    /// It never says anything more: it has ended.
    fn hear_predecessor(&mut self) {
        let Some(predecessor) = &self.predecessor else { return };
        if let Ok(Some(_)) = handover::receive(&predecessor.socket) {
            return;
        }
        if !predecessor.told {
            // It died while we were starting: its worker with it.
            tracing::warn!("the agent that was to be taken over has died");
        }
        self.predecessor = None;
        if let Some(worker) = &self.worker {
            handover::send(&worker.socket, &Message::Alone, &[]).ok();
        }
    }

    /// What a worker that was told to end could not do any more.
    fn tidy(&self) {
        if self.when_stopped == WhenStopped::FailMode {
            return;
        }
        match verbatim_steer::unpin(&self.pins) {
            Ok(0) => {}
            Ok(_) => tracing::warn!("the worker did not end in order: the programs were detached for it"),
            Err(error) => tracing::error!(%error, "programs stay attached"),
        }
    }

    fn left(&mut self, code: u8) -> u8 {
        if self.ending != Some(Ending::HandedOver) && self.listener.is_some() {
            place::leave(&self.run_directory);
        }
        code
    }
}

/// The socket that a worker was given as its standard input.
pub(crate) fn socket_of_worker() -> io::Result<Packets> {
    Ok(Packets::from(io::stdin().as_fd().try_clone_to_owned()?))
}
