//! Waiting for something to become true. The limit is there so that a broken run ends; no scenario
//! asserts a time.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long anything may take before the run counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Polls until the probe gives a value; its last answer is part of the error.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        let last = match probe() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => "not yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() > PATIENCE {
            bail!("waited {} s for {what}: {last}", PATIENCE.as_secs());
        }
        thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(200));
    }
}
