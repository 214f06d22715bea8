//! Where the binaries under test are.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// Finds a binary of this workspace: in `VERBATIM_BIN_DIR`, else beside the running executable or in the
/// folder above it (test executables are in `deps/`).
pub fn find(name: &str) -> Result<PathBuf> {
    if let Some(folder) = env::var_os("VERBATIM_BIN_DIR") {
        let candidate = Path::new(&folder).join(name);
        if candidate.is_file() {
            return Ok(candidate);
        }
        bail!(
            "{} is not there: VERBATIM_BIN_DIR must hold all binaries of the workspace",
            candidate.display()
        );
    }
    let own = env::current_exe().context("cannot tell where the running executable is")?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| {
            format!("{name} was not built: run `cargo build` for the workspace, or set VERBATIM_BIN_DIR")
        })
}
