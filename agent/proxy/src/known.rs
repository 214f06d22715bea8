//! What was learned of earlier connections of the same workload to the same destination. Shared by all shards.
//!
//! Bounded: what was used least is forgotten first. Knows no connection.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use hashlink::LruCache;
use verbatim_tls::LeafName;

use crate::seam::Flow;

/// Pairs of workload and destination.
const KNOWN: usize = 8 * 1024;

/// Loopback means another server in each namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    cgroup_id: u64,
    namespace: u64,
    destination: SocketAddr,
}

impl Key {
    fn new(flow: &Flow) -> Self {
        let namespace = if flow.destination.ip().is_loopback() { flow.client_netns } else { 0 };
        Self { cgroup_id: flow.cgroup_id, namespace, destination: flow.destination }
    }
}

#[derive(Debug, Default)]
struct Destination {
    /// TLS was agreed on, under this name.
    tls_name: Option<LeafName>,
    /// A client bound its authentication to TLS.
    binds_channel: bool,
    /// A client has said something within our TLS: it trusts us.
    spoke: bool,
    /// Connections whose TLS the client ended in good order without having said anything.
    unused: u8,
    /// The server asked for a client's certificate, got none and went on.
    takes_none: bool,
    /// A session of PostgreSQL whose client showed a certificate went on without it.
    certificate_unneeded: bool,
}

/// See the module.
pub(crate) struct Known(Mutex<LruCache<Key, Destination>>);

impl Default for Known {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(KNOWN)))
    }
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, LruCache<Key, Destination>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, flow: &Flow, learn: impl FnOnce(&mut Destination)) {
        learn(self.lock().entry(Key::new(flow)).or_insert_with(Destination::default));
    }

    fn ask<T>(&self, flow: &Flow, ask: impl FnOnce(&Destination) -> T) -> Option<T> {
        self.lock().get(&Key::new(flow)).map(ask)
    }

    /// Client and server agreed on TLS in their protocol's own way: from then on no connection of this workload
    /// goes there without.
    pub(crate) fn had_tls(&self, flow: &Flow, name: &LeafName) {
        self.learn(flow, |known| known.tls_name = Some(name.clone()));
    }

    /// Under which name; `None` where there was none.
    pub(crate) fn tls_name(&self, flow: &Flow) -> Option<LeafName> {
        self.ask(flow, |known| known.tls_name.clone()).flatten()
    }

    /// A client bound its authentication to TLS.
    pub(crate) fn bound(&self, flow: &Flow) {
        self.learn(flow, |known| known.binds_channel = true);
    }

    pub(crate) fn binds_channel(&self, flow: &Flow) -> bool {
        self.ask(flow, |known| known.binds_channel).unwrap_or(false)
    }

    /// A client has said something within our TLS.
    pub(crate) fn spoke(&self, flow: &Flow) {
        if !self.has_spoken(flow) {
            self.learn(flow, |known| known.spoke = true);
        }
    }

    /// The server asked for a client's certificate, got none and did not object.
    pub(crate) fn took_none(&self, flow: &Flow) {
        self.learn(flow, |known| known.takes_none = true);
    }

    pub(crate) fn takes_none(&self, flow: &Flow) -> bool {
        self.ask(flow, |known| known.takes_none).unwrap_or(false)
    }

    /// A session of PostgreSQL went on without the certificate that its client showed.
    pub(crate) fn did_without_certificate(&self, flow: &Flow) {
        self.learn(flow, |known| known.certificate_unneeded = true);
    }

    pub(crate) fn does_without_certificate(&self, flow: &Flow) -> bool {
        self.ask(flow, |known| known.certificate_unneeded).unwrap_or(false)
    }

    /// A client ended TLS in good order and had said nothing. How often that has happened, this time included.
    pub(crate) fn closed_unused(&self, flow: &Flow) -> u8 {
        let mut times = 0;
        self.learn(flow, |known| {
            known.unused = known.unused.saturating_add(1);
            times = known.unused;
        });
        times
    }

    pub(crate) fn has_spoken(&self, flow: &Flow) -> bool {
        self.ask(flow, |known| known.spoke).unwrap_or(false)
    }
}
