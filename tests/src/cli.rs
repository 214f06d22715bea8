//! The command line `verbatim`, as a security team runs it.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::binaries;

/// Where the command line is to look.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A running collector's audit socket.
    Socket(&'a Path),
    /// What `verbatim-agent run --data` left.
    Data(&'a Path),
}

/// Runs it and returns its standard output.
pub fn run(source: Source<'_>, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(binaries::find("verbatim")?);
    match source {
        Source::Socket(path) => command.arg("--collector").arg(format!("unix:{}", path.display())),
        Source::Data(folder) => command.arg("--data").arg(folder),
    };
    let output = command.args(arguments).output().context("cannot start verbatim")?;
    if !output.status.success() {
        bail!(
            "verbatim {arguments:?} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout).context("verbatim wrote what is no UTF-8")
}

/// All commands, the oldest first, as its JSON says it.
pub fn records(source: Source<'_>) -> Result<Vec<serde_json::Value>> {
    run(source, &["records", "--output", "json", "--oldest-first", "-n", "1000000"])?
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
        .collect()
}
