//! What the kernel must have ready: the BPF file system and cgroup v2. What is missing and cannot be had is
//! said here once; the programs that need it say at which step they fail.

use std::fs;

use anyhow::{Context, Result};

use crate::{command, say};

/// Mounts bpffs where it belongs, and looks for cgroup v2.
pub(super) fn prepare() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    let mounted =
        |kind: &str| mounts.lines().filter_map(|line| line.split(' ').nth(2)).any(|found| found == kind);
    if !mounted("bpf") {
        say::line("the BPF file system is not mounted; mounting it at /sys/fs/bpf, as root:");
        let mount = command::as_root("mount")
            .and_then(|mut mount| command::run(mount.args(["-t", "bpf", "bpf", "/sys/fs/bpf"])));
        if let Err(error) = mount {
            say::note(&format!("no BPF file system, so captures will say what they lack: {error:#}"));
        }
    }
    if !mounted("cgroup2") {
        say::note(
            "no cgroup v2 is mounted, and captures need one: `mount -t cgroup2 none /sys/fs/cgroup/unified`, or boot \
             with systemd.unified_cgroup_hierarchy=1",
        );
    }
    Ok(())
}
