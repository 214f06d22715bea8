//! Where typed messages begin and end: one type byte, then a length that counts itself.
//!
//! Owns the boundaries and the lengths that are allowed. Keeps five bytes at most, never a body.

/// Length of type and length field together, bytes.
pub(super) const HEADER: usize = 5;
/// Longest message, as the server has it (`MaxAllocSize`).
const LARGE: usize = 0x3fff_ffff;
/// Longest message of the types that hold names and numbers only (`PQ_SMALL_MESSAGE_LIMIT`).
const SMALL: usize = 10_000;
/// Longest authentication message; the server takes 65535 bytes.
const AUTHENTICATION: usize = 128 * 1024;
/// What libpq takes for the longest message of all types that carry no data.
const SHORT: usize = 30_000;

/// What was found at a message boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// The whole input belongs to an unfinished header.
    NeedMore,
    /// The length is less than its own.
    Bad,
    /// A message of this type begins.
    Message {
        kind: u8,
        /// Length of what follows the header, bytes.
        body: usize,
        /// How many bytes of the input were its header.
        taken: usize,
    },
}

/// Reads headers that may come in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Framer {
    header: [u8; HEADER],
    have: usize,
}

impl Framer {
    /// Whether no part of a header is kept.
    pub(super) fn at_boundary(&self) -> bool {
        self.have == 0
    }

    /// Reads on. After [`Header::Message`] the next call expects input after that message's body.
    pub(super) fn read(&mut self, input: &[u8]) -> Header {
        if self.have == 0
            && let Some(header) = input.first_chunk::<HEADER>()
        {
            return message(*header, HEADER);
        }
        let room = self.header.get_mut(self.have..).unwrap_or_default();
        let taken = room.len().min(input.len());
        for (to, from) in room.iter_mut().zip(input) {
            *to = *from;
        }
        self.have = self.have.saturating_add(taken);
        if self.have < HEADER {
            return Header::NeedMore;
        }
        self.have = 0;
        message(self.header, taken)
    }
}

fn message([kind, l0, l1, l2, l3]: [u8; HEADER], taken: usize) -> Header {
    match (u32::from_be_bytes([l0, l1, l2, l3]) as usize).checked_sub(4) {
        Some(body) => Header::Message { kind, body, taken },
        None => Header::Bad,
    }
}

/// Longest body of a client's message type; `None` for a type that clients don't send.
pub(super) fn client_limit(kind: u8) -> Option<usize> {
    match kind {
        b'Q' | b'P' | b'B' | b'F' | b'd' => Some(LARGE),
        b'C' | b'D' | b'E' | b'H' | b'S' | b'X' | b'c' | b'f' => Some(SMALL),
        b'p' => Some(AUTHENTICATION),
        _ => None,
    }
}

/// Longest body of a server's message type; `None` for a type that servers don't send.
pub(super) fn server_limit(kind: u8) -> Option<usize> {
    match kind {
        b'D' | b'd' | b'T' | b't' | b'E' | b'N' | b'A' | b'V' => Some(i32::MAX as usize),
        b'R' => Some(AUTHENTICATION),
        b'1' | b'2' | b'3' | b'C' | b'G' | b'H' | b'I' | b'K' | b'S' | b'W' | b'Z' | b'c' | b'n' | b's'
        | b'v' => Some(SHORT),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_at_every_split() {
        let input = b"Q\0\0\0\x0a";
        for split in 0..HEADER {
            let mut framer = Framer::default();
            let (head, tail) = input.split_at(split);
            assert_eq!(framer.read(head), Header::NeedMore);
            assert_eq!(framer.at_boundary(), split == 0);
            assert_eq!(framer.read(tail), Header::Message { kind: b'Q', body: 6, taken: HEADER - split });
            assert!(framer.at_boundary());
        }
    }

    #[test]
    fn a_length_below_its_own_is_bad() {
        assert_eq!(Framer::default().read(b"Q\0\0\0\x03"), Header::Bad);
        assert_eq!(Framer::default().read(b"S\0\0\0\x04"), Header::Message { kind: b'S', body: 0, taken: 5 });
    }
}
