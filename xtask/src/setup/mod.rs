//! `setup`: what this machine lacks for a verb is found, said, and only then installed.
//!
//! Every part looks at the machine itself, not at a note that it was installed once, so that a second run
//! installs nothing and takes no time. Knows nothing of what the verbs do with it.

mod apt;
mod clients;
mod disk;
mod drivers;
mod ebpf_toolchain;
mod emulator;
mod kernel;
mod kubernetes;
mod server;
mod tools;

use std::{fs, time::Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;

pub(crate) use ebpf_toolchain::EbpfToolchain;
pub(crate) use tools::Tool;

use crate::{place::Place, say};

/// What a machine is made ready for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    /// Building the eBPF programs, and so everything
    Build,
    /// Capturing a real client on a real PostgreSQL
    Demo,
    /// The same on a real Kubernetes node
    Cluster,
    /// Everything that the tests need
    Test,
    /// The demo's needs and the peers to measure against
    Bench,
    /// Starting other kernels
    Kernels,
    /// The checks on dependencies
    Lint,
    /// Fuzzing
    Fuzz,
}

/// One thing that is missing.
pub(crate) struct Missing {
    /// What will be installed, where, and what it costs, in a sentence.
    pub(crate) what: String,
    /// Installs it.
    pub(crate) install: Install,
}

type Install = Box<dyn FnOnce(&Place) -> Result<()>>;

impl Missing {
    fn new(what: impl Into<String>, install: impl FnOnce(&Place) -> Result<()> + 'static) -> Self {
        Self { what: what.into(), install: Box::new(install) }
    }
}

/// Makes this machine ready; quick when it is.
pub(crate) fn ensure(place: &Place, purpose: Purpose) -> Result<()> {
    use Purpose::{Bench, Build, Cluster, Demo, Fuzz, Kernels, Lint, Test};
    let begun = Instant::now();
    say::heading("Set-up");
    for folder in [&place.cache, &place.target] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        disk::check(folder)?;
    }
    // Two verbs at once on one machine: the second waits, and then finds everything there.
    let lock_path = place.cache.join("setup.lock");
    let lock = fs::File::create(&lock_path).with_context(|| lock_path.display().to_string())?;
    lock.lock().with_context(|| lock_path.display().to_string())?;

    let toolchain = matches!(purpose, Build | Demo | Cluster | Test | Bench | Kernels);
    let mut packages = Vec::new();
    if matches!(purpose, Demo | Cluster | Test | Bench) {
        packages.extend([apt::POSTGRES, apt::IPROUTE, apt::VENV]);
    }
    if matches!(purpose, Demo | Cluster) {
        packages.push(apt::OPENSSL);
    }
    if purpose == Test {
        packages.extend([apt::NODE, apt::TOOLS, apt::TRUSTING, apt::CLOCKS]);
    }
    if purpose == Bench {
        packages.extend([apt::PGBOUNCER, apt::NGHTTP2, apt::IPERF]);
    }
    if purpose == Fuzz {
        packages.push(apt::CXX);
    }
    if purpose == Kernels {
        packages.extend([apt::IPROUTE, apt::QEMU]);
    }
    // What cannot be had everywhere: where it cannot, `test` says that it skips what needs it, and why.
    let mut optional = Vec::new();
    if purpose == Test {
        optional.extend([apt::QEMU, apt::PGX]);
    }
    let node = matches!(purpose, Cluster | Test);
    let no_node = node.then(kubernetes::impossible).flatten();
    if node && no_node.is_none() {
        optional.push(apt::NODE_PARTS);
        optional.extend((!kubernetes::is_built(place)).then_some(apt::GO));
    }
    // The package lists first: what this distribution offers can only be told from them.
    let mut lacking = apt::lacking(&packages);
    let optional = apt::lacking(&optional);
    let wants_toolchain = toolchain && EbpfToolchain::find().is_none();
    let wants_optional =
        !optional.is_empty() && (!apt::has_lists() || optional.iter().any(apt::Need::is_offered));
    if !lacking.is_empty() || wants_toolchain || wants_optional {
        apt::refresh_lists()?;
    }
    lacking.extend(optional.into_iter().filter(apt::Need::is_offered));
    let mut missing = Vec::new();
    missing.extend(apt::missing(lacking)?);
    if wants_toolchain {
        missing.extend(ebpf_toolchain::missing(place)?);
    }
    install(place, missing)?;

    // What is built or unpacked with what was installed above.
    let mut missing = Vec::new();
    if toolchain {
        missing.extend(tools::missing(place, Tool::BpfLinker)?);
    }
    if matches!(purpose, Demo | Cluster | Test | Bench) {
        missing.extend(clients::python_missing(place)?);
    }
    if matches!(purpose, Demo | Cluster | Test) {
        missing.extend(emulator::missing(place)?);
    }
    if purpose == Test {
        missing.extend(clients::node_missing(place)?);
        missing.extend(server::missing(place)?);
        missing.extend(drivers::pgx_missing(place)?);
        missing.extend(drivers::jdbc_missing(place));
    }
    if purpose == Bench {
        missing.extend(clients::envoy_missing(place)?);
    }
    if purpose == Lint {
        missing.extend(tools::missing(place, Tool::CargoDeny)?);
    }
    if purpose == Fuzz {
        missing.extend(tools::missing(place, Tool::CargoFuzz)?);
    }
    install(place, missing)?;
    if node {
        match no_node {
            Some(reason) => say::note(&format!("no Kubernetes node can be had: {reason}")),
            None => kubernetes(place),
        }
    }
    if matches!(purpose, Demo | Cluster | Test | Bench) {
        kernel::prepare()?;
    }
    say::line(&format!("ready ({})", say::took(begun)));
    Ok(())
}

/// Builds Kubernetes where it is not there. Where it cannot be built, what needs it says so and is skipped; the rest
/// goes on.
fn kubernetes(place: &Place) {
    let missing = kubernetes::missing(place).into_iter().collect();
    if let Err(error) = install(place, missing) {
        say::note(&format!("there will be no Kubernetes node: {error:#}"));
    }
}

fn install(place: &Place, missing: Vec<Missing>) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    say::line("missing here, and installed now:");
    for part in &missing {
        say::line(&format!("  · {}", part.what));
    }
    for part in missing {
        let begun = Instant::now();
        (part.install)(place).with_context(|| format!("could not install: {}", part.what))?;
        say::line(&format!("  done in {}", say::took(begun)));
    }
    Ok(())
}
