//! Who lives in a cgroup: by a rule, else by the pod whose UID and container id its path bears.
//!
//! Owns what of a pod becomes an identity. A name comes from the UID alone: never from another pod, a name that was
//! used before, or an address.

use std::sync::Arc;

use verbatim_agent_config::{IdentityRule, NodeAgent, Template};
use verbatim_api::v1::{self, PrincipalKind, Resolution};
use verbatim_kube::{
    Account, Controller, Kind, Known as KnownPod, Owners, Reach, Snapshot, Store,
    names::{is_label, is_subdomain},
};
use verbatim_proxy::seam::Identity;

use super::{
    cgroup::{Container, Place, PodCgroup, PodsRoot},
    federation::{Federated, Federation},
    names::{Pool, principal},
};

/// What names a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// `identities` of the configuration.
    Rule,
    /// The API server's pod.
    Pod,
    /// Nothing, or nothing yet.
    Nobody,
}

/// Who a workload is, and how that is known.
#[derive(Clone, Debug)]
pub struct Named {
    /// For records; of nobody: why, and the raw evidence.
    pub identity: Arc<Identity>,
    /// By what.
    pub by: By,
    /// More may be known soon.
    pub pending: bool,
    /// The pod, where it is known.
    pub pod: Option<Arc<KnownPod>>,
    /// As of when the rest was known.
    basis: Option<(Arc<Federation>, Reach)>,
}

/// Who tells of pods.
#[derive(Clone, Debug)]
pub struct Pods {
    /// The node's pods.
    pub store: Arc<Store>,
    /// Project and cluster.
    pub federated: Arc<Federated>,
}

/// All that is known of pods at one moment.
pub(super) struct Look {
    pods: Option<(Arc<Snapshot>, Arc<Federation>, Reach)>,
}

/// Names.
pub(super) struct Namer {
    node: String,
    rules: Vec<IdentityRule>,
    pods: Option<Pods>,
    root: PodsRoot,
    /// Labels that are kept in records.
    labels: Vec<String>,
}

impl Namer {
    pub(super) fn new(config: &NodeAgent, node: &str, pods: Option<Pods>) -> Self {
        let kubernetes = config.kubernetes.as_ref();
        let root = kubernetes.and_then(|kubernetes| kubernetes.cgroup_root.as_deref());
        Self {
            node: node.to_owned(),
            rules: config.identities.clone(),
            pods,
            root: root.map(PodsRoot::below).unwrap_or_default(),
            labels: kubernetes.map(|kubernetes| kubernetes.labels.clone()).unwrap_or_default(),
        }
    }

    /// What a path says.
    pub(super) fn place(&self, path: &str) -> Place {
        Place::of(path, &self.root)
    }

    /// The pods, where they are told.
    pub(super) fn pods(&self) -> Option<&Pods> {
        self.pods.as_ref()
    }

    pub(super) fn look(&self) -> Look {
        let pods = self.pods.as_ref().map(|pods| {
            let snapshot = Arc::clone(&pods.store.snapshot());
            (snapshot, Arc::clone(&pods.federated.now()), pods.store.reach())
        });
        Look { pods }
    }

    /// `parent` is who lives in the cgroup above, `before` who was found here by an earlier look.
    pub(super) fn name(
        &self,
        path: &str,
        place: &Place,
        parent: Option<&Named>,
        look: &Look,
        before: Option<&Named>,
    ) -> Named {
        if let Some(before) = before.filter(|before| before.by == By::Rule) {
            return before.clone();
        }
        if let Some(identity) = self.rules.iter().find_map(|rule| self.apply(rule, path)) {
            return Named::new(By::Rule, identity);
        }
        if let Some(parent) = parent.filter(|parent| parent.by == By::Rule) {
            return parent.clone();
        }
        let Some(pod) = place.pod() else {
            return before.cloned().unwrap_or_else(|| {
                Named::new(By::Nobody, self.unresolved(Resolution::NotAContainer, Some(path), place))
            });
        };
        match (&pod.container, parent) {
            // Below a container's cgroup lives the container.
            (Some(container), Some(parent)) if container.nested => parent.clone(),
            (Some(container), _) => self.contained(path, place, pod, container, look, before),
            (None, _) => self.around(path, place, pod, look, before),
        }
    }

    /// A pod's own cgroup: a runtime keeps its monitors there, which are not the pod's doing. What the pod's
    /// containers are to be is known already.
    fn around(
        &self,
        path: &str,
        place: &Place,
        pod: &PodCgroup,
        look: &Look,
        before: Option<&Named>,
    ) -> Named {
        let known = look.pods.as_ref().and_then(|(pods, ..)| pods.get(&pod.uid));
        let identity = before
            .map(|before| Arc::clone(&before.identity))
            .unwrap_or_else(|| Arc::new(self.unresolved(Resolution::NotAContainer, Some(path), place)));
        Named { identity, by: By::Nobody, pending: false, pod: known.cloned(), basis: None }
    }

    fn contained(
        &self,
        path: &str,
        place: &Place,
        pod: &PodCgroup,
        container: &Container,
        look: &Look,
        before: Option<&Named>,
    ) -> Named {
        let Some((pods, federation, reach)) = &look.pods else {
            return Named::new(By::Nobody, self.unresolved(Resolution::NoApiServer, Some(path), place));
        };
        // Whoever may make pods may call one the mirror of a static pod, but only the kubelet writes which
        // containers it has.
        let told =
            |known: &&Arc<KnownPod>| !known.pod.static_pod || known.pod.container(&container.id).is_some();
        let known = pods.get(&pod.uid).filter(told);
        if let Some(before) = before.filter(|before| before.stands(known, federation, *reach)) {
            return before.clone();
        }
        let basis = Some((Arc::clone(federation), *reach));
        let Some(known) = known else {
            let reason = match reach {
                Reach::Synced => Resolution::PodUnknown,
                Reach::Never | Reach::Lost => Resolution::NoApiServer,
            };
            let identity = self.unresolved(reason, Some(path), place);
            return Named { pending: true, basis, ..Named::new(By::Nobody, identity) };
        };
        let (identity, whole) = self.of_pod(path, known, container, federation);
        let pending = !whole || !known.complete() || !federation.settled;
        Named { pending, basis, pod: Some(Arc::clone(known)), ..Named::new(By::Pod, identity) }
    }

    /// And whether the container is known.
    fn of_pod(
        &self,
        path: &str,
        known: &KnownPod,
        container: &Container,
        federation: &Federation,
    ) -> (Identity, bool) {
        let pod = &known.pod;
        let found = pod.container(&container.id);
        let principal = Some(&pod.service_account)
            .filter(|account| !account.is_empty())
            .and_then(|account| federation.principal(&pod.namespace, account));
        let kind = if principal.is_some() { PrincipalKind::Federated } else { PrincipalKind::Unresolved };
        let resolution = if found.is_some() { Resolution::Pod } else { Resolution::ContainerUnknown };
        let workload = v1::Workload {
            principal_kind: kind.into(),
            principal: principal.unwrap_or_default(),
            namespace: pod.namespace.clone(),
            service_account: pod.service_account.clone(),
            pod_name: pod.name.clone(),
            pod_uid: pod.uid.clone(),
            container: found.map(|(container, _)| container.name.clone()).unwrap_or_default(),
            node: self.node.clone(),
            cgroup_id: 0,
            impersonated_service_account: match &known.account {
                Account::Acts(email) => email.to_string(),
                Account::Asked | Account::None | Account::Failed => String::new(),
            },
            cluster: federation.cluster.clone(),
            container_kind: found.map(|(container, _)| kind_of(container.kind)).unwrap_or_default().into(),
            resolution: resolution.into(),
            container_id: container.id.clone(),
        };
        let labels = self.labels.iter().filter_map(|name| {
            let value = pod.labels.get(name)?.clone().into_bytes();
            Some(v1::Attribute { name: name.clone(), value })
        });
        let owners = match &known.owners {
            Owners::Known(owners) => owners.iter().map(owner).collect(),
            Owners::Asked => pod.controller.iter().map(owner).collect(),
        };
        let content = v1::Pod {
            owners,
            image: found.map(|(container, _)| container.image.clone()).unwrap_or_default(),
            image_digest: found.map(|(_, run)| run.image_digest.clone()).unwrap_or_default(),
            labels: labels.collect(),
            host_network: pod.host_network,
            static_pod: pod.static_pod,
        };
        let identity = Identity {
            workload,
            local_user: None,
            cgroup: Some(path.to_owned()),
            pod: Some(Arc::new(content)),
        };
        (identity, found.is_some())
    }

    /// Nobody, with what is there to go by.
    pub(super) fn unresolved(&self, reason: Resolution, path: Option<&str>, place: &Place) -> Identity {
        let pod = place.pod();
        let container = pod.and_then(|pod| pod.container.as_ref());
        let workload = v1::Workload {
            principal_kind: PrincipalKind::Unresolved.into(),
            node: self.node.clone(),
            pod_uid: pod.map(|pod| pod.uid.clone()).unwrap_or_default(),
            container_id: container.map(|container| container.id.clone()).unwrap_or_default(),
            resolution: reason.into(),
            ..v1::Workload::default()
        };
        Identity { workload, cgroup: path.map(ToOwned::to_owned), ..Identity::default() }
    }

    fn apply(&self, rule: &IdentityRule, path: &str) -> Option<Identity> {
        let captures = rule.cgroup.matches(path)?;
        let fill = |template: Option<&Template>| {
            template.map(|template| template.fill(&captures)).unwrap_or_default()
        };
        let namespace = fill(Some(&rule.namespace));
        let service_account = fill(Some(&rule.service_account));
        let pool: Pool = rule.pool.parse().ok()?;
        // A captured text that is no name must not shape a principal.
        if !is_label(&namespace) || !is_subdomain(&service_account) {
            return None;
        }
        let workload = v1::Workload {
            principal_kind: PrincipalKind::Federated.into(),
            principal: principal(rule.project_number, &pool, &namespace, &service_account),
            namespace,
            service_account,
            pod_name: fill(rule.pod.name.as_ref()),
            pod_uid: fill(rule.pod.uid.as_ref()).replace('_', "-"),
            container: fill(rule.container.as_ref()),
            node: self.node.clone(),
            resolution: Resolution::Rule.into(),
            ..v1::Workload::default()
        };
        Some(Identity { workload, cgroup: Some(path.to_owned()), ..Identity::default() })
    }
}

impl Named {
    fn new(by: By, identity: Identity) -> Self {
        Self { identity: Arc::new(identity), by, pending: false, pod: None, basis: None }
    }

    /// Whether another look would find the same.
    fn stands(&self, pod: Option<&Arc<KnownPod>>, federation: &Arc<Federation>, reach: Reach) -> bool {
        let same_pod = match (&self.pod, pod) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (None, None) => true,
            _ => false,
        };
        let same = |(then, reached): &(Arc<Federation>, Reach)| {
            Arc::ptr_eq(then, federation) && (*reached == reach || pod.is_some())
        };
        same_pod && self.basis.as_ref().is_some_and(same)
    }
}

fn kind_of(kind: Kind) -> v1::ContainerKind {
    match kind {
        Kind::Regular => v1::ContainerKind::Regular,
        Kind::Init => v1::ContainerKind::Init,
        Kind::Sidecar => v1::ContainerKind::Sidecar,
        Kind::Ephemeral => v1::ContainerKind::Ephemeral,
    }
}

fn owner(controller: &Controller) -> v1::Owner {
    v1::Owner {
        api_version: controller.api_version.clone(),
        kind: controller.kind.clone(),
        name: controller.name.clone(),
        uid: controller.uid.clone(),
    }
}
