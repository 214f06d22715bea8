//! The bytes of a segment: a header, then frames, each under a CRC32C.
//!
//! Owns the layout on disk and nothing else: it knows neither where segments are kept nor what a frame's
//! parts mean. Numbers are big-endian.

use bytes::{Buf, BufMut, Bytes};

/// First bytes of every segment; the last one is the format's version.
pub const MAGIC: [u8; 8] = *b"VBTMLOG\x01";
/// Bytes before the first frame: magic, part (u32), zero (u32), first position (u64).
pub const SEGMENT_HEADER: u64 = 24;
/// Bytes before a frame's body.
pub const FRAME_HEADER: usize = 32;
/// A frame is never larger; a length above it is damage, not a reason to allocate.
pub const MAX_BODY: usize = 1 << 30;

/// What a segment holds. The two parts of a segment have the same first position and are named alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Envelopes with the collector's header for each batch, and the collector's own events.
    Envelopes,
    /// Contents, position by position.
    Contents,
}

impl Part {
    /// Folder of the part.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Envelopes => "envelopes",
            Self::Contents => "contents",
        }
    }

    const fn code(self) -> u32 {
        match self {
            Self::Envelopes => 1,
            Self::Contents => 2,
        }
    }
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Envelopes of one batch; the header is a `BatchHeader`.
    Batch,
    /// Contents of one batch, one item for each envelope, empty where there is none.
    Contents,
    /// Something that the collector did or found; the header is an `Event`, there are no items.
    Event,
    /// What was known of all chains when the segment began; takes no position.
    Snapshot,
}

impl FrameKind {
    const fn code(self) -> u8 {
        match self {
            Self::Batch => 1,
            Self::Contents => 2,
            Self::Event => 3,
            Self::Snapshot => 4,
        }
    }

    const fn parse(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Batch),
            2 => Some(Self::Contents),
            3 => Some(Self::Event),
            4 => Some(Self::Snapshot),
            _ => None,
        }
    }
}

/// A frame's header, before its body was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// What it holds.
    pub kind: FrameKind,
    /// Position of its first item.
    pub first_position: u64,
    /// Positions that it takes.
    pub count: u32,
    /// Length of the body, bytes.
    pub body: usize,
    meta: usize,
    crc: u32,
}

impl FrameHead {
    /// Length of the whole frame, bytes.
    #[must_use]
    pub const fn length(&self) -> usize {
        FRAME_HEADER + self.body
    }

    /// Position after its last item.
    #[must_use]
    pub const fn next_position(&self) -> u64 {
        self.first_position + self.count as u64
    }
}

/// A frame that was read and whose checksum holds.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its header.
    pub head: FrameHead,
    /// Serialised header of the collector's: `BatchHeader`, `Event` or `Snapshot`.
    pub meta: Bytes,
    /// The items, with the offset of each from the frame's first byte.
    pub items: Vec<(usize, Bytes)>,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// More bytes are needed: this many in all.
    #[error("frame is cut: it needs {0} bytes")]
    Cut(usize),
    /// Not a frame, or its checksum does not hold.
    #[error("frame is damaged: {0}")]
    Damaged(&'static str),
}

/// The header of a segment.
#[must_use]
pub fn segment_header(part: Part, first_position: u64) -> [u8; SEGMENT_HEADER as usize] {
    let mut header = [0; SEGMENT_HEADER as usize];
    let mut out = &mut header[..];
    out.put_slice(&MAGIC);
    out.put_u32(part.code());
    out.put_u32(0);
    out.put_u64(first_position);
    header
}

/// Appends a frame to `out`. Items are counted by the caller when the frame takes positions without items.
pub fn write<T: AsRef<[u8]>>(
    out: &mut Vec<u8>,
    kind: FrameKind,
    first_position: u64,
    count: u32,
    meta: &[u8],
    items: impl Iterator<Item = T>,
) {
    let start = out.len();
    out.resize(start + FRAME_HEADER, 0);
    out.extend_from_slice(meta);
    for item in items {
        let item = item.as_ref();
        out.put_u32(item.len() as u32);
        out.extend_from_slice(item);
    }
    let body = out.len() - start - FRAME_HEADER;
    {
        let mut head = &mut out[start..start + FRAME_HEADER];
        head.put_u32(body as u32);
        head.put_u8(kind.code());
        head.put_bytes(0, 3);
        head.put_u64(first_position);
        head.put_u32(count);
        head.put_u32(meta.len() as u32);
        head.put_u32(0);
    }
    seal(&mut out[start..]);
}

/// Computes the checksum of a whole frame again, after its body was changed in place.
pub fn seal(frame: &mut [u8]) {
    let crc = checksum(frame);
    frame[28..32].copy_from_slice(&crc.to_be_bytes());
}

fn checksum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..28]), &frame[FRAME_HEADER..])
}

/// Reads a frame's header at the start of `bytes`.
pub fn head(bytes: &[u8]) -> Result<FrameHead, FrameError> {
    if bytes.len() < FRAME_HEADER {
        return Err(FrameError::Cut(FRAME_HEADER));
    }
    let mut b = &bytes[..FRAME_HEADER];
    let body = b.get_u32() as usize;
    let kind = FrameKind::parse(b.get_u8()).ok_or(FrameError::Damaged("unknown kind"))?;
    b.advance(3);
    let first_position = b.get_u64();
    let count = b.get_u32();
    let meta = b.get_u32() as usize;
    b.advance(4);
    let crc = b.get_u32();
    if body > MAX_BODY || meta > body {
        return Err(FrameError::Damaged("impossible length"));
    }
    if first_position.checked_add(u64::from(count)).is_none() {
        return Err(FrameError::Damaged("impossible position"));
    }
    Ok(FrameHead { kind, first_position, count, body, meta, crc })
}

/// Reads the frame at the start of `bytes`.
pub fn read(bytes: &Bytes) -> Result<Frame, FrameError> {
    let head = head(bytes)?;
    if bytes.len() < head.length() {
        return Err(FrameError::Cut(head.length()));
    }
    if checksum(&bytes[..head.length()]) != head.crc {
        return Err(FrameError::Damaged("checksum does not hold"));
    }
    let meta = bytes.slice(FRAME_HEADER..FRAME_HEADER + head.meta);
    let mut items = Vec::new();
    let mut at = FRAME_HEADER + head.meta;
    while at < head.length() {
        let length =
            bytes.get(at..at + 4).map(|mut b| b.get_u32() as usize).ok_or(FrameError::Damaged("item"))?;
        at += 4;
        if at + length > head.length() {
            return Err(FrameError::Damaged("item is longer than its frame"));
        }
        items.push((at, bytes.slice(at..at + length)));
        at += length;
    }
    if matches!(head.kind, FrameKind::Batch | FrameKind::Contents) && items.len() != head.count as usize {
        return Err(FrameError::Damaged("number of items"));
    }
    Ok(Frame { head, meta, items })
}

/// Offset of the next intact frame in `bytes` at or after `from`.
#[must_use]
pub fn find(bytes: &Bytes, from: usize) -> Option<usize> {
    (from..bytes.len().saturating_sub(FRAME_HEADER)).find(|&at| {
        // The checksum is only computed where the header is possible, which is seldom.
        head(&bytes[at..]).is_ok_and(|h| at + h.length() <= bytes.len()) && read(&bytes.slice(at..)).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Bytes {
        let mut out = Vec::new();
        write(&mut out, FrameKind::Batch, 7, 2, b"meta", [&b"one"[..], b"two!"].into_iter());
        Bytes::from(out)
    }

    #[test]
    fn frame_reads_back_as_it_was_written() {
        let frame = read(&sample()).expect("intact");
        assert_eq!((frame.head.first_position, frame.head.next_position()), (7, 9));
        assert_eq!(&frame.meta[..], b"meta");
        assert_eq!(frame.items.iter().map(|(_, i)| &i[..]).collect::<Vec<_>>(), [&b"one"[..], b"two!"]);
        let (at, item) = &frame.items[1];
        assert_eq!(&sample()[*at..at + item.len()], b"two!");
    }

    #[test]
    fn bytes_on_disk_are_frozen() {
        // Written once by hand: a log that was written must be readable for ever.
        let hex = crate::log::hex;
        assert_eq!(
            hex(&segment_header(Part::Contents, 258)),
            "5642544d4c4f470100000002000000000000000000000102"
        );
        let head = "00000013010000000000000000000007000000020000000400000000";
        let body = "6d65746100000003".to_owned() + "6f6e65" + "00000004" + "74776f21";
        assert_eq!(hex(&sample()), format!("{head}{}{body}", hex(&sample()[28..32])));
        assert_eq!(hex(&sample()[28..32]), "a0be16db");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let intact = sample();
        for length in 0..intact.len() {
            assert!(matches!(read(&intact.slice(..length)), Err(FrameError::Cut(_))), "cut at {length}");
        }
        for bit in 0..intact.len() * 8 {
            let mut bytes = intact.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&Bytes::from(bytes)).is_err(), "bit {bit} flipped");
        }
    }

    #[test]
    fn next_intact_frame_is_found_behind_damage() {
        let mut bytes = vec![0xff; 37];
        bytes.extend_from_slice(&sample());
        assert_eq!(find(&Bytes::from(bytes), 1), Some(37));
        assert_eq!(find(&Bytes::from(vec![0; 4096]), 0), None);
    }
}
