//! The demo on a real Kubernetes node: the same workload in a pod, and what the trail says of it. The lab's own
//! binary does it, as root, and takes the node away at its end.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, Result, bail};

use crate::{binaries, command, ebpf, place::Place, setup, setup::Purpose};

pub(super) fn run(place: &Place) -> Result<()> {
    setup::ensure(place, Purpose::Cluster)?;
    ebpf::build(place)?;
    let binaries = binaries::all(place)?;
    let folder: PathBuf = place.root.join("xtask/src/demo");
    let variables = [("VERBATIM_BIN_DIR", binaries.as_path()), ("VERBATIM_CACHE", place.cache.as_path())];
    let mut lab = command::as_root_with(binaries.join("lab-cluster"), variables)?;
    lab.arg("demo").arg(folder);
    let status = lab.stdin(Stdio::null()).status().context("starting lab-cluster")?;
    if !status.success() {
        bail!("the demo ended with {status}; what it says above tells why");
    }
    Ok(())
}
