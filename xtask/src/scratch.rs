//! A folder for the length of one verb, which other users may enter: servers run as users of their own.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

const PREFIX: &str = "verbatim-xtask-";

/// The folder; it goes with the value.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes one, and clears away those whose makers were killed.
    pub(crate) fn create() -> Result<Self> {
        let all = std::env::temp_dir();
        for entry in fs::read_dir(&all).with_context(|| all.display().to_string())?.flatten() {
            let name = entry.file_name();
            let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            if maker.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                // What belongs to somebody else is theirs to clear away.
                drop(fs::remove_dir_all(entry.path()));
            }
        }
        let path = all.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}
