//! What this machine has of what scenarios need. Decided when tests are listed.

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::{binaries, cgroup, postgres, shell};

/// Something that a scenario cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// To be root.
    Root,
    /// Namespaces, cgroups, and the tools to run something in them.
    Sandbox,
    /// The binaries under test.
    Binaries,
    /// eBPF programs can be loaded and attached.
    Bpf,
    /// PostgreSQL's server, psql and pgbench.
    Postgres,
    /// A Python with psycopg and asyncpg.
    Python,
    /// Node.js with node-postgres.
    Node,
    /// The `openssl` command.
    Openssl,
}

/// What nearly every scenario needs.
pub const USUAL: &[Part] =
    &[Part::Root, Part::Sandbox, Part::Binaries, Part::Postgres, Part::Python, Part::Bpf];

/// Why the first of the parts that is missing is missing.
#[must_use]
pub fn missing(parts: &[Part]) -> Option<(Part, String)> {
    parts.iter().find_map(|part| probe(*part).map(|reason| (*part, reason)))
}

/// Whether a missing part is a failure: `REQUIRE_LAB=1`, for eBPF `REQUIRE_BPF=1`.
#[must_use]
pub fn required(part: Part) -> bool {
    let set = |name: &str| env::var_os(name).is_some_and(|value| value == "1");
    match part {
        Part::Bpf => set("REQUIRE_BPF"),
        _ => set("REQUIRE_LAB"),
    }
}

fn probe(part: Part) -> Option<String> {
    static PROBED: [OnceLock<Option<String>>; 8] = [const { OnceLock::new() }; 8];
    let slot = PROBED.get(part as usize)?;
    slot.get_or_init(|| match part {
        Part::Root => (!is_root()).then(|| "needs root: run the lab's binary with sudo".to_owned()),
        Part::Sandbox => sandbox(),
        Part::Binaries => ["verbatim-agent", "verbatim-collector", "verbatim", "lab-agent", "lab-helper"]
            .iter()
            .find_map(|name| binaries::find(name).err().map(|error| format!("{error:#}"))),
        Part::Bpf => crate::agent::probe_bpf().err().map(|error| format!("{error:#}")),
        Part::Postgres => match postgres::binaries() {
            Some(folder) if folder.join("pgbench").is_file() => None,
            _ => Some("PostgreSQL is not installed: apt-get install postgresql".to_owned()),
        },
        Part::Python => absent(&python(), "Python with psycopg and asyncpg: cargo xtask setup makes it"),
        Part::Node => match shell::which("node") {
            Some(_) => {
                absent(&cache().join("node/node_modules/pg"), "node-postgres: cargo xtask setup makes it")
            }
            None => Some("node is not installed: apt-get install nodejs npm".to_owned()),
        },
        Part::Openssl => match shell::which("openssl") {
            Some(_) => None,
            None => Some("openssl is not installed: apt-get install openssl".to_owned()),
        },
    })
    .clone()
}

fn sandbox() -> Option<String> {
    if let Err(error) = cgroup::mount_point() {
        return Some(format!("{error:#}"));
    }
    [("ip", "iproute2"), ("setpriv", "util-linux"), ("nsenter", "util-linux"), ("sysctl", "procps")]
        .iter()
        .find_map(|(program, package)| {
            shell::which(program)
                .is_none()
                .then(|| format!("{program} is not there: apt-get install {package}"))
        })
}

fn absent(path: &Path, what: &str) -> Option<String> {
    (!path.exists()).then(|| format!("{} is not there: {what}", path.display()))
}

/// Whether this process is root's.
#[must_use]
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Folder in which set-up keeps the clients: `VERBATIM_CACHE`, else `~/.cache/verbatim`, of the person who
/// asked also where sudo stands between.
#[must_use]
pub fn cache() -> PathBuf {
    if let Some(folder) = env::var_os("VERBATIM_CACHE") {
        return PathBuf::from(folder).join("lab");
    }
    let home = env::var("SUDO_USER")
        .ok()
        .filter(|_| is_root())
        .and_then(|user| shell::run("getent", &["passwd", &user]).ok())
        .and_then(|entry| entry.split(':').nth(5).map(PathBuf::from))
        .or_else(|| env::var_os("HOME").map(PathBuf::from))
        .unwrap_or_default();
    home.join(".cache/verbatim/lab")
}

/// The Python that has the clients.
#[must_use]
pub fn python() -> PathBuf {
    cache().join("venv/bin/python")
}
