//! The demo on a real Kubernetes node: the same workload in a pod, and what the trail says of it. The lab's own
//! binary does it, as root, and takes the node away at its end.

use std::{fs, process::Stdio};

use anyhow::{Context, Result, bail};

use super::delegation::{AUDIENCE, Delegation, ISSUER};
use crate::{binaries, command, ebpf, place::Place, scratch::Scratch, setup, setup::Purpose};

pub(super) fn run(place: &Place) -> Result<()> {
    setup::ensure(place, Purpose::Cluster)?;
    ebpf::build(place)?;
    let binaries = binaries::all(place)?;
    let scratch = Scratch::create()?;
    let folder = scratch.path();
    for (name, text) in [("agent.py", include_str!("agent.py")), ("shop.sql", include_str!("shop.sql"))] {
        fs::write(folder.join(name), text).with_context(|| folder.join(name).display().to_string())?;
    }
    Delegation::issue(folder, "ada@demo.example", "support/ai-agent")?;
    let variables = [("VERBATIM_BIN_DIR", binaries.as_path()), ("VERBATIM_CACHE", place.cache.as_path())];
    let mut lab = command::as_root_with(binaries.join("lab-cluster"), variables)?;
    lab.arg("demo").arg(folder).args([ISSUER, AUDIENCE]);
    let status = lab.stdin(Stdio::null()).status().context("starting lab-cluster")?;
    if !status.success() {
        bail!("the demo ended with {status}; what it says above tells why");
    }
    Ok(())
}
