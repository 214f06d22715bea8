//! The cgroups of one run: `verbatim-ID` with `agent` and `workload` in it.
//!
//! The programs are attached to the first, so that they see the command's connects and the proxy's
//! accepted sockets, and nobody else's. Entered and left by the agent here.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use verbatim_sys::cgroup::{self, Cgroup};

/// Every run's cgroup begins so.
pub(crate) const PREFIX: &str = "verbatim-run-";

/// Times that a cgroup is made again that was swept away under us.
const TRIES: u32 = 5;

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupError {
    /// No cgroup v2.
    #[error(transparent)]
    NoMount(io::Error),
    /// Not made.
    #[error(
        "cannot make the cgroup {path}: {source}; is cgroupfs writable here (in a container it seldom is)?"
    )]
    Make {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Too old.
    #[error("this kernel cannot end a cgroup as a whole (cgroup.kill): Linux 5.14 or later is needed")]
    NoKill,
}

/// One run's.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// The attach root.
    pub(crate) root: Cgroup,
    /// The agent's and the collector's.
    pub(crate) agent: Cgroup,
    /// The command's.
    pub(crate) workload: Cgroup,
    before: Cgroup,
    /// Locked for as long as the run lives, so that nobody takes it for a dead one's.
    _lock: File,
}

/// Where this run's root is going to be.
pub(crate) fn root_path(mount: &Path, id: &str) -> PathBuf {
    mount.join(format!("{PREFIX}{id}"))
}

impl Cgroups {
    /// Makes them, and moves this process into its own.
    pub(crate) fn make(mount: &Path, id: &str) -> Result<Self, CgroupError> {
        // Between making and locking, another run's sweep may have taken it for a dead one's.
        let mut tries = 0;
        loop {
            match Self::try_make(mount, id) {
                Err(CgroupError::Make { source, .. }) if swept(&source) && tries < TRIES => tries += 1,
                made => return made,
            }
        }
    }

    fn try_make(mount: &Path, id: &str) -> Result<Self, CgroupError> {
        let before = Cgroup::at(mount.join(cgroup::own_path().map_err(CgroupError::NoMount)?));
        let path = root_path(mount, id);
        let make =
            |path: PathBuf| Cgroup::create(path.clone()).map_err(|source| CgroupError::Make { path, source });
        let root = make(path.clone())?;
        // From here on an error must leave nothing behind.
        Self::fill(root.clone(), before, path).inspect_err(|_error| {
            root.remove().ok();
        })
    }

    fn fill(root: Cgroup, before: Cgroup, path: PathBuf) -> Result<Self, CgroupError> {
        let failed = |source| CgroupError::Make { path: path.clone(), source };
        let lock = File::open(root.path()).map_err(failed)?;
        lock.try_lock().map_err(|error| failed(error.into()))?;
        let agent = Cgroup::create(path.join("agent")).map_err(failed)?;
        let workload = Cgroup::create(path.join("workload")).map_err(failed)?;
        if !workload.can_kill() {
            return Err(CgroupError::NoKill);
        }
        agent.enter().map_err(failed)?;
        Ok(Self { root, agent, workload, before, _lock: lock })
    }

    /// Moves this process back and removes them. What still lives in them is killed first.
    pub(crate) fn leave(&self) {
        let left = self.before.enter().or_else(|error| {
            // Where it came from may be gone; everybody may live in the hierarchy's root.
            let parent = self.root.path().parent().map(Cgroup::at);
            parent.map_or(Err(error), |parent| parent.enter())
        });
        let removed = left.and_then(|()| end(&self.root));
        if let Err(error) = removed {
            tracing::error!(cgroup = %self.root.path().display(), %error, "cgroup is left behind");
        }
    }
}

/// What one sees of a cgroup that somebody sweeps away.
fn swept(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::WouldBlock)
}

/// Kills what lives in a cgroup and removes it.
pub(crate) fn end(cgroup: &Cgroup) -> io::Result<()> {
    if cgroup.populated()? {
        cgroup.kill()?;
        cgroup.wait_empty(std::time::Duration::from_secs(5))?;
    }
    cgroup.remove()
}

/// Removes what runs have left that were killed together with their watchers. Says how many.
pub(crate) fn sweep(mount: &Path) -> io::Result<usize> {
    let mut swept = 0;
    for entry in std::fs::read_dir(mount)?.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // A living run holds the lock. One that is between making and locking makes it again.
        let Ok(folder) = File::open(entry.path()) else { continue };
        if folder.try_lock().is_ok() && end(&Cgroup::at(entry.path())).is_ok() {
            swept += 1;
        }
    }
    Ok(swept)
}
