//! A request's body, read as it comes: the JSON in it as text and as a tree.
//!
//! Owns how long the command is waited for. Knows no method.

use http::{HeaderMap, header, request};

use super::route::Body;
use crate::{
    message::{
        coding::{Coding, Undecoded},
        json::{Fault, Keep, Tree, TreeBuilder},
        multipart::FirstPart,
        redact::RedactedCapture,
        single::Read,
    },
    seam::{Captured, OpaqueReason, Redaction},
};

/// Bytes that are kept of a multipart body in which no part has begun, to show what it was.
const MOST_BEFORE: usize = 16 * 1024;

/// What a request's body says.
pub(super) struct Said {
    /// The JSON as sent, without what its content-coding put around it.
    pub(super) text: Captured,
    pub(super) redactions: Vec<Redaction>,
    pub(super) tree: Tree,
    /// Why it could not be read to its end.
    pub(super) partly: Option<OpaqueReason>,
    /// A content-coding that was not taken off.
    pub(super) undecoded: Option<Undecoded>,
}

/// Reads a body.
pub(super) struct BodyReader {
    body: Body,
    coding: Coding,
    coded: bool,
    part: Option<FirstPart>,
    /// The body's beginning, until the first part is found in it.
    before: Vec<u8>,
    text: RedactedCapture,
    tree: TreeBuilder,
    limit: usize,
    /// Bytes of the body, and of what it means.
    raw: usize,
    meant: usize,
    ended: bool,
    limited: bool,
}

impl BodyReader {
    pub(super) fn new(head: &request::Parts, body: Body, keep: Keep, limit: usize) -> Self {
        let content_type = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        Self {
            body,
            coding: Coding::of(&head.headers),
            coded: is_coded(&head.headers),
            part: (body == Body::Multipart).then(|| FirstPart::new(content_type)).flatten(),
            before: Vec::new(),
            text: RedactedCapture::new(limit),
            tree: TreeBuilder::new(keep, limit),
            limit,
            raw: 0,
            meant: 0,
            ended: false,
            limited: false,
        }
    }

    /// The next bytes of the body.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Read {
        if self.ended {
            return Read::More;
        }
        let mut taken = 0usize;
        let Self { coding, part, before, text, tree, meant, .. } = self;
        coding.push(bytes, &mut |decoded| {
            let mut json = |piece: &[u8]| {
                *meant = meant.saturating_add(piece.len());
                text.push(piece);
                tree.push(piece);
            };
            match part {
                Some(part) => {
                    taken = taken.saturating_add(part.push(decoded, &mut json));
                    keep_before(part, before, decoded);
                }
                None => json(decoded),
            }
        });
        self.raw = self.raw.saturating_add(bytes.len());
        if self.part.as_ref().is_some_and(FirstPart::is_done) {
            self.ended = true;
            return Read::Whole(if self.coded { bytes.len() } else { taken });
        }
        if !self.limited && (self.raw >= self.limit || self.meant >= self.limit) {
            self.limited = true;
            return Read::Limit;
        }
        Read::More
    }

    /// The body has ended.
    pub(super) fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let Self { coding, part, before, text, tree, .. } = self;
        let mut json = |piece: &[u8]| {
            text.push(piece);
            tree.push(piece);
        };
        coding.finish(&mut |decoded| match part {
            Some(part) => {
                part.push(decoded, &mut json);
                keep_before(part, before, decoded);
            }
            None => json(decoded),
        });
        if let Some(part) = part {
            part.finish(&mut json);
        }
    }

    /// What was said so far; `whole` takes it out.
    pub(super) fn said(&mut self, whole: bool) -> Said {
        let undecoded = self.coding.failure();
        let lost = self.body == Body::Multipart && !self.part.as_ref().is_some_and(FirstPart::is_found);
        if lost {
            self.text.push(&std::mem::take(&mut self.before));
        }
        let ((text, redactions), tree) = if whole {
            let text = std::mem::replace(&mut self.text, RedactedCapture::new(0));
            let tree =
                std::mem::replace(&mut self.tree, TreeBuilder::new(|_| crate::message::json::Kept::Skip, 0));
            (text.finish(), tree.finish())
        } else {
            (self.text.so_far(), self.tree.so_far())
        };
        let partly = match (undecoded, tree.fault) {
            _ if self.body == Body::Batch => Some(OpaqueReason::UnsupportedVersion),
            (Some(Undecoded::Unknown), _) => Some(OpaqueReason::UnsupportedVersion),
            (Some(Undecoded::Bomb), _) | (None, Some(Fault::TooDeep)) => Some(OpaqueReason::Limit),
            (Some(Undecoded::Malformed), _) | (None, Some(Fault::Malformed)) => Some(OpaqueReason::Malformed),
            (None, None) if lost && (whole || self.part.is_none()) => Some(OpaqueReason::Malformed),
            (None, None) if !whole || tree.cut => Some(OpaqueReason::Limit),
            (None, None) => None,
        };
        Said { text, redactions, tree, partly, undecoded }
    }
}

/// The beginning of a body in which no part has begun.
fn keep_before(part: &FirstPart, before: &mut Vec<u8>, piece: &[u8]) {
    if part.is_found() {
        before.clear();
    } else {
        let room = MOST_BEFORE.saturating_sub(before.len());
        before.extend_from_slice(piece.get(..room).unwrap_or(piece));
    }
}

fn is_coded(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}
