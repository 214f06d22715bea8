//! Signals and deaths, waited for by threads of their own and told to the runtime.
//!
//! A thread each, because tokio's own way to watch a descriptor is not safe code.

use std::io;

use tokio::sync::{mpsc, oneshot};
use verbatim_sys::{
    process::PidFd,
    signal::{Received, Signals},
};

/// Signals that wait for the runtime; the kernel keeps one of each beyond.
const WAITING: usize = 16;

/// Signals as they come. The thread ends with the process.
pub(crate) fn signals(signals: Signals) -> io::Result<mpsc::Receiver<Received>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        loop {
            match signals.wait() {
                Ok(received) => {
                    if sender.blocking_send(received).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "signals are not heard any more");
                    return;
                }
            }
        }
    })?;
    Ok(receiver)
}

/// Resolves when a process ends. Its thread ends then too.
pub(crate) fn death(process: &PidFd) -> io::Result<oneshot::Receiver<()>> {
    let (sender, receiver) = oneshot::channel();
    let process = process.try_clone()?;
    std::thread::Builder::new().name("death".to_owned()).spawn(move || {
        if process.wait_dead(None).is_ok() {
            sender.send(()).ok();
        }
    })?;
    Ok(receiver)
}
