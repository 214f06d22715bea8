//! Connections that have ended, by what their last record says.

use std::sync::atomic::{AtomicU64, Ordering};

use verbatim_api::v1::{Capture, Status};

use super::add;

const CAPTURES: [Capture; 4] =
    [Capture::Unspecified, Capture::Decoded, Capture::Partly, Capture::SeenNotDecoded];
/// With which a connection ends.
const STATUSES: [Status; 3] = [Status::Ok, Status::Error, Status::OutcomeUnknown];
const KINDS: usize = CAPTURES.len() * STATUSES.len();

/// Connections that ended alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedAlike {
    /// How much of them was decoded.
    pub capture: Capture,
    /// How they ended.
    pub status: Status,
    /// How many.
    pub count: u64,
}

/// Numbers of connections that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndedBy([u64; KINDS]);

impl EndedBy {
    /// All kinds, also those without any.
    pub fn iter(&self) -> impl Iterator<Item = EndedAlike> {
        kinds().zip(self.0).map(|((capture, status), count)| EndedAlike { capture, status, count })
    }
}

fn kinds() -> impl Iterator<Item = (Capture, Status)> {
    CAPTURES.into_iter().flat_map(|capture| STATUSES.into_iter().map(move |status| (capture, status)))
}

/// One shard's.
#[derive(Debug, Default)]
pub(crate) struct Ended([AtomicU64; KINDS]);

impl Ended {
    pub(crate) fn count(&self, capture: Capture, status: Status) {
        let found = kinds().zip(&self.0).find(|(kind, _)| *kind == (capture, status));
        if let Some((_, counter)) = found {
            add(counter, 1);
        }
    }

    pub(crate) fn add_to(&self, sums: &mut EndedBy) {
        for (sum, counter) in sums.0.iter_mut().zip(&self.0) {
            *sum += counter.load(Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_under_what_their_records_say() {
        let ended = Ended::default();
        ended.count(Capture::Decoded, Status::Ok);
        ended.count(Capture::Decoded, Status::Ok);
        ended.count(Capture::SeenNotDecoded, Status::OutcomeUnknown);
        let mut sums = EndedBy::default();
        ended.add_to(&mut sums);
        ended.add_to(&mut sums);
        let some: Vec<_> = sums.iter().filter(|one| one.count > 0).collect();
        let kind = |capture, status, count| EndedAlike { capture, status, count };
        assert_eq!(
            some,
            [kind(Capture::Decoded, Status::Ok, 4), kind(Capture::SeenNotDecoded, Status::OutcomeUnknown, 2)]
        );
        assert_eq!(sums.iter().count(), KINDS);
    }
}
