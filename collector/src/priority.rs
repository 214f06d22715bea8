//! Giving way to work that must not wait for ours.

use std::{fs, io};

use rustix::process::setpriority_process;

/// Where the kernel weighs whole sessions against each other (sched(7), "The autogroup feature").
const AUTOGROUP: &str = "/proc/self/autogroup";

/// The index follows the log, and can: on a machine that is short of processors, taking in goes first.
pub(crate) const INDEXER: i32 = 19;

/// Beside the workload that is captured, on its own machine: the spool holds what waits meanwhile.
pub const BACKGROUND: i32 = 10;

/// Makes the calling thread, and those that it starts from now on, as nice as this (setpriority(2): -20 to
/// 19, 19 gives way to all others).
pub fn give_way(nice: i32) {
    // On Linux a thread has a niceness of its own, and "0" means the calling one.
    if let Err(error) = setpriority_process(None, nice) {
        tracing::warn!(%error, nice, "cannot give way to other work");
    }
}

/// As [`give_way`], for this session as a whole: where the kernel groups processes by session, it divides
/// processors among sessions first, and the niceness of a thread counts within its own session only.
pub fn give_way_as_a_session(nice: i32) {
    give_way(nice);
    match fs::write(AUTOGROUP, nice.to_string()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, nice, "cannot give way to other sessions");
        }
        Ok(()) | Err(_) => {}
    }
}
