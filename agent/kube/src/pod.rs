//! What is kept of a pod: its names, its containers, and what the configuration asks for.
//!
//! Owns the reading of the API's object, which is not believed where it contradicts the form of names.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1 as api, apimachinery::pkg::apis::meta::v1::OwnerReference};
use verbatim_inject::ContainerTrust;

use crate::names::{is_config_hash, is_label, is_subdomain, is_uuid};

/// Longest image reference that is kept, bytes.
const IMAGE_BYTES: usize = 512;
/// Runs of one container that are kept: the one that lives and those before it, whose connections may be late.
pub(crate) const RUNS: usize = 8;
/// Containers of a pod that are kept.
const CONTAINERS: usize = 256;

/// Where a mirror pod says that it is one (Kubernetes `pkg/kubelet/types/pod_update.go`).
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Where it says which UID its pod has on the node.
const HASH: &str = "kubernetes.io/config.hash";

/// Which of all pods are read, and how much of them.
#[derive(Clone, Debug, Default)]
pub struct Keep {
    /// `spec.nodeName`.
    pub node: String,
    /// Names of labels.
    pub labels: Vec<String>,
}

/// A pod of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.uid`: for a static pod that of its mirror.
    pub uid: String,
    /// The UID that its cgroup bears: the same, but for a static pod.
    pub cgroup_uid: String,
    /// RFC 1123 label.
    pub namespace: String,
    /// RFC 1123 subdomain.
    pub name: String,
    /// RFC 1123 subdomain; empty where it has none, as static pods.
    pub service_account: String,
    /// It shares the node's network namespace.
    pub host_network: bool,
    /// A kubelet read it from a file, and told the API server.
    pub static_pod: bool,
    /// Those that [`Keep`] names.
    pub labels: BTreeMap<String, String>,
    /// What keeps it alive, e.g. a ReplicaSet.
    pub controller: Option<Controller>,
    /// In the order of the specification: regular, init and sidecar, ephemeral ones.
    pub containers: Vec<Container>,
    /// What each container was given so that it trusts us, by its name.
    pub trust: BTreeMap<String, ContainerTrust>,
}

/// Which list of the specification a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `containers`.
    Regular,
    /// `initContainers`.
    Init,
    /// `initContainers` with `restartPolicy: Always` (Kubernetes 1.28): it runs beside the others.
    Sidecar,
    /// `ephemeralContainers`.
    Ephemeral,
}

/// One container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// RFC 1123 label.
    pub name: String,
    /// See [`Kind`].
    pub kind: Kind,
    /// As the specification writes it.
    pub image: String,
    /// As its status says: the latest first, no more than a few.
    pub runs: Vec<Run>,
}

/// One life of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The runtime's id, without its scheme.
    pub id: String,
    /// e.g. `sha256:…`; empty where the status does not say it.
    pub image_digest: String,
}

/// A controller, as what it controls names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Controller {
    /// e.g. `apps/v1`.
    pub api_version: String,
    /// e.g. `ReplicaSet`.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

/// Why a pod is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The list was asked for this node's.
    #[error("it runs on another node")]
    Elsewhere,
    /// See [`is_uuid`].
    #[error("its UID is none")]
    Uid,
    /// Of the pod, its namespace, its service account or a container.
    #[error("a name of it is none")]
    Name,
    /// A mirror pod must be the node's own, without a service account, and name the digest of a file.
    #[error("it says that it mirrors a file, and does not look so")]
    Mirror,
}

impl Pod {
    /// Reads one.
    ///
    /// # Errors
    /// See [`Refused`]: no name of such an object is ever used.
    pub fn read(object: &api::Pod, keep: &Keep) -> Result<Self, Refused> {
        let spec = object.spec.as_ref().ok_or(Refused::Elsewhere)?;
        if spec.node_name.as_deref() != Some(keep.node.as_str()) {
            return Err(Refused::Elsewhere);
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let metadata = &object.metadata;
        let mut pod = Self {
            uid: text(&metadata.uid),
            cgroup_uid: text(&metadata.uid),
            namespace: text(&metadata.namespace),
            name: text(&metadata.name),
            service_account: text(&spec.service_account_name),
            host_network: spec.host_network.unwrap_or_default(),
            static_pod: false,
            labels: BTreeMap::new(),
            controller: controller(metadata.owner_references.as_deref().unwrap_or_default()),
            containers: containers(object, spec)?,
            trust: verbatim_inject::trust(object),
        };
        if !is_uuid(&pod.uid) {
            return Err(Refused::Uid);
        }
        let account = &pod.service_account;
        if !is_label(&pod.namespace)
            || !is_subdomain(&pod.name)
            || !(account.is_empty() || is_subdomain(account))
        {
            return Err(Refused::Name);
        }
        let annotation = |name: &str| metadata.annotations.as_ref().and_then(|all| all.get(name));
        if annotation(MIRROR).is_some() {
            let hash = annotation(HASH).filter(|hash| is_config_hash(hash));
            pod.mirror(hash, &keep.node)?;
        }
        let labels = metadata.labels.as_ref();
        let kept =
            |name: &String| labels.and_then(|all| all.get(name)).map(|value| (name.clone(), value.clone()));
        pod.labels = keep.labels.iter().filter_map(kept).collect();
        Ok(pod)
    }

    /// Whoever may make pods may call one a mirror and name any digest. It gets no principal by that, for a
    /// mirror has no service account (the API server refuses it one), and never another pod's UID, for those
    /// have another form.
    fn mirror(&mut self, hash: Option<&String>, node: &str) -> Result<(), Refused> {
        let owner = self.controller.take();
        let nodes = owner.is_some_and(|owner| {
            (owner.api_version.as_str(), owner.kind.as_str(), owner.name.as_str()) == ("v1", "Node", node)
        });
        match hash {
            Some(hash) if nodes && self.service_account.is_empty() => {
                self.cgroup_uid.clone_from(hash);
                self.static_pod = true;
                Ok(())
            }
            _ => Err(Refused::Mirror),
        }
    }

    /// The container and the life of it that bear this id.
    #[must_use]
    pub fn container(&self, id: &str) -> Option<(&Container, &Run)> {
        self.containers
            .iter()
            .find_map(|container| container.runs.iter().find(|run| run.id == id).map(|run| (container, run)))
    }

    /// Takes up lives of containers that an earlier version told: a runtime gives no id twice.
    pub(crate) fn remember(&mut self, earlier: &Self) {
        for container in &mut self.containers {
            let before = earlier.containers.iter().find(|other| other.name == container.name);
            for run in before.map(|before| before.runs.as_slice()).unwrap_or_default() {
                if container.runs.len() < RUNS && container.runs.iter().all(|known| known.id != run.id) {
                    container.runs.push(run.clone());
                }
            }
        }
    }

    /// Namespace and name.
    pub(crate) fn names(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    /// Whether two versions can be of the same pod: these never change.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        self.uid == other.uid
            && self.cgroup_uid == other.cgroup_uid
            && self.names() == other.names()
            && self.service_account == other.service_account
    }
}

/// Whoever makes a pod writes its references: they are looked up, and so must have the form of names.
fn controller(references: &[OwnerReference]) -> Option<Controller> {
    let reference = references.iter().find(|reference| reference.controller == Some(true))?;
    let (group, version) = reference.api_version.split_once('/').unwrap_or(("v1", &reference.api_version));
    let kind = &reference.kind;
    let valid = is_subdomain(group)
        && is_label(version)
        && matches!(kind.len(), 1..=63)
        && kind.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && is_subdomain(&reference.name)
        && is_uuid(&reference.uid);
    valid.then(|| Controller {
        api_version: reference.api_version.clone(),
        kind: kind.clone(),
        name: reference.name.clone(),
        uid: reference.uid.clone(),
    })
}

/// The controller among the owners of any object.
pub(crate) fn controller_of(metadata: &kube::api::ObjectMeta) -> Option<Controller> {
    controller(metadata.owner_references.as_deref().unwrap_or_default())
}

fn containers(object: &api::Pod, spec: &api::PodSpec) -> Result<Vec<Container>, Refused> {
    let status = object.status.as_ref();
    let statuses = |of: fn(&api::PodStatus) -> &Option<Vec<api::ContainerStatus>>| {
        status.and_then(|status| of(status).as_deref()).unwrap_or_default()
    };
    let regular = spec.containers.iter().map(|one| (&one.name, &one.image, Kind::Regular));
    let init = spec.init_containers.iter().flatten().map(|one| {
        let sidecar = one.restart_policy.as_deref() == Some("Always");
        (&one.name, &one.image, if sidecar { Kind::Sidecar } else { Kind::Init })
    });
    let ephemeral =
        spec.ephemeral_containers.iter().flatten().map(|one| (&one.name, &one.image, Kind::Ephemeral));
    let mut containers = Vec::new();
    for (name, image, kind) in regular.chain(init).chain(ephemeral).take(CONTAINERS) {
        if !is_label(name) {
            return Err(Refused::Name);
        }
        let statuses = match kind {
            Kind::Regular => statuses(|status| &status.container_statuses),
            Kind::Init | Kind::Sidecar => statuses(|status| &status.init_container_statuses),
            Kind::Ephemeral => statuses(|status| &status.ephemeral_container_statuses),
        };
        let status = statuses.iter().find(|status| status.name == *name);
        containers.push(Container {
            name: name.clone(),
            kind,
            image: cut(image.as_deref().unwrap_or_default()),
            runs: status.map(runs).unwrap_or_default(),
        });
    }
    Ok(containers)
}

fn runs(status: &api::ContainerStatus) -> Vec<Run> {
    let ended = |state: &Option<api::ContainerState>| {
        let terminated = state.as_ref().and_then(|state| state.terminated.as_ref());
        terminated.and_then(|terminated| terminated.container_id.clone())
    };
    let digest = digest(&status.image_id);
    let ids = [status.container_id.clone(), ended(&status.state), ended(&status.last_state)];
    let mut runs: Vec<Run> = Vec::new();
    for (at, id) in ids.iter().enumerate() {
        // `containerd://ID`
        let id = id.as_deref().and_then(|id| id.split_once("://")).map(|(_, id)| id).unwrap_or_default();
        if id.is_empty() || id.len() > 128 || runs.iter().any(|run| run.id == id) {
            continue;
        }
        // The image may have been resolved anew since an earlier life.
        let image_digest = if at == 2 { String::new() } else { digest.clone() };
        runs.push(Run { id: id.to_owned(), image_digest });
    }
    runs
}

/// `registry/name@sha256:…`, `docker-pullable://registry/name@sha256:…`, or for an image that was loaded, not
/// pulled, `sha256:…` of its configuration.
fn digest(image_id: &str) -> String {
    let digest = image_id.rsplit_once('@').map_or(image_id, |(_, digest)| digest);
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let valid = digest.split_once(':').is_some_and(|(algorithm, value)| {
        matches!((algorithm, value.len()), ("sha256", 64) | ("sha512", 128)) && hex(value)
    });
    if valid { digest.to_owned() } else { String::new() }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(IMAGE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests;
