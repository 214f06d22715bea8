//! Frames: how entries, heads and the tail state lie in a file. `docs/record-format.md` freezes them.
//!
//! Pure functions over bytes. A frame counts when its length is not zero and its CRC holds.

/// Bytes before the body: length, CRC32C, kind, three zeros.
pub(crate) const HEADER: usize = 12;
/// In front of an entry's envelope: its length.
pub(crate) const ENTRY_PREFIX: usize = 4;
const ALIGN: usize = 4;

/// A serialised entry.
pub(crate) const ENTRY: u8 = 1;
/// A serialised `SignedHead`.
pub(crate) const HEAD: u8 = 2;
/// What was deleted of a chain and what was open then; only in `tail` files.
pub(crate) const TAIL: u8 = 3;

/// Bytes that a frame with this body takes, padding included.
pub(crate) fn size(body: usize) -> usize {
    (HEADER + body).next_multiple_of(ALIGN)
}

/// The twelve bytes before a body that is given in parts.
pub(crate) fn header(kind: u8, parts: &[&[u8]]) -> [u8; HEADER] {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let kind = [kind, 0, 0, 0];
    let mut crc = crc32c::crc32c(&length);
    crc = crc32c::crc32c_append(crc, &kind);
    for part in parts {
        crc = crc32c::crc32c_append(crc, part);
    }
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&length);
    header[4..8].copy_from_slice(&crc.to_be_bytes());
    header[8..].copy_from_slice(&kind);
    header
}

/// A whole frame, padded.
pub(crate) fn whole(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(size(body.len()));
    frame.extend_from_slice(&header(kind, &[body]));
    frame.extend_from_slice(body);
    frame.resize(size(body.len()), 0);
    frame
}

/// A frame that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) body: &'a [u8],
    /// Bytes it takes, padding included; the padding may be cut off at the end of the input.
    pub(crate) size: usize,
}

/// What stands at the start of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    Frame(Frame<'a>),
    /// The length is zero, or there are too few bytes for a header: nothing was published here.
    End,
    /// The frame is longer than the input; it takes this many bytes.
    Short(usize),
    /// Something is there and does not hold.
    Bad,
}

/// Reads the frame at the start of `bytes`.
pub(crate) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let Some((header, rest)) = bytes.split_at_checked(HEADER) else { return Parsed::End };
    let length = be32(&header[..4]) as usize;
    if length == 0 {
        return Parsed::End;
    }
    let kind = header[8];
    if !matches!(kind, ENTRY | HEAD | TAIL) || header[9..] != [0; 3] {
        return Parsed::Bad;
    }
    let Some(body) = rest.get(..length) else { return Parsed::Short(HEADER + length) };
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..4]), &header[8..]);
    if crc32c::crc32c_append(crc, body) != be32(&header[4..8]) {
        return Parsed::Bad;
    }
    Parsed::Frame(Frame { kind, body, size: size(length) })
}

/// Envelope and content of an entry's body.
pub(crate) fn split_entry(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = body.split_at_checked(ENTRY_PREFIX)?;
    rest.split_at_checked(be32(length) as usize)
}

fn be32(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(bytes);
    u32::from_be_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_back_and_every_changed_byte_of_it_is_noticed() {
        let frame = whole(ENTRY, b"seven b");
        assert_eq!(frame.len(), 20);
        assert_eq!(parse(&frame), Parsed::Frame(Frame { kind: ENTRY, body: b"seven b", size: 20 }));
        for at in 0..HEADER + 7 {
            for bit in 0..8 {
                let mut changed = frame.clone();
                changed[at] ^= 1 << bit;
                assert!(!matches!(parse(&changed), Parsed::Frame(_)), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn zeros_and_too_few_bytes_are_the_end() {
        assert_eq!(parse(&[0; 64]), Parsed::End);
        assert_eq!(parse(&[1; 11]), Parsed::End);
        assert_eq!(parse(&whole(HEAD, b"abc")[..14]), Parsed::Short(15));
    }
}
