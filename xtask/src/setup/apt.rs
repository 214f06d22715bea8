//! Debian's and Ubuntu's packages: which are lacking, and installing them without starting their services.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use super::Missing;
use crate::{command, place, say};

/// Something that packages bring, recognised by what it does rather than by the packages' names: a machine
/// that has it from elsewhere needs none.
#[derive(Clone, Copy)]
pub(crate) struct Need {
    packages: &'static [&'static str],
    purpose: &'static str,
    met: fn() -> bool,
}

pub(crate) const POSTGRES: Need = Need {
    packages: &["postgresql", "postgresql-client", "postgresql-contrib"],
    purpose: "a PostgreSQL server and its clients (no server of Debian's is created or started)",
    met: || place::postgres_programs().is_some() && place::program("psql").is_some(),
};

pub(crate) const PGBOUNCER: Need = Need {
    packages: &["pgbouncer"],
    purpose: "a peer to measure against",
    met: || place::program("pgbouncer").is_some(),
};

pub(crate) const NGHTTP2: Need = Need {
    packages: &["nghttp2-client", "nghttp2-server", "openssl"],
    purpose: "a client and a server of HTTP/2 to measure with, and certificates",
    met: || ["h2load", "nghttpd", "openssl"].iter().all(|name| place::program(name).is_some()),
};

pub(crate) const IPERF: Need = Need {
    packages: &["iperf3"],
    purpose: "bytes in bulk to measure with",
    met: || place::program("iperf3").is_some(),
};

pub(crate) const IPROUTE: Need =
    Need { packages: &["iproute2"], purpose: "network namespaces", met: || place::program("ip").is_some() };

pub(crate) const VENV: Need = Need {
    packages: &["python3", "python3-venv"],
    purpose: "Python clients in a folder of their own",
    met: || command::succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"])),
};

pub(crate) const NODE: Need = Need {
    packages: &["nodejs", "npm"],
    purpose: "clients for Node.js",
    met: || place::program("node").is_some() && place::program("npm").is_some(),
};

pub(crate) const OPENSSL: Need = Need {
    packages: &["openssl"],
    purpose: "a certificate for the demo's BigQuery",
    met: || place::program("openssl").is_some(),
};

pub(crate) const TOOLS: Need = Need {
    packages: &["procps", "openssl", "e2fsprogs", "curl", "nftables"],
    purpose: "kill, sysctl, certificates, a disk whose power can be cut, a client for HTTP, and \
              firewalls",
    met: || {
        ["kill", "sysctl", "openssl", "mkfs.ext4", "curl", "nft"]
            .iter()
            .all(|name| place::program(name).is_some())
    },
};

pub(crate) const TRUSTING: Need = Need {
    packages: &["default-jdk-headless", "wget"],
    purpose: "clients that trust in their own ways: Java's trust store, GnuTLS",
    met: || ["java", "keytool", "wget"].iter().all(|name| place::program(name).is_some()),
};

pub(crate) const QEMU: Need = Need {
    packages: &["qemu-system-x86", "busybox-static"],
    purpose: "a machine for kernels that are not this one's, and what its root file system holds",
    met: || ["qemu-system-x86_64", "busybox"].iter().all(|name| place::program(name).is_some()),
};

pub(crate) const CLOCKS: Need = Need {
    packages: &["libfaketime"],
    purpose: "clocks that tests can set for one process",
    met: || {
        ["x86_64-linux-gnu", "aarch64-linux-gnu"]
            .iter()
            .any(|machine| Path::new(&format!("/usr/lib/{machine}/faketime/libfaketime.so.1")).is_file())
    },
};

pub(crate) const NODE_PARTS: Need = Need {
    packages: &[
        "etcd-server",
        "etcd-client",
        "containerd",
        "runc",
        "containernetworking-plugins",
        "iptables",
        "conntrack",
        "busybox-static",
    ],
    purpose: "what a Kubernetes node consists of beside Kubernetes (none of it is started but by the lab)",
    met: || {
        ["etcd", "etcdctl", "containerd", "ctr", "runc", "iptables", "conntrack", "busybox"]
            .iter()
            .all(|name| place::program(name).is_some())
            && Path::new("/usr/lib/cni/ptp").is_file()
    },
};

pub(crate) const GO: Need = Need {
    packages: &[
        "golang-go",
        "golang-github-modern-go-reflect2-dev",
        "make",
        "rsync",
        "jq",
        "gcc",
        "libc6-dev",
        "dpkg-dev",
    ],
    purpose: "building Kubernetes",
    met: || {
        ["go", "make", "rsync", "jq", "gcc", "dpkg-source"].iter().all(|name| place::program(name).is_some())
            && Path::new("/usr/share/gocode/src/github.com/modern-go/reflect2").is_dir()
    },
};

pub(crate) const PGX: Need = Need {
    packages: &["golang-go", "golang-github-jackc-pgx-v4-dev"],
    purpose: "a client of PostgreSQL in Go",
    met: || {
        place::program("go").is_some()
            && Path::new("/usr/share/gocode/src").join(super::drivers::PGX).is_dir()
    },
};

pub(crate) const CXX: Need =
    Need { packages: &["g++"], purpose: "building libFuzzer", met: || place::program("c++").is_some() };

impl Need {
    /// Whether the lists that are there have all its packages.
    pub(super) fn is_offered(&self) -> bool {
        self.packages.iter().all(|package| offers(package))
    }
}

/// Whether there are any package lists; a fresh machine has none.
pub(super) fn has_lists() -> bool {
    let lists = fs::read_dir("/var/lib/apt/lists");
    lists.is_ok_and(|mut all| {
        all.any(|one| one.is_ok_and(|one| one.file_name().to_string_lossy().contains("_Packages")))
    })
}

/// Those of the needs that this machine does not meet.
pub(super) fn lacking(needs: &[Need]) -> Vec<Need> {
    needs.iter().filter(|need| !(need.met)()).copied().collect()
}

/// Fetches the package lists, which a fresh machine does not have.
pub(super) fn refresh_lists() -> Result<()> {
    if place::program("apt-get").is_none() {
        return Ok(());
    }
    say::line("something is missing; refreshing the package lists to see what this distribution offers");
    command::run(apt_get()?.args(["update", "-qq"]))
}

/// The packages for these needs, as one thing to install.
pub(super) fn missing(lacking: Vec<Need>) -> Result<Option<Missing>> {
    if lacking.is_empty() {
        return Ok(None);
    }
    let list = lacking
        .iter()
        .map(|need| format!("{} ({})", need.packages.join(" "), need.purpose))
        .collect::<Vec<_>>()
        .join("; ");
    if place::program("apt-get").is_none() {
        bail!(
            "this machine has no apt-get: install what these Debian packages bring, then run this again: {list}"
        );
    }
    Ok(Some(Missing::new(format!("packages, with apt-get as root: {list}"), move |_| {
        let packages: Vec<&str> = lacking.iter().flat_map(|need| need.packages).copied().collect();
        install(&packages)?;
        for need in &lacking {
            if !(need.met)() {
                bail!("{} were installed, and yet there is no {}", need.packages.join(" "), need.purpose);
            }
        }
        Ok(())
    })))
}

/// Whether this distribution offers a package, going by the lists that are there.
pub(super) fn offers(package: &str) -> bool {
    command::output(Command::new("apt-cache").args(["policy", package])).is_ok_and(|policy| {
        policy.lines().any(|l| l.trim_start().starts_with("Candidate: ") && !l.ends_with("(none)"))
    })
}

/// Installs packages. Their services stay off: while this runs, Debian's own switch for that is set
/// (`policy-rc.d` answers "forbidden"), and `postgresql-common` is told to create no cluster.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let _services = TemporaryFile::create("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", "755")?;
    let _cluster = TemporaryFile::create(
        "/etc/postgresql-common/createcluster.d/verbatim-setup.conf",
        "create_main_cluster = false\n",
        "644",
    )?;
    command::run(apt_get()?.args(["install", "-y", "-q", "--no-install-recommends"]).args(packages))?;
    // Without recommendations these are the only services that would start at the next boot.
    for (package, service) in
        [("pgbouncer", "pgbouncer"), ("etcd-server", "etcd"), ("containerd", "containerd")]
    {
        if packages.contains(&package) && Path::new("/run/systemd/system").is_dir() {
            command::run(command::as_root("systemctl")?.args(["disable", service]))?;
        }
    }
    Ok(())
}

fn apt_get() -> Result<Command> {
    let mut command = command::as_root_with("apt-get", [("DEBIAN_FRONTEND", "noninteractive")])?;
    command.args(["-o", "Dpkg::Use-Pty=0"]);
    Ok(command)
}

/// A root-owned file that is there for as long as this value is; one that was there before is left alone.
struct TemporaryFile(Option<&'static str>);

impl TemporaryFile {
    fn create(path: &'static str, content: &str, mode: &str) -> Result<Self> {
        if Path::new(path).exists() {
            return Ok(Self(None));
        }
        let folder = Path::new(path).parent().context("an absolute path")?;
        let own = std::env::temp_dir().join(format!("verbatim-setup-{}", std::process::id()));
        fs::write(&own, content).with_context(|| own.display().to_string())?;
        command::quiet(command::as_root("mkdir")?.arg("-p").arg(folder))?;
        command::quiet(command::as_root("install")?.args(["-m", mode]).arg(&own).arg(path))?;
        fs::remove_file(&own).with_context(|| own.display().to_string())?;
        Ok(Self(Some(path)))
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let Some(path) = self.0 else { return };
        let removed = command::as_root("rm").and_then(|mut rm| command::quiet(rm.args(["-f", path])));
        if let Err(error) = removed {
            say::note(&format!("{path} is still there, remove it: {error:#}"));
        }
    }
}
