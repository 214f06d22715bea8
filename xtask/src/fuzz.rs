//! `fuzz`: runs the fuzz targets of the decoders on the stable compiler, from the committed corpus.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{command, place::Place, say, setup, setup::Purpose, setup::Tool};

/// Where the fuzz targets are.
const CRATE: &str = "agent/wire/fuzz";

/// Fuzzes all targets, or one, for so long altogether.
pub(crate) fn run(place: &Place, only: Option<&str>, altogether: Duration) -> Result<()> {
    setup::ensure(place, Purpose::Fuzz)?;
    let targets = targets(place)?;
    let chosen: Vec<&String> = targets.iter().filter(|name| only.is_none_or(|only| only == *name)).collect();
    if chosen.is_empty() {
        bail!("there is no fuzz target {}; there are: {}", only.unwrap_or_default(), targets.join(", "));
    }
    let each = altogether.div_f64(chosen.len() as f64).max(Duration::from_secs(1));
    for name in chosen {
        one(place, name, each)?;
    }
    Ok(())
}

/// The names of all targets.
fn targets(place: &Place) -> Result<Vec<String>> {
    let folder = place.root.join(CRATE).join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "rs")
            && let Some(name) = path.file_stem().and_then(|s| s.to_str())
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn one(place: &Place, name: &str, duration: Duration) -> Result<()> {
    say::heading(&format!("Fuzzing {name} for {}", say::duration(duration)));
    // What is found on the way is kept apart from the committed corpus, which only reads.
    let found = place.target.join("fuzz-found").join(name);
    fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
    let committed = place.root.join(CRATE).join("corpus").join(name);
    let program = Tool::CargoFuzz.path(place);
    let mut fuzz = Command::new(program);
    fuzz.current_dir(place.root.join("agent/wire"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", place.target.join("fuzz"))
        // The decoders have no unsafe code for a sanitizer to watch; without one they run twice as fast.
        .args(["run", "--sanitizer", "none", name])
        .arg(&found);
    if committed.is_dir() {
        fuzz.arg(&committed);
    }
    fuzz.arg("--").args([
        format!("-max_total_time={}", duration.as_secs()),
        "-max_len=65536".to_owned(),
        "-rss_limit_mb=2048".to_owned(),
        "-timeout=10".to_owned(),
        "-print_final_stats=1".to_owned(),
    ]);
    command::run(&mut fuzz)
        .with_context(|| format!("{name} found an input; it is in {CRATE}/artifacts/{name}"))
}
