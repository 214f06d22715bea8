//! A limit on the memory of a process and its children, by a cgroup of either version.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{reaper::Guard, undo::Leftover};

/// A cgroup that limits memory.
#[derive(Debug)]
pub struct MemoryLimit {
    group: PathBuf,
    version: Version,
    _guard: Option<Guard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// A hierarchy of memory's own.
    One,
    /// The one hierarchy, with memory's controller.
    Two,
}

/// Where groups that limit memory can be made.
fn hierarchy() -> Result<(PathBuf, Version)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    for line in mounts.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(at) = before.split(' ').nth(4).map(PathBuf::from) else { continue };
        if after.starts_with("cgroup ") && after.split([' ', ',']).any(|option| option == "memory") {
            return Ok((at, Version::One));
        }
        let given = || fs::read_to_string(at.join("cgroup.subtree_control")).unwrap_or_default();
        if after.starts_with("cgroup2 ") && given().split_whitespace().any(|one| one == "memory") {
            return Ok((at, Version::Two));
        }
    }
    bail!("no cgroup hierarchy limits memory here: mount one, or enable its controller at the root")
}

/// Whether memory can be limited here.
pub fn probe() -> Result<()> {
    hierarchy().map(drop)
}

impl MemoryLimit {
    /// One without a limit yet, for what is started in a cgroup of the scenario's.
    pub fn create(name: &str, cgroup: &Path) -> Result<Self> {
        let (root, version) = hierarchy()?;
        if version == Version::Two {
            let below = cgroup.strip_prefix(&root).context("the scenario's cgroup is elsewhere")?;
            let mut at = root;
            for part in below {
                let file = at.join("cgroup.subtree_control");
                fs::write(&file, "+memory").with_context(|| format!("cannot write {}", file.display()))?;
                at.push(part);
            }
            return Ok(Self { group: at, version, _guard: None });
        }
        let group = root.join(format!("{name}-memory"));
        let guard = Guard::new(Leftover::Cgroup(group.display().to_string()))?;
        fs::create_dir(&group).with_context(|| format!("cannot make the cgroup {}", group.display()))?;
        Ok(Self { group, version, _guard: Some(guard) })
    }

    /// Words that stand before a program to put it there.
    #[must_use]
    pub fn words(&self) -> Vec<OsString> {
        if self.version == Version::Two {
            return Vec::new();
        }
        let join = r#"echo 0 >"$0/cgroup.procs" && exec "$@""#;
        vec!["/bin/sh".into(), "-c".into(), join.into(), self.group.clone().into()]
    }

    /// Sets the limit.
    pub fn set(&self, bytes: u64) -> Result<()> {
        self.write(("memory.limit_in_bytes", "memory.max"), &bytes.to_string())
    }

    /// Takes the limit away.
    pub fn lift(&self) -> Result<()> {
        match self.version {
            Version::One => self.write(("memory.limit_in_bytes", ""), "-1"),
            Version::Two => self.write(("", "memory.max"), "max"),
        }
    }

    /// What is used now, bytes.
    pub fn used(&self) -> Result<u64> {
        let file = self.file(("memory.usage_in_bytes", "memory.current"));
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        text.trim().parse().with_context(|| format!("{} says {text:?}", file.display()))
    }

    /// How many processes the kernel has killed for it.
    pub fn killed(&self) -> Result<u64> {
        let file = self.file(("memory.oom_control", "memory.events"));
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        count.with_context(|| format!("{} has no oom_kill", file.display()))
    }

    fn file(&self, (one, two): (&str, &str)) -> PathBuf {
        self.group.join(match self.version {
            Version::One => Path::new(one),
            Version::Two => Path::new(two),
        })
    }

    fn write(&self, names: (&str, &str), value: &str) -> Result<()> {
        let file = self.file(names);
        fs::write(&file, value).with_context(|| format!("cannot write {value} to {}", file.display()))
    }
}
