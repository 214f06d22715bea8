//! The bundle in every selected namespace: written, and written again when somebody else changes or removes it.
//!
//! Only metadata of the ConfigMaps is watched: what was not written by us has another resource version than the one
//! that our writing gave it, whatever was changed. A bundle stays where its namespace is not selected any more: pods
//! that run there may have it mounted.

use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Namespace},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PartialObjectMeta, Patch, PatchParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use verbatim_tls::variables::{BUNDLE, TRUST_STORE};

use crate::bundle::Bundle;

/// Names our fields to the API server (server-side apply).
const MANAGER: &str = "verbatim-issuer";
/// What changes at once is written at once.
const GATHER: Duration = Duration::from_millis(100);
/// After a bundle could not be written.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// How long a bundle that somebody else changes each time stays theirs, at most: first [`GATHER`], twice as long each
/// time.
const LONGEST_CONTEST: Duration = Duration::from_secs(60);
/// ConfigMaps of one page of a list.
const PAGE: u32 = 100;

/// How the bundle of a namespace stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing is known: the namespace may be new.
    Unknown,
    /// It is there.
    Kept,
    /// It cannot be written.
    Failing(String),
}

/// What is known of all of them.
#[derive(Debug, Default)]
pub(crate) struct Standings {
    known: Mutex<HashMap<String, Result<(), String>>>,
    listed: std::sync::atomic::AtomicBool,
    wanted: Notify,
}

impl Standings {
    /// Of a namespace; where nothing is known, it is looked at soon.
    #[must_use]
    pub(crate) fn of(&self, namespace: &str) -> Standing {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(namespace).cloned();
        match known {
            Some(Ok(())) => Standing::Kept,
            Some(Err(why)) => Standing::Failing(why),
            None => {
                self.wanted.notify_one();
                Standing::Unknown
            }
        }
    }

    /// How many are kept, and how many cannot be.
    #[must_use]
    pub(crate) fn counts(&self) -> (usize, usize) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = known.values().filter(|standing| standing.is_ok()).count();
        (kept, known.len().saturating_sub(kept))
    }

    /// Whether every namespace that there was has been looked at.
    #[must_use]
    pub(crate) fn is_listed(&self) -> bool {
        self.listed.load(std::sync::atomic::Ordering::Acquire)
    }

    fn set(&self, namespace: &str, standing: Result<(), String>) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.to_owned(), standing);
    }

    fn retain(&self, selected: &HashMap<String, String>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|namespace, _| selected.contains_key(namespace));
    }
}

/// Objects as a watch tells them, by name or namespace, each with its resource version.
#[derive(Default)]
struct Seen {
    known: HashMap<String, String>,
    coming: HashMap<String, String>,
    listed: bool,
}

impl Seen {
    fn take<K>(&mut self, event: Event<K>, key: impl Fn(&K) -> Option<(String, String)>) {
        match event {
            Event::Init => self.coming.clear(),
            Event::InitApply(object) => self.coming.extend(key(&object)),
            Event::InitDone => {
                self.known = std::mem::take(&mut self.coming);
                self.listed = true;
            }
            Event::Apply(object) => self.known.extend(key(&object)),
            Event::Delete(object) => {
                if let Some((name, _)) = key(&object) {
                    self.known.remove(&name);
                }
            }
        }
    }
}

/// Keeps them.
pub(crate) struct Keeper {
    client: Client,
    config_map: String,
    selector: String,
    standings: Arc<Standings>,
    namespaces: Seen,
    config_maps: Seen,
    /// By namespace.
    written: HashMap<String, Written>,
}

/// A bundle as we wrote it last.
struct Written {
    /// The version that this gave it.
    version: String,
    bundle: Arc<Bundle>,
    at: Instant,
    /// How often others' changes were undone, one soon after the other.
    contested: u32,
}

impl Written {
    /// When another's change is undone. Somebody who changes it each time, a replica with another configuration or
    /// whoever else believes it is theirs, must not make the API server's work ours without end.
    fn due(&self) -> Instant {
        self.at + GATHER.saturating_mul(1 << self.contested.min(16)).min(LONGEST_CONTEST)
    }

    /// After one more was undone.
    fn contested(&self, now: Instant) -> u32 {
        let settled = now.duration_since(self.at) > 2 * LONGEST_CONTEST;
        if settled { 0 } else { self.contested.saturating_add(1) }
    }
}

impl Keeper {
    /// Of bundles with this name, in namespaces with these labels.
    #[must_use]
    pub(crate) fn new(client: Client, config_map: &str, selector: &str, standings: Arc<Standings>) -> Self {
        Self {
            client,
            config_map: config_map.to_owned(),
            selector: selector.to_owned(),
            standings,
            namespaces: Seen::default(),
            config_maps: Seen::default(),
            written: HashMap::new(),
        }
    }

    /// Never returns, unless nobody tells of bundles any more.
    pub(crate) async fn run(mut self, mut bundles: watch::Receiver<Arc<Bundle>>) {
        let mut namespaces = pin!(self.namespaces());
        let mut config_maps = pin!(self.config_maps());
        let standings = Arc::clone(&self.standings);
        let mut due = Instant::now();
        let mut waiting = true;
        loop {
            tokio::select! {
                Some(event) = namespaces.next() => match event {
                    Ok(event) => self.namespaces.take(event, |one: &Namespace| {
                        let ending = one.metadata.deletion_timestamp.is_some();
                        let name = one.metadata.name.clone().filter(|_| !ending);
                        Some((name?, String::new()))
                    }),
                    Err(error) => { tracing::warn!(%error, "namespaces cannot be watched; tried again"); continue }
                },
                Some(event) = config_maps.next() => match event {
                    Ok(event) => self.config_maps.take(event, |one: &PartialObjectMeta<ConfigMap>| {
                        Some((one.metadata.namespace.clone()?, one.metadata.resource_version.clone()?))
                    }),
                    Err(error) => { tracing::warn!(%error, "bundles cannot be watched; tried again"); continue }
                },
                changed = bundles.changed() => if changed.is_err() { return },
                () = standings.wanted.notified() => {}
                () = tokio::time::sleep_until(due), if waiting => {
                    let bundle = Arc::clone(&bundles.borrow_and_update());
                    let again = self.write(&bundle).await;
                    waiting = again.is_some();
                    due = again.unwrap_or(due);
                    continue;
                }
            }
            let soon = Instant::now() + GATHER;
            due = if waiting { due.min(soon) } else { soon };
            waiting = true;
        }
    }

    fn namespaces(&self) -> impl Stream<Item = Result<Event<Namespace>, watcher::Error>> + use<> {
        let config = watcher::Config::default().labels(&self.selector);
        watcher(Api::<Namespace>::all(self.client.clone()), config).default_backoff()
    }

    fn config_maps(
        &self,
    ) -> impl Stream<Item = Result<Event<PartialObjectMeta<ConfigMap>>, watcher::Error>> + use<> {
        let named = format!("metadata.name={}", self.config_map);
        let config = watcher::Config::default().fields(&named).page_size(PAGE);
        watcher(Api::<PartialObjectMeta<ConfigMap>>::all(self.client.clone()), config).default_backoff()
    }

    /// Writes what is not as it should be, and says when any of it must be tried again.
    async fn write(&mut self, bundle: &Arc<Bundle>) -> Option<Instant> {
        if !self.namespaces.listed || !self.config_maps.listed {
            return None;
        }
        self.standings.retain(&self.namespaces.known);
        self.written.retain(|namespace, _| self.namespaces.known.contains_key(namespace));
        let mut again: Option<Instant> = None;
        let mut later = |at: Instant| again = Some(again.map_or(at, |again| again.min(at)));
        for namespace in self.namespaces.known.keys() {
            let now = Instant::now();
            let before = self.written.get(namespace);
            // Where the bundle is another now, who wrote last does not matter.
            let same = before.filter(|written| written.bundle == *bundle);
            if let Some(written) = same {
                if self.config_maps.known.get(namespace) == Some(&written.version) {
                    continue;
                }
                if now < written.due() {
                    later(written.due());
                    continue;
                }
            }
            let contested = same.map_or(0, |written| written.contested(now));
            match self.apply(namespace, bundle).await {
                Ok(version) => {
                    self.standings.set(namespace, Ok(()));
                    self.config_maps.known.insert(namespace.clone(), version.clone());
                    let again = before.is_some();
                    tracing::info!(namespace, again, contested, "the bundle is written");
                    let written = Written { version, bundle: Arc::clone(bundle), at: now, contested };
                    self.written.insert(namespace.clone(), written);
                }
                Err(error) => {
                    later(now + TRY_AGAIN);
                    tracing::warn!(namespace, %error, "the bundle cannot be written; tried again");
                    self.standings.set(namespace, Err(error.to_string()));
                }
            }
        }
        self.standings.listed.store(true, std::sync::atomic::Ordering::Release);
        again
    }

    async fn apply(&self, namespace: &str, bundle: &Bundle) -> Result<String, kube::Error> {
        let config_map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(self.config_map.clone()),
                labels: Some(BTreeMap::from([(
                    "app.kubernetes.io/managed-by".to_owned(),
                    MANAGER.to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(BUNDLE.to_owned(), bundle.pem.clone())])),
            binary_data: Some(BTreeMap::from([(TRUST_STORE.to_owned(), ByteString(bundle.store.clone()))])),
            ..ConfigMap::default()
        };
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let params = PatchParams::apply(MANAGER).force();
        let applied = api.patch_metadata(&self.config_map, &params, &Patch::Apply(&config_map)).await?;
        Ok(applied.metadata.resource_version.unwrap_or_default())
    }
}
