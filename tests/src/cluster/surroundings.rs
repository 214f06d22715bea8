//! What a node finds: its network, folders of its own where Kubernetes's programs insist on a path, and cgroups.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{NODE, SERVICES};
use crate::{netns::Namespace, reaper::Guard, undo::Leftover, wait};

/// What kubelet calls the root of all pods, in each hierarchy.
pub(super) const PODS_CGROUP: &str = "kubepods";

/// Paths that programs insist on, or that the manifests name: on the node each is a folder of the cluster's own.
pub(super) const FOLDERS: [&str; 8] = [
    "/run/containerd",
    "/run/netns",
    "/run/verbatim",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/lib/verbatim",
    "/var/log/containers",
    "/var/log/pods",
];

/// What kubelet sets at its start, and finds set already: on the node these are files, and the machine's own stay as
/// they are (kubelet: container_manager_linux.go, setupKernelTunables).
pub(super) const TUNABLES: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// An address for the node, a way for what goes to Services (they are translated after routing), and forwarding.
pub(super) fn network(namespace: &Namespace) -> Result<()> {
    namespace.ip(&["link", "add", "node0", "type", "veth", "peer", "name", "outside0"])?;
    namespace.ip(&["address", "add", &format!("{NODE}/32"), "dev", "node0"])?;
    for device in ["node0", "outside0"] {
        namespace.ip(&["link", "set", device, "up"])?;
    }
    namespace.ip(&["route", "add", SERVICES, "dev", "node0", "src", NODE])?;
    namespace.sysctl("net.ipv4.ip_forward=1")
}

/// Makes those folders that the machine does not have: something must be there to mount on.
pub(super) fn mount_points() -> Result<Vec<Guard>> {
    let mut guards = Vec::new();
    for path in FOLDERS.map(Path::new) {
        let absent: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
        for path in absent.into_iter().rev() {
            // The deepest goes first.
            guards.insert(0, Guard::new(Leftover::MountPoint(path.display().to_string()))?);
            fs::create_dir(path).with_context(|| format!("cannot make {}", path.display()))?;
        }
    }
    Ok(guards)
}

/// Sees to it that all pods end with the cluster. They are kubelet's to make.
pub(super) fn pod_cgroups() -> Result<Vec<Guard>> {
    let all: Vec<PathBuf> = hierarchies()?.into_iter().map(|mount| mount.join(PODS_CGROUP)).collect();
    // A harness that was killed leaves them to its reaper, which may not be through.
    wait::until("the pods of an earlier cluster to be gone", || {
        Ok(all.iter().all(|path| !path.exists()).then_some(()))
    })?;
    all.into_iter().map(|path| Guard::new(Leftover::Cgroup(path.display().to_string()))).collect()
}

/// Where hierarchies of cgroups are mounted, version 2 first: there processes can be killed.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let of = |kind: &str| -> Vec<PathBuf> {
        let found = mounts.lines().filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            (after.split(' ').next()? == kind).then(|| before.split(' ').nth(4))?.map(PathBuf::from)
        });
        found.collect()
    };
    Ok(of("cgroup2").into_iter().chain(of("cgroup")).collect())
}
