//! Having Verbatim capture a client of the bench, and holding the trail against what the client says it did.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Bench;
use crate::command;

/// The agent's program, as the kernel names its processes, too.
pub(super) const AGENT: &str = "verbatim-agent";

/// How a client is captured.
#[derive(Clone)]
pub(super) struct Capture {
    /// Options of `run`.
    options: Vec<OsString>,
}

impl Capture {
    /// Records survive the death of the agent.
    pub(super) fn process() -> Self {
        Self { options: Vec::new() }
    }

    /// Records survive a loss of power: each command waits until its group is on the disk.
    pub(super) fn group() -> Self {
        Self { options: vec!["--sync".into()] }
    }

    /// The servers' certificates lead to these roots.
    pub(super) fn trusting(mut self, roots: &Path) -> Self {
        self.options.extend(["--upstream-ca".into(), roots.into()]);
        self
    }

    /// The client under capture, its records going to this folder.
    pub(super) fn command(&self, bench: &Bench<'_>, trail: &Path, client: &Command) -> Result<Command> {
        let mut capture = command::as_root(bench.binaries.join(AGENT))?;
        capture.args(["run", "--live", "off", "--data"]).arg(trail).args(&self.options);
        if let Some(shards) = bench.shards {
            capture.args(["--shards", &shards.to_string()]);
        }
        capture.arg("--");
        capture.arg(client.get_program()).args(client.get_args());
        Ok(capture)
    }

    /// Runs the client; the answer is what it printed. A capture that did not record all of what the client
    /// did, which `done` reads from that, is an error.
    pub(super) fn run(
        &self,
        bench: &Bench<'_>,
        client: &Command,
        done: impl Fn(&str) -> Result<f64>,
    ) -> Result<String> {
        let trail = Trail(bench.scratch.path().join("trail"));
        let output = command::output(&mut self.command(bench, &trail.0, client)?)?;
        trail.holds(bench, done(&output)?)?;
        Ok(output)
    }
}

/// A trail that goes with this value.
pub(super) struct Trail(pub(super) PathBuf);

impl Trail {
    /// A capture that did not record what was done is no contestant.
    pub(super) fn holds(&self, bench: &Bench<'_>, done: f64) -> Result<()> {
        let mut decoded = 0.0;
        let mut cursor: Option<String> = None;
        loop {
            let mut verbatim = command::as_root(bench.binaries.join("verbatim"))?;
            verbatim.arg("--data").arg(&self.0).args(["sessions", "--limit", "1000", "--output", "json"]);
            if let Some(cursor) = &cursor {
                verbatim.args(["--cursor", cursor]);
            }
            let answer = verbatim.output().context("asking the trail")?;
            let said = String::from_utf8_lossy(&answer.stderr);
            if !answer.status.success() {
                bail!("the trail did not answer: {}\n{said}", answer.status);
            }
            decoded += commands(&String::from_utf8_lossy(&answer.stdout))?;
            cursor = next_page(&said);
            if cursor.is_none() {
                break;
            }
        }
        if decoded < done {
            bail!("{done} commands were done, and {decoded} decoded ones are in the trail");
        }
        Ok(())
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if let Ok(mut rm) = command::as_root("rm") {
            drop(command::quiet(rm.arg("-rf").arg(&self.0)));
        }
    }
}

/// How many commands the sessions had that were decoded, a JSON object a line. One that was not decoded counts as
/// one command, whatever was said in it.
fn commands(sessions: &str) -> Result<f64> {
    let mut commands = 0.0;
    for line in sessions.lines() {
        let session: Value = serde_json::from_str(line).context("a session as JSON")?;
        if session["capture"] == "decoded" {
            commands += session["commands"].as_f64().context("a session says how many commands it had")?;
        }
    }
    Ok(commands)
}

/// Where the next page of sessions begins, where there is one: `verbatim: there is more: --cursor CURSOR`.
fn next_page(said: &str) -> Option<String> {
    said.lines().find_map(|line| Some(line.split_once("--cursor ")?.1.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_all_decoded_sessions_are_counted() {
        let session = |capture: &str, n: u32| format!("{{\"capture\": \"{capture}\", \"commands\": {n}}}\n");
        let sessions = session("decoded", 3) + &session("decoded", 4) + &session("seen-not-decoded", 1);
        assert_eq!(commands(&sessions).unwrap(), 7.0);
        assert_eq!(commands("").unwrap(), 0.0);
        assert!(commands("{\"capture\": \"decoded\"}\n").is_err());
    }

    #[test]
    fn another_page_is_asked_for_where_there_is_one() {
        assert_eq!(next_page("verbatim: there is more: --cursor 01ab\n").as_deref(), Some("01ab"));
        assert_eq!(next_page(""), None);
    }
}
