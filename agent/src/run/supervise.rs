//! Waiting for the command, and what signals to the agent mean meanwhile.
//!
//! A terminal's keys reach the command by themselves; whoever signals the agent means the command.

use std::{
    io,
    process::{Child, ExitStatus},
    time::Duration,
};

use tokio::{sync::mpsc, time::sleep};
use verbatim_sys::{
    cgroup::Cgroup,
    process::PidFd,
    signal::{Received, SIGHUP, SIGTERM, Signals},
};

use super::collector::Collector;
use crate::waiting;

/// How long the command may take to end after SIGTERM or SIGHUP.
const GRACE: Duration = Duration::from_secs(10);

/// Takes the agent's signals.
#[derive(Debug)]
pub(crate) struct Supervisor {
    signals: mpsc::Receiver<Received>,
}

impl Supervisor {
    /// Starts to hear them.
    pub(crate) fn new(signals: Signals) -> io::Result<Self> {
        Ok(Self { signals: waiting::signals(signals)? })
    }

    /// A signal that came before there was a command: whoever sent it wants none.
    pub(crate) fn earlier(&mut self) -> Option<i32> {
        self.signals.try_recv().ok().map(|received| received.signal)
    }

    /// Waits for the command's end. SIGINT and SIGQUIT of the agent's own are handed on; SIGTERM and
    /// SIGHUP too, and after a time, or a second one, everything in the cgroup is killed.
    pub(crate) async fn wait(&mut self, mut child: Child, workload: &Cgroup) -> io::Result<ExitStatus> {
        let command = PidFd::open(child.id())?;
        let mut death = waiting::death(&command)?;
        let mut ending = false;
        let kill = || {
            if let Err(error) = workload.kill() {
                tracing::error!(%error, "the command cannot be killed");
            }
        };
        let too_late = sleep(Duration::MAX);
        tokio::pin!(too_late);
        loop {
            tokio::select! {
                // If the thread failed, the wait blocks until the command has ended: signals are not heard.
                _ = &mut death => return child.wait(),
                Some(Received { signal, by_terminal }) = self.signals.recv() => {
                    tracing::info!(signal, by_terminal, "signal");
                    if by_terminal {
                        continue;
                    }
                    let ends = signal == SIGTERM || signal == SIGHUP;
                    if ends && ending {
                        kill();
                        continue;
                    }
                    // Dead meanwhile: then the next turn ends.
                    command.signal(signal).ok();
                    if ends {
                        ending = true;
                        too_late.as_mut().reset(tokio::time::Instant::now() + GRACE);
                    }
                }
                () = &mut too_late, if ending => {
                    tracing::warn!("the command did not end in time and is killed");
                    kill();
                    too_late.as_mut().reset(tokio::time::Instant::now() + GRACE);
                }
            }
        }
    }

    /// Returns when there is no use in waiting for the collector any more: after `limit`, upon a signal,
    /// or when our own collector is dead.
    pub(crate) async fn limit(&mut self, limit: Duration, collector: Option<&Collector>) {
        let death = collector.and_then(|collector| waiting::death(collector.pidfd()).ok());
        let dead = async {
            let died = match death {
                Some(death) => death.await.is_ok(),
                None => false,
            };
            if !died {
                std::future::pending().await
            }
        };
        // What came while the command was ending meant the command.
        while self.signals.try_recv().is_ok() {}
        tokio::select! {
            () = sleep(limit) => {}
            () = dead => {}
            Some(_) = self.signals.recv() => {}
        }
    }
}
