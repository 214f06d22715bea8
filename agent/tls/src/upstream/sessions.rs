//! Sessions of upstream servers, each seen by the workload alone that made it.
//!
//! Owns their number. Knows nothing of what is in them.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hashlink::LruCache;
use rustls::{
    NamedGroup,
    client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::ServerName,
};

/// Pairs of workload and server that sessions are kept for.
pub(super) const SERVERS: usize = 2048;
/// Tickets per pair: each serves once, and holds the server's certificates, about 5 KiB.
const TICKETS: usize = 2;

type Key = (Arc<str>, ServerName<'static>);

#[derive(Default)]
struct Server {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: VecDeque<Tls13ClientSessionValue>,
    /// Every handshake is to be a whole one.
    never: bool,
}

/// Sessions of all workloads; the least used go first.
pub(super) struct Sessions {
    servers: Mutex<LruCache<Key, Server>>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { servers: Mutex::new(LruCache::new(SERVERS)) }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // They hold secrets.
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, LruCache<Key, Server>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn forget(&self, workload: &str) {
        self.lock().retain(|(owner, _), _| &**owner != workload);
    }
}

/// One workload's view.
#[derive(Debug)]
pub(super) struct Scoped {
    workload: Arc<str>,
    sessions: Arc<Sessions>,
}

impl Scoped {
    pub(super) fn new(workload: &str, sessions: Arc<Sessions>) -> Self {
        Self { workload: workload.into(), sessions }
    }

    /// Drops the sessions with this server, and keeps no more.
    pub(super) fn never(&self, server: &ServerName<'_>) {
        let group = self.kx_hint(server);
        self.edit(server.to_owned(), |kept| *kept = Server { group, never: true, ..Server::default() });
    }

    fn key(&self, server: &ServerName<'_>) -> Key {
        (Arc::clone(&self.workload), server.to_owned())
    }

    fn edit(&self, server: ServerName<'static>, edit: impl FnOnce(&mut Server)) {
        let key = (Arc::clone(&self.workload), server);
        edit(self.sessions.lock().entry(key).or_insert_with(Server::default));
    }

    fn read<T>(&self, server: &ServerName<'_>, read: impl FnOnce(&mut Server) -> Option<T>) -> Option<T> {
        self.sessions.lock().get_mut(&self.key(server)).and_then(read)
    }
}

impl ClientSessionStore for Scoped {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.edit(server, |kept| kept.group = Some(group));
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.read(server, |kept| kept.group)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.edit(server, |kept| kept.tls12 = (!kept.never).then_some(session));
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.read(server, |kept| kept.tls12.clone())
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        drop(self.read(server, |kept| kept.tls12.take()));
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.edit(server, |kept| {
            if kept.never {
                return;
            }
            while kept.tls13.len() >= TICKETS {
                kept.tls13.pop_front();
            }
            kept.tls13.push_back(ticket);
        });
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.read(server, |kept| kept.tls13.pop_back())
    }
}
