//! The thread that empties the programs' ring buffers: events into a channel, messages to `tracing`.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::{Event, SteerError, kernel_log::KernelLog};

/// Events that wait for a reader; what comes on top is counted and dropped.
const WAITING_EVENTS: usize = 1024;
/// How long it sleeps at most, should the kernel not wake it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Pump {
    stop: Arc<OwnedFd>,
    unread: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    /// Starts the thread. `logs` is `None` where the programs log nothing.
    pub(crate) fn start(
        events: RingBuf<MapData>,
        logs: Option<EbpfLogger<KernelLog>>,
    ) -> Result<(Self, Receiver<Event>), SteerError> {
        let failed = |error: std::io::Error| SteerError::io("starting the events' thread", error);
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?);
        let unread = Arc::new(AtomicU64::new(0));
        let (sender, receiver) = sync_channel(WAITING_EVENTS);
        let work = Work { stop: Arc::clone(&stop), unread: Arc::clone(&unread), events, logs, sender };
        let thread =
            thread::Builder::new().name("ebpf-events".to_owned()).spawn(|| work.run()).map_err(failed)?;
        Ok((Self { stop, unread, thread: Some(thread) }, receiver))
    }

    /// Events dropped because nobody read.
    pub(crate) fn unread(&self) -> u64 {
        self.unread.load(Ordering::Relaxed)
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        if let Err(error) = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes()) {
            tracing::error!(%error, "events' thread cannot be told to stop");
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("events' thread panicked");
        }
    }
}

struct Work {
    stop: Arc<OwnedFd>,
    unread: Arc<AtomicU64>,
    events: RingBuf<MapData>,
    logs: Option<EbpfLogger<KernelLog>>,
    sender: SyncSender<Event>,
}

impl Work {
    fn run(mut self) {
        while !self.wait() {
            self.drain();
        }
        self.drain();
    }

    /// Waits for something to read; says whether it is time to stop.
    fn wait(&self) -> bool {
        let mut fds = vec![
            PollFd::new(&*self.stop, PollFlags::IN),
            PollFd::from_borrowed_fd(self.events.as_fd(), PollFlags::IN),
        ];
        fds.extend(self.logs.as_ref().map(|logs| PollFd::from_borrowed_fd(logs.as_fd(), PollFlags::IN)));
        let patience = Timespec { tv_sec: 0, tv_nsec: i64::from(PATIENCE.subsec_nanos()) };
        match poll(&mut fds, Some(&patience)) {
            Ok(_) => !fds[0].revents().is_empty(),
            Err(rustix::io::Errno::INTR) => false,
            Err(error) => {
                tracing::error!(%error, "waiting for events failed");
                thread::sleep(PATIENCE);
                false
            }
        }
    }

    fn drain(&mut self) {
        while let Some(item) = self.events.next() {
            let Some(event) = Event::parse(&item) else {
                tracing::error!(bytes = item.len(), "event of an unknown version");
                continue;
            };
            match self.sender.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                    self.unread.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        if let Some(logs) = &mut self.logs {
            logs.flush();
        }
    }
}
