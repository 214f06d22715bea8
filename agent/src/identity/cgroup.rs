//! What a cgroup's path says of the pod and the container that live there.
//!
//! Owns the names that kubelets and container runtimes give to cgroups. Reads paths only: whether there is such
//! a pod, and which of its containers it is, the API server says.
//!
//! Sources: Kubernetes `pkg/kubelet/cm/cgroup_manager_linux.go` (`ToSystemd`, `ToCgroupfs`), containerd's CRI
//! plugin (`cri-containerd-ID.scope`), CRI-O `internal/config/cgmgr` (`crio-ID.scope`, `crio-conmon-ID.scope`).

use std::fmt;

/// Length of a container's id: 32 bytes, hexadecimal.
const CONTAINER_ID: usize = 64;
/// Longest UID of a pod that is read, bytes: a UUID has 36, the digest that stands for a static pod's has 32.
const POD_UID: usize = 64;
/// What a kubelet names the cgroup of all pods.
const PODS: &str = "kubepods";

/// Where a kubelet has its pods, relative to the mount point.
///
/// Only what lies there is a pod's: a user to whom a subtree was delegated (`user@1000.service`) can give a cgroup
/// below it any name, also a pod's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodsRoot(Option<String>);

impl Default for PodsRoot {
    /// `kubepods` at the root, and below `kubelet` or `kubelet.slice`, where kind's nodes have it.
    fn default() -> Self {
        Self(None)
    }
}

impl PodsRoot {
    /// Below a kubelet's `--cgroup-root`, as it is under the mount point; slashes at its ends don't count.
    #[must_use]
    pub fn below(cgroup_root: &str) -> Self {
        Self(Some(cgroup_root.trim_matches('/').to_owned()))
    }

    /// What is below the pods' root, with the prefix of a systemd slice's name there; `None` outside of it.
    fn strip<'a>(&self, path: &'a str) -> Option<(Driver, &'a str)> {
        match &self.0 {
            Some(root) => strip_root(root, path),
            None => ["", "kubelet", "kubelet.slice"].iter().find_map(|root| strip_root(root, path)),
        }
    }
}

/// How a kubelet names cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Driver {
    /// Plain folders.
    Cgroupfs,
    /// Slices, whose names begin with their parent's: this one's, without `.slice`.
    Systemd(String),
}

fn strip_root<'a>(root: &str, path: &'a str) -> Option<(Driver, &'a str)> {
    let below = if root.is_empty() { path } else { path.strip_prefix(root)?.strip_prefix('/')? };
    let (first, rest) = below.split_once('/').unwrap_or((below, ""));
    if first == PODS {
        return Some((Driver::Cgroupfs, rest));
    }
    // systemd's slices carry the names of all above them: kubelet.slice/kubelet-kubepods.slice.
    let slice = first.strip_suffix(".slice")?;
    let above = root.rsplit('/').next().and_then(|last| last.strip_suffix(".slice"));
    let expected = above.map_or_else(|| PODS.to_owned(), |above| format!("{above}-{PODS}"));
    (slice == expected).then_some((Driver::Systemd(expected), rest))
}

/// A pod's class of service, which is a level of the tree for all but the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Directly below the pods' root.
    Guaranteed,
    /// Below `burstable`.
    Burstable,
    /// Below `besteffort`.
    BestEffort,
}

/// Which runtime a container's cgroup is named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// containerd.
    Containerd,
    /// CRI-O.
    Crio,
    /// cri-dockerd.
    Docker,
    /// Not said by the name: it is the id alone, as with cgroupfs.
    Unsaid,
}

impl fmt::Display for Runtime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
            Self::Docker => "docker",
            Self::Unsaid => "unsaid",
        })
    }
}

/// A container, or a pod's sandbox: their cgroups have names of the same shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// 64 hexadecimal digits, lower case.
    pub id: String,
    /// Who made it.
    pub runtime: Runtime,
    /// The cgroup is not the container's own but one below it.
    pub nested: bool,
}

/// A pod's cgroup, or one below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodCgroup {
    /// The pod's UID as the kubelet knows it, with dashes: for a static pod that is not the
    /// UID that the API server has.
    pub uid: String,
    /// Its class.
    pub qos: Qos,
    /// The container; `None` for the pod's own cgroup, a runtime's monitor, and what bears no container's name.
    pub container: Option<Container>,
}

/// What a path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// No pod's.
    Outside,
    /// The pods' root, a class's, or something below it that bears no pod's name.
    AmongPods,
    /// A pod's.
    Pod(PodCgroup),
}

impl Place {
    /// Reads a path, relative to the mount point.
    #[must_use]
    pub fn of(path: &str, root: &PodsRoot) -> Self {
        let Some((driver, below)) = root.strip(path) else { return Self::Outside };
        match driver {
            Driver::Cgroupfs => cgroupfs(below),
            Driver::Systemd(slice) => systemd(&slice, below),
        }
        .map_or(Self::AmongPods, Self::Pod)
    }

    /// Of a pod.
    #[must_use]
    pub fn pod(&self) -> Option<&PodCgroup> {
        match self {
            Self::Pod(pod) => Some(pod),
            Self::Outside | Self::AmongPods => None,
        }
    }
}

fn cgroupfs(below: &str) -> Option<PodCgroup> {
    let mut names = below.split('/');
    let first = names.next()?;
    let (qos, pod) = match first {
        "burstable" => (Qos::Burstable, names.next()?),
        "besteffort" => (Qos::BestEffort, names.next()?),
        pod => (Qos::Guaranteed, pod),
    };
    let uid = pod_uid(pod.strip_prefix("pod")?)?;
    Some(PodCgroup { uid, qos, container: container(names) })
}

fn systemd(root: &str, below: &str) -> Option<PodCgroup> {
    let mut names = below.split('/');
    let within = |name: &str, parent: &str| {
        let name = name.strip_suffix(".slice")?.strip_prefix(parent)?.strip_prefix('-')?;
        Some(name.to_owned())
    };
    let first = within(names.next()?, root)?;
    let (qos, pod) = match first.as_str() {
        "burstable" => (Qos::Burstable, within(names.next()?, &format!("{root}-burstable"))?),
        "besteffort" => (Qos::BestEffort, within(names.next()?, &format!("{root}-besteffort"))?),
        _ => (Qos::Guaranteed, first),
    };
    let uid = pod_uid(pod.strip_prefix("pod")?)?;
    Some(PodCgroup { uid, qos, container: container(names) })
}

/// A dash in the name of a slice stands for a level, so kubelets write underscores for those of a UID.
fn pod_uid(text: &str) -> Option<String> {
    let valid = !text.is_empty()
        && text.len() <= POD_UID
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    valid.then(|| text.replace('_', "-"))
}

/// From the first name below the pod's: what is below a container's is the container's too.
fn container(mut names: std::str::Split<'_, char>) -> Option<Container> {
    let name = names.next()?;
    let stem = name.strip_suffix(".scope").unwrap_or(name);
    let (runtime, id) =
        [("cri-containerd-", Runtime::Containerd), ("crio-", Runtime::Crio), ("docker-", Runtime::Docker)]
            .iter()
            .find_map(|(prefix, runtime)| Some((*runtime, stem.strip_prefix(prefix)?)))
            .unwrap_or((Runtime::Unsaid, name));
    is_container_id(id).then(|| Container { id: id.to_owned(), runtime, nested: names.next().is_some() })
}

/// Whether a text has the form of a container's id: `crio-conmon-ID` has not.
pub(crate) fn is_container_id(text: &str) -> bool {
    text.len() == CONTAINER_ID && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
