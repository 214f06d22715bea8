//! The watcher of one run: a process of its own that tidies up when the agent was killed.
//!
//! Made before the agent's first thread. It sleeps on the agent's pidfd; the agent says by a pipe that it
//! has tidied up itself. It knows everything by name beforehand, so that no message can be missed.

use std::{
    io::{self, PipeReader, PipeWriter, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use verbatim_sys::{
    cgroup::Cgroup,
    process::{self, Forked, PidFd},
};

use super::{folders, trail};

/// How long the collector may take to write what it has, once the agent is dead.
const COLLECTOR_LIMIT: Duration = Duration::from_secs(5);
/// How long the killed may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// What it must not leave behind.
#[derive(Clone, Debug)]
pub(crate) struct Traces {
    /// The run's cgroup.
    pub(crate) cgroup: PathBuf,
    /// Its private folder.
    pub(crate) private: PathBuf,
    /// The folder with what the command is to trust.
    pub(crate) trust: Option<PathBuf>,
    /// Where the folder that is kept was mounted for the agent, whose mount has ended with it.
    pub(crate) place: Option<PathBuf>,
    /// What of the private folder stays: records that nobody else has.
    pub(crate) keep: Option<PathBuf>,
}

/// The agent's end.
#[derive(Debug)]
pub(crate) struct Watcher {
    process: Option<Forked>,
    done: PipeWriter,
}

impl Watcher {
    /// Starts it. Must be called before any thread is started.
    pub(crate) fn start(traces: Traces) -> io::Result<Self> {
        let agent = PidFd::own()?;
        let (told, done) = io::pipe()?;
        let process = process::fork(move || watch(&agent, &told, &traces))?;
        Ok(Self { process: Some(process), done })
    }
}

impl Drop for Watcher {
    /// Everything is tidied up: it need not.
    fn drop(&mut self) {
        let told = self.done.write_all(b".");
        if let Some(process) = self.process.take()
            && told.and_then(|()| process.wait()).is_err()
        {
            tracing::debug!("the watcher has gone before");
        }
    }
}

fn watch(agent: &PidFd, told: &PipeReader, traces: &Traces) -> u8 {
    // Nobody is to wait for the ends of our standard streams. Errors still go to the person.
    process::close_standard_streams().ok();
    // The pipe's other end is in this process too: only a byte, or the agent's death, ends the sleep.
    if process::wait_either(told.as_fd(), agent.as_fd()).is_ok_and(|which| which == process::Either::First) {
        return 0;
    }
    tidy(traces);
    0
}

fn tidy(traces: &Traces) {
    let ended = end_all(&traces.cgroup);
    folders::remove(&traces.private, traces.keep.as_deref());
    if let Some(place) = &traces.place {
        trail::leave(place);
    }
    if let Some(trust) = &traces.trust {
        folders::remove(trust, None);
    }
    let mut message = "verbatim-agent: killed; the command was ended with it".to_owned();
    match ended {
        Ok(()) => message.push_str(", and nothing is left behind\n"),
        Err(error) => {
            let cgroup = traces.cgroup.display();
            message.push_str(&format!(", but the cgroup {cgroup} could not be removed: {error}\n"));
        }
    }
    if let Some(keep) = traces.keep.as_deref().filter(|keep| keep.exists()) {
        let shown = keep.display();
        message.push_str(&format!("verbatim-agent: records that may not have been sent are in {shown}\n"));
    }
    // Nobody may be there to read it.
    io::stderr().write_all(message.as_bytes()).ok();
}

/// The command at once; the collector, which was told by its parent's death, gets a moment.
fn end_all(root: &Path) -> io::Result<()> {
    let root = Cgroup::at(root);
    let workload = Cgroup::at(root.path().join("workload"));
    workload.kill()?;
    workload.wait_empty(KILL_LIMIT)?;
    let agent = Cgroup::at(root.path().join("agent"));
    if !agent.wait_empty(COLLECTOR_LIMIT)? {
        root.kill()?;
        root.wait_empty(KILL_LIMIT)?;
    }
    root.remove()
}
