//! The identities of `serve`: a snapshot of which cgroup is whose, and what holds there.
//!
//! Owns how a connection finds its cgroup in the snapshot, and how long it waits for its name. What a snapshot is
//! made of is the registry's business; who reads cgroupfs, and tells the kernel, is `workloads`.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use verbatim_agent_config::{NodeAgent, Selector, Setting, Trust};
use verbatim_api::v1::{self, Resolution};
use verbatim_kube::ContainerTrust;
use verbatim_proxy::seam::{Flow, Identities, Identity};

use super::{
    cgroup::Place,
    naming::{By, Look, Named, Namer, Pods},
    registry::{Cgroups, Known},
    selecting::{Who, setting},
};
use crate::trust::{Evidence, Standing, Standings};

/// Called with the id of a cgroup that the snapshot does not hold.
type Unknown = Box<dyn Fn(u64) + Send + Sync>;

/// Rules, pods, and the snapshot made by them.
pub struct Table {
    namer: Namer,
    selectors: Vec<Selector>,
    snapshot: ArcSwap<Cgroups>,
    /// Told of each snapshot.
    changed: watch::Sender<()>,
    unknown: Unknown,
    /// How long a connection waits for its name; not at all where nobody tells of pods.
    patience: Option<Duration>,
}

/// Where a connection comes from.
enum Found<'a> {
    /// This cgroup.
    Cgroup(&'a Known),
    /// One that is not in the snapshot, below this one.
    Below(&'a Known),
    /// One that cannot be told any more, or not yet.
    Nowhere,
}

impl Table {
    /// Without any cgroup yet. `pods` are where the configuration says `kubernetes`. `unknown` is called, and must
    /// not block, where a connection comes from a cgroup that the snapshot does not hold.
    #[must_use]
    pub fn new(
        config: &NodeAgent,
        node: &str,
        pods: Option<Pods>,
        unknown: impl Fn(u64) + Send + Sync + 'static,
    ) -> Self {
        let kubernetes = config.kubernetes.as_ref().filter(|_| pods.is_some());
        Self {
            namer: Namer::new(config, node, pods),
            selectors: config.selectors.clone(),
            snapshot: ArcSwap::default(),
            changed: watch::Sender::default(),
            unknown: Box::new(unknown),
            patience: kubernetes.map(|kubernetes| kubernetes.resolve_timeout.0),
        }
    }

    /// Takes another snapshot.
    pub(super) fn replace(&self, cgroups: Cgroups) {
        self.snapshot.store(Arc::new(cgroups));
        self.changed.send_replace(());
    }

    /// See [`Look`].
    pub(super) fn look(&self) -> Look {
        self.namer.look()
    }

    /// A cgroup that is seen for the first time.
    pub(super) fn meet(
        &self,
        path: &str,
        parent: Option<&Named>,
        look: &Look,
        absent: u64,
        before: Option<Arc<Known>>,
    ) -> Known {
        let place = self.namer.place(path);
        let named = self.namer.name(path, &place, parent, look, None);
        let setting = self.setting(path, &place, &named);
        let waited = Arc::new(AtomicBool::new(false));
        Known { path: path.into(), place, named, setting, absent, gone: None, before, waited }
    }

    /// One that was seen before: itself where nothing has changed.
    pub(super) fn again(&self, known: &Arc<Known>, parent: Option<&Named>, look: &Look) -> Arc<Known> {
        let named = self.namer.name(&known.path, &known.place, parent, look, Some(&known.named));
        let same_pod = match (&named.pod, &known.named.pod) {
            (Some(now), Some(then)) => Arc::ptr_eq(now, then),
            (None, None) => true,
            _ => false,
        };
        if same_pod
            && named.pending == known.named.pending
            && Arc::ptr_eq(&named.identity, &known.named.identity)
        {
            return Arc::clone(known);
        }
        let setting = self.setting(&known.path, &known.place, &named);
        Arc::new(Known { named, setting, ..Known::clone(known) })
    }

    fn setting(&self, path: &str, place: &Place, named: &Named) -> Setting {
        let pods = self.namer.pods().is_some();
        let pod = named.pod.as_ref().map(|known| &known.pod);
        let labels = pod.map(|pod| &pod.labels);
        let names;
        let who = match named.by {
            By::Rule => {
                Who::Named { workload: &named.identity.workload, labels: None, container_known: true }
            }
            By::Pod => {
                let workload = &named.identity.workload;
                let container_known = workload.resolution() == Resolution::Pod;
                Who::Named { workload, labels, container_known }
            }
            By::Nobody => match pod {
                Some(pod) => {
                    names = v1::Workload {
                        namespace: pod.namespace.clone(),
                        service_account: pod.service_account.clone(),
                        ..v1::Workload::default()
                    };
                    Who::Named { workload: &names, labels, container_known: false }
                }
                None if pods && *place != Place::Outside => Who::UnknownPod,
                None => Who::Nobody,
            },
        };
        setting(&self.selectors, path, who)
    }

    /// Whether connections of a cgroup that were there before it was steered are ended.
    #[must_use]
    pub fn resets(&self, cgroup_id: u64) -> bool {
        let snapshot = self.snapshot.load();
        let known = snapshot.get(&cgroup_id).map(|known| known.setting);
        known.unwrap_or_else(|| self.default_setting()).resets_existing()
    }

    /// What holds for a cgroup that nobody has looked at yet.
    #[must_use]
    pub fn default_setting(&self) -> Setting {
        setting(&self.selectors, "", Who::Nobody)
    }

    /// The UID of the pod whose own cgroup has this path.
    #[must_use]
    pub fn pod_at(&self, path: &str) -> Option<String> {
        let place = self.namer.place(path);
        place.pod().filter(|pod| pod.container.is_none()).map(|pod| pod.uid.clone())
    }

    /// Containers that live in a cgroup that is there, for who asks how they stand; those that nobody names too.
    pub(crate) fn containers(&self) -> Vec<(Arc<Known>, bool)> {
        let snapshot = self.snapshot.load();
        let living = snapshot.values().filter(|known| known.gone.is_none());
        let found = living.filter_map(|known| {
            let container = known.place.pod()?.container.as_ref()?;
            // A pod's sandbox looks like a container, and is none of the pod's.
            let sandbox = known.named.pod.is_some()
                && known.named.identity.workload.resolution() == Resolution::ContainerUnknown;
            let host_network = known.named.pod.as_ref().is_some_and(|pod| pod.pod.host_network);
            (!container.nested && !sandbox).then(|| (Arc::clone(known), host_network))
        });
        found.collect()
    }

    fn nobody(&self, found: &Found<'_>) -> Arc<Identity> {
        let place = match found {
            Found::Below(above) | Found::Cgroup(above) => &above.place,
            Found::Nowhere => &Place::Outside,
        };
        Arc::new(self.namer.unresolved(Resolution::CgroupGone, None, place))
    }

    /// Whether waiting could tell more.
    fn settled(&self, flow: &Flow) -> bool {
        let snapshot = self.snapshot.load();
        match find(&snapshot, flow) {
            Found::Cgroup(known) => !known.named.pending || known.waited.load(Ordering::Relaxed),
            // Nothing of a pod's is to be seen there, or it is a container that is known.
            Found::Below(above) => above.named.by != By::Nobody || above.place == Place::Outside,
            Found::Nowhere => false,
        }
    }

    fn waited_in_vain(&self, flow: &Flow) {
        if let Found::Cgroup(known) = find(&self.snapshot.load(), flow) {
            known.waited.store(true, Ordering::Relaxed);
        }
    }

    /// Has what is missing looked for.
    fn miss(&self, flow: &Flow) {
        match find(&self.snapshot.load(), flow) {
            Found::Cgroup(known) => {
                if known.named.pod.is_none()
                    && let Some(pods) = self.namer.pods()
                {
                    pods.store.want();
                }
            }
            Found::Below(_) | Found::Nowhere => (self.unknown)(flow.cgroup_id),
        }
    }
}

/// The cgroup that had the connection's id when it was opened.
fn find<'a>(cgroups: &'a Cgroups, flow: &Flow) -> Found<'a> {
    let opened = flow.ktime_nanos;
    if let Some(known) = cgroups.get(&flow.cgroup_id) {
        if known.gone.is_some_and(|gone| opened > gone.missed) {
            // Whoever has the id since then was not seen yet.
            return Found::Nowhere;
        }
        let earlier = known.before.as_deref().and_then(|before| Some((before, before.gone?)));
        return match earlier {
            // Still earlier it was another's.
            Some((before, _)) if opened <= before.absent => Found::Nowhere,
            Some((before, gone)) if opened <= gone.last_seen => Found::Cgroup(before),
            // Between two walks it can have been either's.
            Some((_, gone)) if opened <= gone.missed => Found::Nowhere,
            // Or that of one that no walk has seen.
            _ if opened <= known.absent => Found::Nowhere,
            _ => Found::Cgroup(known),
        };
    }
    let living = |id: &u64| cgroups.get(id).filter(|known| known.gone.is_none());
    flow.ancestor_cgroup_ids.iter().find_map(living).map_or(Found::Nowhere, |known| Found::Below(known))
}

impl Identities for Table {
    fn identify(&self, flow: &Flow) -> Arc<Identity> {
        let snapshot = self.snapshot.load();
        let found = find(&snapshot, flow);
        match &found {
            Found::Cgroup(known) => Arc::clone(&known.named.identity),
            Found::Below(above) => {
                (self.unknown)(flow.cgroup_id);
                // Among pods, what lies below another's cgroup is not that other's.
                if above.named.by == By::Nobody && above.place != Place::Outside {
                    self.nobody(&found)
                } else {
                    Arc::clone(&above.named.identity)
                }
            }
            Found::Nowhere => {
                (self.unknown)(flow.cgroup_id);
                self.nobody(&found)
            }
        }
    }

    fn settle<'a>(&'a self, flow: &'a Flow) -> Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>> {
        let patience = self.patience?;
        if self.settled(flow) {
            return None;
        }
        Some(Box::pin(async move {
            let mut changed = self.changed.subscribe();
            self.miss(flow);
            let settled = async { while !self.settled(flow) && changed.changed().await.is_ok() {} };
            if tokio::time::timeout(patience, settled).await.is_err() {
                self.waited_in_vain(flow);
            }
        }))
    }
}

/// What the pod as it is stored shows of this container. Where only some of its variables lead to us, which of its
/// clients trust us cannot be told: that is no evidence.
fn by_injection(known: &Known) -> Evidence {
    match known.injection() {
        Some(ContainerTrust::Injected { roots }) => Evidence::InjectedWith(Arc::new(roots.clone())),
        Some(ContainerTrust::Partly { .. } | ContainerTrust::NotInjected { .. }) | None => Evidence::Missing,
    }
}

impl Standings for Table {
    fn standing(&self, identity: &Identity, flow: &Flow) -> Standing {
        let snapshot = self.snapshot.load();
        let known = match find(&snapshot, flow) {
            Found::Cgroup(known) | Found::Below(known) => Some(known),
            Found::Nowhere => None,
        };
        let setting = known.map_or_else(|| self.default_setting(), |known| known.setting);
        let path = identity.cgroup.as_deref().or_else(|| known.map(|known| &*known.path));
        // At the root everybody lives.
        let path = path.filter(|path| !path.is_empty());
        let by_path = || path.map_or_else(|| format!("cgroup {}", flow.cgroup_id), ToOwned::to_owned);
        Standing {
            workload: known.and_then(Known::container).unwrap_or_else(by_path),
            evidence: match setting.trust {
                Some(Trust::Injected) => Evidence::Injected,
                Some(Trust::None) => Evidence::Spared,
                // What a pod shows of itself is enough, unless a selector knows better.
                Some(Trust::ByInjection) | None => known.map_or(Evidence::Missing, by_injection),
            },
            untrusted: setting.untrusted,
            misdirected: setting.misdirected,
        }
    }
}

#[cfg(test)]
mod tests;
