//! The proxy as its owner sees it: start, listen, append, drain, count.

use std::{
    io,
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use verbatim_spool::{AppendError, Appended, Draft};

use crate::{
    Builtin, Protocols, ProxyConfig, Records, Stats,
    cancel::Registry,
    chains::Chains,
    known::Known,
    seam::{Dialer, Evidence, Flows, Identities, Observer, Policy, Tls},
    shard::{self, Message},
    stats::Counters,
};

/// Messages that wait for a shard; senders wait when there are as many.
const MESSAGES: usize = 256;

/// What the proxy is given. Shared by all shards.
#[derive(Clone)]
pub struct Deps {
    /// Reads the flow of an accepted socket.
    pub flows: Arc<dyn Flows>,
    /// Makes upstream sockets.
    pub dialer: Arc<dyn Dialer>,
    /// Names workloads.
    pub identities: Arc<dyn Identities>,
    /// Decides.
    pub policy: Arc<dyn Policy>,
    /// Knows whose credentials are.
    pub evidence: Arc<dyn Evidence>,
    /// Watches.
    pub observer: Arc<dyn Observer>,
    /// Ends TLS; `None`: all of it passes as it is.
    pub tls: Option<Arc<Tls>>,
}

/// Why something could not be done with the shards.
#[derive(Debug, thiserror::Error)]
pub enum ShardsError {
    /// No thread for a shard.
    #[error("thread of shard {shard} cannot be started: {source}")]
    Thread {
        /// Which one.
        shard: usize,
        /// Why.
        source: io::Error,
    },
    /// A number that is not a shard's.
    #[error("shard {shard} does not exist: there are {shards}, counted from 0")]
    NoSuchShard {
        /// As given.
        shard: usize,
        /// How many there are.
        shards: usize,
    },
    /// The shard has been drained, or its thread has died.
    #[error("shard {0} is not running any more")]
    Gone(usize),
    /// The listener cannot be watched.
    #[error("listener cannot be handed to shard {shard}: {source}")]
    Listener {
        /// Which shard.
        shard: usize,
        /// Why.
        source: io::Error,
    },
    /// The record was not appended.
    #[error(transparent)]
    Append(#[from] AppendError),
}

struct Handle {
    messages: mpsc::Sender<Message>,
    counters: Arc<Counters>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

/// All shards: a thread each, with its own listeners, connections, chain and spool. Dropping it without
/// [`Shards::drain`] resets what is open, and records it.
pub struct Shards {
    shards: Vec<Handle>,
}

impl Shards {
    /// Starts one shard per spool.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start<R: Records>(config: ProxyConfig, deps: Deps, spools: Vec<R>) -> Result<Self, ShardsError> {
        let protocols = Arc::new(Builtin { limits: config.limits });
        Self::start_with(config, deps, protocols, spools)
    }

    /// As [`Shards::start`], with other protocols than the built-in ones.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start_with<R: Records>(
        config: ProxyConfig,
        deps: Deps,
        protocols: Arc<dyn Protocols>,
        spools: Vec<R>,
    ) -> Result<Self, ShardsError> {
        let channels: Vec<_> = spools.iter().map(|_| mpsc::channel(MESSAGES)).collect();
        let registry = Registry::new(channels.iter().map(|(sender, _)| sender.downgrade()).collect());
        let chains = Arc::new(Chains::default());
        let known = Arc::new(Known::default());
        let mut shards = Vec::with_capacity(spools.len());
        let count = spools.len();
        for (index, (spool, (sender, receiver))) in spools.into_iter().zip(channels).enumerate() {
            let counters = Arc::new(Counters::default());
            counters.alive();
            let parts = shard::Parts {
                index,
                shards: count,
                config: config.clone(),
                deps: deps.clone(),
                protocols: Arc::clone(&protocols),
                registry: Arc::clone(&registry),
                chains: Arc::clone(&chains),
                known: Arc::clone(&known),
                counters: Arc::clone(&counters),
                messages: receiver,
            };
            let thread = thread::Builder::new()
                .name(format!("shard-{index}"))
                .spawn(move || shard::run(parts, spool))
                .map_err(|source| ShardsError::Thread { shard: index, source })?;
            shards.push(Handle { messages: sender, counters, thread: Mutex::new(Some(thread)) });
        }
        Ok(Self { shards })
    }

    /// How many shards there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shards.len()
    }

    /// Hands a listening socket to a shard, which accepts from it from then on. Every shard has a socket
    /// of its own in the SO_REUSEPORT group.
    ///
    /// # Errors
    /// When there is no such shard any more, or the socket cannot be watched.
    pub async fn listen(
        &self,
        shard: usize,
        listener: TcpListener,
        netns_cookie: u64,
    ) -> Result<(), ShardsError> {
        let (done, outcome) = oneshot::channel();
        self.send(shard, Message::Listen { listener, netns_cookie, done }).await?;
        let outcome = outcome.await.map_err(|_gone| ShardsError::Gone(shard))?;
        outcome.map_err(|source| ShardsError::Listener { shard, source })
    }

    /// Closes a namespace's listeners on all shards; what was accepted goes on. Returns when they are
    /// closed.
    ///
    /// # Errors
    /// When a shard is not running any more: its listeners are closed.
    pub async fn stop_listening(&self, netns_cookie: u64) -> Result<(), ShardsError> {
        for shard in 0..self.shards.len() {
            let (done, closed) = oneshot::channel();
            self.send(shard, Message::StopListening { netns_cookie, done }).await?;
            closed.await.map_err(|_gone| ShardsError::Gone(shard))?;
        }
        Ok(())
    }

    /// Closes all listeners on all shards; what was accepted goes on. Who has duplicates of them accepts from
    /// then on. Returns when they are closed.
    ///
    /// # Errors
    /// When a shard is not running any more: its listeners are closed.
    pub async fn stop_accepting(&self) -> Result<(), ShardsError> {
        for shard in 0..self.shards.len() {
            let (done, closed) = oneshot::channel();
            self.send(shard, Message::StopAccepting { done }).await?;
            closed.await.map_err(|_gone| ShardsError::Gone(shard))?;
        }
        Ok(())
    }

    /// Appends a record of the agent's own (heartbeat, coverage) to a shard's chain. Waits for room. A caller that
    /// drops the future gives the record up, unless it was being appended at that moment.
    ///
    /// # Errors
    /// When there is no such shard any more, or the spool sheds.
    pub async fn append(&self, shard: usize, draft: Draft) -> Result<Appended, ShardsError> {
        self.hand(shard, draft, false).await?.await
    }

    /// As [`Shards::append`]; but once this has returned, the record is appended as soon as there is room, whether or
    /// not anybody waits for what it returns. What still has no room when the shards are drained is lost.
    ///
    /// # Errors
    /// When there is no such shard any more; what it returns, also when the spool sheds.
    pub async fn entrust(
        &self,
        shard: usize,
        draft: Draft,
    ) -> Result<impl Future<Output = Result<Appended, ShardsError>> + use<>, ShardsError> {
        self.hand(shard, draft, true).await
    }

    async fn hand(
        &self,
        shard: usize,
        draft: Draft,
        entrusted: bool,
    ) -> Result<impl Future<Output = Result<Appended, ShardsError>> + use<>, ShardsError> {
        let (done, appended) = oneshot::channel();
        self.send(shard, Message::Append { draft: Box::new(draft), entrusted, done }).await?;
        Ok(async move { Ok(appended.await.map_err(|_gone| ShardsError::Gone(shard))??) })
    }

    /// Stops accepting, lets connections end until the deadline, then resets and records what is left,
    /// closes the chains and ends the threads.
    pub async fn drain(&self, deadline: Duration) {
        let mut drained = Vec::new();
        for (index, shard) in self.shards.iter().enumerate() {
            let (done, ended) = oneshot::channel();
            if shard.messages.send(Message::Drain { deadline, done }).await.is_ok() {
                drained.push((index, ended));
            }
        }
        for (index, ended) in drained {
            if ended.await.is_err() {
                tracing::error!(shard = index, "shard ended without draining");
            }
        }
        for (index, shard) in self.shards.iter().enumerate() {
            let thread = shard.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if thread.is_some_and(|thread| thread.join().is_err()) {
                tracing::error!(shard = index, "shard panicked");
            }
        }
    }

    /// Sum of all shards' counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for shard in &self.shards {
            shard.counters.add_to(&mut stats);
        }
        stats
    }

    /// How long the shard has been silent that has been so for the longest: its thread gives a sign of life ten
    /// times a second, unless something keeps it from turning. Grows without end once the shards are drained.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.shards.iter().map(|shard| shard.counters.silence()).max().unwrap_or_default()
    }

    async fn send(&self, shard: usize, message: Message) -> Result<(), ShardsError> {
        let shards = self.shards.len();
        let handle = self.shards.get(shard).ok_or(ShardsError::NoSuchShard { shard, shards })?;
        handle.messages.send(message).await.map_err(|_closed| ShardsError::Gone(shard))
    }
}
