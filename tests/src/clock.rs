//! A wall clock of a process's own, which a scenario can set. The machine's is never touched, and the clocks
//! that only count (CLOCK_MONOTONIC, CLOCK_BOOTTIME) stay the machine's.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// Debian's and others' places for the library that stands between a program and the clock.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];

/// The library, where it is installed.
#[must_use]
pub fn library() -> Option<&'static str> {
    LIBRARIES.into_iter().find(|path| Path::new(path).is_file())
}

/// The clock of one process and of those that come after it in its place.
#[derive(Clone, Debug)]
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// One that shows the machine's time.
    pub fn create(file: PathBuf) -> Result<Self> {
        let clock = Self { file };
        clock.set(0)?;
        Ok(clock)
    }

    /// Lets it show so many seconds more than the machine's, from now on.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // In one step: it is read at any moment.
        let part = self.file.with_extension("part");
        fs::write(&part, format!("{seconds:+}\n"))
            .and_then(|()| fs::rename(&part, &self.file))
            .with_context(|| format!("cannot write {}", self.file.display()))
    }

    /// Words that stand before a program to give it this clock. The library leaves files in /dev/shm when its
    /// process is killed: so the process gets one of its own, which goes with it.
    pub fn words(&self) -> Result<Vec<OsString>> {
        const OWN_SHM: &str = r#"mount -t tmpfs none /dev/shm && exec "$@""#;
        let library = library().context("libfaketime is not installed")?;
        let mut words: Vec<OsString> =
            ["unshare", "--mount", "--propagation", "slave", "/bin/sh", "-c", OWN_SHM, "clock", "env"]
                .map(Into::into)
                .into();
        words.extend([
            format!("LD_PRELOAD={library}").into(),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()).into(),
            "FAKETIME_NO_CACHE=1".into(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
            // Times of files are what they are.
            "NO_FAKE_STAT=1".into(),
        ]);
        Ok(words)
    }
}
