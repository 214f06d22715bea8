//! Clients of PostgreSQL that are libraries of compiled languages: pgx, built with Go from Debian's packages, and
//! the JDBC driver, Debian's own but of the release that first has one that binds channels.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{Missing, clients};
use crate::{archive::Archive, archive::Kind, command, place, place::Place, say};

/// pgx, below where Debian keeps Go's sources.
pub(super) const PGX: &str = "github.com/jackc/pgx/v4";

/// The driver and what it authenticates with. Version 42.7.4 was the first to bind channels.
const JDBC: [&str; 3] = ["libpostgresql-jdbc-java", "libscram-java", "libstringprep-java"];
const SUITE: &str = "trixie";

/// The lab's program with pgx, where Go and pgx are there to build it with.
pub(super) fn pgx_missing(place: &Place) -> Result<Option<Missing>> {
    if place::program("go").is_none() || !Path::new("/usr/share/gocode/src").join(PGX).is_dir() {
        say::note("neither Go nor pgx can be had here: what needs them is skipped");
        return Ok(None);
    }
    let source = place.root.join("tests/clients/pgx_commands.go");
    let text = fs::read_to_string(&source).with_context(|| source.display().to_string())?;
    let folder = place.cache.join("lab/pgx");
    let stamp = folder.join("verbatim.stamp");
    if fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == text) && folder.join("pgx_commands").is_file() {
        return Ok(None);
    }
    let what = format!("a client with pgx, built with Go into {} (half a minute)", folder.display());
    Ok(Some(Missing::new(what, move |_| {
        clients::emptied(&folder)?;
        let mut go = Command::new("go");
        go.args(["build", "-o"]).arg(folder.join("pgx_commands")).arg(&source).current_dir(&folder);
        // From Debian's sources alone, and nothing of the build in anybody's home.
        go.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode").env("GOFLAGS", "");
        go.env("GOCACHE", folder.join("build")).env("CGO_ENABLED", "0");
        command::run(&mut go)?;
        fs::remove_dir_all(folder.join("build")).context("removing what the build left")?;
        fs::write(&stamp, &text).with_context(|| stamp.display().to_string())
    })))
}

/// The JDBC driver, where Debian's archive can be read.
pub(super) fn jdbc_missing(place: &Place) -> Option<Missing> {
    let folder = place.cache.join("lab/jdbc");
    let stamp = folder.join("verbatim.stamp");
    if fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == SUITE) {
        return None;
    }
    let lacks = || place::program("apt-get").is_none().then(|| "there is no apt-get".to_owned());
    if let Some(reason) = lacks().or_else(Archive::missing) {
        say::note(&format!("the JDBC driver cannot be had here ({reason}): what needs it is skipped"));
        return None;
    }
    let what = format!("the JDBC driver from Debian's {SUITE} (1 MB), into {}", folder.display());
    Some(Missing::new(what, move |_| {
        clients::emptied(&folder)?;
        let archive = Archive::open(folder.join("apt"), Kind::Packages, &[SUITE])?;
        command::quiet(archive.get().current_dir(&folder).arg("download").args(JDBC))?;
        for name in JDBC {
            unpack(&folder, name)?;
        }
        fs::remove_dir_all(archive.folder()).context("removing the archive's lists")?;
        fs::write(&stamp, SUITE).with_context(|| stamp.display().to_string())
    }))
}

/// Unpacks a package beside itself.
fn unpack(folder: &Path, package: &str) -> Result<()> {
    let start = format!("{package}_");
    let all = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let file = all
        .flatten()
        .find(|one| one.file_name().to_string_lossy().starts_with(&start))
        .with_context(|| format!("apt-get fetched no {package}"))?
        .path();
    command::quiet(Command::new("dpkg-deb").arg("-x").arg(&file).arg(folder))?;
    fs::remove_file(&file).with_context(|| file.display().to_string())
}
