//! The worker's end of its supervisor: listeners go there as they are made, orders come from there.

use std::{io, net::TcpListener, os::fd::AsFd, sync::Arc};

use tokio::sync::mpsc;
use verbatim_steer::{Handed, NamespaceListeners, ShardListeners, Vault};
use verbatim_sys::packets::Packets;

use crate::{
    handover::{self, Message},
    supervisor,
};

/// Orders that wait for the runtime.
const WAITING: usize = 16;

/// The connection, and what came over it at start.
#[derive(Debug)]
pub(super) struct Link {
    socket: Arc<Packets>,
    /// Listeners of whoever was before.
    pub(super) handed: Vec<Handed>,
    /// cgroups of agents that still live beside us.
    pub(super) others: Vec<u64>,
    /// One of them steers until we do.
    pub(super) succeeding: bool,
}

impl Link {
    /// Takes what the supervisor hands over.
    pub(super) fn open() -> io::Result<Self> {
        let socket = supervisor::socket_of_worker()?;
        let mut handed = Vec::new();
        loop {
            match handover::receive(&socket)? {
                Some((Message::Listener { cookie, port, shard, .. }, listeners)) => {
                    let mut listeners = listeners.into_iter().map(TcpListener::from);
                    if let Some(v4) = listeners.next() {
                        let listeners = ShardListeners { v4, v6: listeners.next() };
                        handed.push(Handed { cookie, port, shard, listeners });
                    }
                }
                Some((Message::Handed { cgroups, succeeding, .. }, _)) => {
                    return Ok(Self { socket: Arc::new(socket), handed, others: cgroups, succeeding });
                }
                Some(_) => {}
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Where listeners are kept.
    pub(super) fn vault(&self) -> Arc<dyn Vault> {
        Arc::new(Kept(Arc::clone(&self.socket)))
    }

    /// Says something.
    pub(super) fn say(&self, message: &Message) {
        if let Err(error) = handover::send(&self.socket, message, &[]) {
            tracing::error!(%error, "the supervisor does not listen");
        }
    }

    /// Orders as they come. The thread ends with the supervisor, and so with the process.
    pub(super) fn orders(&self) -> io::Result<mpsc::Receiver<Message>> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let socket = Arc::clone(&self.socket);
        std::thread::Builder::new().name("supervisor".to_owned()).spawn(move || {
            while let Ok(Some((message, _))) = handover::receive(&socket) {
                if sender.blocking_send(message).is_err() {
                    return;
                }
            }
        })?;
        Ok(receiver)
    }
}

/// Hands listeners to the supervisor.
struct Kept(Arc<Packets>);

impl Vault for Kept {
    fn keep(&self, made: &NamespaceListeners) -> io::Result<()> {
        for (shard, listeners) in made.shards.iter().enumerate() {
            let (name, cookie, port) = (made.name.clone(), made.cookie, made.port);
            let message = Message::Listener { name, cookie, port, shard };
            let both = [Some(&listeners.v4), listeners.v6.as_ref()];
            let descriptors: Vec<_> = both.into_iter().flatten().map(AsFd::as_fd).collect();
            handover::send(&self.0, &message, &descriptors)?;
        }
        Ok(())
    }

    fn forget(&self, cookie: u64) {
        if let Err(error) = handover::send(&self.0, &Message::Forget { cookie }, &[]) {
            tracing::error!(%error, "the supervisor keeps listeners of a namespace that is gone");
        }
    }
}
