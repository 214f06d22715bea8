//! A real Kubernetes for the lab, built from Debian's own source package: the newest that holds the server. What
//! is kept are the programs; sources and what the build left are removed.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::Missing;
use crate::{
    archive::{Archive, Kind},
    command, place,
    place::Place,
};

/// Of the source package. Its programs call themselves v1.20.2.
const VERSION: &str = "1.20.5+really1.20.2-1.1+deb12u1";
const RELEASE: &str = "v1.20.2";
const SUITES: [&str; 2] = ["bookworm", "bookworm-security"];

/// What is built. kubectl too: the one that a machine has may be years away from this server.
const PROGRAMS: [&str; 6] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"];

/// The vendored reflect2 1.0.1 corrupts memory when it is built with Go 1.18 or later; Debian's 1.0.2 does not.
const REFLECT: &str = "github.com/modern-go/reflect2";
const DEBIAN_GO: &str = "/usr/share/gocode/src";

/// Linking takes up to 2 GB each.
const MOST_JOBS: usize = 4;

/// Whether it is there as this recipe makes it.
pub(super) fn is_built(place: &Place) -> bool {
    let folder = place.kubernetes();
    fs::read_to_string(folder.join("version")).is_ok_and(|version| version == VERSION)
        && PROGRAMS.iter().all(|name| folder.join(name).is_file())
}

/// Why it can neither be built here.
pub(super) fn impossible() -> Option<String> {
    if place::program("apt-get").is_none() {
        return Some("this machine has no apt-get to fetch its source with".to_owned());
    }
    Archive::missing()
}

/// What to build where it is not there.
pub(super) fn missing(place: &Place) -> Option<Missing> {
    (!is_built(place)).then(|| {
        let what = format!(
            "Kubernetes {RELEASE} for the lab's real node, built with Go from Debian's source package into {} (35 MB \
             to fetch, 3 GB on the disk while it is built, 400 MB afterwards, 5 to 10 min)",
            place.short(&place.kubernetes())
        );
        Missing::new(what, build)
    })
}

fn build(place: &Place) -> Result<()> {
    let work = place.cache.join("kubernetes.build");
    // What an attempt before this one left.
    drop(fs::remove_dir_all(&work));
    fs::create_dir_all(&work).with_context(|| work.display().to_string())?;
    let source = fetched(&work)?;
    exchange_reflect(&source)?;
    make(&work, &source)?;
    keep(&source, &place.kubernetes())?;
    fs::remove_dir_all(&work).context("removing what the build left")
}

/// The source package, verified by apt and unpacked.
fn fetched(work: &Path) -> Result<std::path::PathBuf> {
    let archive = Archive::open(work.join("apt"), Kind::Sources, &SUITES)?;
    let package = format!("kubernetes={VERSION}");
    command::quiet(archive.get().current_dir(work).args(["source", "-qq", "--download-only", &package]))?;
    let source = work.join("kubernetes");
    let description = format!("kubernetes_{VERSION}.dsc");
    // apt has compared it with the archive's signed lists; its maintainer's own key need not be here.
    let mut unpack = Command::new("dpkg-source");
    unpack.current_dir(work).args(["--no-check", "-x", &description]).arg(&source);
    command::quiet(&mut unpack)?;
    Ok(source)
}

fn exchange_reflect(source: &Path) -> Result<()> {
    let vendored = source.join("vendor").join(REFLECT);
    fs::remove_dir_all(&vendored).with_context(|| vendored.display().to_string())?;
    command::quiet(Command::new("cp").arg("-r").arg(Path::new(DEBIAN_GO).join(REFLECT)).arg(&vendored))
}

fn make(work: &Path, source: &Path) -> Result<()> {
    // What a checkout of git would tell the build.
    let version = work.join("version");
    let text = format!(
        "KUBE_GIT_TREE_STATE=archive\nKUBE_GIT_VERSION={RELEASE}\nKUBE_GIT_MAJOR=1\nKUBE_GIT_MINOR=20\n\
         KUBE_GIT_COMMIT=''\n"
    );
    fs::write(&version, text).with_context(|| version.display().to_string())?;
    let jobs = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(MOST_JOBS));
    let what: Vec<String> = PROGRAMS.iter().map(|name| format!("cmd/{name}")).collect();
    let mut make = Command::new("make");
    make.current_dir(source).arg("--silent").arg(format!("WHAT={}", what.join(" ")));
    make.args(["GOLDFLAGS=-s -w", &format!("GOFLAGS=-p={jobs}")]);
    // Static programs, all in one pass, and nothing of the build in anybody's home.
    make.env("CGO_ENABLED", "0")
        .env("KUBE_STATIC_OVERRIDES", "kubelet")
        .env("HOME", work)
        .env("GOCACHE", work.join("gocache"));
    make.env("KUBE_GIT_VERSION_FILE", &version).env_remove("GOPATH").env_remove("GOFLAGS");
    command::run(&mut make)
}

/// The version last of all, by which all is known to be there.
fn keep(source: &Path, folder: &Path) -> Result<()> {
    drop(fs::remove_dir_all(folder));
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for name in PROGRAMS {
        let built = source.join("_output/bin").join(name);
        fs::copy(&built, folder.join(name)).with_context(|| built.display().to_string())?;
    }
    fs::write(folder.join("version"), VERSION).with_context(|| folder.display().to_string())
}
