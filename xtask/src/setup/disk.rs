//! Whether there is room to build. A full disk shows as a linker that dies of a bus error, which says nothing.

use std::path::Path;

use anyhow::{Result, bail};

use crate::{command, say};

/// Less than this cannot end well.
const LEAST_MIB: u64 = 1024;
/// What a build of everything takes from nothing, about.
const USUAL_MIB: u64 = 5 * 1024;

/// Says so where the file system that a folder is on has too little room.
pub(super) fn check(folder: &Path) -> Result<()> {
    let Some(free) = free_mib(folder) else { return Ok(()) };
    let shown = folder.display();
    if free < LEAST_MIB {
        bail!("{free} MiB are free where {shown} is, and a build needs {USUAL_MIB}: make room there");
    }
    if free < USUAL_MIB {
        say::note(&format!("{free} MiB are free where {shown} is; a build from nothing needs {USUAL_MIB}"));
    }
    Ok(())
}

/// `None` where `df` cannot tell.
fn free_mib(folder: &Path) -> Option<u64> {
    let mut df = std::process::Command::new("df");
    df.args(["--output=avail", "--block-size=1M"]).arg(folder);
    parse(&command::output(&mut df).ok()?)
}

fn parse(text: &str) -> Option<u64> {
    text.lines().nth(1)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_read_from_the_second_line() {
        assert_eq!(parse("Avail\n72063\n"), Some(72_063));
        assert_eq!(parse("df: no such thing\n"), None);
        assert_eq!(parse("Avail\n-\n"), None);
    }

    #[test]
    fn a_folder_that_exists_has_some() {
        assert!(free_mib(Path::new("/")).is_some());
        assert_eq!(free_mib(Path::new("/nowhere/at/all")), None);
    }
}
