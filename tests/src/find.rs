//! Looks for bytes in all files below a folder: what must not be on a disk.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The files that hold the bytes. One that goes meanwhile holds nothing.
pub fn files_with(folder: &Path, bytes: &[u8]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let Some(metadata) = there(fs::symlink_metadata(&path))? else { continue };
        if metadata.is_dir() {
            found.extend(files_with(&path, bytes)?);
        } else if metadata.is_file() {
            let content =
                there(fs::read(&path)).with_context(|| format!("cannot read {}", path.display()))?;
            if content.is_some_and(|content| content.windows(bytes.len()).any(|window| window == bytes)) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// What was read, unless there is nothing any more.
fn there<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_are_found_in_folders_below() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        std::fs::write(folder.path().join("deep/file"), b"\0\xffneedle\0").unwrap();
        std::fs::write(folder.path().join("other"), b"hay").unwrap();
        let found = super::files_with(folder.path(), b"needle").unwrap();
        assert_eq!(found, [folder.path().join("deep/file")]);
    }
}
