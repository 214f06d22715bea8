//! Cuts a batch out of a chain: as many entries as the limits allow, up to a signed head.

use verbatim_api::{chain::ChainId, v1};

/// A batch while frames are read for it.
#[derive(Debug)]
pub(crate) struct Batch {
    first: u64,
    max_entries: usize,
    max_bytes: usize,
    entries: Vec<v1::Entry>,
    /// Per entry: bytes of all up to it, and the offset behind its frame.
    ends: Vec<(usize, u64)>,
    best: Option<v1::SignedHead>,
    complete: bool,
}

impl Batch {
    pub(crate) fn new(first: u64, max_entries: usize, max_bytes: usize) -> Self {
        Self {
            first,
            max_entries: max_entries.max(1),
            max_bytes: max_bytes.max(1),
            entries: Vec::new(),
            ends: Vec::new(),
            best: None,
            complete: false,
        }
    }

    /// Whether reading on would bring nothing.
    pub(crate) fn complete(&self) -> bool {
        self.complete
    }

    /// The next entry of the chain; those before the batch are passed over.
    pub(crate) fn entry(&mut self, sequence: u64, entry: v1::Entry, offset_behind: u64) {
        if sequence < self.first {
            return;
        }
        let before = self.ends.last().map_or(0, |(bytes, _)| *bytes);
        let bytes = before + entry.envelope.len() + entry.content.len();
        self.entries.push(entry);
        self.ends.push((bytes, offset_behind));
        // Beyond the limits only the first head counts, and only where none was within them.
        self.complete = self.best.is_some() && !self.within(self.entries.len());
    }

    /// A head that covers entries read so far.
    pub(crate) fn head(&mut self, head: v1::SignedHead) {
        let Some(count) = self.count(&head) else { return };
        if self.best.is_none() || self.within(count) {
            self.complete = !self.within(count) || count >= self.max_entries;
            self.best = Some(head);
        }
    }

    /// The batch and the offset behind its last entry; `None` where no head covers its first.
    pub(crate) fn finish(mut self, chain: &ChainId) -> Option<(v1::AppendRequest, u64)> {
        let head = self.best.take()?;
        let count = self.count(&head)?;
        let (_, offset) = *self.ends.get(count.checked_sub(1)?)?;
        self.entries.truncate(count);
        let request = v1::AppendRequest {
            chain_id: chain.to_vec(),
            first_sequence: self.first,
            entries: self.entries,
            head: Some(head),
        };
        Some((request, offset))
    }

    /// How many of the entries a head covers.
    fn count(&self, head: &v1::SignedHead) -> Option<usize> {
        let count = usize::try_from(head.sequence.checked_sub(self.first)?).ok()? + 1;
        (count <= self.entries.len()).then_some(count)
    }

    fn within(&self, count: usize) -> bool {
        let bytes = count.checked_sub(1).and_then(|at| self.ends.get(at)).map_or(0, |(bytes, _)| *bytes);
        count <= self.max_entries && bytes <= self.max_bytes
    }
}
