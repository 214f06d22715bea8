//! The supervisor: starts the worker, starts it again, keeps its listeners, hands over to a successor.
//!
//! One thread, no runtime, and no byte from outside: what a workload says never reaches it.

mod child;
mod place;
mod predecessor;
mod vault;

use std::{
    io::{self, Write},
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
    socket,
};

use crate::{
    cli::ServeArgs,
    handover::{self, Message},
};
use child::{Child, PATIENCE, Restarts, exit_code};
use place::Place;
pub(crate) use place::PlaceError;
use predecessor::Predecessor;
pub(crate) use predecessor::TakeOverError;
use vault::Vault;

/// How long a successor may take to steer, before we go on as if it had not come.
const SUCCESSION: Duration = Duration::from_secs(60);

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

/// Somebody who wants to take over.
#[derive(Debug)]
struct Successor {
    socket: Packets,
    since: Instant,
    /// It has what we had.
    given: bool,
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
            let late =
                self.successor.as_ref().is_some_and(|successor| successor.since.elapsed() > SUCCESSION);
            if late && self.ending.is_none() {
                tracing::warn!("the successor does not come to steer: going on without it");
                self.successor_gone()?;
            }
        }
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
        let until =
            self.restart_at.into_iter().chain(self.successor.as_ref().map(|one| one.since + SUCCESSION));
        let left = until.min().map(|at| at.saturating_duration_since(Instant::now()));
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
        self.restart_at = None;
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

    fn start_worker(&mut self) -> Result<(), SupervisorError> {
        self.restart_at = None;
        let worker = Child::start(self.args)?;
        let cgroups = self.predecessor.iter().flat_map(|one| one.cgroups.iter().copied()).collect();
        let succeeding = self.predecessor.as_ref().is_some_and(|predecessor| !predecessor.told);
        let handed = self.vault.hand_to(&worker.socket).and_then(|()| {
            let end = Message::Handed { cgroups, schema: SCHEMA_VERSION, succeeding };
            handover::send(&worker.socket, &end, &[])
        });
        if let Err(error) = handed {
            // Its death is heard of next.
            tracing::error!(%error, "the worker does not take its listeners");
        }
        self.worker = Some(worker);
        Ok(())
    }

    fn hear_worker(&mut self) -> Result<(), SupervisorError> {
        let Some(worker) = &mut self.worker else { return Ok(()) };
        match handover::receive(&worker.socket) {
            Ok(Some((Message::Listener { name, cookie, port, shard }, listeners))) => {
                self.vault.put(cookie, name, port, shard, listeners);
            }
            Ok(Some((Message::Forget { cookie }, _))) => self.vault.forget(cookie),
            Ok(Some((Message::Ready { cgroup }, _))) => {
                worker.ready = true;
                self.cgroup = Some(cgroup);
                self.ready()?;
            }
            Ok(Some((Message::Frozen, _))) => self.give(),
            Ok(Some((other, _))) => tracing::debug!(?other, "the worker says something else"),
            // Its death says the rest; until then there is nothing to hear.
            Ok(None) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => tracing::error!(%error, "the worker is not understood"),
        }
        Ok(())
    }

    /// The worker steers.
    fn ready(&mut self) -> Result<(), SupervisorError> {
        if let Some(predecessor) = self.predecessor.as_mut().filter(|predecessor| !predecessor.told) {
            predecessor.drain(predecessor.schema != SCHEMA_VERSION);
        }
        if self.listener.is_none() {
            self.be_found()?;
        }
        self.place = None;
        if !self.was_ready {
            self.was_ready = true;
            // For whoever started us.
            writeln!(io::stdout(), "ready").ok();
        }
        Ok(())
    }

    fn be_found(&mut self) -> Result<(), SupervisorError> {
        if let Some(place) = &self.place {
            self.listener = Some(place.listen()?);
        }
        Ok(())
    }

    fn worker_died(&mut self) -> Result<Option<u8>, SupervisorError> {
        let Some(mut worker) = self.worker.take() else { return Ok(None) };
        self.last_words(&worker);
        let status = worker.reap()?;
        match self.ending {
            Some(Ending::HandedOver) => return Ok(self.drained(exit_code(status))),
            Some(Ending::Stopped) => {
                if !status.success() {
                    self.tidy();
                }
                return Ok(Some(exit_code(status)));
            }
            // It has said why.
            None if !self.was_ready => return Ok(Some(exit_code(status).max(1))),
            None => {}
        }
        let wait = self.restarts.after(&worker);
        tracing::error!(%status, wait_millis = wait.as_millis(), "the worker has died, and is started again");
        if self.successor.is_some() {
            // A successor that is about to steer needs no other worker of ours.
            self.give();
        } else {
            self.restart_at = Some(Instant::now() + wait);
        }
        Ok(None)
    }

    /// Nothing is left to do for one that was taken over: the exit code, or none where it is to wait for a signal.
    fn drained(&self, code: u8) -> Option<u8> {
        if self.told_to_end || self.when_succeeded == WhenSucceeded::End {
            return Some(code);
        }
        tracing::info!("drained: waiting to be told to end");
        None
    }

    /// Listeners that it handed over just before it died.
    fn last_words(&mut self, worker: &Child) {
        worker.socket.set_patience(Duration::from_millis(1)).ok();
        while let Ok(Some((message, listeners))) = handover::receive(&worker.socket) {
            match message {
                Message::Listener { name, cookie, port, shard } => {
                    self.vault.put(cookie, name, port, shard, listeners);
                }
                Message::Forget { cookie } => self.vault.forget(cookie),
                _ => {}
            }
        }
    }

    /// Somebody has connected: root only, one at a time.
    fn admit(&mut self) -> Result<(), SupervisorError> {
        let Some(listener) = &self.listener else { return Ok(()) };
        let socket = listener.accept()?;
        let allowed = socket::peer_credentials(&socket).is_ok_and(|peer| peer.uid == 0);
        let reason = match (allowed, self.ending, &self.successor) {
            (false, ..) => "only root may",
            (_, Some(_), _) => "it is ending already",
            (.., Some(_)) => "another agent is taking over already",
            (true, None, None) => {
                socket.set_patience(PATIENCE)?;
                self.successor = Some(Successor { socket, since: Instant::now(), given: false });
                return Ok(());
            }
        };
        let refused = Message::Refused { reason: reason.to_owned() };
        handover::send(&socket, &refused, &[]).ok();
        Ok(())
    }

    fn hear_successor(&mut self) -> Result<Option<u8>, SupervisorError> {
        let Some(successor) = &self.successor else { return Ok(None) };
        match handover::receive(&successor.socket) {
            Ok(Some((Message::TakeOver { version }, _))) => {
                tracing::info!(version, "a successor is taking over");
                let freezing = self.worker.as_ref().filter(|worker| worker.ready);
                let told =
                    freezing.map(|worker| handover::send(&worker.socket, &Message::Freeze, &[]).is_ok());
                if told != Some(true) {
                    // One that does not steer is in the way.
                    self.worker = None;
                    self.restart_at = None;
                    self.give();
                }
                Ok(None)
            }
            Ok(Some((Message::Drain { detach }, _))) => {
                tracing::info!("a successor steers: draining");
                self.ending = Some(Ending::HandedOver);
                self.listener = None;
                let drain = Message::Drain { detach };
                let told =
                    self.worker.as_ref().map(|worker| handover::send(&worker.socket, &drain, &[]).is_ok());
                Ok(if told.is_some() { None } else { self.drained(0) })
            }
            Ok(Some((other, _))) => {
                tracing::debug!(?other, "the successor says something else");
                Ok(None)
            }
            Ok(None) | Err(_) => {
                self.successor_gone()?;
                Ok(None)
            }
        }
    }

    /// Gives the successor what we have, once our worker decides nothing any more.
    fn give(&mut self) {
        let Some(successor) = self.successor.as_mut().filter(|successor| !successor.given) else { return };
        let before = self.predecessor.iter().flat_map(|one| one.cgroups.iter().copied());
        let cgroups = self.cgroup.into_iter().chain(before).collect();
        let given = self.vault.hand_to(&successor.socket).and_then(|()| {
            let end = Message::Handed { cgroups, schema: SCHEMA_VERSION, succeeding: true };
            handover::send(&successor.socket, &end, &[])
        });
        successor.given = true;
        if let Err(error) = given {
            // That it is gone is heard of next.
            tracing::warn!(%error, "the successor does not take what it is given");
        }
    }

    /// The successor is gone. Where it steers, we go on draining; else we decide again.
    fn successor_gone(&mut self) -> Result<(), SupervisorError> {
        self.successor = None;
        if self.ending.is_some() {
            return Ok(());
        }
        tracing::warn!("the successor is gone before it steered");
        match &self.worker {
            Some(worker) => handover::send(&worker.socket, &Message::Thaw, &[])?,
            None => self.start_worker()?,
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
