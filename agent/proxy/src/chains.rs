//! What goes on beyond one command: which record began the job or the upload that later commands go on with,
//! on whichever connection and shard of the same workload.
//!
//! Locked for one look-up. Keeps digests only, for an upload's id is a credential. Knows no connection.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sha2::{Digest, Sha256};
use verbatim_api::v1;
use verbatim_sys::clock;
use verbatim_wire::seam::{ChainKey, ChainKind};

use crate::seam::{Flow, Identity};

/// Chains remembered; the one that was used longest ago goes first.
const REMEMBERED: usize = 16 * 1024;
/// How long one is remembered without being used: a resumable upload lives for a week.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

type Key = [u8; 32];

/// Whose chains: what another workload names the same is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner(Vec<u8>);

impl Owner {
    /// The pod; without one the local user, and where nobody is known the cgroup.
    pub(crate) fn of(flow: &Flow, identity: &Identity) -> Self {
        let workload = &identity.workload;
        let cgroup = flow.cgroup_id.to_string();
        let parts = match identity.local_user.as_deref() {
            // By its UID alone: that is known also while nobody has said whose it is.
            _ if !workload.pod_uid.is_empty() => ["pod", &workload.pod_uid, ""],
            Some(user) => ["user", user, ""],
            None => ["cgroup", &cgroup, ""],
        };
        let mut bytes = Vec::new();
        for part in parts {
            field(&mut bytes, part.as_bytes());
        }
        Self(bytes)
    }
}

/// The command that began a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Begun {
    /// record_id of its STARTED record.
    pub(crate) command_id: Vec<u8>,
    pub(crate) started_boottime: u64,
    pub(crate) operation: v1::Operation,
    pub(crate) service: &'static str,
    pub(crate) method: String,
    pub(crate) resource: String,
    /// For the live view; empty where nobody watches.
    pub(crate) statement: Vec<u8>,
    /// Its text held a password: what is said of it later may quote that.
    pub(crate) sensitive: bool,
}

#[derive(Debug)]
struct Item {
    begun: Arc<Begun>,
    keys: Vec<Key>,
    used_boottime: u64,
    ended: bool,
}

#[derive(Debug, Default)]
struct Tables {
    /// By when it was used last.
    items: BTreeMap<u64, Item>,
    keys: HashMap<Key, u64>,
    next: u64,
}

/// All chains that this process saw begin.
#[derive(Debug, Default)]
pub(crate) struct Chains(Mutex<Tables>);

impl Chains {
    /// A command has begun a chain.
    pub(crate) fn begin(&self, owner: &Owner, chain: &ChainKey, begun: Begun) {
        self.begin_at(owner, chain, begun, clock::boottime_nanos());
    }

    /// The command that began it, if it is remembered.
    pub(crate) fn find(&self, owner: &Owner, chain: &ChainKey) -> Option<Arc<Begun>> {
        self.find_at(owner, chain, clock::boottime_nanos())
    }

    /// As [`Chains::find`], when the chain has ended: only the first to say so gets it.
    pub(crate) fn end(&self, owner: &Owner, chain: &ChainKey) -> Option<Arc<Begun>> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let serial = tables.use_again(owner, chain, clock::boottime_nanos())?;
        let item = tables.items.get_mut(&serial)?;
        (!std::mem::replace(&mut item.ended, true)).then(|| Arc::clone(&item.begun))
    }

    fn begin_at(&self, owner: &Owner, chain: &ChainKey, begun: Begun, now: u64) {
        let keys = match without_location(chain) {
            Some(id) if id != chain.id => {
                vec![key(owner, chain.kind, &chain.id), key(owner, chain.kind, &id)]
            }
            _ => vec![key(owner, chain.kind, &chain.id)],
        };
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.insert(Item { begun: Arc::new(begun), keys, used_boottime: now, ended: false });
        tables.forget(now);
    }

    fn find_at(&self, owner: &Owner, chain: &ChainKey, now: u64) -> Option<Arc<Begun>> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let serial = tables.use_again(owner, chain, now)?;
        tables.items.get(&serial).map(|item| Arc::clone(&item.begun))
    }
}

impl Tables {
    fn insert(&mut self, item: Item) -> u64 {
        let serial = self.next;
        self.next += 1;
        for key in &item.keys {
            self.keys.insert(*key, serial);
        }
        self.items.insert(serial, item);
        serial
    }

    fn remove(&mut self, serial: u64) -> Option<Item> {
        let item = self.items.remove(&serial)?;
        for key in &item.keys {
            // A newer one may have taken its place.
            if self.keys.get(key) == Some(&serial) {
                self.keys.remove(key);
            }
        }
        Some(item)
    }

    /// Finds a chain and notes that it was used.
    fn use_again(&mut self, owner: &Owner, chain: &ChainKey, now: u64) -> Option<u64> {
        let exact = self.keys.get(&key(owner, chain.kind, &chain.id)).copied();
        let serial = exact.or_else(|| {
            // It began before anybody said where.
            let id = without_location(chain)?;
            let serial = self.keys.get(&key(owner, chain.kind, &id)).copied()?;
            self.items.get(&serial).is_some_and(|item| item.keys.len() == 1).then_some(serial)
        })?;
        let item = self.items.get(&serial)?;
        let expired = now.saturating_sub(item.used_boottime) > nanos(LONGEST);
        let item = self.remove(serial)?;
        (!expired).then(|| self.insert(Item { used_boottime: now, ..item }))
    }

    fn forget(&mut self, now: u64) {
        while let Some((&oldest, item)) = self.items.first_key_value()
            && (self.items.len() > REMEMBERED || now.saturating_sub(item.used_boottime) > nanos(LONGEST))
        {
            self.remove(oldest);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A field and its length, so that no two lists of fields are the same bytes.
fn field(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
    bytes.extend_from_slice(field);
}

fn key(owner: &Owner, kind: ChainKind, id: &[u8]) -> Key {
    let kind: &[u8] = match kind {
        ChainKind::BigQueryJob => b"job",
        ChainKind::Upload => b"upload",
    };
    Sha256::new()
        .chain_update(&owner.0)
        .chain_update(kind)
        .chain_update([0])
        .chain_update(id)
        .finalize()
        .into()
}

/// `PROJECT:LOCATION.JOB` without its location. A project can have `:` and `.` in it, a location and a job's
/// id cannot.
fn without_location(chain: &ChainKey) -> Option<Vec<u8>> {
    if chain.kind != ChainKind::BigQueryJob {
        return None;
    }
    let dot = chain.id.iter().rposition(|&byte| byte == b'.')?;
    let (before, job) = chain.id.split_at_checked(dot)?;
    let colon = before.iter().rposition(|&byte| byte == b':')?;
    let project = before.get(..=colon)?;
    Some([project, job].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(user: &str) -> Owner {
        Owner(user.as_bytes().to_vec())
    }

    fn job(id: &str) -> ChainKey {
        ChainKey { kind: ChainKind::BigQueryJob, id: id.as_bytes().to_vec() }
    }

    fn begun(n: u8) -> Begun {
        Begun { command_id: vec![n; 16], ..Begun::default() }
    }

    fn found(chains: &Chains, owner: &Owner, id: &str) -> Option<u8> {
        chains.find(owner, &job(id)).map(|begun| begun.command_id[0])
    }

    #[test]
    fn a_chain_is_found_by_its_own_workload_only() {
        let chains = Chains::default();
        chains.begin(&owner("ada"), &job("p:us.j"), begun(1));
        assert_eq!(found(&chains, &owner("ada"), "p:us.j"), Some(1));
        assert_eq!(found(&chains, &owner("bob"), "p:us.j"), None);
        let upload = ChainKey { kind: ChainKind::Upload, ..job("p:us.j") };
        assert!(chains.find(&owner("ada"), &upload).is_none(), "another kind of chain");
    }

    #[test]
    fn a_job_is_found_where_only_one_side_says_its_location_and_not_in_another_one() {
        let chains = Chains::default();
        let ada = owner("ada");
        chains.begin(&ada, &job("example.com:p:eu.a"), begun(1));
        chains.begin(&ada, &job("p:.b"), begun(2));
        assert_eq!(found(&chains, &ada, "example.com:p:.a"), Some(1));
        assert_eq!(found(&chains, &ada, "example.com:p:us.a"), None);
        assert_eq!(found(&chains, &ada, "p:us.b"), Some(2));
        chains.begin(&ada, &job("p:eu.b"), begun(3));
        assert_eq!(found(&chains, &ada, "p:eu.b"), Some(3));
        assert_eq!(found(&chains, &ada, "p:.b"), Some(3), "the newest");
    }

    #[test]
    fn only_the_first_end_counts_and_the_beginning_is_still_found_afterwards() {
        let chains = Chains::default();
        let ada = owner("ada");
        chains.begin(&ada, &job("p:us.j"), begun(1));
        assert_eq!(chains.end(&ada, &job("p:.j")).map(|begun| begun.command_id[0]), Some(1));
        assert_eq!(chains.end(&ada, &job("p:us.j")), None);
        assert_eq!(found(&chains, &ada, "p:us.j"), Some(1));
    }

    #[test]
    fn what_was_not_used_for_a_week_or_is_too_many_is_forgotten() {
        let chains = Chains::default();
        let ada = owner("ada");
        chains.begin_at(&ada, &job("p:us.old"), begun(1), 0);
        assert!(chains.find_at(&ada, &job("p:us.old"), nanos(LONGEST)).is_some());
        assert!(chains.find_at(&ada, &job("p:us.old"), 2 * nanos(LONGEST)).is_some(), "used a week ago");
        assert!(chains.find_at(&ada, &job("p:us.old"), 4 * nanos(LONGEST)).is_none());
        for n in 0..REMEMBERED + 10 {
            chains.begin_at(&ada, &job(&format!("p:us.{n}")), begun(2), 5);
            chains.find_at(&ada, &job("p:us.0"), 5);
        }
        assert!(chains.find_at(&ada, &job("p:us.0"), 5).is_some(), "used all the time");
        assert!(chains.find_at(&ada, &job("p:us.1"), 5).is_none());
        let tables = chains.0.lock().expect("no panic");
        assert_eq!((tables.items.len(), tables.keys.len()), (REMEMBERED, 2 * REMEMBERED));
    }

    #[test]
    fn a_pod_is_known_by_its_uid_and_a_process_by_its_user() {
        let flow = |cgroup_id| Flow {
            destination: ([127, 0, 0, 1], 443).into(),
            cgroup_id,
            ancestor_cgroup_ids: Vec::new(),
            pid: 1,
            uid: 1,
            gid: 1,
            client_netns: 1,
            listener_netns: 1,
            socket_cookie: 1,
            ktime_nanos: 1,
            comm: String::new(),
            connect_series: 0,
            connect_number: 0,
        };
        let pod = |uid: &str| Identity {
            workload: v1::Workload { pod_uid: uid.into(), ..v1::Workload::default() },
            ..Identity::default()
        };
        let user = Identity { local_user: Some("local:box/ada".into()), ..Identity::default() };
        assert_eq!(Owner::of(&flow(1), &pod("a")), Owner::of(&flow(2), &pod("a")));
        assert_ne!(Owner::of(&flow(1), &pod("a")), Owner::of(&flow(1), &pod("b")));
        assert_eq!(Owner::of(&flow(1), &user), Owner::of(&flow(2), &user));
        assert_ne!(Owner::of(&flow(1), &Identity::default()), Owner::of(&flow(2), &Identity::default()));
    }
}
