//! What the kernel has counted by cgroup, destination and outcome, into records.
//!
//! A record says all that its series has counted since it began. So one that is written twice, or not at
//! all because the worker died in between, adds nothing and loses nothing: the next one says it again.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::Mutex,
    time::{Instant, MissedTickBehavior, interval_at},
};
use verbatim_api::v1::{self, ConnectOutcome, CoverageEvent, RecordKind, envelope::Detail};
use verbatim_proxy::{
    Shards,
    seam::{Flow, Identities, Identity},
};
use verbatim_spool::Draft;
use verbatim_steer::{ConnectReader, Connects, Outcome};
use verbatim_sys::clock;

use super::journal;

/// Between two readings.
const INTERVAL: Duration = Duration::from_secs(10);
/// Records of one reading, the last one apart; what is more waits for the next.
const RECORDS: usize = 4096;
/// From here on, elements that stand still are forgotten; percent of the map.
const CROWDED: usize = 50;
/// From here on, all of them are.
const FULL: usize = 75;
/// How many readings an element stands still before it is forgotten in a crowded map.
const PATIENCE: u32 = 6;

/// cgroup, series, outcome.
type Key = (u64, u64, Outcome);

/// What was written of an element.
struct Account {
    identity: Arc<Identity>,
    connects: u64,
    connected: u64,
    /// Readings without a change.
    still: u32,
}

/// Reads and records.
pub(crate) struct Accounts {
    reader: ConnectReader,
    shards: Arc<Shards>,
    identities: Arc<dyn Identities>,
    accounts: Mutex<HashMap<Key, Account>>,
}

impl Accounts {
    pub(crate) fn new(reader: ConnectReader, shards: Arc<Shards>, identities: Arc<dyn Identities>) -> Self {
        Self { reader, shards, identities, accounts: Mutex::default() }
    }

    /// Records what has grown, as long as it runs.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut readings = interval_at(Instant::now() + INTERVAL, INTERVAL);
        readings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            readings.tick().await;
            self.record(RECORDS).await;
        }
    }

    /// Records everything that has grown: nothing is counted any more.
    pub(crate) async fn close(&self) {
        self.record(usize::MAX).await;
    }

    async fn record(&self, most: usize) {
        let counts = match self.reader.read() {
            Ok(counts) => counts,
            Err(error) => return tracing::error!(%error, "what the kernel has counted is not recorded"),
        };
        let mut accounts = self.accounts.lock().await;
        // Before anything is waited for: names go with their cgroups.
        let grown: Vec<&Connects> = counts.iter().filter(|one| self.look(&mut accounts, one)).collect();
        for one in grown.into_iter().take(most) {
            let Some(account) = accounts.get_mut(&key(one)) else { continue };
            if !journal::append(&self.shards, 0, draft(one, &account.identity)).await {
                break;
            }
            (account.connects, account.connected) = (one.connects, one.connected);
        }
        self.make_room(&mut accounts, &counts);
        let there: HashSet<Key> = counts.iter().map(key).collect();
        accounts.retain(|key, _| there.contains(key));
    }

    /// Whether there is something new to say.
    fn look(&self, accounts: &mut HashMap<Key, Account>, one: &Connects) -> bool {
        let account = accounts.entry(key(one)).or_insert_with(|| {
            let identity = self.identities.identify(&nobody(one));
            Account { identity, connects: 0, connected: 0, still: 0 }
        });
        let grown = (account.connects, account.connected) != (one.connects, one.connected);
        account.still = if grown { 0 } else { account.still.saturating_add(1) };
        if grown {
            let identity = self.identities.identify(&nobody(one));
            let named = |one: &Identity| one.workload.principal_kind() != v1::PrincipalKind::Unresolved;
            // A cgroup that is long gone is not known any more.
            if named(&identity) || !named(&account.identity) {
                account.identity = identity;
            }
        }
        grown
    }

    fn make_room(&self, accounts: &mut HashMap<Key, Account>, counts: &[Connects]) {
        let patience = match ConnectReader::percent_full(counts.len()) {
            FULL.. => 1,
            CROWDED.. => PATIENCE,
            _ => return,
        };
        let mut forgotten = 0_u64;
        for one in counts {
            if accounts.get(&key(one)).is_none_or(|account| account.still < patience) {
                continue;
            }
            match self.reader.forget(one) {
                Ok(true) => {
                    accounts.remove(&key(one));
                    forgotten += 1;
                }
                Ok(false) => {}
                Err(error) => return tracing::error!(%error, "no room is made where connects are counted"),
            }
        }
        tracing::info!(forgotten, elements = counts.len(), "made room where connects are counted");
    }
}

fn key(one: &Connects) -> Key {
    (one.cgroup_id, one.series, one.outcome)
}

/// As much of a flow as says whose cgroup it is.
fn nobody(one: &Connects) -> Flow {
    // Its cgroup had its id when the series began.
    let flow = of_cgroup(one.cgroup_id, one.destination, one.series);
    Flow { connect_series: one.series, ..flow }
}

/// As much of a flow as says whose cgroup it is, at that time of CLOCK_MONOTONIC in nanoseconds.
pub(super) fn of_cgroup(cgroup_id: u64, destination: SocketAddr, ktime_nanos: u64) -> Flow {
    Flow {
        destination,
        cgroup_id,
        ancestor_cgroup_ids: Vec::new(),
        pid: 0,
        uid: 0,
        gid: 0,
        client_netns: 0,
        listener_netns: 0,
        socket_cookie: 0,
        ktime_nanos,
        comm: String::new(),
        connect_series: 0,
        connect_number: 0,
    }
}

fn outcome(outcome: Outcome) -> ConnectOutcome {
    match outcome {
        Outcome::Steered => ConnectOutcome::Steered,
        Outcome::Denied => ConnectOutcome::Denied,
        Outcome::StaleDenied => ConnectOutcome::StaleDenied,
        Outcome::StalePassed => ConnectOutcome::StalePassed,
        Outcome::Missed => ConnectOutcome::Missed,
        Outcome::DeviceDenied => ConnectOutcome::DeviceDenied,
        Outcome::DevicePassed => ConnectOutcome::DevicePassed,
        Outcome::Unrouted => ConnectOutcome::Unrouted,
        Outcome::NoMemory => ConnectOutcome::NoMemory,
        Outcome::Bypassed => ConnectOutcome::Bypassed,
        Outcome::QuicDenied => ConnectOutcome::QuicDenied,
        Outcome::QuicPassed => ConnectOutcome::QuicPassed,
        Outcome::Stray => ConnectOutcome::Stray,
        Outcome::StrayDropped => ConnectOutcome::StrayDropped,
        Outcome::Uncounted => ConnectOutcome::Uncounted,
    }
}

fn draft(one: &Connects, identity: &Identity) -> Draft {
    let counted = one.outcome != Outcome::Uncounted;
    let mut workload = identity.workload.clone();
    if !counted {
        // It is the node's own: of nobody in particular.
        workload = v1::Workload { node: workload.node, ..v1::Workload::default() };
    }
    workload.cgroup_id = one.cgroup_id;
    let coverage = v1::Coverage {
        event: CoverageEvent::Connects.into(),
        count: one.connects,
        outcome: outcome(one.outcome).into(),
        connected: one.connected,
        interval_nanos: clock::monotonic_nanos().saturating_sub(one.series),
        protocol_number: one.protocol.into(),
        ..v1::Coverage::default()
    };
    let envelope = v1::Envelope {
        kind: RecordKind::Coverage.into(),
        workload: Some(workload),
        connect_series: one.series,
        detail: Some(Detail::Coverage(coverage)),
        ..v1::Envelope::default()
    };
    let target = v1::Target {
        address: one.destination.ip().to_string(),
        port: one.destination.port().into(),
        ..v1::Target::default()
    };
    let client = v1::Client {
        local_user: identity.local_user.clone().unwrap_or_default(),
        cgroup: identity.cgroup.clone().unwrap_or_default(),
        ..v1::Client::default()
    };
    let content = v1::Content { target: Some(target), client: Some(client), ..v1::Content::default() };
    Draft { envelope, content: counted.then_some(content) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(outcome: Outcome) -> Connects {
        Connects {
            cgroup_id: 40,
            destination: ([10, 0, 0, 5], 5432).into(),
            protocol: 6,
            outcome,
            series: 0x1200,
            connects: 7,
            connected: 5,
        }
    }

    fn identity() -> Identity {
        let workload = v1::Workload {
            principal: "principal://p".to_owned(),
            node: "n".to_owned(),
            ..v1::Workload::default()
        };
        Identity { workload, cgroup: Some("kubepods/pod1".to_owned()), ..Identity::default() }
    }

    #[test]
    fn a_record_says_the_sums_of_its_series_and_the_destination_in_its_content() {
        let Draft { envelope, content } = draft(&counted(Outcome::Steered), &identity());
        let workload = envelope.workload.clone().unwrap_or_default();
        assert_eq!((workload.principal.as_str(), workload.cgroup_id), ("principal://p", 40));
        assert_eq!(envelope.connect_series, 0x1200);
        let Some(Detail::Coverage(coverage)) = envelope.detail else { panic!("no coverage") };
        assert_eq!((coverage.count, coverage.connected), (7, 5));
        assert_eq!(coverage.outcome(), ConnectOutcome::Steered);
        assert!(coverage.interval_nanos > 0);
        let target = content.and_then(|content| content.target).unwrap_or_default();
        assert_eq!((target.address.as_str(), target.port), ("10.0.0.5", 5432));
    }

    #[test]
    fn what_had_no_room_is_the_nodes_and_nobodys() {
        let one = Connects { cgroup_id: 0, ..counted(Outcome::Uncounted) };
        let Draft { envelope, content } = draft(&one, &identity());
        let workload = envelope.workload.unwrap_or_default();
        assert_eq!((workload.principal.as_str(), workload.node.as_str()), ("", "n"));
        assert!(content.is_none());
    }

    #[test]
    fn every_outcome_of_the_kernel_has_its_own_in_records() {
        let all: HashSet<i32> =
            (0..=255).filter_map(Outcome::from_number).map(|one| outcome(one).into()).collect();
        let known = (0..=255).filter_map(Outcome::from_number).count();
        assert_eq!((all.len(), all.contains(&0)), (known, false));
    }
}
