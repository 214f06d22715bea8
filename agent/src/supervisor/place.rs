//! The run directory: one agent serves there, and a successor finds it by its socket.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use verbatim_sys::packets::{PacketListener, Packets};

const SOCKET: &str = "supervisor.sock";
const LOCK: &str = "starting";

/// Why an agent cannot start there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// The file system.
    #[error("runDirectory {path}: {source}")]
    Io {
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Two at once.
    #[error("runDirectory {0}: another agent is just starting there: wait for it, or give this one its own")]
    Starting(PathBuf),
}

/// The directory, while an agent starts there: no other can.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    _starting: File,
}

impl Place {
    /// Makes the directory, where need be, and keeps others from starting.
    pub(crate) fn enter(path: &Path) -> Result<Self, PlaceError> {
        let failed = |source| PlaceError::Io { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(path.join(LOCK));
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _starting: lock }),
            Err(TryLockError::WouldBlock) => Err(PlaceError::Starting(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// The supervisor that serves here.
    pub(crate) fn supervisor(&self) -> Result<Option<Packets>, PlaceError> {
        match Packets::connect(&self.socket()) {
            Ok(found) => Ok(Some(found)),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Ok(None)
            }
            Err(source) => Err(PlaceError::Io { path: self.socket(), source }),
        }
    }

    /// Is found from now on, in the place of whoever was.
    pub(crate) fn listen(&self) -> Result<PacketListener, PlaceError> {
        let beside = self.path.join(format!("{SOCKET}.{}", std::process::id()));
        fs::remove_file(&beside).ok();
        PacketListener::bind(&beside)
            .and_then(|listener| fs::rename(&beside, self.socket()).map(|()| listener))
            .map_err(|source| PlaceError::Io { path: self.socket(), source })
    }

    fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }
}

/// Is not found any more. Only for whoever has no successor.
pub(crate) fn leave(path: &Path) {
    fs::remove_file(path.join(SOCKET)).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_found_until_it_leaves_and_only_one_starts_at_a_time() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("run");
        let place = Place::enter(&path).expect("entered");
        assert!(place.supervisor().expect("looked").is_none());
        let said = Place::enter(&path).expect_err("a second").to_string();
        assert!(said.contains("just starting"), "{said}");
        let first = place.listen().expect("listening");
        drop(place);
        let place = Place::enter(&path).expect("entered");
        assert!(place.supervisor().expect("looked").is_some());
        let second = place.listen().expect("in its place");
        drop(first);
        assert!(place.supervisor().expect("looked").is_some());
        drop(second);
        assert!(place.supervisor().expect("a stale one is none").is_none());
        leave(&path);
        assert!(place.supervisor().expect("looked").is_none());
    }
}
