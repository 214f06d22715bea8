//! Tidies up when the harness dies half-way.
//!
//! A process of its own (`lab-helper reap`) reads from a pipe what there is to undo. The pipe ends when
//! the harness does, however it does: then everything that was not released is undone, the newest first.

use std::os::unix::process::CommandExt as _;
use std::{
    io::{self, BufRead, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

use anyhow::{Context as _, Result};

use crate::{binaries, undo::Leftover};

/// Lives as long as the harness's process: its death is the end of the pipe.
struct Reaper {
    pipe: ChildStdin,
    _process: Child,
}

fn reaper() -> Result<&'static Mutex<Reaper>> {
    static REAPER: OnceLock<Mutex<Reaper>> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reaper) = REAPER.get() {
        return Ok(reaper);
    }
    let helper = binaries::find("lab-helper")?;
    let mut process = Command::new(&helper)
        .arg("reap")
        .stdin(Stdio::piped())
        // Ctrl-C on the terminal reaches the foreground's process group: this one has to outlive it.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", helper.display()))?;
    let pipe = process.stdin.take().context("the reaper has no standard input")?;
    Ok(REAPER.get_or_init(|| Mutex::new(Reaper { pipe, _process: process })))
}

fn tell(sign: char, leftover: &Leftover) -> Result<()> {
    let mut reaper = reaper()?.lock().unwrap_or_else(PoisonError::into_inner);
    reaper
        .pipe
        .write_all(format!("{sign}{}\n", leftover.line()).as_bytes())
        .context("the reaper is gone: nothing would tidy up")
}

/// Something that is undone when this value is dropped, or by the reaper when it never is.
#[derive(Debug)]
pub struct Guard(Leftover);

impl Guard {
    /// To be called before the thing is made, so that there is no moment in which it would be lost.
    pub fn new(leftover: Leftover) -> Result<Self> {
        tell('+', &leftover)?;
        Ok(Self(leftover))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // What could not be undone stays with the reaper, which tries again at the end.
        if self.0.undo().is_ok() {
            drop(tell('-', &self.0));
        }
    }
}

/// The reaper's own side: reads until the pipe ends, then undoes what is left. Returns what it could not.
pub fn reap(input: impl BufRead) -> Vec<(Leftover, io::Error)> {
    let mut open: Vec<Leftover> = Vec::new();
    for line in input.lines() {
        let Ok(line) = line else { break };
        if let Some(leftover) = line.strip_prefix('+').and_then(Leftover::parse) {
            open.push(leftover);
        } else if let Some(leftover) = line.strip_prefix('-').and_then(Leftover::parse) {
            open.retain(|other| *other != leftover);
        }
    }
    // Disks first: what waits for one that stands still cannot be killed. Then cgroups: what runs in a
    // namespace or a folder must have ended before that can go.
    let (disks, others): (Vec<_>, Vec<_>) =
        open.into_iter().rev().partition(|leftover| matches!(leftover, Leftover::Mount(_)));
    let (cgroups, others): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|leftover| matches!(leftover, Leftover::Cgroup(_)));
    // All of them before any is removed, and twice: one's processes may just be making another's.
    for cgroup in cgroups.iter().chain(&cgroups) {
        cgroup.stop();
    }
    disks
        .into_iter()
        .chain(cgroups)
        .chain(others)
        .filter_map(|leftover| leftover.undo().err().map(|error| (leftover, error)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Leftover, reap};

    #[test]
    fn what_was_not_released_is_undone_at_the_end_of_the_pipe() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        let gone = folder.path().join("gone");
        std::fs::create_dir(&kept).unwrap();
        std::fs::create_dir_all(gone.join("deep/er")).unwrap();
        let line = |path: &std::path::Path| Leftover::Folder(path.display().to_string()).line();
        let input = format!("+{}\n+{}\n-{}\n", line(&kept), line(&gone), line(&kept));
        assert!(reap(input.as_bytes()).is_empty());
        assert!(kept.exists());
        assert!(!gone.exists());
    }
}
