//! Ships the spool to the collector: on a thread of its own, a stream per shard.
//!
//! Owns connecting, re-connecting and acknowledging. The only part of the agent that knows that there is
//! a network behind the spool; knows nothing of what records say.

mod backoff;
mod health;
mod pump;
mod source;
mod target;

use std::{io, rc::Rc, thread::JoinHandle};

use tokio::{
    sync::{oneshot, watch},
    task::LocalSet,
};

use health::Health;
pub use source::Source;
pub use target::{Target, TargetError, TlsFiles};

/// Ships until it is told to finish, or dropped.
#[derive(Debug)]
pub struct Shipper {
    finishing: watch::Sender<bool>,
    done: oneshot::Receiver<()>,
    give_up: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Shipper {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread, or no runtime on it.
    pub fn start<S: Source>(target: &Target, sources: Vec<S>) -> io::Result<Self> {
        let (finishing, told) = watch::channel(false);
        let (finished, done) = oneshot::channel();
        let (give_up, given_up) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let target = target.clone();
        let work = move || {
            LocalSet::new().block_on(&runtime, async {
                tokio::select! {
                    () = ship(&target, sources, told) => { finished.send(()).ok(); }
                    _ = given_up => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("ship".to_owned()).spawn(work)?;
        Ok(Self { finishing, done, give_up, thread })
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

async fn ship<S: Source>(target: &Target, sources: Vec<S>, told: watch::Receiver<bool>) {
    let channel = target.channel();
    let health = Rc::new(Health::new(target.to_string()));
    let pumps: Vec<_> = sources
        .into_iter()
        .map(|source| {
            tokio::task::spawn_local(pump::run(source, channel.clone(), told.clone(), Rc::clone(&health)))
        })
        .collect();
    for pump in pumps {
        if pump.await.is_err() {
            tracing::error!("shipping a shard's records panicked; they stay in the spool");
            // Not finished, and never will be.
            std::future::pending::<()>().await;
        }
    }
}
