//! The worker's life: started, heard, started again when it dies.

use std::{
    io::{self, Write},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use verbatim_steer::SCHEMA_VERSION;
use verbatim_sys::packets::Packets;

use super::{
    Ending, Supervisor, SupervisorError,
    child::{Child, exit_code},
    vigil::Vigil,
};
use crate::handover::{self, Message};

impl Supervisor<'_> {
    pub(super) fn start_worker(&mut self) -> Result<(), SupervisorError> {
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

    pub(super) fn hear_worker(&mut self) -> Result<(), SupervisorError> {
        let Some(worker) = &self.worker else { return Ok(()) };
        match handover::receive(&worker.socket) {
            Ok(Some((Message::Frozen, _))) => self.give(),
            Ok(Some((message, listeners))) => {
                let ready = self.heard(message, listeners)?;
                if let Some(worker) = &mut self.worker {
                    worker.ready |= ready;
                }
            }
            // Its death says the rest; until then there is nothing to hear.
            Ok(None) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => tracing::error!(%error, "the worker is not understood"),
        }
        Ok(())
    }

    /// What a worker said, alive or not. Whether it was that it steers.
    fn heard(&mut self, message: Message, listeners: Vec<OwnedFd>) -> Result<bool, SupervisorError> {
        match message {
            Message::Listener { name, cookie, port, shard } => {
                self.vault.put(cookie, name, port, shard, listeners);
            }
            Message::Forget { cookie } => self.vault.forget(cookie),
            Message::Ready { cgroup } => {
                self.vigil = None;
                self.cgroup = Some(cgroup);
                self.ready()?;
                return Ok(true);
            }
            other => tracing::debug!(?other, "the worker says something else"),
        }
        Ok(false)
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

    pub(super) fn worker_died(&mut self) -> Result<Option<u8>, SupervisorError> {
        let Some(mut worker) = self.worker.take() else { return Ok(None) };
        worker.ready |= self.last_words(&worker.socket)?;
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
        // One that did not come to steer is followed by none that will, as far as anybody knows.
        self.vigil = if worker.ready { Vigil::begin(&self.pins) } else { None };
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

    /// What it said just before it died. Whether it was that it steers.
    fn last_words(&mut self, worker: &Packets) -> Result<bool, SupervisorError> {
        worker.set_patience(Duration::from_millis(1)).ok();
        let mut ready = false;
        while let Ok(Some((message, listeners))) = handover::receive(worker) {
            ready |= self.heard(message, listeners)?;
        }
        Ok(ready)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use verbatim_agent_config::{WhenStopped, WhenSucceeded};
    use verbatim_sys::signal::Signals;

    use super::*;
    use crate::cli::ServeArgs;
    use crate::supervisor::{child::Restarts, vault::Vault};

    #[test]
    fn a_worker_that_dies_as_soon_as_it_steers_has_steered() {
        let args = ServeArgs { config: PathBuf::from("none"), check: false, log: None, log_format: None };
        let (socket, worker) = Packets::pair().expect("pair");
        let mut supervisor = Supervisor {
            args: &args,
            pins: PathBuf::from("/nowhere/at/all"),
            when_stopped: WhenStopped::FailMode,
            when_succeeded: WhenSucceeded::default(),
            run_directory: PathBuf::from("/nowhere/at/all"),
            signals: Signals::new(&[]).expect("signals"),
            listener: None,
            place: None,
            vault: Vault::default(),
            worker: None,
            cgroup: None,
            restarts: Restarts::default(),
            restart_at: None,
            vigil: None,
            successor: None,
            predecessor: None,
            was_ready: false,
            ending: None,
            told_to_end: false,
        };
        // Both are there when the supervisor looks, and hears of the death next.
        handover::send(&worker, &Message::Forget { cookie: 1 }, &[]).expect("sent");
        handover::send(&worker, &Message::Ready { cgroup: 7 }, &[]).expect("sent");
        drop(worker);
        assert!(supervisor.last_words(&socket).expect("heard"));
        assert!(supervisor.was_ready, "else the supervisor would end with its first worker");
        assert_eq!(supervisor.cgroup, Some(7));
    }
}
