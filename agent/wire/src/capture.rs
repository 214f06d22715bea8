//! Keeps the beginning of something long, its length and its digest.
//!
//! Owns the capture limit. Knows nothing of what the bytes mean: redaction happens before they come here.

use sha2::{Digest, Sha256};

use crate::seam::Captured;

/// Takes bytes in pieces and keeps at most `limit` of them.
pub(crate) struct Capture {
    limit: usize,
    bytes: Vec<u8>,
    total: u64,
    /// Present from the first byte beyond the limit on.
    hasher: Option<Sha256>,
}

impl Capture {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, bytes: Vec::new(), total: 0, hasher: None }
    }

    /// How many bytes were taken, kept or not.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// How many bytes are kept.
    pub(crate) fn kept(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn push(&mut self, data: &[u8]) {
        self.total = self.total.saturating_add(data.len() as u64);
        let room = self.limit.saturating_sub(self.bytes.len()).min(data.len());
        let (kept, rest) = data.split_at(room);
        self.bytes.extend_from_slice(kept);
        if rest.is_empty() {
            return;
        }
        let bytes = &self.bytes;
        self.hasher.get_or_insert_with(|| Sha256::new_with_prefix(bytes)).update(rest);
    }

    /// What was taken so far; without a digest, since the end is still to come.
    pub(crate) fn so_far(&self) -> Captured {
        Captured { bytes: self.bytes.clone(), full_length: self.total, full_sha256: None, tokens: Vec::new() }
    }

    pub(crate) fn finish(self) -> Captured {
        Captured {
            bytes: self.bytes,
            full_length: self.total,
            full_sha256: self.hasher.map(|hasher| hasher.finalize().into()),
            tokens: Vec::new(),
        }
    }
}

/// Captures something that is in memory as a whole.
pub(crate) fn capture(bytes: &[u8], limit: usize) -> Captured {
    if bytes.len() <= limit {
        return Captured {
            bytes: bytes.to_vec(),
            full_length: bytes.len() as u64,
            full_sha256: None,
            tokens: Vec::new(),
        };
    }
    let mut capture = Capture::new(limit);
    capture.push(bytes);
    capture.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_text_has_the_length_and_digest_of_the_whole_however_it_came() {
        let text = b"abcdefghij";
        let whole: [u8; 32] = Sha256::digest(text).into();
        for split in 0..=text.len() {
            let (head, tail) = text.split_at(split);
            let mut capture = Capture::new(4);
            capture.push(head);
            capture.push(tail);
            let captured = capture.finish();
            assert_eq!(captured.bytes, b"abcd");
            assert_eq!(captured.full_length, 10);
            assert_eq!(captured.full_sha256, Some(whole));
        }
    }

    #[test]
    fn a_text_of_exactly_the_limit_is_not_cut() {
        assert_eq!(capture(b"abcd", 4).full_sha256, None);
        assert!(capture(b"abcde", 4).full_sha256.is_some());
    }
}
