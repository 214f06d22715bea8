//! cgroups laid out as kubelet lays them out, below a root of the scenario's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{reaper::Guard, undo::Leftover};

/// How kubelet names cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `kubepods/burstable/pod<uid>/<container>`.
    Cgroupfs,
    /// `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/cri-containerd-<id>.scope`.
    Systemd,
}

/// Quality-of-service class; Guaranteed pods sit one level higher than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Limits equal requests.
    Guaranteed,
    /// Some requests.
    Burstable,
    /// None.
    BestEffort,
}

/// Path of a container's cgroup below the node's root.
#[must_use]
pub fn container_path(driver: Driver, qos: Qos, pod_uid: &str, container: &str) -> PathBuf {
    let class = match qos {
        Qos::Guaranteed => None,
        Qos::Burstable => Some("burstable"),
        Qos::BestEffort => Some("besteffort"),
    };
    match driver {
        Driver::Cgroupfs => ["kubepods"]
            .into_iter()
            .chain(class)
            .collect::<PathBuf>()
            .join(format!("pod{pod_uid}"))
            .join(container),
        Driver::Systemd => {
            // systemd's slices nest by the dashes in their names: those of the UID have to go.
            let uid = pod_uid.replace('-', "_");
            let parent = class.map_or_else(|| "kubepods".to_owned(), |class| format!("kubepods-{class}"));
            let mut path = PathBuf::from("kubepods.slice");
            if class.is_some() {
                path.push(format!("{parent}.slice"));
            }
            path.join(format!("{parent}-pod{uid}.slice")).join(format!("cri-containerd-{container}.scope"))
        }
    }
}

/// Where cgroup v2 is mounted, from /proc/self/mountinfo (proc(5): the type is the field after ` - `).
pub fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    mounts
        .lines()
        .find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4)).flatten()
        })
        .map(PathBuf::from)
        .context("cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup")
}

/// A scenario's own root: everything that the scenario runs is in a cgroup below it, and so nothing can
/// outlive it.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    _guard: Guard,
}

impl Tree {
    /// Makes the root.
    pub fn create(name: &str) -> Result<Self> {
        let root = mount_point()?.join(name);
        let guard = Guard::new(Leftover::Cgroup(root.display().to_string()))?;
        fs::create_dir(&root).with_context(|| format!("cannot make the cgroup {}", root.display()))?;
        Ok(Self { root, _guard: guard })
    }

    /// Its path.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes a cgroup below it, with its parents.
    pub fn make(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.root.join(path);
        fs::create_dir_all(&path).with_context(|| format!("cannot make the cgroup {}", path.display()))?;
        Ok(path)
    }
}

/// Ids of the processes in a cgroup itself.
pub fn processes(cgroup: &Path) -> Result<Vec<u32>> {
    let file = cgroup.join("cgroup.procs");
    let content = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    content.lines().map(|line| line.parse().with_context(|| format!("{line:?} is no process id"))).collect()
}

/// Kills everything in a cgroup and below it, at once.
pub fn kill(cgroup: &Path) -> Result<()> {
    let file = cgroup.join("cgroup.kill");
    fs::write(&file, "1").with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::{Driver, Qos, container_path};

    #[test]
    fn paths_are_those_that_kubelet_makes() {
        let uid = "1f6d4c4e-0000-4000-8000-0123456789ab";
        let path = |driver, qos| container_path(driver, qos, uid, "c0ffee").display().to_string();
        assert_eq!(path(Driver::Cgroupfs, Qos::Burstable), format!("kubepods/burstable/pod{uid}/c0ffee"));
        assert_eq!(path(Driver::Cgroupfs, Qos::Guaranteed), format!("kubepods/pod{uid}/c0ffee"));
        assert_eq!(
            path(Driver::Systemd, Qos::BestEffort),
            "kubepods.slice/kubepods-besteffort.slice/\
             kubepods-besteffort-pod1f6d4c4e_0000_4000_8000_0123456789ab.slice/cri-containerd-c0ffee.scope"
        );
        assert_eq!(
            path(Driver::Systemd, Qos::Guaranteed),
            "kubepods.slice/kubepods-pod1f6d4c4e_0000_4000_8000_0123456789ab.slice/cri-containerd-c0ffee.scope"
        );
    }
}
