//! BigQuery's emulator, in a virtual environment of its own, since it wants other versions than the clients do;
//! and the extension of DuckDB that it loads, put where DuckDB looks, so that it fetches nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{Missing, clients};
use crate::{command, place::Place, say};

/// What is missing of it. Where Python is too old for it, that is said and nothing is missing: the scenarios
/// that need it are skipped.
pub(super) fn missing(place: &Place) -> Result<Option<Missing>> {
    // The version that its authors ask for.
    let new_enough = "import sys; sys.exit(sys.version_info < (3, 11))";
    if !command::succeeds(Command::new("python3").args(["-c", new_enough])) {
        say::note("BigQuery's emulator needs Python 3.11 or later: what needs it is skipped here");
        return Ok(None);
    }
    let wanted = place.root.join("tests/clients/emulator.txt");
    let text = fs::read_to_string(&wanted).with_context(|| wanted.display().to_string())?;
    let folder = place.cache.join("lab/emulator");
    let name = "BigQuery's emulator (bqemulator from PyPI, 155 MB)".to_owned();
    let venv = clients::venv_missing(folder.join("venv"), text, name)?;
    if venv.is_none() && folder.join("home").is_dir() {
        return Ok(None);
    }
    let what = venv.as_ref().map_or("the extension of BigQuery's emulator", |venv| &venv.what).to_owned();
    Ok(Some(Missing::new(what, move |place| {
        if let Some(venv) = venv {
            (venv.install)(place)?;
        }
        extension(&folder)
    })))
}

/// Copies the extension out of its package to below the emulator's home.
fn extension(folder: &Path) -> Result<()> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "linux_amd64",
        "aarch64" => "linux_arm64",
        other => bail!("DuckDB has no extensions for {other}"),
    };
    let where_from = "import duckdb_extension_spatial as e; print(e.__path__[0])";
    let package = command::output(Command::new(folder.join("venv/bin/python")).args(["-c", where_from]))?;
    let extensions = PathBuf::from(package.trim()).join("extensions");
    let version = fs::read_dir(&extensions)
        .with_context(|| extensions.display().to_string())?
        .flatten()
        .next()
        .with_context(|| format!("{} is empty", extensions.display()))?;
    let target = folder.join("home/.duckdb/extensions").join(version.file_name()).join(architecture);
    fs::create_dir_all(&target).with_context(|| target.display().to_string())?;
    let name = "spatial.duckdb_extension";
    fs::copy(version.path().join(name), target.join(name)).with_context(|| target.display().to_string())?;
    Ok(())
}
