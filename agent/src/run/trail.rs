//! The folder in which records are kept, held by what it is and not by its name.
//!
//! It may lie in a folder of the person that the command runs as, who can rename everything there, whosever it
//! is. So the agent and its collector reach it by a mount that nobody else sees, and at the end it is looked
//! whether its name still leads to it.

use std::{
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use verbatim_sys::{mounts, privilege::effective_user};

use super::folders::{FolderError, make_private};

/// A folder that was asked for, and where we reach it. Dropping it lets go of it, and leaves what is in it.
#[derive(Debug)]
pub(crate) struct Trail {
    asked: PathBuf,
    place: PathBuf,
    folder: OwnedFd,
    /// Device and inode.
    identity: (u64, u64),
}

impl Trail {
    /// Opens the folder, made if absent, in a mount namespace that the process gets for it, and binds it to
    /// `place`, which is made. Must be called before any thread is started.
    pub(crate) fn hold(asked: &Path, place: &Path) -> Result<Self, FolderError> {
        let make = |source| FolderError::Make { path: asked.to_owned(), source };
        let bind = |source| FolderError::Bind { path: asked.to_owned(), source };
        mounts::separate().map_err(bind)?;
        if fs::symlink_metadata(asked).is_err() {
            DirBuilder::new().recursive(true).mode(0o700).create(asked).map_err(make)?;
        }
        let shared = |_not_a_folder| FolderError::Shared(asked.to_owned());
        let folder = mounts::folder(asked).map_err(shared)?;
        let found = fs::metadata(own_path(&folder)).map_err(make)?;
        if found.uid() != effective_user() || found.mode() & 0o022 != 0 {
            return Err(FolderError::Shared(asked.to_owned()));
        }
        make_private(place)?;
        let identity = (found.dev(), found.ino());
        let trail = Self { asked: asked.to_owned(), place: place.to_owned(), folder, identity };
        mounts::bind(&trail.folder, place).map_err(bind)?;
        Ok(trail)
    }

    /// Where its name leads elsewhere by now: where it is itself, as far as it is anywhere.
    pub(crate) fn moved(&self) -> Option<PathBuf> {
        let found = fs::symlink_metadata(&self.asked);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.identity) {
            return None;
        }
        Some(fs::read_link(own_path(&self.folder)).unwrap_or_default())
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if let Err(error) = mounts::unbind(&self.place) {
            tracing::debug!(%error, "the folder for records was bound nowhere");
        }
        leave(&self.place);
    }
}

/// Removes the place of a trail, in which nothing is: never what is in it, should it still lead to the trail.
pub(crate) fn leave(place: &Path) {
    if let Err(error) = fs::remove_dir(place)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::error!(folder = %place.display(), %error, "cannot be removed");
    }
}

/// The folder itself, by whatever name.
fn own_path(folder: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", folder.as_raw_fd()).into()
}
