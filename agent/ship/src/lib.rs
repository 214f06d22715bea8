//! Ships the spool to the collector: on a thread of its own, a stream per shard.
//!
//! Owns connecting, re-connecting and acknowledging. The only part of the agent that knows that there is
//! a network behind the spool; knows nothing of what records say.

mod backoff;
mod health;
mod issued;
mod pump;
mod source;
mod target;

use std::{
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinSet, LocalSet},
};

use health::Health;
pub use issued::{Issued, IssuedError};
pub use source::Source;
pub use target::{Target, TargetError, TlsFiles};

/// Sources that wait to be taken up.
const WAITING: usize = 16;

/// Ships until it is told to finish, or dropped.
#[derive(Debug)]
pub struct Shipper<S> {
    finishing: watch::Sender<bool>,
    more: mpsc::Sender<S>,
    done: oneshot::Receiver<()>,
    give_up: oneshot::Sender<()>,
    connected: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl<S: Source> Shipper<S> {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread, or no runtime on it.
    pub fn start(target: &Target, sources: Vec<S>) -> io::Result<Self> {
        let (finishing, told) = watch::channel(false);
        let (more, coming) = mpsc::channel(WAITING);
        let (finished, done) = oneshot::channel();
        let (give_up, given_up) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let target = target.clone();
        let connected = Arc::new(AtomicBool::new(false));
        let shown = Arc::clone(&connected);
        let work = move || {
            LocalSet::new().block_on(&runtime, async {
                tokio::select! {
                    () = ship(&target, sources, told, coming, shown) => { finished.send(()).ok(); }
                    _ = given_up => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("ship".to_owned()).spawn(work)?;
        Ok(Self { finishing, more, done, give_up, connected, thread })
    }

    /// Ships one more source, to which nothing is added any more: it is dropped once it is drained.
    pub async fn add(&self, source: S) {
        self.adder().add(source).await;
    }

    /// Adds sources from elsewhere.
    #[must_use]
    pub fn adder(&self) -> Adder<S> {
        Adder(self.more.clone())
    }

    /// Whether the collector takes records: it has acknowledged some, and no stream has broken since. For other
    /// threads to read.
    #[must_use]
    pub fn connected(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.connected)
    }

    /// Ships what is left once all chains are closed; says whether the collector has acknowledged
    /// everything before `limit` returned. What it has not stays in the spool.
    pub async fn finish(mut self, limit: impl Future<Output = ()>) -> bool {
        self.finishing.send_replace(true);
        let all = tokio::select! {
            done = &mut self.done => done.is_ok(),
            () = limit => false,
        };
        drop(self.give_up);
        if self.thread.join().is_err() {
            tracing::error!("the shipping thread panicked; what it had not shipped is in the spool");
        }
        all
    }
}

/// See [`Shipper::add`].
#[derive(Clone, Debug)]
pub struct Adder<S>(mpsc::Sender<S>);

impl<S: Source> Adder<S> {
    /// As [`Shipper::add`].
    pub async fn add(&self, source: S) {
        // The thread ends before us only where it panicked, which is said elsewhere.
        self.0.send(source).await.ok();
    }
}

async fn ship<S: Source>(
    target: &Target,
    sources: Vec<S>,
    mut told: watch::Receiver<bool>,
    mut coming: mpsc::Receiver<S>,
    shown: Arc<AtomicBool>,
) {
    let channel = target.channel();
    let health = Rc::new(Health::new(target.to_string(), Arc::clone(&shown)));
    // Sources that came later are complete: their streams end with them.
    let (_complete, complete) = watch::channel(true);
    let mut pumps = JoinSet::new();
    for source in sources {
        pumps.spawn_local(pump::run(source, channel.clone(), told.clone(), Rc::clone(&health)));
    }
    let mut panicked = false;
    loop {
        tokio::select! {
            biased;
            Some(source) = coming.recv() => {
                pumps.spawn_local(pump::run(source, channel.clone(), complete.clone(), Rc::clone(&health)));
            }
            Some(ended) = pumps.join_next() => {
                if ended.is_err() {
                    tracing::error!("shipping a shard's records panicked; they stay in the spool");
                    panicked = true;
                    shown.store(false, Ordering::Relaxed);
                }
            }
            // Both are at their ends, or nothing is to ship at the moment.
            finishing = finish(&mut told), if pumps.is_empty() => {
                if panicked && finishing {
                    // Not finished, and never will be.
                    std::future::pending::<()>().await;
                }
                return;
            }
        }
    }
}

/// `false`: nobody can tell us to finish any more.
async fn finish(told: &mut watch::Receiver<bool>) -> bool {
    told.wait_for(|finishing| *finishing).await.is_ok()
}
