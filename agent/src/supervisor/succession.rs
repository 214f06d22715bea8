//! Being taken over: by one successor at a time, which is given the listeners once our worker decides nothing more.

use std::time::{Duration, Instant};

use verbatim_agent_config::WhenSucceeded;
use verbatim_steer::SCHEMA_VERSION;
use verbatim_sys::{packets::Packets, socket};

use super::{Ending, Supervisor, SupervisorError, child::PATIENCE};
use crate::handover::{self, Message};

/// How long a successor may take to steer, before we go on as if it had not come.
const SUCCESSION: Duration = Duration::from_secs(60);

/// Somebody who wants to take over.
#[derive(Debug)]
pub(super) struct Successor {
    pub(super) socket: Packets,
    since: Instant,
    /// It has what we had.
    given: bool,
}

impl Successor {
    /// When it counts as not coming any more; once we are `ending`, nobody waits for it.
    pub(super) fn due(&self, ending: Option<Ending>) -> Option<Instant> {
        ending.is_none().then(|| self.since + SUCCESSION)
    }
}

impl Supervisor<'_> {
    /// Somebody has connected: root only, one at a time.
    pub(super) fn admit(&mut self) -> Result<(), SupervisorError> {
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

    pub(super) fn hear_successor(&mut self) -> Result<Option<u8>, SupervisorError> {
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

    /// Nothing is left to do for one that was taken over: the exit code, or none where it is to wait for a signal.
    pub(super) fn drained(&self, code: u8) -> Option<u8> {
        if self.told_to_end || self.when_succeeded == WhenSucceeded::End {
            return Some(code);
        }
        tracing::info!("drained: waiting to be told to end");
        None
    }

    /// Gives the successor what we have, once our worker decides nothing any more.
    pub(super) fn give(&mut self) {
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
    pub(super) fn successor_gone(&mut self) -> Result<(), SupervisorError> {
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
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn a_successor_is_waited_for_until_it_steers_or_we_end_and_no_longer() {
        let (socket, _other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("pair");
        let since = Instant::now();
        let successor = Successor { socket: Packets::from(socket), since, given: false };
        assert_eq!(successor.due(None), Some(since + SUCCESSION));
        // It stays connected while we drain, for as long as that takes: nothing is due then.
        for ending in [Ending::HandedOver, Ending::Stopped] {
            assert_eq!(successor.due(Some(ending)), None);
        }
    }
}
