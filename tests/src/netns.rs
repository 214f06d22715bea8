//! One network namespace and the links between two, made and removed by iproute2.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{reaper::Guard, shell::run, undo::Leftover};

/// A network namespace below /run/netns, where container runtimes keep theirs too.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    _guard: Guard,
}

impl Namespace {
    /// Makes it, with its loopback device up.
    pub fn create(name: String) -> Result<Self> {
        let guard = Guard::new(Leftover::Namespace(name.clone()))?;
        run("ip", &["netns", "add", &name])?;
        let namespace = Self { name, _guard: guard };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `ip -n NAME …`.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        run("ip", &[&["-n", &self.name], arguments].concat())
    }

    /// Sets a kernel parameter of the namespace.
    pub fn sysctl(&self, assignment: &str) -> Result<()> {
        run("ip", &["netns", "exec", &self.name, "sysctl", "-q", "-w", assignment]).map(drop)
    }

    /// Gives it a hosts file of its own: `ip netns exec` puts it in place of /etc/hosts.
    pub fn hosts(&self, content: &str) -> Result<()> {
        let folder = PathBuf::from("/etc/netns").join(&self.name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // Names beyond those of the hosts file are nobody's; asking for one fails at once.
        for (name, content) in [("hosts", content), ("resolv.conf", "nameserver 127.0.0.1\n")] {
            let file = folder.join(name);
            fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}

/// Connects two namespaces by a pair of virtual devices that both carry the given name. Neither end is
/// ever in the namespace that the harness runs in.
pub fn connect(one: (&Namespace, &str), other: (&Namespace, &str)) -> Result<()> {
    run(
        "ip",
        &[
            "link",
            "add",
            one.1,
            "netns",
            one.0.name(),
            "type",
            "veth",
            "peer",
            "name",
            other.1,
            "netns",
            other.0.name(),
        ],
    )?;
    one.0.ip(&["link", "set", one.1, "up"])?;
    other.0.ip(&["link", "set", other.1, "up"]).map(drop)
}
