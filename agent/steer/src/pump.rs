//! The thread that empties the programs' ring buffers: events into a channel, messages to `tracing`.
//!
//! A pinned ring buffer has one reader at a time: a predecessor pauses before its successor begins.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use aya::maps::{Map, MapData, RingBuf};
use aya_log::EbpfLogger;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::{Event, SteerError, kernel_log::KernelLog, locking::lock};

/// Events that wait for a reader; what comes on top is counted and dropped.
const WAITING_EVENTS: usize = 1024;
/// How long it sleeps at most, should the kernel not wake it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Pump {
    orders: Arc<Orders>,
    unread: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told, and whether it does it.
#[derive(Debug)]
struct Orders {
    /// Rung when the order changes.
    bell: OwnedFd,
    state: Mutex<(Order, bool)>,
    done: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Read,
    Pause,
    Stop,
}

impl Orders {
    /// To read.
    fn new() -> std::io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { bell, state: Mutex::new((Order::Read, true)), done: Condvar::new() })
    }

    fn give(&self, order: Order) {
        *lock(&self.state) = (order, false);
        if let Err(error) = rustix::io::write(&self.bell, &1_u64.to_ne_bytes()) {
            tracing::error!(%error, "events' thread cannot be told anything");
        }
    }

    fn current(&self) -> Order {
        lock(&self.state).0
    }

    /// The thread does as it was told, unless it has been told something else meanwhile.
    fn is_done(&self, order: Order) {
        let mut state = lock(&self.state);
        if state.0 == order {
            state.1 = true;
            self.done.notify_all();
        }
    }

    fn wait_done(&self) {
        let state = lock(&self.state);
        let waited = self.done.wait_timeout_while(state, PATIENCE * 4, |(_, done)| !*done);
        if waited.is_ok_and(|(_, waited)| waited.timed_out()) {
            tracing::error!("events' thread does not do as it was told");
        }
    }
}

impl Pump {
    /// Starts the thread. `logs` is `None` where the programs log nothing; `pinned` is where the events are
    /// found again after a pause.
    pub(crate) fn start(
        events: RingBuf<MapData>,
        logs: Option<EbpfLogger<KernelLog>>,
        pinned: Option<PathBuf>,
    ) -> Result<(Self, Receiver<Event>), SteerError> {
        let failed = |error: std::io::Error| SteerError::io("starting the events' thread", error);
        let orders = Arc::new(Orders::new().map_err(failed)?);
        let unread = Arc::new(AtomicU64::new(0));
        let (sender, receiver) = sync_channel(WAITING_EVENTS);
        let events = Some(events);
        let (told, counted) = (Arc::clone(&orders), Arc::clone(&unread));
        let work = Work { orders: told, unread: counted, events, logs, sender, pinned };
        let thread =
            thread::Builder::new().name("ebpf-events".to_owned()).spawn(|| work.run()).map_err(failed)?;
        Ok((Self { orders, unread, thread: Some(thread) }, receiver))
    }

    /// Reads no more events until [`Self::go_on`]: another process does. When it returns, that may begin.
    pub(crate) fn pause(&self) {
        self.orders.give(Order::Pause);
        self.orders.wait_done();
    }

    /// Reads events again.
    pub(crate) fn go_on(&self) {
        self.orders.give(Order::Read);
        self.orders.wait_done();
    }

    /// Events dropped because nobody read.
    pub(crate) fn unread(&self) -> u64 {
        self.unread.load(Ordering::Relaxed)
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.orders.give(Order::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("events' thread panicked");
        }
    }
}

struct Work {
    orders: Arc<Orders>,
    unread: Arc<AtomicU64>,
    /// `None` while another process reads.
    events: Option<RingBuf<MapData>>,
    logs: Option<EbpfLogger<KernelLog>>,
    sender: SyncSender<Event>,
    pinned: Option<PathBuf>,
}

impl Work {
    fn run(mut self) {
        loop {
            self.wait();
            self.drain();
            let order = self.orders.current();
            match order {
                Order::Stop => return,
                Order::Pause => self.events = None,
                Order::Read if self.events.is_none() => self.reopen(),
                Order::Read => {}
            }
            self.orders.is_done(order);
        }
    }

    /// Whoever read meanwhile has left the place where reading goes on with the buffer.
    fn reopen(&mut self) {
        let opened = self.pinned.as_ref().map(|path| MapData::from_pin(path).map(Map::RingBuf));
        match opened.map(|map| map.and_then(RingBuf::try_from)) {
            Some(Ok(events)) => self.events = Some(events),
            Some(Err(error)) => tracing::error!(%error, "the kernel's events are not read any more"),
            None => tracing::error!("the kernel's events are not pinned, and not read any more"),
        }
    }

    /// Waits for something to read, or for an order.
    fn wait(&self) {
        let mut fds = vec![PollFd::new(&self.orders.bell, PollFlags::IN)];
        let events = self.events.as_ref().map(AsFd::as_fd);
        let logs = self.logs.as_ref().map(AsFd::as_fd);
        fds.extend(events.into_iter().chain(logs).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let patience = Timespec { tv_sec: 0, tv_nsec: i64::from(PATIENCE.subsec_nanos()) };
        match poll(&mut fds, Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "waiting for events failed");
                thread::sleep(PATIENCE);
            }
        }
        // An empty one says `WouldBlock`.
        rustix::io::read(&self.orders.bell, &mut [0; 8]).ok();
    }

    fn drain(&mut self) {
        while let Some(item) = self.events.as_mut().and_then(RingBuf::next) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_comes_while_another_is_carried_out_is_not_done_with_it() {
        let orders = Orders::new().unwrap();
        let carried_out = orders.current();
        orders.give(Order::Pause);
        orders.is_done(carried_out);
        assert!(!lock(&orders.state).1, "whoever paused would believe that nobody reads any more");
        orders.is_done(orders.current());
        assert!(lock(&orders.state).1);
    }
}
