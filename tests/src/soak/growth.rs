//! Whether a process grows from round to round: descriptors and memory, against bounds.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::process;

/// What a process may have more than after its first round at most: descriptors (a connection that ends, a
/// file that is read), and memory that it touched for the first time since.
const DESCRIPTORS: usize = 48;

/// What a process has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Open descriptors.
    pub descriptors: usize,
    /// Anonymous resident memory, KiB.
    pub memory_kib: u64,
}

/// What processes have, from the first time that they were looked at.
#[derive(Debug, Default)]
pub struct Growth {
    first: BTreeMap<u32, Size>,
    most: BTreeMap<&'static str, Size>,
}

impl Growth {
    /// Looks at a process after a round; says what is too much.
    pub fn look(&mut self, name: &'static str, process: u32, bound_kib: u64) -> Result<Option<String>> {
        let now = Size {
            descriptors: process::descriptors(process)?,
            memory_kib: process::anonymous_kib(process)?,
        };
        Ok(self.note(name, process, now, bound_kib))
    }

    fn note(&mut self, name: &'static str, process: u32, now: Size, bound_kib: u64) -> Option<String> {
        let first = *self.first.entry(process).or_insert(now);
        let most = self.most.entry(name).or_default();
        most.descriptors = most.descriptors.max(now.descriptors);
        most.memory_kib = most.memory_kib.max(now.memory_kib);
        let grown = now.descriptors > first.descriptors + DESCRIPTORS
            || now.memory_kib > first.memory_kib + bound_kib;
        grown.then(|| {
            format!(
                "{name} ({process}) grew from {} to {} descriptors and from {} to {} KiB",
                first.descriptors, now.descriptors, first.memory_kib, now.memory_kib
            )
        })
    }

    /// The most that a process of each name had.
    pub fn most(&self) -> impl Iterator<Item = (&'static str, Size)> {
        self.most.iter().map(|(name, size)| (*name, *size))
    }
}

#[cfg(test)]
mod tests {
    use super::{Growth, Size};

    #[test]
    fn growth_counts_from_a_processs_own_first_round() {
        let mut growth = Growth::default();
        let size = |descriptors, memory_kib| Size { descriptors, memory_kib };
        assert_eq!(growth.note("agent", 1, size(50, 1000), 500), None);
        assert_eq!(growth.note("agent", 1, size(60, 1400), 500), None);
        assert_eq!(growth.note("agent", 2, size(90, 9000), 500), None);
        assert!(growth.note("agent", 1, size(60, 1600), 500).unwrap().contains("1600 KiB"));
        assert!(growth.note("agent", 1, size(99, 1400), 500).unwrap().contains("99 descriptors"));
        assert_eq!(growth.most().collect::<Vec<_>>(), [("agent", size(99, 9000))]);
    }
}
