//! The root file system of the guest: busybox, the tests of steering, the real binaries, and the libraries that
//! those need, in one archive that the kernel unpacks into memory.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::packages::{Kernel, Unpacked};
use crate::{
    command,
    place::{self, Place},
};

const INIT: &str = include_str!("init.sh");
/// `run` with a real client; the other parts are the tests of steering.
const RUN: &str = include_str!("run.sh");

/// What is done in a guest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All tests of steering, and `run`.
    Everything,
    /// What must work for all else to work.
    Short,
    /// Only that it is said what the kernel lacks.
    Refused,
}

impl Scope {
    /// The guest's work, each part a line for its shell.
    fn work(self) -> Vec<String> {
        let steering = |arguments: &str| format!("/steering --color never --test-threads 2 {arguments}");
        match self {
            Self::Everything => vec![steering(""), "/run.sh".to_owned()],
            Self::Short => SHORT.iter().map(|name| steering(name)).chain(["/run.sh".to_owned()]).collect(),
            Self::Refused => vec!["/run.sh refused".to_owned()],
        }
    }

    /// How many connections the test of hand-offs makes.
    fn hand_offs(self) -> &'static str {
        if self == Self::Everything { "2000" } else { "600" }
    }

    pub(crate) fn parts(self) -> usize {
        self.work().len()
    }

    /// How long a loaded machine may take.
    pub(crate) fn patience(self) -> Duration {
        Duration::from_secs(if self == Self::Everything { 1800 } else { 600 })
    }
}

/// Parts of names of tests: each kind of connect, hand-off, addresses, detaching, take-over.
const SHORT: [&str; 4] = [
    "flow_names_destination_caller_and_namespace_of_every_kind_of_connect",
    "connections_from_two_namespaces_keep_their_flows",
    "workload_sees_the_addresses_that_it_would_see_without_us",
    "pinned_programs_outlive_their_agent_and_a_successor_takes_over",
];

/// Lays the root file system out and packs it.
pub(crate) fn image(
    place: &Place,
    kernel: &Kernel,
    unpacked: &Unpacked,
    steering: &Path,
    binaries: &Path,
    scope: Scope,
) -> Result<PathBuf> {
    let folder = place.target.join("kernels").join(kernel.series);
    drop(fs::remove_dir_all(&folder));
    let root = folder.join("root");
    for name in ["bin", "dev", "proc", "sys", "tmp", "run", "etc", "www", "modules"] {
        fs::create_dir_all(root.join(name)).with_context(|| root.display().to_string())?;
    }
    for module in fs::read_dir(&unpacked.modules)?.flatten() {
        fs::copy(module.path(), root.join("modules").join(module.file_name()))?;
    }
    let found = |name: &str| place::program(name).with_context(|| format!("no program {name}"));
    fs::copy(found("busybox")?, root.join("bin/busybox"))?;
    program(&root, &fs::canonicalize(found("ip")?)?, "bin/ip")?;
    program(&root, steering, "steering")?;
    for name in ["verbatim-agent", "verbatim-collector", "verbatim"] {
        program(&root, &binaries.join(name), &format!("bin/{name}"))?;
    }
    let work: String = scope.work().iter().map(|line| format!("part {line}\n")).collect();
    script(&root.join("init"), &INIT.replace("@hand-offs@", scope.hand_offs()).replace("@work@", &work))?;
    script(&root.join("run.sh"), RUN)?;
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    let image = folder.join("root.cpio");
    let pack = format!("find . | busybox cpio -o -H newc > '{}'", image.display());
    command::quiet(Command::new("sh").current_dir(&root).args(["-c", &pack]))?;
    Ok(image)
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// A program without what only debuggers read, with the libraries that it names.
fn program(root: &Path, program: &Path, name: &str) -> Result<()> {
    let target = root.join(name);
    command::quiet(Command::new("strip").arg("-o").arg(&target).arg(program))?;
    let libraries = command::output(Command::new("ldd").arg(program))?;
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let target = root.join(library.trim_start_matches('/'));
        if !target.exists() {
            fs::create_dir_all(target.parent().context("a folder")?)?;
            fs::copy(library, &target).with_context(|| library.to_owned())?;
        }
    }
    Ok(())
}
