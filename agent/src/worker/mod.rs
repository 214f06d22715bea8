//! The worker of `run` and `serve`: spool, steering, shards and shipping, put together once.
//!
//! Owns the order in which they start and end. Knows no command line and no configuration file; who a
//! workload is, and what is decided, it is given.

mod coverage;
mod events;
pub(crate) mod journal;
mod leftovers;
mod report;
mod routes;
mod strays;
mod vitals;

use std::{io, sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle};
use verbatim_api::v1::CoverageEvent;
use verbatim_proxy::{
    Deps, ProxyConfig, Shards, ShardsError, Stats,
    seam::{Evidence, Identities, Observer, Policy, Tls},
};
use verbatim_spool::{Gauge, Ledger, OpenError, Outbox, SpoolConfig};
use verbatim_steer::{
    CgroupVerdict, DestinationRule, Handed, HeartbeatThread, NamespaceListeners, SteerConfig, SteerError,
    Steering, Vault,
};

use self::{coverage::Accounts, report::KeptBack};
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
    pub(crate) evidence: Arc<dyn Evidence>,
    pub(crate) observer: Arc<dyn Observer>,
    /// `None`: TLS passes as it is.
    pub(crate) tls: Option<Arc<Tls>>,
    /// Whether connections of a cgroup that were there before it was steered are ended.
    pub(crate) resets: strays::Resets,
}

/// Who keeps a worker's listeners, and whose it goes on with.
#[derive(Default)]
pub(crate) struct Inheritance {
    pub(crate) vault: Option<Arc<dyn Vault>>,
    pub(crate) listeners: Vec<Handed>,
}

/// What becomes of steering when a worker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Nothing is steered any more.
    Detached,
    /// Each workload's fail mode decides.
    ToFailModes,
    /// A successor steers with the pinned maps, and accepts from the same listeners.
    ToSuccessor,
    /// A successor steers with maps and listeners of its own.
    ToStranger,
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
    /// Records that it has not acknowledged.
    pub(crate) unacknowledged: u64,
    /// Connections that were reset.
    pub(crate) reset: u64,
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
    ledger: Ledger,
    adopting: JoinHandle<()>,
    ticker: JoinHandle<()>,
    strays: JoinHandle<()>,
    accounts: Arc<Accounts>,
    counting: JoinHandle<()>,
    events: JoinHandle<()>,
    kept_back: Arc<KeptBack>,
}

impl Worker {
    /// Starts everything but steering itself: nothing is attached yet.
    pub(crate) fn start(plan: Plan, seams: Seams, inherited: Inheritance) -> Result<Self, StartError> {
        let steering = Steering::load(&plan.steer)?;
        let pulse = Pulse::default();
        if let Some(vault) = inherited.vault {
            steering.namespaces().keep_in(vault, inherited.listeners);
        }
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
        let adopting = tokio::spawn(leftovers::adopt(opened.leftovers, shipper.adder()));
        let deps = Deps {
            flows: Arc::new(SteeredFlows(steering.flows())),
            dialer: Arc::new(NamespaceDialer(steering.namespaces())),
            identities: Arc::clone(&seams.identities),
            policy: seams.policy,
            evidence: seams.evidence,
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
        let (reports, reported) = mpsc::channel(events::WAITING);
        let kept_back = Arc::new(KeptBack::new(&steering));
        let (names, back) = (Arc::clone(&seams.identities), Arc::clone(&kept_back));
        events::start(&steering, reports.clone(), names, back)
            .map_err(|source| StartError::Thread { name: "events", source })?;
        let weak = Arc::downgrade(&steering);
        let events =
            tokio::spawn(report::record(reported, Arc::clone(&shards), weak, Arc::clone(&kept_back)));
        let ticker = tokio::spawn(journal::heartbeats(Arc::clone(&steering), Arc::clone(&shards)));
        let names = Arc::clone(&seams.identities);
        let strays = tokio::spawn(strays::end(
            Arc::clone(&steering),
            seams.resets,
            names,
            reports,
            Arc::clone(&kept_back),
        ));
        let spool = opened.gauge;
        let accounts = Arc::new(Accounts::new(steering.connects(), Arc::clone(&shards), seams.identities));
        let counting = tokio::spawn(Arc::clone(&accounts).follow());
        let ledger = opened.ledger;
        Ok(Self {
            steering,
            heartbeat,
            shards,
            shipper,
            spool,
            ledger,
            adopting,
            ticker,
            strays,
            accounts,
            counting,
            events,
            kept_back,
        })
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
    pub(crate) async fn attach(&self, note: &str) -> Result<(), StartError> {
        self.steering.attach()?;
        journal::coverage(&self.shards, CoverageEvent::Attached, 1, note.to_owned()).await;
        Ok(())
    }

    /// Writes what steering did or did not cover.
    pub(crate) async fn cover(&self, event: CoverageEvent, count: u64, note: String) {
        journal::coverage(&self.shards, event, count, note).await;
    }

    /// Ends: lets connections end until `drain`, leaves steering as it is told, closes the chains, and ships
    /// until `limit` returns.
    pub(crate) async fn stop(self, leave: Leave, drain: Duration, limit: impl Future<Output = ()>) -> Ended {
        self.ticker.abort();
        self.ticker.await.ok();
        self.strays.abort();
        self.strays.await.ok();
        self.counting.abort();
        self.counting.await.ok();
        self.adopting.abort();
        self.adopting.await.ok();
        // From here on it is a successor's that counts, or every workload's fail mode decides about its new
        // connections.
        drop(self.heartbeat);
        let succeeded = matches!(leave, Leave::ToSuccessor | Leave::ToStranger);
        if succeeded {
            hand_over(&self.steering, &self.shards, leave).await;
        }
        journal::settle(&self.shards, drain).await;
        journal::heartbeat(&self.steering, &self.shards).await;
        let detaches = matches!(leave, Leave::Detached | Leave::ToStranger);
        if leave == Leave::ToFailModes
            && let Err(error) = self.steering.heartbeat().cease()
        {
            tracing::error!(%error, "fail modes decide only when the last heartbeat is old");
        }
        self.kept_back.look(&self.steering);
        match Arc::into_inner(self.steering) {
            Some(steering) if detaches => {
                if let Err(error) = steering.detach() {
                    tracing::error!(%error, "programs stay attached");
                }
            }
            Some(steering) => drop(steering),
            None if detaches => tracing::error!("programs stay attached until this process has ended"),
            None => {}
        }
        // Their thread ends with the programs, and what it has left is still recorded.
        if tokio::time::timeout(EVENTS_LIMIT, self.events).await.is_err() {
            tracing::warn!("the kernel's last events were not read in time");
        }
        self.accounts.close().await;
        let note = match leave {
            Leave::Detached => "",
            Leave::ToFailModes => "the programs stay: each selector's fail mode decides",
            Leave::ToSuccessor | Leave::ToStranger => "a successor steers",
        };
        journal::coverage(&self.shards, CoverageEvent::Detached, 1, note.to_owned()).await;
        let reset = self.shards.stats().open;
        self.shards.drain(Duration::ZERO).await;
        let stats = self.shards.stats();
        if stats.unwritten > 0 {
            let records = stats.unwritten;
            tracing::warn!(records, "the spool had no room for the last records: the next start writes them");
        }
        let shipped = self.shipper.finish(limit).await;
        Ended { shipped, unacknowledged: self.ledger.unacknowledged(), reset, stats }
    }
}

/// What waits in a backlog between the order to take no more connects and the end of accepting.
const BACKLOG_GRACE: Duration = Duration::from_millis(500);

/// Leaves new connections to a successor.
async fn hand_over(steering: &Steering, shards: &Shards, leave: Leave) {
    if leave == Leave::ToStranger {
        // Its listeners are others: ours serve what is under way to them.
        if let Err(error) = steering.release_connects() {
            tracing::error!(%error, "connects still come to us");
        }
        tokio::time::sleep(BACKLOG_GRACE).await;
    }
    if let Err(error) = shards.stop_accepting().await {
        tracing::error!(%error, "a shard has died before");
    }
}

/// Hands a namespace's listeners to the shards.
pub(crate) async fn listen(shards: &Shards, made: NamespaceListeners) -> Result<(), ShardsError> {
    for (index, shard) in made.shards.into_iter().enumerate() {
        // A predecessor's shards may have been more: what waits at their listeners is served too.
        let index = index % shards.count().max(1);
        shards.listen(index, shard.v4, made.cookie).await?;
        if let Some(v6) = shard.v6 {
            shards.listen(index, v6, made.cookie).await?;
        }
    }
    tracing::info!(namespace = %made.name, port = made.port, "listening");
    Ok(())
}
