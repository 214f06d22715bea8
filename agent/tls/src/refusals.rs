//! Who does not trust us, and which servers and clients go by a certificate that we do not have.
//!
//! Owns the memory of both, bounded, and what counts as a refusal. Knows not what is done about it.

mod alert;
mod file;

use std::{
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hashlink::LruCache;

pub(crate) use self::alert::tls_error;
pub use self::{
    alert::{Moment, refusal},
    file::{RefusalFile, RefusalFileError},
};

/// Pairs of workload and service remembered; the least used go first.
const REFUSALS: usize = 16 * 1024;
/// Of one workload: one that refuses ever new services has its own forgotten, not its neighbours'.
const SHARE: usize = 256;
/// Destinations remembered.
const DESTINATIONS: usize = 4096;

/// A client refused our leaf.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refused {
    /// The alert's name in the RFCs, e.g. `unknown_ca`; `eof` where the client said nothing.
    pub alert: String,
    /// When, seconds since 1970.
    pub since_unix_seconds: u64,
}

/// A server that insists on a client's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Insistence {
    /// Where it listens.
    pub destination: SocketAddr,
    /// The server name that it was asked for; empty without one.
    pub server_name: String,
}

/// What was learned from refusals. Shared by all shards.
#[derive(Debug)]
pub struct Refusals {
    by_client: Mutex<LruCache<(String, String), Refused>>,
    by_server: Mutex<LruCache<Insistence, u64>>,
    by_holder: Mutex<LruCache<(String, String), u64>>,
    changed: AtomicBool,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            by_client: Mutex::new(LruCache::new(REFUSALS)),
            by_server: Mutex::new(LruCache::new(DESTINATIONS)),
            by_holder: Mutex::new(LruCache::new(REFUSALS)),
            changed: AtomicBool::new(false),
        }
    }
}

impl Refusals {
    /// Whether this workload (its container, by whatever key names it for as long as it lives) has refused our
    /// leaf for this service (the name that the leaf was for), and how.
    #[must_use]
    pub fn refused(&self, workload: &str, service: &str) -> Option<Refused> {
        lock(&self.by_client).get(&(workload.to_owned(), service.to_owned())).cloned()
    }

    /// It has: from now on it is remembered. `alert` as [`refusal`] gives it.
    pub fn remember(&self, workload: &str, service: &str, alert: &str) {
        let refused = Refused { alert: alert.to_owned(), since_unix_seconds: now() };
        insert(&mut lock(&self.by_client), workload, service, refused);
        self.changed.store(true, Ordering::Release);
    }

    /// All that is known: workload, service, how.
    #[must_use]
    pub fn all(&self) -> Vec<(String, String, Refused)> {
        let kept = lock(&self.by_client);
        kept.iter()
            .map(|((workload, service), how)| (workload.clone(), service.clone(), how.clone()))
            .collect()
    }

    /// Whether this server insists on a client's certificate.
    #[must_use]
    pub fn insists(&self, destination: SocketAddr, server_name: &str) -> bool {
        let key = Insistence { destination, server_name: server_name.to_owned() };
        lock(&self.by_server).get(&key).is_some()
    }

    /// It does.
    pub fn remember_insistence(&self, destination: SocketAddr, server_name: &str) {
        let key = Insistence { destination, server_name: server_name.to_owned() };
        lock(&self.by_server).insert(key, now());
        self.changed.store(true, Ordering::Release);
    }

    /// Whether this workload shows a certificate of its own to this service, which asks for one.
    #[must_use]
    pub fn shows_certificate(&self, workload: &str, service: &str) -> bool {
        lock(&self.by_holder).get(&(workload.to_owned(), service.to_owned())).is_some()
    }

    /// It does.
    pub fn remember_certificate(&self, workload: &str, service: &str) {
        insert(&mut lock(&self.by_holder), workload, service, now());
        self.changed.store(true, Ordering::Release);
    }

    /// The workload is gone, and all whose names begin with its name and a slash: what they refused is forgotten.
    pub fn forget(&self, workload: &str) {
        let below = |owner: &str| {
            owner.strip_prefix(workload).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut changed = false;
        let mut gone = |owner: &str| {
            changed |= below(owner);
            below(owner)
        };
        lock(&self.by_client).retain(|(owner, _), _| !gone(owner));
        lock(&self.by_holder).retain(|(owner, _), _| !gone(owner));
        if changed {
            self.changed.store(true, Ordering::Release);
        }
    }
}

/// Within the workload's share.
fn insert<T>(known: &mut LruCache<(String, String), T>, workload: &str, service: &str, value: T) {
    let key = (workload.to_owned(), service.to_owned());
    if known.len() >= SHARE && !known.contains_key(&key) {
        // Beginning with what was not asked for for longest.
        let mut own = known.iter().map(|(key, _)| key).filter(|(owner, _)| owner == workload);
        let oldest = own.next().cloned();
        if own.count() + 1 >= SHARE
            && let Some(oldest) = oldest
        {
            known.remove(&oldest);
        }
    }
    known.insert(key, value);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests;
