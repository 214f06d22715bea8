//! The worker of `run` and `serve`: spool, steering, shards and shipping, put together once.
//!
//! Owns the order in which they start and end. Knows no command line and no configuration file; who a
//! workload is, and what is decided, it is given.

mod coverage;
mod events;
pub(crate) mod journal;
mod strays;
mod vitals;

use std::{io, sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use verbatim_api::v1::CoverageEvent;
use verbatim_proxy::{
    Deps, ProxyConfig, Shards, ShardsError, Stats,
    seam::{Identities, Observer, Policy, Tls},
};
use verbatim_spool::{Gauge, OpenError, Outbox, SpoolConfig};
use verbatim_steer::{
    CgroupVerdict, DestinationRule, HeartbeatThread, NamespaceListeners, SteerConfig, SteerError, Steering,
};

use self::coverage::Accounts;
use crate::adapters::{NamespaceDialer, SteeredFlows};
use verbatim_ship::{Shipper, Target};

use vitals::Pulse;
pub(crate) use vitals::Vitals;

/// Last words of the kernel's events.
const EVENTS_LIMIT: Duration = Duration::from_secs(2);

/// What a worker is to do.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How to steer; its shards are the worker's.
    pub(crate) steer: SteerConfig,
    /// Which destinations.
    pub(crate) destinations: Vec<DestinationRule>,
    /// Which cgroups, as far as they are known beforehand.
    pub(crate) cgroups: Vec<(u64, CgroupVerdict)>,
    /// Limits of the relay.
    pub(crate) proxy: ProxyConfig,
    /// Where records wait.
    pub(crate) spool: SpoolConfig,
    /// Where records go.
    pub(crate) target: Target,
}

/// Who names, decides and watches.
pub(crate) struct Seams {
    pub(crate) identities: Arc<dyn Identities>,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) observer: Arc<dyn Observer>,
    /// `None`: TLS passes as it is.
    pub(crate) tls: Option<Arc<Tls>>,
    /// Whether connections of a cgroup that were there before it was steered are ended.
    pub(crate) resets: strays::Resets,
}

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// No spool, no record: nothing is steered then.
    #[error(transparent)]
    Spool(#[from] OpenError),
    /// The kernel.
    #[error(transparent)]
    Steer(#[from] SteerError),
    /// The shards.
    #[error(transparent)]
    Shards(#[from] ShardsError),
    /// A thread.
    #[error("cannot start the {name} thread: {source}")]
    Thread {
        /// Which.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// How a worker ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Whether the collector has acknowledged every record.
    pub(crate) shipped: bool,
    /// What went through.
    pub(crate) stats: Stats,
}

/// A running worker.
pub(crate) struct Worker {
    steering: Arc<Steering>,
    heartbeat: HeartbeatThread,
    shards: Arc<Shards>,
    shipper: Shipper<Outbox>,
    spool: Gauge,
    ticker: JoinHandle<()>,
    strays: JoinHandle<()>,
    accounts: Arc<Accounts>,
    counting: JoinHandle<()>,
    events: JoinHandle<()>,
}

impl Worker {
    /// Starts everything but steering itself: nothing is attached yet.
    pub(crate) fn start(plan: Plan, seams: Seams) -> Result<Self, StartError> {
        let steering = Steering::load(&plan.steer)?;
        let pulse = Pulse::default();
        let heartbeat = steering
            .heartbeat()
            .keep(pulse.alive())
            .map_err(|source| StartError::Thread { name: "heartbeat", source })?;
        let opened = verbatim_spool::open(&plan.spool, plan.steer.shards)?;
        if opened.recovered.chains > 0 {
            tracing::warn!(recovered = ?opened.recovered, "an earlier agent had died on this spool");
        }
        let shipper = Shipper::start(&plan.target, opened.outboxes)
            .map_err(|source| StartError::Thread { name: "ship", source })?;
        let deps = Deps {
            flows: Arc::new(SteeredFlows(steering.flows())),
            dialer: Arc::new(NamespaceDialer(steering.namespaces())),
            identities: Arc::clone(&seams.identities),
            policy: seams.policy,
            observer: seams.observer,
            tls: seams.tls,
        };
        let shards = Arc::new(Shards::start(plan.proxy, deps, opened.spools)?);
        pulse.watch(&shards);
        steering.set_destinations(&plan.destinations)?;
        for (id, verdict) in plan.cgroups {
            steering.set_cgroup(id, verdict)?;
        }
        let steering = Arc::new(steering);
        let reports =
            events::start(&steering).map_err(|source| StartError::Thread { name: "events", source })?;
        let events = tokio::spawn(journal::events(reports, Arc::clone(&shards)));
        let ticker = tokio::spawn(journal::heartbeats(Arc::clone(&steering), Arc::clone(&shards)));
        let strays = tokio::spawn(strays::end(Arc::clone(&steering), seams.resets));
        let spool = opened.gauge;
        let accounts = Arc::new(Accounts::new(steering.connects(), Arc::clone(&shards), seams.identities));
        let counting = tokio::spawn(Arc::clone(&accounts).follow());
        Ok(Self { steering, heartbeat, shards, shipper, spool, ticker, strays, accounts, counting, events })
    }

    /// What the kernel is told.
    pub(crate) fn steering(&self) -> &Arc<Steering> {
        &self.steering
    }

    /// What relays.
    pub(crate) fn shards(&self) -> &Arc<Shards> {
        &self.shards
    }

    /// Handles on its parts, none of which they keep.
    pub(crate) fn vitals(&self) -> Vitals {
        Vitals {
            steering: Arc::downgrade(&self.steering),
            shards: Arc::downgrade(&self.shards),
            heartbeat: self.steering.heartbeat(),
            spool: self.spool.clone(),
            collector_connected: self.shipper.connected(),
        }
    }

    /// Attaches the programs: from now on, connects are steered. Listeners must stand.
    pub(crate) async fn attach(&self) -> Result<(), StartError> {
        self.steering.attach()?;
        journal::coverage(&self.shards, CoverageEvent::Attached, 1, String::new()).await;
        Ok(())
    }

    /// Writes what steering did or did not cover.
    pub(crate) async fn cover(&self, event: CoverageEvent, count: u64, note: String) {
        journal::coverage(&self.shards, event, count, note).await;
    }

    /// Ends: lets connections end until `drain`, detaches, closes the chains, and ships until `limit`
    /// returns.
    pub(crate) async fn stop(self, drain: Duration, limit: impl Future<Output = ()>) -> Ended {
        self.ticker.abort();
        self.ticker.await.ok();
        self.strays.abort();
        self.strays.await.ok();
        self.counting.abort();
        self.counting.await.ok();
        // From here on every workload's fail mode decides about its new connections.
        drop(self.heartbeat);
        journal::settle(&self.shards, drain).await;
        journal::heartbeat(&self.steering, &self.shards).await;
        match Arc::into_inner(self.steering) {
            Some(steering) => {
                if let Err(error) = steering.detach() {
                    tracing::error!(%error, "programs stay attached");
                }
            }
            None => tracing::error!("programs stay attached until this process has ended"),
        }
        // Their thread ends with the programs, and what it has left is still recorded.
        if tokio::time::timeout(EVENTS_LIMIT, self.events).await.is_err() {
            tracing::warn!("the kernel's last events were not read in time");
        }
        self.accounts.close().await;
        journal::coverage(&self.shards, CoverageEvent::Detached, 1, String::new()).await;
        self.shards.drain(Duration::ZERO).await;
        let stats = self.shards.stats();
        if stats.unwritten > 0 {
            let records = stats.unwritten;
            tracing::warn!(records, "the spool had no room for the last records: the next start writes them");
        }
        let shipped = self.shipper.finish(limit).await;
        Ended { shipped, stats }
    }
}

/// Hands a namespace's listeners to the shards.
pub(crate) async fn listen(shards: &Shards, made: NamespaceListeners) -> Result<(), ShardsError> {
    for (index, shard) in made.shards.into_iter().enumerate() {
        shards.listen(index, shard.v4, made.cookie).await?;
        if let Some(v6) = shard.v6 {
            shards.listen(index, v6, made.cookie).await?;
        }
    }
    tracing::info!(namespace = %made.name, port = made.port, "listening");
    Ok(())
}
