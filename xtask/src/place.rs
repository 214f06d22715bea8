//! Where things are: the workspace, what is built, what set-up keeps, and who asked.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};

use crate::command;

/// The folders that every verb works with.
pub(crate) struct Place {
    /// The workspace.
    pub(crate) root: PathBuf,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
    /// What set-up keeps from one run to the next: `$VERBATIM_CACHE`, else `~/.cache/verbatim` of the person
    /// who asked, also when they asked through sudo.
    pub(crate) cache: PathBuf,
}

impl Place {
    /// Finds them, asking cargo where it builds.
    pub(crate) fn find() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("xtask lies in a folder of the workspace")?.to_owned();
        let metadata = command::output(command::cargo().current_dir(&root).args([
            "metadata",
            "--no-deps",
            "--format-version=1",
        ]))?;
        let metadata: serde_json::Value = serde_json::from_str(&metadata).context("cargo metadata")?;
        let target =
            metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
        let cache = match env::var_os("VERBATIM_CACHE") {
            Some(folder) => PathBuf::from(folder),
            None => home()?.join(".cache/verbatim"),
        };
        Ok(Self { root, target: PathBuf::from(target), cache })
    }

    /// Programs that set-up built: `bpf-linker`, `cargo-deny`.
    pub(crate) fn tools(&self) -> PathBuf {
        self.cache.join("tools")
    }

    /// The Python of the lab's and the demo's clients.
    pub(crate) fn python(&self) -> PathBuf {
        self.cache.join("lab/venv/bin/python")
    }

    /// Kubernetes's programs, where set-up could build them.
    pub(crate) fn kubernetes(&self) -> PathBuf {
        self.cache.join("kubernetes")
    }

    /// The eBPF programs, built.
    pub(crate) fn ebpf(&self) -> PathBuf {
        self.target.join("bpf/verbatim-ebpf")
    }

    /// cargo for a build of the workspace, told where the eBPF programs are when that is not where it looks
    /// by itself.
    pub(crate) fn cargo(&self) -> std::process::Command {
        let mut cargo = command::cargo();
        cargo.current_dir(&self.root);
        if self.target != self.root.join("target") && self.ebpf().is_file() {
            cargo.env("VERBATIM_EBPF", self.ebpf());
        }
        cargo
    }

    /// A path as a person would write it here.
    pub(crate) fn short(&self, path: &Path) -> String {
        match (
            path.strip_prefix(&self.root),
            home().ok().and_then(|h| path.strip_prefix(h).ok().map(Path::to_owned)),
        ) {
            (Ok(inside), _) => inside.display().to_string(),
            (_, Some(inside)) => format!("~/{}", inside.display()),
            _ => path.display().to_string(),
        }
    }
}

/// The home of the person who asked: through sudo that is not root's.
fn home() -> Result<PathBuf> {
    if is_root()
        && let Ok(user) = env::var("SUDO_USER")
    {
        let passwd = fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
        let home = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(&user)).then(|| fields.nth(4).map(PathBuf::from)).flatten()
        });
        if let Some(home) = home {
            return Ok(home);
        }
    }
    env::var_os("HOME")
        .map(PathBuf::from)
        .ok_or_else(|| anyhow!("HOME is not set; set it, or VERBATIM_CACHE"))
}

/// Whether this process may do what root may.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// The first program of this name in PATH, or where the system keeps its own.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// The newest PostgreSQL's folder of programs, as Debian lays them out.
pub(crate) fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    versions
        .flatten()
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            (bin.join("initdb").is_file() && bin.join("pgbench").is_file()).then_some((version, bin))
        })
        .max()
        .map(|(_, bin)| bin)
}
