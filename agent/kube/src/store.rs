//! The pods of this node as they are known, by the UID that their cgroups bear.
//!
//! Owns what an event changes, how long a pod that is gone is remembered, and what becomes of events that come
//! late, twice or in another order. Knows no API server: it is told. A pod is never looked up by its name or
//! address.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Guard};

use crate::{
    lookups::{Account, Owners},
    pod::Pod,
};

/// How long a pod that is gone is remembered, for connections that are read late.
pub const REMEMBERED: Duration = Duration::from_secs(600);
/// Pods that are gone and remembered; beyond, the oldest are forgotten.
pub const REMEMBERED_PODS: usize = 1000;
/// Pods that are kept at all: ten times what a kubelet runs. Beyond, new ones stay unknown.
const PODS: usize = 10_000;

/// A pod with what was looked up about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Itself.
    pub pod: Arc<Pod>,
    /// The Google service account that its own is annotated to act as.
    pub account: Account,
    /// Its controllers.
    pub owners: Owners,
}

impl Known {
    /// Nothing more is to be expected from the API server but the lives of its containers.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.account != Account::Asked && !matches!(self.owners, Owners::Asked)
    }
}

/// By the UID that a cgroup bears, see [`Pod::cgroup_uid`].
pub type Snapshot = HashMap<String, Arc<Known>>;

/// How far the API server can be believed to have told everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It has told nothing yet.
    Never,
    /// It has told all pods, and tells what changes.
    Synced,
    /// It does not answer any more: what it told last holds.
    Lost,
}

/// What readers share with the one who writes.
pub struct Store {
    snapshot: ArcSwap<Snapshot>,
    reach: AtomicU8,
    changed: Box<dyn Fn() + Send + Sync>,
    wanted: tokio::sync::Notify,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("pods", &self.snapshot.load().len()).finish_non_exhaustive()
    }
}

impl Store {
    /// Without a pod yet. `changed` is called, and must not block, after each change.
    #[must_use]
    pub fn new(changed: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            snapshot: ArcSwap::default(),
            reach: AtomicU8::new(Reach::Never as u8),
            changed: Box::new(changed),
            wanted: tokio::sync::Notify::new(),
        })
    }

    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// See [`Reach`].
    #[must_use]
    pub fn reach(&self) -> Reach {
        match self.reach.load(Ordering::Acquire) {
            0 => Reach::Never,
            1 => Reach::Synced,
            _ => Reach::Lost,
        }
    }

    /// A cgroup bears the UID of a pod that is not known: the next list may come early.
    pub fn want(&self) {
        self.wanted.notify_one();
    }

    /// Returns when [`Store::want`] was called.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    pub(crate) fn reached(&self, reach: Reach) {
        if self.reach.swap(reach as u8, Ordering::AcqRel) != reach as u8 {
            (self.changed)();
        }
    }
}

/// What is kept of one pod.
struct Entry {
    known: Arc<Known>,
    /// `metadata.resourceVersion`, where it is a number.
    version: Option<u64>,
    /// When it went.
    gone: Option<Instant>,
    /// The API server said so itself: it does not come back.
    deleted: bool,
    /// Versions that cannot be of one pod were told: it names nobody.
    contradictory: bool,
    /// The list that it was last seen in.
    list: u64,
}

impl Entry {
    /// Whoever lives counts, then whoever went last.
    fn rank(&self) -> (bool, Option<Instant>) {
        (self.gone.is_none(), self.gone)
    }
}

/// Writes a [`Store`].
pub struct Book {
    store: Arc<Store>,
    /// By the API server's UID.
    entries: HashMap<String, Entry>,
    list: u64,
    dirty: bool,
}

impl Book {
    /// Of this store, which has no other.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, entries: HashMap::new(), list: 0, dirty: false }
    }

    /// All pods are about to be told.
    pub fn list_begins(&mut self) {
        self.list += 1;
    }

    /// All pods were told: who was not among them is gone.
    pub fn list_ends(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            if entry.list != self.list && entry.gone.is_none() {
                entry.gone = Some(now);
                self.dirty = true;
            }
        }
    }

    /// A pod is there, or has changed. `version` is its resourceVersion.
    pub fn apply(&mut self, mut pod: Pod, version: Option<u64>) {
        let list = self.list;
        let full = self.entries.len() >= PODS;
        let Some(entry) = self.entries.get_mut(&pod.uid) else {
            if full {
                tracing::error!(pods = PODS, "more pods than one node has: one stays unknown");
                return;
            }
            let known = Known { pod: Arc::new(pod), ..Known::default() };
            let uid = known.pod.uid.clone();
            let known = Arc::new(known);
            let entry = Entry { known, version, gone: None, deleted: false, contradictory: false, list };
            self.entries.insert(uid, entry);
            self.dirty = true;
            return;
        };
        entry.list = list;
        if !entry.known.pod.agrees_with(&pod) {
            if !entry.contradictory {
                tracing::error!(
                    pod_uid = pod.uid,
                    "the API server gives one pod two names: it is not believed"
                );
            }
            entry.contradictory = true;
            self.dirty = true;
            return;
        }
        if !entry.deleted && entry.gone.take().is_some() {
            self.dirty = true;
        }
        let older = version.zip(entry.version).is_some_and(|(told, known)| told < known);
        if older {
            // It may know lives of containers that the newer one has forgotten.
            let mut newer = Pod::clone(&entry.known.pod);
            newer.remember(&pod);
            pod = newer;
        } else {
            pod.remember(&entry.known.pod);
            entry.version = version;
        }
        if pod != *entry.known.pod {
            entry.known = Arc::new(Known { pod: Arc::new(pod), ..Known::clone(&entry.known) });
            self.dirty = true;
        }
    }

    /// A pod is gone. It is still told as it was, for [`REMEMBERED`].
    pub fn delete(&mut self, uid: &str, now: Instant) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.deleted = true;
            if entry.gone.is_none() {
                entry.gone = Some(now);
                self.dirty = true;
            }
        }
    }

    /// What was looked up.
    pub fn learn(&mut self, uid: &str, account: Option<Account>, owners: Option<Owners>) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let known = Known {
            pod: Arc::clone(&entry.known.pod),
            account: account.unwrap_or_else(|| entry.known.account.clone()),
            owners: owners.unwrap_or_else(|| entry.known.owners.clone()),
        };
        if known != *entry.known {
            entry.known = Arc::new(known);
            self.dirty = true;
        }
    }

    /// Those that live, with their UIDs.
    pub fn living(&self) -> impl Iterator<Item = &Arc<Known>> {
        self.entries.values().filter(|entry| entry.gone.is_none()).map(|entry| &entry.known)
    }

    /// Those about whom there is something to look up: whoever lives, for it may change, and whoever went before
    /// it was answered.
    pub(crate) fn wanting(&self) -> impl Iterator<Item = &Arc<Known>> {
        let wanting = |entry: &&Entry| entry.gone.is_none() || !entry.known.complete();
        self.entries.values().filter(wanting).map(|entry| &entry.known)
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&Arc<Known>> {
        self.entries.get(uid).map(|entry| &entry.known)
    }

    /// Shows readers what has changed, and forgets what was remembered for long enough.
    pub fn publish(&mut self, now: Instant) {
        self.forget(now);
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let mut best: HashMap<&str, &Entry> = HashMap::with_capacity(self.entries.len());
        let mut ambiguous: HashSet<&str> = HashSet::new();
        for entry in self.entries.values() {
            let pod = &entry.known.pod;
            let uid = pod.cgroup_uid.as_str();
            if entry.contradictory {
                ambiguous.insert(uid);
            }
            // A static pod whose mirror was made anew is in two entries, of one name. Two names are somebody's
            // lie, also where only one of them is still there.
            match best.get(uid) {
                Some(other) if other.known.pod.names() != pod.names() => {
                    ambiguous.insert(uid);
                }
                Some(other) if other.rank() >= entry.rank() => {}
                _ => {
                    best.insert(uid, entry);
                }
            }
        }
        let snapshot = best.into_iter().filter(|(uid, _)| !ambiguous.contains(uid));
        let snapshot: Snapshot =
            snapshot.map(|(uid, entry)| (uid.to_owned(), Arc::clone(&entry.known))).collect();
        self.store.snapshot.store(Arc::new(snapshot));
        (self.store.changed)();
    }

    fn forget(&mut self, now: Instant) {
        let before = self.entries.len();
        self.entries.retain(|_, entry| {
            entry.gone.is_none_or(|gone| now.saturating_duration_since(gone) < REMEMBERED)
        });
        let mut gone: Vec<(Instant, String)> =
            self.entries.iter().filter_map(|(uid, entry)| Some((entry.gone?, uid.clone()))).collect();
        if gone.len() > REMEMBERED_PODS {
            gone.sort();
            let surplus = gone.len() - REMEMBERED_PODS;
            for (_, uid) in gone.drain(..surplus) {
                self.entries.remove(&uid);
            }
        }
        self.dirty |= self.entries.len() != before;
    }

    /// Readers' side.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }
}

#[cfg(test)]
mod tests;
