//! Keeps what was learned from refusals on the disk, by a thread that may wait for it.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use verbatim_tls::{RefusalFile, Refusals};

/// Between two looks at whether there is anything new: what is learned just before the agent is killed is lost.
const PAUSE: Duration = Duration::from_millis(250);

/// The thread; it is stopped, and what is left written, by [`Keeper::stop`].
#[derive(Debug)]
pub(crate) struct Keeper {
    refusals: Arc<Refusals>,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Reads the file and starts to keep it. A file that cannot be read costs each client that refuses us one
    /// connection more, and is no reason to stop.
    pub(crate) fn start(path: PathBuf) -> io::Result<Self> {
        let (file, problem) = RefusalFile::open(path);
        if let Some(problem) = problem {
            tracing::error!(%problem, "who has refused our certificates is not known any more");
        }
        let refusals = Arc::clone(file.refusals());
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("refusals".to_owned()).spawn(move || {
            let mut failing = false;
            loop {
                let last = stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout);
                match file.save() {
                    Ok(_) => failing = false,
                    // Said once, tried again each time.
                    Err(_same) if failing && !last => {}
                    Err(problem) => {
                        failing = true;
                        tracing::error!(%problem, "who has refused our certificates is not kept");
                    }
                }
                if last {
                    return;
                }
            }
        })?;
        Ok(Self { refusals, stop, thread })
    }

    /// What is known.
    pub(crate) fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// Writes the last and ends.
    pub(crate) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the thread that keeps refusals panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_known_after_a_restart() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("refusals.json");
        let keeper = Keeper::start(path.clone()).expect("start");
        keeper.refusals().remember("pod/c", "a.example", "unknown_ca");
        keeper.stop();
        let keeper = Keeper::start(path).expect("start");
        let refused = keeper.refusals().refused("pod/c", "a.example").expect("known");
        assert_eq!(refused.alert, "unknown_ca");
        keeper.stop();
    }

    #[test]
    fn a_file_that_is_none_of_ours_counts_as_empty_and_is_replaced() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("refusals.json");
        std::fs::write(&path, "not ours").expect("write");
        let keeper = Keeper::start(path.clone()).expect("start");
        keeper.refusals().remember("w", "s", "eof");
        keeper.stop();
        let keeper = Keeper::start(path).expect("start");
        assert!(keeper.refusals().refused("w", "s").is_some());
        keeper.stop();
    }
}
