//! Reads the log in order from a position on, envelopes and contents joined.
//!
//! Never reads beyond what is durable, never stops at damage: what cannot be read is a step of its own.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use super::{
    frame::{Frame, FrameKind, Part, SEGMENT_HEADER},
    header::{BatchHeader, Event},
    view::{Frames, Location, LogView, is_wiped},
};
use crate::store::StoreError;

/// One record as the node serialised it.
#[derive(Clone, Debug)]
pub struct Raw {
    /// Where it is.
    pub location: Location,
    /// Serialised envelope.
    pub envelope: Bytes,
    /// Serialised content; empty where there is none (any more).
    pub content: Bytes,
}

/// What the log says next.
#[derive(Debug)]
pub enum Step {
    /// A batch.
    Batch {
        /// What the collector wrote beside it.
        header: BatchHeader,
        /// Its records.
        records: Vec<Raw>,
    },
    /// Something that the collector did or found, at its position.
    Event(u64, Event),
    /// Bytes that cannot be read.
    Damage {
        /// Position at which they begin.
        position: u64,
        /// First position of the segment.
        segment: u64,
        /// Which part.
        part: Part,
        /// Offset in it, bytes.
        offset: u64,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Follower {
    view: Arc<LogView>,
    position: u64,
    segment: Option<u64>,
    offset: u64,
    content_offset: u64,
    envelopes: Frames,
    contents: Frames,
    /// Contents are read, too.
    whole: bool,
    /// Offset of the last step's frame.
    frame: u64,
    damage: Vec<Step>,
}

impl Follower {
    /// Reads on from the first frame that ends behind `position`.
    #[must_use]
    pub fn new(view: Arc<LogView>, position: u64) -> Self {
        Self {
            view,
            position,
            segment: None,
            offset: 0,
            content_offset: 0,
            envelopes: Frames::new(Part::Envelopes),
            contents: Frames::new(Part::Contents),
            whole: true,
            frame: 0,
            damage: Vec::new(),
        }
    }

    /// Reads envelopes alone: a segment from its beginning, or from a position in it whose frame's offset is
    /// known.
    pub(super) fn envelopes(view: Arc<LogView>, segment: u64, from: Option<(u64, u64)>) -> Self {
        let mut follower = Self::new(view, from.map_or(segment, |(position, _)| position));
        follower.enter(segment);
        follower.offset = from.map_or(SEGMENT_HEADER, |(_, offset)| offset);
        follower.whole = false;
        follower
    }

    /// The segment of the last step, and its frame's offset.
    pub(super) fn frame(&self) -> (u64, u64) {
        (self.segment.unwrap_or_default(), self.frame)
    }

    /// Position after the last step.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    fn enter(&mut self, segment: u64) {
        self.segment = Some(segment);
        self.offset = SEGMENT_HEADER;
        self.content_offset = SEGMENT_HEADER;
    }

    /// The next step; `None` where nothing more is durable.
    pub fn step(&mut self) -> Result<Option<Step>, StoreError> {
        loop {
            if let Some(damage) = self.damage.pop() {
                return Ok(Some(damage));
            }
            if self.position >= self.view.next_position() {
                return Ok(None);
            }
            let segment = match self.segment {
                Some(segment) => segment,
                None => match self.view.segment_for(self.position) {
                    Some(segment) => {
                        self.enter(segment);
                        segment
                    }
                    None => return Ok(None),
                },
            };
            match self.envelopes.at(&**self.view.store(), segment, self.offset) {
                Ok(None) | Err(StoreError::Gone { .. }) => match self.view.segment_after(segment) {
                    Some(next) => self.enter(next),
                    None => return Ok(None),
                },
                Ok(Some(Ok(frame))) => {
                    let offset = self.offset;
                    self.offset += frame.head.length() as u64;
                    if frame.head.kind != FrameKind::Snapshot
                        && frame.head.next_position() > self.position
                        && let Some(step) = self.understand(segment, offset, &frame)?
                    {
                        return Ok(Some(step));
                    }
                }
                Ok(Some(Err(_))) => return self.pass_damage(segment).map(Some),
                Err(e) => return Err(e),
            }
        }
    }

    fn understand(&mut self, segment: u64, offset: u64, frame: &Frame) -> Result<Option<Step>, StoreError> {
        let position = frame.head.first_position;
        self.position = frame.head.next_position();
        self.frame = offset;
        let damage = Step::Damage { position, segment, part: Part::Envelopes, offset };
        Ok(match frame.head.kind {
            FrameKind::Batch => match BatchHeader::decode(frame.meta.clone()) {
                Ok(header) => {
                    let contents = if self.whole { self.contents_of(segment, position)? } else { None };
                    Some(Step::Batch {
                        header,
                        records: self.join(segment, offset, frame, contents.as_ref()),
                    })
                }
                Err(_) => Some(damage),
            },
            FrameKind::Event => Some(match Event::decode(frame.meta.clone()) {
                Ok(event) => Step::Event(position, event),
                Err(_) => damage,
            }),
            FrameKind::Contents | FrameKind::Snapshot => None,
        })
    }

    fn join(&self, segment: u64, offset: u64, frame: &Frame, contents: Option<&(u64, Frame)>) -> Vec<Raw> {
        let record = |(index, (at, envelope)): (usize, &(usize, Bytes))| {
            let mut location = Location {
                position: frame.head.first_position + index as u64,
                segment,
                offset: offset + *at as u64,
                length: envelope.len() as u32,
                ..Location::default()
            };
            let mut content = Bytes::new();
            if let Some((content_offset, contents)) = contents
                && let Some((at, bytes)) = contents.items.get(index)
                && !bytes.is_empty()
            {
                location.content_offset = content_offset + *at as u64;
                location.content_length = bytes.len() as u32;
                if !is_wiped(bytes) && !self.view.is_hidden(segment, location.content_offset) {
                    content = bytes.clone();
                }
            }
            Raw { location, envelope: envelope.clone(), content }
        };
        frame.items.iter().enumerate().map(record).collect()
    }

    /// The contents' frame of the batch at a position, with its offset.
    fn contents_of(&mut self, segment: u64, position: u64) -> Result<Option<(u64, Frame)>, StoreError> {
        loop {
            match self.contents.at(&**self.view.store(), segment, self.content_offset) {
                Ok(None) | Err(StoreError::Gone { .. }) => return Ok(None),
                Ok(Some(Ok(frame))) => {
                    if frame.head.first_position > position {
                        return Ok(None);
                    }
                    let at = self.content_offset;
                    self.content_offset += frame.head.length() as u64;
                    if frame.head.first_position == position {
                        return Ok(Some((at, frame)));
                    }
                }
                Ok(Some(Err(_))) => {
                    let offset = self.content_offset;
                    self.damage.push(Step::Damage { position, segment, part: Part::Contents, offset });
                    let next = self.contents.find(&**self.view.store(), segment, offset + 1)?;
                    self.content_offset = next.unwrap_or(u64::MAX >> 1);
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn pass_damage(&mut self, segment: u64) -> Result<Step, StoreError> {
        let (position, offset) = (self.position, self.offset);
        match self.envelopes.find(&**self.view.store(), segment, offset + 1)? {
            Some(next) => self.offset = next,
            None => match self.view.segment_after(segment) {
                Some(next) => {
                    self.enter(next);
                    self.position = self.position.max(next);
                }
                // The log's last segment ends damaged: nothing durable is left to read behind it.
                None => self.position = self.view.next_position(),
            },
        }
        Ok(Step::Damage { position, segment, part: Part::Envelopes, offset })
    }
}
