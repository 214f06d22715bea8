//! Slots: a folder for each process that writes at once, so that an old agent drains while its successor records.
//!
//! The first slot is the spool's own folder, as it was before there were others; further ones are numbered below.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::{
    OpenError,
    open::{io_error, make_folder},
    segment,
};

/// More processes than this never write at once.
const MOST: usize = 16;
const PREFIX: &str = "slot-";
const LOCK: &str = "lock";

/// A folder that is this process's alone for as long as this lives.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) path: PathBuf,
    /// Locked.
    lock: File,
    numbered: bool,
}

impl Slot {
    /// The first that nobody has.
    pub(crate) fn first_free(directory: &Path) -> Result<Self, OpenError> {
        for number in 0..MOST {
            let path = match number {
                0 => directory.to_owned(),
                number => directory.join(format!("{PREFIX}{number}")),
            };
            if let Some(slot) = Self::take(path, number != 0)? {
                return Ok(slot);
            }
        }
        Err(OpenError::InUse(directory.to_owned()))
    }

    /// All others that nobody has and in which something is left; those in which nothing is are removed.
    pub(crate) fn left_behind(directory: &Path, own: &Path) -> Result<Vec<Self>, OpenError> {
        let mut found = Vec::new();
        let mut paths = vec![(directory.to_owned(), false)];
        for entry in fs::read_dir(directory).map_err(io_error("list", directory))? {
            let entry = entry.map_err(io_error("list", directory))?;
            let number = entry.file_name().to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
            if number.is_some_and(|_: usize| entry.path().is_dir()) {
                paths.push((entry.path(), true));
            }
        }
        for (path, numbered) in paths.into_iter().filter(|(path, _)| path != own) {
            // Whoever has it looks after it.
            let Some(slot) = Self::take(path, numbered)? else { continue };
            if slot.holds_segments()? {
                found.push(slot);
            } else {
                slot.remove();
            }
        }
        Ok(found)
    }

    /// `None`: another process has it.
    fn take(path: PathBuf, numbered: bool) -> Result<Option<Self>, OpenError> {
        let lock = path.join(LOCK);
        loop {
            make_folder(&path)?;
            let mut options = OpenOptions::new();
            let opened = options.write(true).create(true).truncate(false).mode(0o600).open(&lock);
            let file = match opened {
                // Whoever had it has removed it meanwhile.
                Err(error) if numbered && error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(io_error("open", &lock))?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(io_error("lock", &lock)(error)),
            }
            let same = fs::metadata(&lock).and_then(|there| Ok(there.ino() == file.metadata()?.ino()));
            if same.is_ok_and(|same| same) {
                return Ok(Some(Self { path, lock: file, numbered }));
            }
        }
    }

    fn shards(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| shard_number(name).is_some()) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    fn holds_segments(&self) -> Result<bool, OpenError> {
        for shard in self.shards().map_err(io_error("list", &self.path))? {
            for entry in fs::read_dir(&shard).map_err(io_error("list", &shard))? {
                let name = entry.map_err(io_error("list", &shard))?.file_name();
                if name.to_str().and_then(segment::parse_name).is_some() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Everything in it was acknowledged: it goes, but for the first slot, and for what was put aside, which a
    /// person is to look at.
    pub(crate) fn remove(&self) {
        if !self.numbered {
            return;
        }
        if let Err(error) = self.try_remove() {
            tracing::warn!(%error, slot = %self.path.display(), "cannot remove a slot of the spool that is empty");
        }
    }

    fn try_remove(&self) -> io::Result<()> {
        for shard in self.shards()? {
            for entry in fs::read_dir(&shard)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    return Ok(());
                }
                fs::remove_file(entry.path())?;
            }
            fs::remove_dir(&shard)?;
        }
        // Locked by us: whoever opens the path from now on makes another.
        fs::remove_file(self.path.join(LOCK))?;
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => removed,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // By name: closing the file is not enough while a process that was just forked still has it.
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "cannot unlock the spool");
        }
    }
}

/// The number in the name of a shard's folder.
pub(crate) fn shard_number(name: &str) -> Option<usize> {
    name.strip_prefix("shard-")?.parse().ok()
}
