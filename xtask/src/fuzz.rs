//! `fuzz`: runs the fuzz targets of whatever reads what clients send, on the stable compiler, from the committed corpus.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{command, place::Place, say, setup, setup::Purpose, setup::Tool};

/// Crates that have fuzz targets, below them in `fuzz`.
const CRATES: [&str; 2] = ["agent/credential", "agent/wire"];

/// One target.
struct Target {
    /// One of [`CRATES`].
    of: &'static str,
    name: String,
}

/// Fuzzes all targets, or one, for so long altogether.
pub(crate) fn run(place: &Place, only: Option<&str>, altogether: Duration) -> Result<()> {
    setup::ensure(place, Purpose::Fuzz)?;
    let targets = targets(place)?;
    let chosen: Vec<&Target> =
        targets.iter().filter(|target| only.is_none_or(|only| only == target.name)).collect();
    if chosen.is_empty() {
        let all: Vec<&str> = targets.iter().map(|target| &*target.name).collect();
        bail!("there is no fuzz target {}; there are: {}", only.unwrap_or_default(), all.join(", "));
    }
    let each = altogether.div_f64(chosen.len() as f64).max(Duration::from_secs(1));
    for target in chosen {
        one(place, target, each)?;
    }
    Ok(())
}

/// All of them, by name.
fn targets(place: &Place) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for of in CRATES {
        let folder = place.root.join(of).join("fuzz/fuzz_targets");
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "rs")
                && let Some(name) = path.file_stem().and_then(|s| s.to_str())
            {
                targets.push(Target { of, name: name.to_owned() });
            }
        }
    }
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(targets)
}

fn one(place: &Place, Target { of, name }: &Target, duration: Duration) -> Result<()> {
    say::heading(&format!("Fuzzing {name} for {}", say::duration(duration)));
    // What is found on the way is kept apart from the committed corpus, which only reads.
    let found = place.target.join("fuzz-found").join(name);
    fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
    let committed = place.root.join(of).join("fuzz/corpus").join(name);
    let program = Tool::CargoFuzz.path(place);
    let mut fuzz = Command::new(program);
    fuzz.current_dir(place.root.join(of))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", place.target.join("fuzz"))
        // They have no unsafe code for a sanitizer to watch; without one they run twice as fast.
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
        .with_context(|| format!("{name} found an input; it is in {of}/fuzz/artifacts/{name}"))
}
