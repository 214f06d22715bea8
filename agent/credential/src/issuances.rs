//! Which token was issued to whom on this node.
//!
//! Owns a bounded table. Keeps digests under a key of this process's own, never a token.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use hashlink::LruCache;
use verbatim_api::v1::{CommandFinding, Issuance};

use crate::fingerprint::FingerprintKey;

/// Tables, so that shards seldom wait for each other.
const SHARDS: usize = 8;
/// Tokens remembered in each; the one that was used longest ago goes first.
const REMEMBERED: usize = 2048;
/// Workloads that one token is remembered for: a metadata server hands the same one to all pods of an account.
const OWNERS: usize = 64;
/// A token without an end is remembered for an hour, as long as access tokens live.
const USUAL_NANOS: u64 = 3_600_000_000_000;
/// No token is remembered for longer than half a day, the longest that one lives.
const LONGEST_NANOS: u64 = 12 * USUAL_NANOS;

/// One workload that a token was issued to.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    /// Names the workload: equal for equal ones.
    pub key: Vec<u8>,
    /// For the record.
    pub issuance: Issuance,
    /// What was wrong with the credential that it was issued for, e.g. a person's: so is the token.
    pub inherits: Option<CommandFinding>,
}

/// What is known of a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// When it ends, nanoseconds since 1970.
    pub expires_wall_nanos: u64,
    /// It is bound to a certificate.
    pub bound: bool,
    /// Whom it was issued to; never empty.
    pub owners: Vec<Owner>,
}

impl Binding {
    /// The one with this key, else the first of all.
    #[must_use]
    pub fn owner(&self, key: &[u8]) -> Option<(&Owner, bool)> {
        match self.owners.iter().find(|owner| owner.key == key) {
            Some(own) => Some((own, true)),
            None => self.owners.first().map(|other| (other, false)),
        }
    }
}

type Table = LruCache<[u8; 32], Binding>;

/// All tokens that this process saw being issued and that may still be used.
pub struct Issuances {
    key: FingerprintKey,
    tables: [Mutex<Table>; SHARDS],
}

impl fmt::Debug for Issuances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuances").finish_non_exhaustive()
    }
}

impl Default for Issuances {
    fn default() -> Self {
        let table = || Mutex::new(LruCache::new(REMEMBERED));
        Self { key: FingerprintKey::of_process(), tables: std::array::from_fn(|_| table()) }
    }
}

impl Issuances {
    fn table(&self, token: &[u8]) -> ([u8; 32], MutexGuard<'_, Table>) {
        let digest = self.key.of(token).code;
        let table = &self.tables[usize::from(digest[0]) % SHARDS];
        (digest, table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A token was issued. `lifetime_seconds` as its reply said.
    pub fn issue(
        &self,
        token: &[u8],
        lifetime_seconds: Option<u64>,
        bound: bool,
        owner: Owner,
        now_wall_nanos: u64,
    ) {
        let lifetime = lifetime_seconds.map_or(USUAL_NANOS, |seconds| seconds.saturating_mul(1_000_000_000));
        let expires_wall_nanos = now_wall_nanos.saturating_add(lifetime.min(LONGEST_NANOS));
        let (digest, mut table) = self.table(token);
        match table.get_mut(&digest).filter(|known| known.expires_wall_nanos > now_wall_nanos) {
            Some(known) => {
                known.expires_wall_nanos = known.expires_wall_nanos.max(expires_wall_nanos);
                known.bound |= bound;
                known.owners.retain(|other| other.key != owner.key);
                if known.owners.len() >= OWNERS {
                    known.owners.remove(0);
                }
                known.owners.push(owner);
            }
            None => {
                table.insert(digest, Binding { expires_wall_nanos, bound, owners: vec![owner] });
            }
        }
    }

    /// What is known of a token.
    #[must_use]
    pub fn find(&self, token: &[u8], now_wall_nanos: u64) -> Option<Binding> {
        if token.is_empty() {
            return None;
        }
        let (digest, mut table) = self.table(token);
        let known = table.get(&digest)?;
        if known.expires_wall_nanos <= now_wall_nanos {
            table.remove(&digest);
            return None;
        }
        Some(known.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(key: &str) -> Owner {
        let issuance = Issuance { pod_name: key.to_owned(), ..Issuance::default() };
        Owner { key: key.as_bytes().to_vec(), issuance, inherits: None }
    }

    #[test]
    fn a_token_is_whose_it_was_issued_to_until_it_ends() {
        let issuances = Issuances::default();
        issuances.issue(b"t", Some(60), false, owner("a"), 1);
        let known = issuances.find(b"t", 2).expect("known");
        assert_eq!(known.owner(b"a").map(|(_, own)| own), Some(true));
        assert_eq!(
            known.owner(b"b").map(|(owner, own)| (owner.key.as_slice(), own)),
            Some((&b"a"[..], false))
        );
        assert_eq!(issuances.find(b"u", 2), None);
        assert_eq!(issuances.find(b"", 2), None);
        assert_eq!(issuances.find(b"t", 60_000_000_001), None);
    }

    #[test]
    fn one_token_can_be_issued_to_many_and_the_oldest_are_forgotten() {
        let issuances = Issuances::default();
        for n in 0..100 {
            issuances.issue(b"t", None, n == 50, owner(&n.to_string()), 1);
        }
        issuances.issue(b"t", None, false, owner("99"), 1);
        let known = issuances.find(b"t", 2).expect("known");
        assert_eq!((known.owners.len(), known.bound), (OWNERS, true));
        assert!(
            known.owner(b"99").is_some_and(|(_, own)| own) && known.owner(b"1").is_some_and(|(_, own)| !own)
        );
    }

    #[test]
    fn the_table_is_bounded_and_no_lifetime_is_believed_without_end() {
        let issuances = Issuances::default();
        for n in 0..40_000_u32 {
            issuances.issue(&n.to_be_bytes(), Some(u64::MAX), false, owner("a"), 1);
        }
        let kept: usize = issuances.tables.iter().map(|table| table.lock().expect("no panic").len()).sum();
        assert_eq!(kept, SHARDS * REMEMBERED);
        assert_eq!(issuances.find(&39_999_u32.to_be_bytes(), LONGEST_NANOS + 2), None);
        issuances.issue(b"t", Some(0), false, owner("a"), 1);
        assert_eq!(issuances.find(b"t", 1), None);
    }
}
