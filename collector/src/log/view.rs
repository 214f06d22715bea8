//! What is in the log, for readers: its segments, how far it is durable, and the bytes at a location.
//!
//! Shared by the writer, the index's thread and those who answer questions. Changes nothing but contents
//! that are deleted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::frame::{self, FrameError, FrameHead, Part, SEGMENT_HEADER};
use crate::store::{Committed, SegmentInfo, Store, StoreError};

/// Where a record's bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// Position in the log.
    pub position: u64,
    /// First position of the segment.
    pub segment: u64,
    /// Offset of the envelope in the envelopes' part, bytes.
    pub offset: u64,
    /// Length of the envelope, bytes.
    pub length: u32,
    /// Offset of the content in the contents' part, bytes.
    pub content_offset: u64,
    /// Length of the content, bytes; 0 where there is none.
    pub content_length: u32,
}

impl Location {
    /// Bytes of [`Location::to_bytes`].
    pub const LENGTH: usize = 40;

    /// For an index to keep.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[0..8].copy_from_slice(&self.position.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.segment.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_be_bytes());
        bytes[28..36].copy_from_slice(&self.content_offset.to_be_bytes());
        bytes[36..40].copy_from_slice(&self.content_length.to_be_bytes());
        bytes
    }

    /// The reverse of [`Location::to_bytes`]; `None` for bytes of another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LENGTH] = bytes.try_into().ok()?;
        let long = |at: usize| -> u64 { bytes[at..at + 8].iter().fold(0, |n, b| n << 8 | u64::from(*b)) };
        let short = |at: usize| -> u32 { bytes[at..at + 4].iter().fold(0, |n, b| n << 8 | u32::from(*b)) };
        Some(Self {
            position: long(0),
            segment: long(8),
            offset: long(16),
            length: short(24),
            content_offset: long(28),
            content_length: short(36),
        })
    }
}

/// See the module.
#[derive(Debug)]
pub struct LogView {
    store: Arc<dyn Store>,
    segments: RwLock<BTreeMap<u64, SegmentInfo>>,
    /// Position after the last durable one.
    durable: watch::Sender<u64>,
    /// Contents to be treated as deleted although their bytes are there: a reader that may not write came
    /// across a deletion that was not carried out.
    hidden: RwLock<HashSet<(u64, u64)>>,
}

impl LogView {
    /// A view of what a store holds; [`LogView::advance`] says up to where it may be read.
    pub fn new(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let segments = store.segments()?.into_iter().map(|s| (s.first_position, s)).collect();
        Ok(Self {
            store,
            segments: RwLock::new(segments),
            durable: watch::Sender::new(0),
            hidden: RwLock::default(),
        })
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Position after the last durable one.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        *self.durable.borrow()
    }

    /// Oldest position that is still kept.
    #[must_use]
    pub fn oldest_position(&self) -> u64 {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.keys().next().copied().unwrap_or_else(|| self.next_position())
    }

    /// For waiting until more is durable.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.durable.subscribe()
    }

    /// Everything below `next` is durable from now on.
    pub(super) fn advance(&self, next: u64) {
        self.durable.send_replace(next);
    }

    pub(super) fn committed(&self, committed: Committed) {
        let info = SegmentInfo {
            first_position: committed.segment,
            envelope_bytes: committed.envelope_bytes,
            content_bytes: committed.content_bytes,
            sealed: false,
        };
        self.segments.write().unwrap_or_else(PoisonError::into_inner).insert(committed.segment, info);
    }

    pub(super) fn sealed(&self) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.values_mut().for_each(|s| s.sealed = true);
    }

    /// All segments, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).values().copied().collect()
    }

    /// The segment that holds a position, or the next one behind it.
    pub(super) fn segment_for(&self, position: u64) -> Option<u64> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.range(..=position).next_back().or_else(|| segments.range(position..).next()).map(|(s, _)| *s)
    }

    /// The segment behind the given one.
    pub(super) fn segment_after(&self, segment: u64) -> Option<u64> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.range(segment + 1..).next().map(|(s, _)| *s)
    }

    /// Envelope and content at a location. The content is empty where there is none (any more).
    pub fn entry(&self, at: &Location) -> Result<(Bytes, Bytes), StoreError> {
        let end = at.offset + u64::from(at.length);
        let envelope = self.store.read(Part::Envelopes, at.segment, at.offset..end)?;
        Ok((envelope, self.content(at)?))
    }

    /// Content at a location, empty where there is none (any more).
    pub fn content(&self, at: &Location) -> Result<Bytes, StoreError> {
        if at.content_length == 0 || self.is_hidden(at.segment, at.content_offset) {
            return Ok(Bytes::new());
        }
        let end = at.content_offset + u64::from(at.content_length);
        match self.store.read(Part::Contents, at.segment, at.content_offset..end) {
            Ok(content) if is_wiped(&content) => Ok(Bytes::new()),
            Ok(content) => Ok(content),
            Err(StoreError::Gone { .. }) => Ok(Bytes::new()),
            Err(e) => Err(e),
        }
    }

    pub(super) fn is_hidden(&self, segment: u64, content_offset: u64) -> bool {
        let hidden = self.hidden.read().unwrap_or_else(PoisonError::into_inner);
        !hidden.is_empty() && hidden.contains(&(segment, content_offset))
    }

    /// Treats contents as deleted without touching them.
    pub fn hide(&self, locations: &[Location]) {
        let mut hidden = self.hidden.write().unwrap_or_else(PoisonError::into_inner);
        hidden.extend(locations.iter().map(|l| (l.segment, l.content_offset)));
    }

    /// Overwrites contents with zeros where they stand, durably; offsets, lengths and the contents beside
    /// them stay. The segments must be sealed. Returns how many were still there.
    pub fn wipe(&self, locations: &[Location]) -> Result<u64, StoreError> {
        let mut by_segment: HashMap<u64, Vec<Location>> = HashMap::new();
        for location in locations.iter().filter(|l| l.content_length > 0) {
            by_segment.entry(location.segment).or_default().push(*location);
        }
        let mut wiped = 0;
        for (segment, locations) in by_segment {
            let bytes = match self.store.read(Part::Contents, segment, 0..u64::MAX) {
                Ok(bytes) => bytes,
                Err(StoreError::Gone { .. }) => continue,
                Err(e) => return Err(e),
            };
            let mut bytes = BytesMut::from(bytes);
            let mut touched = 0;
            for location in &locations {
                let start = usize::try_from(location.content_offset).unwrap_or(usize::MAX);
                let end = start.saturating_add(location.content_length as usize);
                match bytes.get_mut(start..end) {
                    Some(content) if !is_wiped(content) => {
                        content.fill(0);
                        touched += 1;
                    }
                    _ => {}
                }
            }
            if touched > 0 {
                seal_again(&mut bytes, &locations);
                self.store.replace_contents(segment, bytes.freeze())?;
                wiped += touched;
            }
        }
        Ok(wiped)
    }

    /// Removes a segment, or only its contents.
    pub fn remove(&self, segment: u64, contents_only: bool) -> Result<(), StoreError> {
        self.store.remove(Part::Contents, segment)?;
        if !contents_only {
            self.store.remove(Part::Envelopes, segment)?;
        }
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        if contents_only {
            if let Some(info) = segments.get_mut(&segment) {
                info.content_bytes = 0;
            }
        } else {
            segments.remove(&segment);
        }
        Ok(())
    }
}

/// A serialised content begins with its salt's tag, never with a zero.
pub(super) fn is_wiped(content: &[u8]) -> bool {
    content.first() == Some(&0)
}

/// Computes the checksums of those frames again in which something was wiped.
fn seal_again(bytes: &mut [u8], wiped: &[Location]) {
    let mut at = SEGMENT_HEADER as usize;
    while let Some(Ok(FrameHead { body, .. })) = bytes.get(at..).map(frame::head) {
        let end = at + frame::FRAME_HEADER + body;
        let range = at as u64..end as u64;
        if let Some(frame) = bytes.get_mut(at..end)
            && wiped.iter().any(|l| range.contains(&l.content_offset))
        {
            frame::seal(frame);
        }
        at = end;
    }
}

/// Reads frames of one part, a large piece at a time.
#[derive(Debug)]
pub(super) struct Frames {
    part: Part,
    segment: u64,
    start: u64,
    bytes: Bytes,
}

/// Bytes that are read at once.
const PIECE: u64 = 1 << 20;

impl Frames {
    pub(super) fn new(part: Part) -> Self {
        Self { part, segment: u64::MAX, start: 0, bytes: Bytes::new() }
    }

    /// The frame at an offset; `Ok(None)` at the part's end.
    pub(super) fn at(
        &mut self,
        store: &dyn Store,
        segment: u64,
        offset: u64,
    ) -> Result<Option<Result<frame::Frame, FrameError>>, StoreError> {
        let mut wanted = frame::FRAME_HEADER as u64;
        for _ in 0..3 {
            if segment == self.segment && offset >= self.start {
                let skip = (offset - self.start) as usize;
                if skip < self.bytes.len() {
                    match frame::read(&self.bytes.slice(skip..)) {
                        Err(FrameError::Cut(needed)) => wanted = needed as u64,
                        other => return Ok(Some(other)),
                    }
                }
            }
            self.bytes = store.read(self.part, segment, offset..offset + wanted.max(PIECE))?;
            (self.segment, self.start) = (segment, offset);
            if self.bytes.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(Err(FrameError::Damaged("cut short"))))
    }

    /// Offset of the next intact frame behind damage; `None`: there is none in this part.
    pub(super) fn find(
        &mut self,
        store: &dyn Store,
        segment: u64,
        offset: u64,
    ) -> Result<Option<u64>, StoreError> {
        let bytes = store.read(self.part, segment, offset..u64::MAX)?;
        self.segment = u64::MAX;
        Ok(frame::find(&bytes, 0).map(|at| offset + at as u64))
    }
}
