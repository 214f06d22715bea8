//! What the kernel refused, let pass or found, as records: one for all of a kind, workload and destination in a
//! second.
//!
//! Owns the account of what has no record of its own because there was too much at once.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, MissedTickBehavior, interval_at},
};
use verbatim_api::v1::{self, CoverageEvent, RecordKind, envelope::Detail};
use verbatim_proxy::{Shards, seam::Identity};
use verbatim_spool::Draft;
use verbatim_steer::Steering;

use super::journal;

/// Between two looks at what was kept back.
const LOOK: Duration = Duration::from_secs(1);

/// Some events of one kind, workload and destination.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) event: CoverageEvent,
    pub(crate) count: u64,
    /// cgroup v2 id.
    pub(crate) cgroup_id: u64,
    pub(crate) identity: Arc<Identity>,
    /// The caller of the last one, in the first pid namespace.
    pub(crate) pid: Option<u32>,
    /// `None` where there is no destination.
    pub(crate) target: Option<SocketAddr>,
    /// IP protocol number; 0: not known.
    pub(crate) protocol: u32,
    /// For a person.
    pub(crate) note: String,
}

impl Report {
    fn draft(&self) -> Draft {
        let workload = v1::Workload { cgroup_id: self.cgroup_id, ..self.identity.workload.clone() };
        let coverage = v1::Coverage {
            event: self.event.into(),
            count: self.count,
            protocol_number: self.protocol,
            ..v1::Coverage::default()
        };
        let target = self.target.map(|target| v1::Target {
            address: target.ip().to_string(),
            port: target.port().into(),
            ..v1::Target::default()
        });
        let client = v1::Client {
            pid: self.pid.unwrap_or_default(),
            local_user: self.identity.local_user.clone().unwrap_or_default(),
            cgroup: self.identity.cgroup.clone().unwrap_or_default(),
            ..v1::Client::default()
        };
        let content = v1::Content {
            target,
            client: Some(client),
            pod: self.identity.pod.as_deref().cloned(),
            note: self.note.clone(),
            ..v1::Content::default()
        };
        let envelope = v1::Envelope {
            kind: RecordKind::Coverage.into(),
            workload: Some(workload),
            detail: Some(Detail::Coverage(coverage)),
            ..v1::Envelope::default()
        };
        Draft { envelope, content: Some(content) }
    }
}

/// Events that have no record of their own.
#[derive(Debug, Default)]
pub(crate) struct KeptBack {
    /// Not recorded yet, either.
    pending: AtomicU64,
    /// What the kernel had kept back at the last look.
    seen: AtomicU64,
}

/// Counters of events that the kernel had and nobody read.
const UNTOLD: [&str; 3] = ["events_suppressed", "events_lost", "events_unread"];

impl KeptBack {
    /// Counts from now on: what was kept back before is an earlier worker's.
    pub(crate) fn new(steering: &Steering) -> Self {
        let new = Self::default();
        new.look(steering);
        new.pending.store(0, Ordering::Relaxed);
        new
    }

    /// Takes over what the kernel has kept back since the last look.
    pub(crate) fn look(&self, steering: &Steering) {
        // It is the successor's to tell.
        if steering.is_frozen() {
            return;
        }
        match steering.counters() {
            Ok(counters) => {
                let untold = counters.iter().filter(|(name, _)| UNTOLD.contains(name));
                let sum = untold.map(|(_, value)| value).sum::<u64>();
                self.add(sum.saturating_sub(self.seen.swap(sum, Ordering::Relaxed)));
            }
            Err(error) => tracing::error!(%error, "how many events were kept back is not known"),
        }
    }

    pub(crate) fn add(&self, events: u64) {
        self.pending.fetch_add(events, Ordering::Relaxed);
    }

    /// Those that are in no record yet.
    #[cfg(test)]
    pub(super) fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    async fn record(&self, shards: &Shards) {
        let count = self.pending.swap(0, Ordering::Relaxed);
        if count == 0 {
            return;
        }
        let note =
            "what was kept back is in the sums of connects, and in the heartbeats' counters".to_owned();
        let coverage =
            v1::Coverage { event: CoverageEvent::EventsSuppressed.into(), count, ..v1::Coverage::default() };
        let envelope = v1::Envelope {
            kind: RecordKind::Coverage.into(),
            detail: Some(Detail::Coverage(coverage)),
            ..v1::Envelope::default()
        };
        let content = Some(v1::Content { note, ..v1::Content::default() });
        if !journal::insist(shards, Draft { envelope, content }).await {
            self.add(count);
        }
    }
}

/// Records what is reported until nobody reports any more. One record at a time waits for room: meanwhile events go on
/// being added up, and what is kept back goes on being counted.
pub(crate) async fn record(
    mut reports: Receiver<Report>,
    shards: Arc<Shards>,
    steering: Weak<Steering>,
    kept_back: Arc<KeptBack>,
) {
    let mut looks = interval_at(Instant::now() + LOOK, LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            report = reports.recv() => {
                let Some(report) = report else { break };
                if !journal::insist(&shards, report.draft()).await {
                    kept_back.add(report.count);
                }
            }
            _ = looks.tick() => {
                if let Some(steering) = steering.upgrade() {
                    kept_back.look(&steering);
                }
                kept_back.record(&shards).await;
            }
        }
    }
    kept_back.record(&shards).await;
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        os::fd::{BorrowedFd, OwnedFd},
        sync::Mutex,
    };

    use tokio::sync::watch;
    use verbatim_proxy::{
        Deps, ProxyConfig, Records,
        seam::{Dialer, Flow, Flows, Identities, NoEvidence, ObserveAll, Observer, Summary},
    };
    use verbatim_spool::{AppendError, Appended, Common};

    use super::*;

    /// Nothing is accepted, and nobody watches.
    struct Nothing;

    impl Flows for Nothing {
        fn flow(&self, _: BorrowedFd<'_>) -> Option<Flow> {
            None
        }
    }

    impl Dialer for Nothing {
        fn socket(&self, _: u64, _: SocketAddr) -> io::Result<OwnedFd> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    impl Identities for Nothing {
        fn identify(&self, _: &Flow) -> Arc<Identity> {
            Arc::default()
        }
    }

    impl Observer for Nothing {
        fn enabled(&self) -> bool {
            false
        }
        fn finished(&self, _: Summary) {}
    }

    /// A spool that has room when it is told so.
    #[derive(Clone)]
    struct Told {
        room: watch::Receiver<bool>,
        counts: Arc<Mutex<Vec<u64>>>,
        refused: Arc<AtomicU64>,
    }

    impl Records for Told {
        fn append(&self, draft: Draft) -> Result<Appended, AppendError> {
            if !*self.room.borrow() {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Err(AppendError::Full);
            }
            let Some(Detail::Coverage(coverage)) = draft.envelope.detail else { panic!("no coverage") };
            self.counts.lock().unwrap().push(coverage.count);
            Ok(Appended { record_id: [1; 16], sequence: 0, boottime_nanos: 1, position: 1 })
        }

        fn append_with(&self, draft: Draft, _: &Common) -> Result<Appended, AppendError> {
            self.append(draft)
        }

        async fn room(&self) {
            self.room.clone().wait_for(|room| *room).await.map(drop).unwrap();
        }

        async fn durable(&self, _: u64) {}

        fn close(self) {}
    }

    fn shards(spool: Told) -> Shards {
        let deps = Deps {
            flows: Arc::new(Nothing),
            dialer: Arc::new(Nothing),
            identities: Arc::new(Nothing),
            policy: Arc::new(ObserveAll),
            evidence: Arc::new(NoEvidence),
            observer: Arc::new(Nothing),
            tls: None,
        };
        Shards::start(ProxyConfig::default(), deps, vec![spool]).unwrap()
    }

    fn some(count: u64) -> Report {
        Report {
            event: CoverageEvent::Denied,
            count,
            cgroup_id: 40,
            identity: Arc::default(),
            pid: None,
            target: None,
            protocol: 6,
            note: String::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_ten_minutes_for_room_is_counted_once() {
        let (room, has_room) = watch::channel(false);
        let spool = Told { room: has_room, counts: Arc::default(), refused: Arc::default() };
        let shards = Arc::new(shards(spool.clone()));
        let kept_back = Arc::new(KeptBack::default());
        let (reports, received) = tokio::sync::mpsc::channel(16);
        let recording =
            tokio::spawn(record(received, Arc::clone(&shards), Weak::new(), Arc::clone(&kept_back)));
        reports.send(some(3)).await.unwrap();
        while spool.refused.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        kept_back.add(40);
        tokio::time::sleep(Duration::from_secs(600)).await;
        reports.send(some(500)).await.unwrap();
        room.send(true).unwrap();
        drop(reports);
        recording.await.unwrap();
        shards.drain(Duration::ZERO).await;
        let mut counts = spool.counts.lock().unwrap().clone();
        counts.sort_unstable();
        assert_eq!((counts, kept_back.pending()), (vec![3, 40, 500], 0));
    }

    #[test]
    fn a_report_says_who_and_where_to_and_keeps_the_destination_in_the_content() {
        let workload = v1::Workload { principal: "principal://p".to_owned(), ..v1::Workload::default() };
        let identity = Identity { workload, cgroup: Some("/kubepods/x".to_owned()), ..Identity::default() };
        let report = Report {
            event: CoverageEvent::QuicDenied,
            count: 3,
            cgroup_id: 40,
            identity: Arc::new(identity),
            pid: Some(7),
            target: Some(([10, 0, 0, 5], 443).into()),
            protocol: 17,
            note: "why".to_owned(),
        };
        let Draft { envelope, content } = report.draft();
        let workload = envelope.workload.unwrap_or_default();
        assert_eq!((workload.principal.as_str(), workload.cgroup_id), ("principal://p", 40));
        let Some(Detail::Coverage(coverage)) = envelope.detail else { panic!("no coverage") };
        assert_eq!((coverage.event(), coverage.count), (CoverageEvent::QuicDenied, 3));
        assert_eq!(coverage.protocol_number, 17);
        let content = content.unwrap_or_default();
        let target = content.target.unwrap_or_default();
        assert_eq!((target.address.as_str(), target.port), ("10.0.0.5", 443));
        assert_eq!(content.client.map(|client| client.pid), Some(7));
    }
}
