//! The collector beside one run: started, waited for, ended.

use std::{
    fs::File,
    io::{self, PipeReader, Read},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use verbatim_sys::{
    process::{self, PidFd},
    signal,
};

use super::folders::Folders;

/// How long it may take to open its store.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to close it.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// What is shown of its log when it does not start.
const LOG_TAIL_BYTES: usize = 2000;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectorError {
    /// No program.
    #[error(
        "the collector's program is not at {0}: install `verbatim-collector` beside `verbatim-agent`, name it \
         by --collector-bin, or name a running collector by --collector"
    )]
    Missing(PathBuf),
    /// Not started.
    #[error("cannot start the collector {program}: {source}")]
    Start {
        /// Its program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Started, but not ready.
    #[error("the collector {program} {what}; it says:\n{said}")]
    NotReady {
        /// Its program.
        program: PathBuf,
        /// How it failed.
        what: &'static str,
        /// The end of its log.
        said: String,
    },
}

/// A running one. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Collector {
    child: Child,
    pidfd: PidFd,
    /// Stays open: the collector may write its line in parts.
    ready: PipeReader,
}

/// The given program, or the one beside our own.
pub(crate) fn program(given: Option<&Path>) -> Result<PathBuf, CollectorError> {
    let program = match given {
        // It is started in another folder.
        Some(given) => std::path::absolute(given).unwrap_or_else(|_unknown| given.to_owned()),
        None => {
            let own = std::env::current_exe().unwrap_or_default();
            own.with_file_name("verbatim-collector")
        }
    };
    if program.is_file() { Ok(program) } else { Err(CollectorError::Missing(program)) }
}

impl Collector {
    /// Starts one and waits until it takes records. Blocks.
    pub(crate) fn start(program: &Path, folders: &Folders, refuse: &Path) -> Result<Self, CollectorError> {
        let failed = |source| CollectorError::Start { program: program.to_owned(), source };
        let log = File::options().create(true).append(true).mode(0o600).open(folders.collector_log());
        let log = log.map_err(failed)?;
        let (ready, tell) = io::pipe().map_err(failed)?;
        let mut command = Command::new(program);
        command
            .arg("serve")
            .arg("--data")
            .arg(folders.store())
            .arg("--ingest")
            .arg(address(&folders.ingest()))
            .arg("--audit")
            .arg(address(&folders.audit()))
            .arg("--refuse-cgroup")
            .arg(refuse)
            .arg("--ready-fd")
            .arg(tell.as_raw_fd().to_string())
            // The command and its capture go first on this machine; the spool holds what waits.
            .arg("--background")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .current_dir("/");
        process::detach(&mut command, Some(tell.as_fd()));
        let mut child = command.spawn().map_err(failed)?;
        drop((command, tell));
        let pidfd = PidFd::open(child.id()).map_err(|source| {
            child.kill().ok();
            child.wait().ok();
            failed(source)
        })?;
        let mut collector = Self { child, pidfd, ready };
        let what = match process::wait_readable(collector.ready.as_fd(), Some(START_LIMIT)) {
            Ok(true) => match collector.ready.read(&mut [0; 16]) {
                Ok(1..) => return Ok(collector),
                _ => "ended instead of taking records",
            },
            _ => "was not ready after a minute",
        };
        drop(collector);
        let said = tail(&folders.collector_log());
        Err(CollectorError::NotReady { program: program.to_owned(), what, said })
    }

    /// Has it wait for everything else on this machine: what is recorded is safe in the spool. Where the kernel does
    /// not weigh sessions against each other, it stays as nice as it is.
    pub(crate) fn step_back(&self) {
        self.weigh(19);
    }

    /// Has it take in what has waited.
    pub(crate) fn catch_up(&self) {
        self.weigh(0);
    }

    /// The niceness of its session (sched(7), "The autogroup feature").
    fn weigh(&self, nice: i32) {
        match std::fs::write(format!("/proc/{}/autogroup", self.child.id()), nice.to_string()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, nice, "the collector is not weighed against other sessions");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Becomes readable when it ends.
    pub(crate) fn pidfd(&self) -> &PidFd {
        &self.pidfd
    }
}

impl Drop for Collector {
    /// Asks it to end, and makes it.
    fn drop(&mut self) {
        self.pidfd.signal(signal::SIGTERM).ok();
        if !self.pidfd.wait_dead(Some(STOP_LIMIT)).unwrap_or(false) {
            tracing::warn!("the collector did not end in time and is killed; what it acknowledged is safe");
            self.child.kill().ok();
        }
        match self.child.wait() {
            Ok(status) if !status.success() => tracing::warn!(%status, "the collector did not end well"),
            _ => {}
        }
    }
}

fn address(path: &Path) -> String {
    format!("unix:{}", path.display())
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let start = text.len().saturating_sub(LOG_TAIL_BYTES);
    let tail = String::from_utf8_lossy(text.get(start..).unwrap_or_default()).into_owned();
    if tail.trim().is_empty() { "nothing".to_owned() } else { tail.trim_end().to_owned() }
}
