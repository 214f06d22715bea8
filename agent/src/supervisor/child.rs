//! The worker as the supervisor sees it: a process, a socket to it, and when to start the next one.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::{Child as Process, Command, ExitStatus},
    time::{Duration, Instant},
};

use verbatim_agent_config::LogFormat;
use verbatim_sys::{packets::Packets, process, process::PidFd, signal::SIGKILL};

use crate::cli::ServeArgs;

/// What one end may keep the other waiting.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// A worker that lived this long did not die of what it was started with.
const WELL: Duration = Duration::from_secs(5);
/// Between the deaths of a worker that had steered and its successor's start: far below the heartbeat's time-out.
const SOON: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400)];
/// The same where it never came to steer.
const LATER: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(30);

/// A running worker. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: Process,
    pub(crate) pidfd: PidFd,
    pub(crate) socket: Packets,
    pub(crate) ready: bool,
    started: Instant,
}

impl Child {
    /// Starts the same program as a worker. It is killed with us.
    pub(crate) fn start(args: &ServeArgs) -> io::Result<Self> {
        let (socket, theirs) = Packets::pair()?;
        socket.set_patience(PATIENCE)?;
        // The one that runs, also where its file was replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg("serve-worker").arg("--config").arg(&args.config);
        if let Some(level) = &args.log {
            command.args(["--log", level]);
        }
        if let Some(format) = args.log_format {
            let format = if format == LogFormat::Json { "json" } else { "text" };
            command.args(["--log-format", format]);
        }
        command.stdin(OwnedFd::from(theirs));
        process::tie(&mut command);
        let process = command.spawn()?;
        let pidfd = PidFd::open(process.id())?;
        Ok(Self { process, pidfd, socket, ready: false, started: Instant::now() })
    }

    pub(crate) fn signal(&self, signal: i32) {
        if let Err(error) = self.pidfd.signal(signal) {
            tracing::debug!(%error, signal, "the worker has ended before");
        }
    }

    /// How it ended, once it has.
    pub(crate) fn reap(&mut self) -> io::Result<ExitStatus> {
        self.process.wait()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.pidfd.signal(SIGKILL).ok();
        self.process.wait().ok();
    }
}

/// When to start the next worker.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    deaths: u32,
    failures: u32,
}

impl Restarts {
    /// After a death: how long to wait.
    pub(crate) fn after(&mut self, dead: &Child) -> Duration {
        self.next(dead.ready, dead.started.elapsed())
    }

    fn next(&mut self, was_ready: bool, lived: Duration) -> Duration {
        if !was_ready {
            let wait = LATER.saturating_mul(1 << self.failures.min(5)).min(LATEST);
            self.failures += 1;
            return wait;
        }
        self.failures = 0;
        self.deaths = if lived >= WELL { 0 } else { self.deaths.saturating_add(1) };
        // The first of several brief lives is no pattern yet.
        let at = usize::try_from(self.deaths.saturating_sub(1)).unwrap_or(usize::MAX).min(SOON.len() - 1);
        SOON.get(at).copied().unwrap_or(LATER)
    }
}

/// As a shell says how a process ended.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_had_steered_comes_back_soon_and_one_that_never_did_ever_later() {
        let mut restarts = Restarts::default();
        let lived = Duration::from_secs(60);
        for _ in 0..3 {
            assert_eq!(restarts.next(true, lived), Duration::ZERO);
        }
        let brief: Vec<_> = (0..6).map(|_| restarts.next(true, Duration::from_secs(1)).as_millis()).collect();
        assert_eq!(brief, [0, 100, 200, 400, 400, 400]);
        let failing: Vec<_> = (0..7).map(|_| restarts.next(false, Duration::ZERO).as_secs()).collect();
        assert_eq!(failing, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(restarts.next(true, lived), Duration::ZERO);
    }
}
