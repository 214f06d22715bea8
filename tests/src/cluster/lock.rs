//! One cluster at a time on a machine.

use std::{fs::File, path::PathBuf};

use anyhow::{Context as _, Result};

/// Held for as long as a cluster lives; the kernel gives it back when its holder dies.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "it is held, never read")] File);

impl Lock {
    /// Waits for whoever has it.
    pub(super) fn take() -> Result<Self> {
        let path: PathBuf = std::env::temp_dir().join("verbatim-cluster.lock");
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self(file))
    }
}
