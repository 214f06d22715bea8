//! Names that a pipeline gives and takes before the server has agreed.
//!
//! A client uses a name right after the message that defines it, the answer still being under way. So a
//! name has versions: the last one is what the client means; the server's answer confirms a version,
//! which forgets the ones before, or retracts it. A version behind which the client sent a Sync may fail
//! without failing what comes after the Sync: until the answer comes the name may mean the ones before.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// The server tells names apart by this many bytes only (`NAMEDATALEN` - 1).
const SIGNIFICANT: usize = 63;

/// Unsettled meanings of a name that are looked at beside the likeliest; a client that asks for an answer
/// now and then has one or two.
pub(super) const MAX_OTHERS: usize = 16;

/// The part of a name that the server looks at.
pub(super) fn significant(name: &[u8]) -> &[u8] {
    name.get(..SIGNIFICANT).unwrap_or(name)
}

/// Position of a message among those of its connection; grows.
pub(super) type Serial = u64;

#[derive(Debug)]
struct Slot<T> {
    /// In the order of their serials. `None` is a name that was taken away.
    versions: VecDeque<(Serial, Option<Arc<T>>)>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { versions: VecDeque::new() }
    }
}

impl<T> Slot<T> {
    fn latest(&self) -> Option<&Arc<T>> {
        self.versions.back()?.1.as_ref()
    }

    fn confirm(&mut self, serial: Serial) {
        while self.versions.get(1).is_some_and(|(next, _)| *next <= serial) {
            self.versions.pop_front();
        }
        if matches!(self.versions.front(), Some((first, None)) if *first <= serial) {
            self.versions.pop_front();
        }
    }

    fn retract(&mut self, serial: Serial) {
        if let Ok(place) = self.versions.binary_search_by_key(&serial, |(version, _)| *version) {
            self.versions.remove(place);
        }
    }

    fn forget_before(&mut self, serial: Serial) {
        while self.versions.front().is_some_and(|(version, _)| *version < serial) {
            self.versions.pop_front();
        }
    }
}

/// What a name may mean.
#[derive(Debug)]
pub(super) struct Meanings<T> {
    pub(super) likeliest: Option<Arc<T>>,
    /// The others, the likelier first; at most [`MAX_OTHERS`].
    pub(super) others: Vec<Arc<T>>,
    /// There may be more than these.
    pub(super) more: bool,
}

/// Prepared statements, or portals.
#[derive(Debug)]
pub(super) struct Names<T> {
    unnamed: Slot<T>,
    named: HashMap<Box<[u8]>, Slot<T>>,
    /// No named version is older.
    oldest: Serial,
    limit: usize,
    overflowed: bool,
}

impl<T> Names<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { unnamed: Slot::default(), named: HashMap::new(), oldest: 0, limit, overflowed: false }
    }

    /// Whether a name was not kept, ever, for want of room.
    pub(super) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// What the client means by the name.
    pub(super) fn latest(&self, name: &[u8]) -> Option<&Arc<T>> {
        if name.is_empty() {
            return self.unnamed.latest();
        }
        self.named.get(significant(name))?.latest()
    }

    /// What the name may mean to the server in a message after `last_sync`.
    pub(super) fn meanings(&self, name: &[u8], last_sync: Serial) -> Meanings<T> {
        let slot = if name.is_empty() { Some(&self.unnamed) } else { self.named.get(significant(name)) };
        let Some(slot) = slot else {
            return Meanings { likeliest: None, others: Vec::new(), more: false };
        };
        let settled =
            slot.versions.len() < 2 || slot.versions.back().is_none_or(|(serial, _)| *serial > last_sync);
        if settled {
            return Meanings { likeliest: slot.latest().cloned(), others: Vec::new(), more: false };
        }
        let looked_at = MAX_OTHERS.saturating_add(1);
        let more = slot.versions.len() > looked_at;
        let mut versions = slot.versions.iter().rev().take(looked_at).filter_map(|(_, value)| value.as_ref());
        Meanings { likeliest: versions.next().cloned(), others: versions.cloned().collect(), more }
    }

    /// The client defines a name, or takes it away.
    pub(super) fn propose(&mut self, name: &[u8], serial: Serial, value: Option<Arc<T>>) {
        if name.is_empty() {
            self.unnamed.versions.push_back((serial, value));
            return;
        }
        let name = significant(name);
        if let Some(slot) = self.named.get_mut(name) {
            slot.versions.push_back((serial, value));
        } else if value.is_none() {
            // Closing what does not exist changes nothing.
        } else if self.named.len() < self.limit {
            self.oldest = self.oldest.min(serial);
            self.named.insert(name.into(), Slot { versions: [(serial, value)].into() });
        } else {
            self.overflowed = true;
        }
    }

    /// The server agreed to a proposal.
    pub(super) fn confirm(&mut self, name: &[u8], serial: Serial) {
        self.on_slot(name, |slot| slot.confirm(serial));
    }

    /// The server did not agree, or never got to it.
    pub(super) fn retract(&mut self, name: &[u8], serial: Serial) {
        self.on_slot(name, |slot| slot.retract(serial));
    }

    /// The server forgot what this name stood for before `serial`.
    pub(super) fn forget(&mut self, name: &[u8], serial: Serial) {
        self.on_slot(name, |slot| slot.forget_before(serial));
    }

    /// The server forgot every named version before `serial`.
    pub(super) fn forget_named(&mut self, serial: Serial) {
        if self.named.is_empty() || self.oldest >= serial {
            return;
        }
        let mut oldest = Serial::MAX;
        self.named.retain(|_, slot| {
            slot.forget_before(serial);
            let first = slot.versions.front().map(|(first, _)| *first);
            oldest = oldest.min(first.unwrap_or(Serial::MAX));
            first.is_some()
        });
        self.oldest = oldest;
    }

    fn on_slot(&mut self, name: &[u8], change: impl FnOnce(&mut Slot<T>)) {
        if name.is_empty() {
            change(&mut self.unnamed);
            return;
        }
        let name = significant(name);
        let Some(slot) = self.named.get_mut(name) else {
            return;
        };
        change(slot);
        if slot.versions.is_empty() {
            self.named.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latest(names: &Names<u32>, name: &[u8]) -> Option<u32> {
        names.latest(name).map(|value| **value)
    }

    #[test]
    fn a_retracted_version_leaves_the_one_before_and_the_ones_after() {
        let mut names = Names::new(10);
        names.propose(b"s", 1, Some(Arc::new(1)));
        names.confirm(b"s", 1);
        names.propose(b"s", 2, Some(Arc::new(2)));
        assert_eq!(latest(&names, b"s"), Some(2));
        names.propose(b"s", 3, Some(Arc::new(3)));
        names.retract(b"s", 3);
        names.retract(b"s", 2);
        assert_eq!(latest(&names, b"s"), Some(1));
    }

    #[test]
    fn a_closed_name_is_gone_when_the_server_says_so_and_back_when_it_does_not() {
        let mut names = Names::new(10);
        names.propose(b"s", 1, Some(Arc::new(1)));
        names.confirm(b"s", 1);
        names.propose(b"s", 2, None);
        assert_eq!(latest(&names, b"s"), None);
        names.retract(b"s", 2);
        assert_eq!(latest(&names, b"s"), Some(1));
        names.propose(b"s", 3, None);
        names.confirm(b"s", 3);
        assert_eq!(latest(&names, b"s"), None);
        assert!(names.named.is_empty());
    }

    #[test]
    fn a_name_that_is_not_settled_behind_a_sync_has_every_meaning_that_it_may_have() {
        let mut names = Names::new(10);
        names.propose(b"s", 1, Some(Arc::new(1)));
        names.confirm(b"s", 1);
        names.propose(b"s", 3, Some(Arc::new(3)));
        let meanings = |names: &Names<u32>, sync| {
            let meanings = names.meanings(b"s", sync);
            (meanings.likeliest.map(|value| *value), meanings.others.len())
        };
        assert_eq!(meanings(&names, 2), (Some(3), 0));
        assert_eq!(meanings(&names, 4), (Some(3), 1));
        names.confirm(b"s", 3);
        assert_eq!(meanings(&names, 4), (Some(3), 0));
    }

    #[test]
    fn no_more_meanings_are_looked_at_than_the_limit_whatever_they_are() {
        let mut names = Names::new(10);
        for serial in 1..=100 {
            names.propose(b"s", serial, Some(Arc::new(serial)));
        }
        let meanings = names.meanings(b"s", 200);
        assert_eq!(meanings.likeliest.as_deref(), Some(&100));
        assert_eq!(
            meanings.others.iter().map(|other| **other).collect::<Vec<_>>(),
            Vec::from_iter((84..100).rev())
        );
        assert!(meanings.more);
        assert!(!names.meanings(b"s", 99).more, "nothing is in doubt before a Sync");
        for serial in 101..=200 {
            names.propose(b"s", serial, None);
        }
        let meanings = names.meanings(b"s", 200);
        assert!(meanings.likeliest.is_none() && meanings.others.is_empty() && meanings.more);
    }

    #[test]
    fn names_are_told_apart_as_the_server_does() {
        let mut names = Names::new(10);
        let long = [b'a'; 70];
        names.propose(&long, 1, Some(Arc::new(1)));
        assert_eq!(latest(&names, &long[..63]), Some(1));
        assert_eq!(latest(&names, &long[..62]), None);
    }

    #[test]
    fn named_versions_from_before_are_forgotten_and_later_ones_kept_again_and_again() {
        let mut names = Names::new(10);
        for round in (0..50).step_by(5) {
            names.propose(b"a", round + 1, Some(Arc::new(0)));
            names.propose(b"b", round + 3, Some(Arc::new(0)));
            names.forget_named(round);
            assert_eq!(names.named.len(), 2);
            names.forget_named(round + 3);
            assert_eq!((latest(&names, b"a"), latest(&names, b"b")), (None, Some(0)));
            names.propose(b"a", round + 4, Some(Arc::new(7)));
            names.retract(b"b", round + 3);
            names.forget_named(round + 4);
            assert_eq!((latest(&names, b"a"), latest(&names, b"b")), (Some(7), None));
            names.forget_named(round + 5);
            assert!(names.named.is_empty());
        }
    }

    #[test]
    fn no_more_names_are_kept_than_allowed() {
        let mut names = Names::new(2);
        for (serial, name) in [(1, b"a"), (2, b"b"), (3, b"c")] {
            names.propose(name, serial, Some(Arc::new(0)));
        }
        assert_eq!((names.named.len(), names.overflowed()), (2, true));
    }
}
