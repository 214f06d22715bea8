//! The worker's life: started, heard, started again when it dies.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use verbatim_steer::SCHEMA_VERSION;

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
        let Some(worker) = &mut self.worker else { return Ok(()) };
        match handover::receive(&worker.socket) {
            Ok(Some((Message::Listener { name, cookie, port, shard }, listeners))) => {
                self.vault.put(cookie, name, port, shard, listeners);
            }
            Ok(Some((Message::Forget { cookie }, _))) => self.vault.forget(cookie),
            Ok(Some((Message::Ready { cgroup }, _))) => {
                worker.ready = true;
                self.vigil = None;
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

    pub(super) fn worker_died(&mut self) -> Result<Option<u8>, SupervisorError> {
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
}
