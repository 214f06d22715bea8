//! The agent that is taken over: asked for its listeners, then told to drain.

use std::io;

use verbatim_sys::packets::Packets;

use super::{child::PATIENCE, vault::Vault};
use crate::handover::{self, Message};

/// Longer than the old one's worker takes to stop deciding.
const LONG: u32 = 3;

/// Why it cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeOverError {
    /// It says so.
    #[error("the agent that runs cannot be taken over: {0}")]
    Refused(String),
    /// It says nothing, or something that cannot be used.
    #[error("the agent that runs does not hand over: {0}")]
    Io(#[from] io::Error),
}

/// A supervisor that lives until it has drained.
#[derive(Debug)]
pub(crate) struct Predecessor {
    pub(crate) socket: Packets,
    /// Of it, and of those that it had taken over.
    pub(crate) cgroups: Vec<u64>,
    /// Of its pinned maps.
    pub(crate) schema: u32,
    /// It was told to drain.
    pub(crate) told: bool,
}

impl Predecessor {
    /// Has it hand over. From then on it decides nothing, until it is told to drain or we are gone.
    pub(crate) fn succeed(socket: Packets, vault: &mut Vault) -> Result<Self, TakeOverError> {
        socket.set_patience(PATIENCE * LONG)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        handover::send(&socket, &Message::TakeOver { version }, &[])?;
        loop {
            let Some((message, listeners)) = handover::receive(&socket)? else {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            };
            match message {
                Message::Listener { name, cookie, port, shard } => {
                    vault.put(cookie, name, port, shard, listeners);
                }
                Message::Forget { cookie } => vault.forget(cookie),
                Message::Handed { cgroups, schema, .. } => {
                    return Ok(Self { socket, cgroups, schema, told: false });
                }
                Message::Refused { reason } => return Err(TakeOverError::Refused(reason)),
                _ => {}
            }
        }
    }

    /// We steer now.
    pub(crate) fn drain(&mut self, detach: bool) {
        self.told = true;
        if let Err(error) = handover::send(&self.socket, &Message::Drain { detach }, &[]) {
            tracing::warn!(%error, "the agent that was taken over has ended before it was told to drain");
        }
    }
}
