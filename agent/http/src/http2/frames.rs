//! Finds the frame headers in a stream of bytes, and counts what costs work.
//!
//! Knows frames (RFC 9113 section 4.1) and nothing of what is in them, but for the code of a RST_STREAM.

use std::time::Instant;

const HEADER_BYTES: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const CONTINUATION: u8 = 9;
/// A flag of DATA and HEADERS.
pub(super) const END_STREAM: u8 = 1;

/// The header of a frame.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

/// Finds the frames in a stream of bytes, wherever it is cut.
pub(super) struct Frames {
    /// Bytes that are none of a frame's header.
    skip: u64,
    /// What has come of a header, and of the code behind that of a RST_STREAM.
    start: [u8; HEADER_BYTES + 4],
    have: usize,
}

impl Frames {
    pub(super) fn after(skip: u64) -> Self {
        Self { skip, start: [0; HEADER_BYTES + 4], have: 0 }
    }

    pub(super) fn pass(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Frame),
        mut reset: impl FnMut(u32, u32),
    ) {
        loop {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= skipped as u64;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((&next, rest)) = bytes.split_first() else { return };
            if let Some(slot) = self.start.get_mut(self.have) {
                *slot = next;
            }
            self.have += 1;
            bytes = rest;
            if self.have < HEADER_BYTES {
                continue;
            }
            let [l0, l1, l2, kind, flags, s0, s1, s2, s3, c0, c1, c2, c3] = self.start;
            let length = u32::from_be_bytes([0, l0, l1, l2]);
            let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
            if self.have == HEADER_BYTES {
                each(Frame { length, kind, flags, stream });
                if kind == RST_STREAM && length == 4 {
                    continue;
                }
                self.skip = length.into();
                self.have = 0;
            } else if self.have == HEADER_BYTES + 4 {
                reset(stream, u32::from_be_bytes([c0, c1, c2, c3]));
                self.have = 0;
            }
        }
    }
}

/// So many at once, and a tenth of that a second.
pub(super) struct Budget {
    most: u32,
    left: u32,
    filled: Instant,
}

impl Budget {
    pub(super) fn new(most: u32) -> Self {
        Self { most, left: most, filled: Instant::now() }
    }

    pub(super) fn spend(&mut self) -> bool {
        if self.left == 0 {
            let tenths = self.filled.elapsed().as_millis().saturating_mul(self.most.into()) / 10_000;
            self.left = u32::try_from(tenths).unwrap_or(self.most).min(self.most);
            self.filled = Instant::now();
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}
