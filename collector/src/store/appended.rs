//! A plain file that is appended to and synced, group by group.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use super::StoreError;

#[derive(Debug)]
pub(super) struct Appended {
    file: File,
    place: String,
    /// Bytes that are durable.
    pub(super) length: u64,
}

impl Appended {
    /// Makes a file for our user alone, with its first bytes, durably.
    pub(super) fn create(path: &Path, header: &[u8]) -> Result<Self, StoreError> {
        let place = path.display().to_string();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(path).map_err(|e| full_or("make", &place, e))?;
        let mut begun = Self { file, place, length: 0 };
        let made = begun.write(header).and_then(|()| {
            begun.sync()?;
            sync_folder(path.parent().unwrap_or(path))
        });
        if let Err(e) = made {
            // Nothing refers to the file yet: without it the group can be tried again.
            fs::remove_file(path).map_err(|e| StoreError::failed("remove", path.display(), e))?;
            return Err(e);
        }
        Ok(begun)
    }

    /// Appends behind what is durable; on failure the file is as it was.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if let Err(e) = self.file.write_all(bytes) {
            let error = full_or("write", &self.place, e);
            self.back_to(self.length)?;
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn back_to(&mut self, length: u64) -> Result<(), StoreError> {
        let back = self.file.set_len(length).and_then(|()| self.file.seek(io::SeekFrom::Start(length)));
        back.map_err(|e| StoreError::Broken { place: self.place.clone(), detail: e.to_string() })?;
        self.length = length;
        Ok(())
    }

    /// After a failed sync nobody knows what is on the disk: the kernel may have dropped the dirty pages.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let broken = |detail: String| StoreError::Broken { place: self.place.clone(), detail };
        self.file.sync_data().map_err(|e| broken(e.to_string()))?;
        // What has no name any more is on no disk after the next start.
        match self.file.metadata() {
            Ok(found) if found.nlink() == 0 => Err(broken("it was deleted while it was written".to_owned())),
            Ok(_) => Ok(()),
            Err(e) => Err(broken(e.to_string())),
        }
    }
}

fn full_or(action: &'static str, place: &str, source: io::Error) -> StoreError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::Full { place: place.to_owned(), source }
        }
        // The folder is gone. A new start makes it again, and says what is missing.
        io::ErrorKind::NotFound => {
            StoreError::Broken { place: place.to_owned(), detail: format!("cannot {action} it: {source}") }
        }
        _ => StoreError::failed(action, place, source),
    }
}

/// Makes a folder's entries durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(|e| StoreError::Broken { place: folder.display().to_string(), detail: e.to_string() })
}
