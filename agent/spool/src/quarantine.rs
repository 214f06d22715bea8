//! Puts aside what stands behind a damaged place. Kept for a person to look at; nobody here reads it again.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
};

use crate::{
    OpenError,
    history::{Aside, truncate},
    open::io_error,
};

const FOLDER: &str = "quarantine";

/// Moves everything aside. A second run after a crash half-way comes to the same end.
pub(crate) fn put_aside(folder: &Path, aside: &[Aside]) -> Result<(), OpenError> {
    if aside.is_empty() {
        return Ok(());
    }
    let quarantine = folder.join(FOLDER);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&quarantine)
        .map_err(io_error("make", &quarantine))?;
    for aside in aside {
        match aside {
            Aside::File(path) => {
                let target = quarantine.join(path.file_name().unwrap_or_default());
                fs::rename(path, target).map_err(io_error("put aside", path))?;
            }
            Aside::Rest { path, offset, bytes } => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let target = quarantine.join(format!("{name}.{offset}"));
                copy(path, *offset, *bytes, &target).map_err(io_error("put aside the end of", path))?;
                truncate(path, *offset)?;
            }
        }
        tracing::warn!(?aside, "spool damaged: put aside");
    }
    Ok(())
}

fn copy(path: &Path, offset: u64, bytes: u64, target: &Path) -> io::Result<()> {
    let mut buffer = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    File::open(path)?.read_exact_at(&mut buffer, offset)?;
    let out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(target)?;
    out.write_all_at(&buffer, 0)?;
    // Before the original is cut.
    out.sync_data()
}
