//! The sign of life by which the kernel knows that the proxy still takes connections.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use aya::maps::{Array, Map, MapData};
use verbatim_sys::clock;

use crate::{SCHEMA_VERSION, SteerError, locking::lock};

/// Gives signs of life.
#[derive(Clone)]
pub struct Heartbeat {
    beat: Arc<Mutex<Array<MapData, u64>>>,
}

impl Heartbeat {
    pub(crate) fn new(beat: Array<MapData, u64>) -> Self {
        Self { beat: Arc::new(Mutex::new(beat)) }
    }

    /// That of a predecessor, where its map is pinned.
    pub(crate) fn pinned(path: &Path) -> Option<Self> {
        let map = MapData::from_pin(path).ok()?;
        Some(Self::new(Array::try_from(Map::Array(map)).ok()?))
    }

    /// That by which programs go that outlive a worker: pinned below this directory, by this version.
    #[must_use]
    pub fn pinned_below(parent: &Path) -> Option<Self> {
        Self::pinned(&parent.join(format!("v{SCHEMA_VERSION}")).join("HB"))
    }

    /// The proxy is alive now.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn beat(&self) -> Result<(), SteerError> {
        self.write(clock::monotonic_nanos())
    }

    fn write(&self, nanos: u64) -> Result<(), SteerError> {
        lock(&self.beat).set(0, nanos, 0).map_err(|error| SteerError::kernel("writing the heartbeat", error))
    }

    /// Since the last sign of life.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn age(&self) -> Result<Duration, SteerError> {
        let last = lock(&self.beat).get(&0, 0);
        let last = last.map_err(|error| SteerError::kernel("reading the heartbeat", error))?;
        Ok(Duration::from_nanos(clock::monotonic_nanos().saturating_sub(last)))
    }

    /// The proxy is dead from now on: every workload's fail mode decides at once, not only after the time-out.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn cease(&self) -> Result<(), SteerError> {
        self.write(0)
    }

    /// Beats in a thread of its own, every 100 ms for as long as `alive` says so, until what is
    /// returned is dropped.
    ///
    /// # Errors
    /// No thread could be made.
    pub fn keep(&self, mut alive: impl FnMut() -> bool + Send + 'static) -> io::Result<HeartbeatThread> {
        let heartbeat = self.clone();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("heartbeat".to_owned()).spawn(move || {
            loop {
                if alive()
                    && let Err(error) = heartbeat.beat()
                {
                    tracing::error!(%error, "heartbeat failed");
                }
                if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
        Ok(HeartbeatThread { stop: Some(stop), thread: Some(thread) })
    }
}

const INTERVAL: Duration = Duration::from_millis(100);

/// Beats until it is dropped.
#[derive(Debug)]
pub struct HeartbeatThread {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for HeartbeatThread {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("heartbeat thread panicked");
        }
    }
}
