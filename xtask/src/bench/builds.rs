//! What building takes: everything from nothing, and again after a decoder was touched. In a target folder of
//! its own, with what cargo downloaded before.

use std::{
    fs,
    time::{Instant, SystemTime},
};

use anyhow::{Context, Result};

use super::report::Section;
use crate::{command, place::Place, say};

/// A file of the decoders, which all binaries but the collector are built on.
const DECODER: &str = "agent/wire/src/lib.rs";

pub(super) fn run(place: &Place) -> Result<Section> {
    say::heading("What building takes");
    let target = place.target.join("bench-builds");
    if target.exists() {
        fs::remove_dir_all(&target).with_context(|| target.display().to_string())?;
    }
    let build = |arguments: &[&str]| -> Result<String> {
        let mut cargo = place.cargo();
        cargo.env("CARGO_TARGET_DIR", &target).env("VERBATIM_EBPF", place.ebpf());
        cargo.args(["build", "--locked", "--workspace", "--bins"]).args(arguments);
        let begun = Instant::now();
        command::run(&mut cargo)?;
        Ok(say::took(begun))
    };
    let touch = || {
        let decoder = place.root.join(DECODER);
        let file = fs::File::options().append(true).open(&decoder);
        file.and_then(|file| file.set_modified(SystemTime::now()))
            .with_context(|| decoder.display().to_string())
    };
    let clean_shipped = build(&["--profile", "dist"])?;
    touch()?;
    let shipped = build(&["--profile", "dist"])?;
    let clean = build(&["--release"])?;
    touch()?;
    let release = build(&["--release"])?;
    let clean_debug = build(&[])?;
    touch()?;
    let debug = build(&[])?;
    fs::remove_dir_all(&target).with_context(|| target.display().to_string())?;
    let text = format!(
        "\n| all binaries | clean | after touching a decoder |\n|---|--:|--:|\n\
         | as shipped (`dist`) | {clean_shipped} | {shipped} |\n| release | {clean} | {release} |\n| debug | {clean_debug} | {debug} |\n"
    );
    Ok(Section { name: "builds", text })
}
