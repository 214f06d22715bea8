//! The folders of one run: a private one for sockets, and where records stay.
//!
//! Everything below belongs to the agent's user alone. A folder that somebody else could exchange is
//! refused.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use verbatim_sys::privilege::{effective_user, is_private_folder};

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
    /// Others could exchange what is in it.
    #[error("{0}, for temporary files, can be written by others and is not sticky: set TMPDIR to another")]
    Temporary(PathBuf),
}

/// Where things are.
#[derive(Debug)]
pub(crate) struct Folders {
    /// Sockets, and the records too where they are not to be kept.
    pub(crate) private: PathBuf,
    /// Spool and store.
    pub(crate) data: PathBuf,
    /// Whether `data` was asked for.
    pub(crate) kept: bool,
}

impl Folders {
    /// Says where they will be; makes nothing.
    pub(crate) fn plan(id: &str, data: Option<&Path>) -> Result<Self, FolderError> {
        let private = temporary()?.join(format!("verbatim-{id}"));
        let data_here = private.join("data");
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|source| FolderError::Make { path: path.to_owned(), source })
        };
        Ok(Self { private, kept: data.is_some(), data: data.map_or(Ok(data_here), absolute)? })
    }

    /// Makes them.
    pub(crate) fn make(&self) -> Result<(), FolderError> {
        make_private(&self.private)?;
        if self.data.exists() {
            let owned = is_private_folder(&self.data).unwrap_or(false);
            if !owned {
                return Err(FolderError::Shared(self.data.clone()));
            }
        } else {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.data)
                .map_err(|source| FolderError::Make { path: self.data.clone(), source })?;
        }
        for folder in [self.spool(), self.store()] {
            if !folder.exists() {
                make_private(&folder)?;
            }
        }
        Ok(())
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
        remove(&self.private, (keep_data && !self.kept).then_some(self.data.as_path()));
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

fn make_private(path: &Path) -> Result<(), FolderError> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|source| FolderError::Make { path: path.to_owned(), source })
}

/// For temporary files: nobody else may rename what we make in it.
pub(super) fn temporary() -> Result<PathBuf, FolderError> {
    let folder = std::env::temp_dir();
    let metadata =
        fs::metadata(&folder).map_err(|source| FolderError::Make { path: folder.clone(), source })?;
    let others_write = metadata.mode() & 0o022 != 0;
    let sticky = metadata.mode() & 0o1000 != 0;
    if (others_write && !sticky) || ![0, effective_user()].contains(&metadata.uid()) {
        return Err(FolderError::Temporary(folder));
    }
    Ok(folder)
}
