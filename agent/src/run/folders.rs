//! The folders of one run: a private one for sockets, and where records stay.
//!
//! Everything below belongs to the agent's user alone. A folder that somebody else could exchange is
//! refused.

use std::{
    cell::OnceCell,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};
use verbatim_sys::privilege::effective_user;

use super::trail::Trail;

/// Emptied by nobody while the machine is up, as temporary folders are.
const RUNTIME: &str = "/run";

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    /// It cannot be made.
    #[error("cannot make {path}: {source}")]
    Make {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could change what is recorded.
    #[error(
        "{0} belongs to, or can be written by, others than the agent's user: give --data a folder that does \
         not exist yet, or one of that user's own with mode 0755 or less"
    )]
    Shared(PathBuf),
    /// It cannot be held against a change of its name.
    #[error("cannot hold {path} while the command runs, so that records could be exchanged: {source}")]
    Bind {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could exchange what is in it.
    #[error(
        "{0}, for temporary files, can be exchanged by others: it or a folder above it is not root's, or can be \
         written by others and is not sticky; set TMPDIR to another"
    )]
    Temporary(PathBuf),
}

/// Where things are.
#[derive(Debug)]
pub(crate) struct Folders {
    /// Sockets, and the records too where they are not to be kept.
    pub(crate) private: PathBuf,
    /// Spool and store, as we reach them.
    pub(crate) data: PathBuf,
    /// Where they are to be kept, for those who read them later.
    pub(crate) kept: Option<PathBuf>,
    trail: OnceCell<Trail>,
}

impl Folders {
    /// Says where they will be; makes nothing.
    pub(crate) fn plan(id: &str, data: Option<&Path>) -> Result<Self, FolderError> {
        let private = temporary()?.join(format!("verbatim-{id}"));
        let Some(asked) = data else {
            let data = private.join("data");
            return Ok(Self { private, data, kept: None, trail: OnceCell::new() });
        };
        let absolute = std::path::absolute(asked)
            .map_err(|source| FolderError::Make { path: asked.to_owned(), source })?;
        // Outside of what is removed with all that is in it.
        let place = runtime().map_or_else(temporary, Ok)?.join(format!("verbatim-{id}-data"));
        Ok(Self { private, data: place, kept: Some(absolute), trail: OnceCell::new() })
    }

    /// Makes them, and holds what is to be kept. Must be called once, before any thread is started.
    pub(crate) fn make(&self) -> Result<(), FolderError> {
        make_private(&self.private)?;
        match &self.kept {
            Some(asked) => drop(self.trail.set(Trail::hold(asked, &self.data)?)),
            None => make_private(&self.data)?,
        }
        for folder in [self.spool(), self.store()] {
            if !folder.exists() {
                make_private(&folder)?;
            }
        }
        Ok(())
    }

    /// Where the records are, if not where they were to be kept: another folder has that name now.
    pub(crate) fn moved(&self) -> Option<PathBuf> {
        self.trail.get().and_then(Trail::moved)
    }

    /// The mount point of what is kept.
    pub(crate) fn place(&self) -> Option<&Path> {
        self.kept.is_some().then_some(self.data.as_path())
    }

    /// Spool and store, as others reach them.
    pub(crate) fn shown(&self) -> &Path {
        self.kept.as_deref().unwrap_or(&self.data)
    }

    /// Where records wait.
    pub(crate) fn spool(&self) -> PathBuf {
        self.data.join("spool")
    }

    /// What the collector keeps.
    pub(crate) fn store(&self) -> PathBuf {
        self.data.join("collector")
    }

    /// What the collector logs.
    pub(crate) fn collector_log(&self) -> PathBuf {
        self.data.join("collector.log")
    }

    /// Where the collector takes records.
    pub(crate) fn ingest(&self) -> PathBuf {
        self.private.join("ingest.sock")
    }

    /// Where the collector answers.
    pub(crate) fn audit(&self) -> PathBuf {
        self.private.join("audit.sock")
    }

    /// Removes what is not to be kept. With `data` the records stay, wherever they are.
    pub(crate) fn remove(&self, keep_data: bool) {
        remove(&self.private, (keep_data && self.kept.is_none()).then_some(self.data.as_path()));
    }
}

/// Removes a private folder but for `keep` in it.
pub(crate) fn remove(private: &Path, keep: Option<&Path>) {
    let Some(keep) = keep else {
        if let Err(error) = fs::remove_dir_all(private)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(folder = %private.display(), %error, "cannot be removed");
        }
        return;
    };
    for entry in fs::read_dir(private).into_iter().flatten().flatten() {
        if entry.path() != keep {
            // Sockets only.
            fs::remove_file(entry.path()).ok();
        }
    }
}

pub(super) fn make_private(path: &Path) -> Result<(), FolderError> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|source| FolderError::Make { path: path.to_owned(), source })
}

/// The system's folder for what lives as long as the machine is up, where nobody else writes it and we can: in a
/// container it may be read-only.
pub(super) fn runtime() -> Option<PathBuf> {
    let folder = Path::new(RUNTIME);
    let ours = fs::symlink_metadata(folder)
        .is_ok_and(|found| found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0);
    (ours && access(folder, Access::WRITE_OK).is_ok()).then(|| folder.to_owned())
}

/// For temporary files: nobody else may rename what we make in it, nor the folder itself.
pub(super) fn temporary() -> Result<PathBuf, FolderError> {
    let given = std::env::temp_dir();
    let folder = given.canonicalize().map_err(|source| FolderError::Make { path: given.clone(), source })?;
    for above in folder.ancestors() {
        let found =
            fs::metadata(above).map_err(|source| FolderError::Make { path: above.to_owned(), source })?;
        let others_write = found.mode() & 0o022 != 0;
        let sticky = found.mode() & 0o1000 != 0;
        if (others_write && !sticky) || ![0, effective_user()].contains(&found.uid()) {
            return Err(FolderError::Temporary(given));
        }
    }
    Ok(folder)
}
