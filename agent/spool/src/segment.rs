//! Segment files: their names and headers, and the one that is being written.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use verbatim_api::chain::{ChainId, Hash};
use verbatim_sys::mapped;

use crate::{frame, key::Mark, lock};

/// Bytes of a segment's header.
pub(crate) const HEADER: usize = 96;
const MAGIC: &[u8; 8] = b"VERBATIM";
const VERSION: u32 = 1;

/// Room for one head's frame: 12 + at most 156 bytes, and padding.
pub(crate) const HEAD_ROOM: usize = 172;

/// Heads are never further apart than this, so that a batch can end at one.
pub(crate) const HEAD_ENTRIES: u32 = 500;
/// Bytes of frames between two heads, unless one entry alone is larger.
pub(crate) const HEAD_BYTES: usize = 512 * 1024;

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) chain: ChainId,
    /// Counts the segments of a chain from 0.
    pub(crate) ordinal: u32,
    /// Sequence of its first entry.
    pub(crate) first_sequence: u64,
    /// h(first_sequence − 1).
    pub(crate) previous: Hash,
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_be_bytes());
        bytes[12..28].copy_from_slice(&self.chain);
        bytes[28..32].copy_from_slice(&self.ordinal.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.first_sequence.to_be_bytes());
        bytes[40..72].copy_from_slice(&self.previous);
        let crc = crc32c::crc32c(&bytes[..HEADER - 4]);
        bytes[HEADER - 4..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// `None`: these bytes are no header of this version.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
        let header = Self {
            chain: bytes[12..28].try_into().ok()?,
            ordinal: u32::from_be_bytes(bytes[28..32].try_into().ok()?),
            first_sequence: u64::from_be_bytes(bytes[32..40].try_into().ok()?),
            previous: bytes[40..72].try_into().ok()?,
        };
        (header.to_bytes() == *bytes).then_some(header)
    }
}

/// `CHAIN-ORDINAL.seg`
pub(crate) fn file_name(chain: &ChainId, ordinal: u32) -> String {
    format!("{}-{ordinal:08}.seg", hex(chain))
}

/// Chain and ordinal of a segment's file name.
pub(crate) fn parse_name(name: &str) -> Option<(ChainId, u32)> {
    let (chain, ordinal) = name.strip_suffix(".seg")?.split_once('-')?;
    Some((unhex(chain)?, ordinal.parse().ok()?))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A chain id from 32 hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<ChainId> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    let mut id = ChainId::default();
    for (byte, at) in id.iter_mut().zip((0..32).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(id)
}

/// A segment as writer and outbox share it.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) path: PathBuf,
    pub(crate) header: Header,
    /// Bytes it takes on disk.
    pub(crate) bytes: AtomicU64,
    /// Frames before this offset are published.
    end: AtomicU64,
    /// Sequence of the next entry, the one behind those published.
    next_sequence: AtomicU64,
    /// The file, while it is written and some time after: it can be read although its name is gone.
    kept: Mutex<Option<Arc<File>>>,
    /// Somebody took it away before it was shipped.
    gone: AtomicBool,
}

impl SegmentFile {
    pub(crate) fn new(path: PathBuf, header: Header, bytes: u64, end: u64, next_sequence: u64) -> Self {
        Self {
            path,
            header,
            bytes: AtomicU64::new(bytes),
            end: AtomicU64::new(end),
            next_sequence: AtomicU64::new(next_sequence),
            kept: Mutex::default(),
            gone: AtomicBool::new(false),
        }
    }

    /// For reading.
    pub(crate) fn open(&self) -> io::Result<Arc<File>> {
        let kept = lock(&self.kept).clone();
        kept.map_or_else(|| File::open(&self.path).map(Arc::new), Ok)
    }

    /// From now on its name is all that there is of it here.
    pub(crate) fn release(&self) {
        lock(&self.kept).take();
    }

    /// Whether it was there no more when it was to be read.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub(crate) fn lose(&self) {
        self.gone.store(true, Ordering::Release);
    }

    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence.load(Ordering::Acquire)
    }

    fn publish(&self, end: usize, next_sequence: u64) {
        self.next_sequence.store(next_sequence, Ordering::Release);
        self.end.store(end as u64, Ordering::Release);
    }
}

/// A segment file that was made ahead and belongs to nobody yet: zeros.
#[derive(Debug)]
pub(crate) struct Blank {
    pub(crate) mapped: mapped::Mapped,
    pub(crate) path: PathBuf,
    pub(crate) ordinal: u32,
}

impl Blank {
    pub(crate) fn create(folder: &Path, chain: &ChainId, ordinal: u32, bytes: u64) -> io::Result<Self> {
        let path = folder.join(file_name(chain, ordinal));
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        Ok(Self { mapped: mapped::create(&path, length)?, path, ordinal })
    }
}

/// The segment that is being written, or one that still misses heads.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    writer: mapped::Writer,
    pub(crate) pages: mapped::Pages,
    pub(crate) file: Arc<File>,
    pub(crate) info: Arc<SegmentFile>,
    offset: usize,
    /// The last entry, with its chain hash.
    pub(crate) last: Option<Mark>,
    /// Places inside that must be signed, in order.
    pub(crate) marks: VecDeque<Mark>,
    entries_since_mark: u32,
    bytes_since_mark: usize,
    /// How far a signed head in this segment reaches.
    pub(crate) signed: Option<u64>,
}

impl OpenSegment {
    /// Writes the header into a blank segment.
    pub(crate) fn begin(blank: Blank, chain: ChainId, first_sequence: u64, previous: Hash) -> Self {
        let Blank { mapped: mapped::Mapped { mut writer, pages, file }, path, ordinal } = blank;
        let header = Header { chain, ordinal, first_sequence, previous };
        writer.write(0, &header.to_bytes());
        let bytes = writer.len() as u64;
        let file = Arc::new(file);
        let info = SegmentFile::new(path, header, bytes, HEADER as u64, first_sequence);
        Self {
            info: Arc::new(SegmentFile { kept: Mutex::new(Some(file.clone())), ..info }),
            writer,
            pages,
            file,
            offset: HEADER,
            last: None,
            marks: VecDeque::new(),
            entries_since_mark: 0,
            bytes_since_mark: 0,
            signed: None,
        }
    }

    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) fn len(&self) -> usize {
        self.writer.len()
    }

    /// Bytes for frames, when the heads that must still come have theirs.
    pub(crate) fn free(&self) -> usize {
        self.writer.len().saturating_sub(self.offset + (self.marks.len() + 1) * HEAD_ROOM)
    }

    pub(crate) fn half_full(&self) -> bool {
        self.free() < Self::capacity(self.len()) / 2
    }

    /// Bytes for frames in an empty segment of this length.
    pub(crate) fn capacity(length: usize) -> usize {
        length.saturating_sub(HEADER + HEAD_ROOM)
    }

    /// Appends an entry that fits; says whether a head is due before the regular one.
    pub(crate) fn append(&mut self, envelope: &[u8], content: &[u8], mark: Mark) -> bool {
        let size = entry_size(envelope.len(), content.len());
        let due = self.entries_since_mark >= HEAD_ENTRIES
            || self.bytes_since_mark > 0 && self.bytes_since_mark + size > HEAD_BYTES;
        // Only where the mark's head has room too: the segment's last head covers this place as well.
        let due = due && size + HEAD_ROOM <= self.free();
        if due {
            self.marks.extend(self.last);
            self.entries_since_mark = 0;
            self.bytes_since_mark = 0;
        }
        let prefix = u32::try_from(envelope.len()).unwrap_or(u32::MAX).to_be_bytes();
        self.frame(frame::ENTRY, &[&prefix, envelope, content]);
        self.entries_since_mark += 1;
        self.bytes_since_mark += size;
        self.last = Some(mark);
        self.info.publish(self.offset, mark.sequence + 1);
        due
    }

    /// Writes a serialised head. `false`: it has no room here, and a later one covers its entries.
    pub(crate) fn place_head(&mut self, sequence: u64, head: &[u8]) -> bool {
        let size = frame::size(head.len());
        while self.marks.front().is_some_and(|mark| mark.sequence <= sequence) {
            self.marks.pop_front();
        }
        let covers_all = self.last.is_some_and(|last| last.sequence == sequence);
        let room = self.writer.len().saturating_sub(self.offset);
        // The last room belongs to the head that covers the segment's last entry. Once it is used, no
        // further entry fits.
        if size > self.free() && !(covers_all && size <= room) {
            return false;
        }
        self.frame(frame::HEAD, &[head]);
        self.signed = Some(sequence);
        if covers_all {
            self.entries_since_mark = 0;
            self.bytes_since_mark = 0;
        }
        self.info.publish(self.offset, self.info.next_sequence());
        true
    }

    /// What the entries up to the last one lack a head for.
    pub(crate) fn unsigned(&self) -> Option<Mark> {
        self.last.filter(|last| self.signed.is_none_or(|signed| signed < last.sequence))
    }

    /// Payload first, the length last: a frame without a length does not count.
    fn frame(&mut self, kind: u8, parts: &[&[u8]]) {
        let header = frame::header(kind, parts);
        let mut at = self.offset + frame::HEADER;
        for part in parts {
            self.writer.write(at, part);
            at += part.len();
        }
        self.writer.write(self.offset + 4, &header[4..]);
        let [a, b, c, d, ..] = header;
        self.writer.publish(self.offset, [a, b, c, d]);
        self.offset += frame::size(at - self.offset - frame::HEADER);
    }

    /// Cuts the file behind its last frame and gives back how many bytes that freed.
    pub(crate) fn finish(self) -> io::Result<u64> {
        let end = self.offset as u64;
        self.file.set_len(end)?;
        let before = self.info.bytes.swap(end, Ordering::AcqRel);
        Ok(before.saturating_sub(end))
    }
}

/// Bytes that an entry's frame takes.
pub(crate) fn entry_size(envelope: usize, content: usize) -> usize {
    frame::size(frame::ENTRY_PREFIX + envelope + content)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::key::NodeKey;

    #[test]
    fn a_header_is_read_back_and_every_changed_byte_of_it_is_noticed() {
        let header = Header { chain: [1; 16], ordinal: 2, first_sequence: 3, previous: [4; 32] };
        let bytes = header.to_bytes();
        assert_eq!(Header::parse(&bytes), Some(header));
        for at in 0..HEADER {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert_eq!(Header::parse(&changed), None, "byte {at}");
        }
    }

    #[test]
    fn a_file_name_tells_chain_and_ordinal() {
        let name = file_name(&[0xab; 16], 7);
        assert_eq!(parse_name(&name), Some(([0xab; 16], 7)));
        assert_eq!(parse_name("ab-7.seg"), None);
        assert_eq!(parse_name("\u{e4}\u{e4}bbababababababababababababab-7.seg"), None);
    }

    #[test]
    fn the_largest_head_fits_its_room() {
        let key = NodeKey::generate().unwrap();
        let head = key.sign(&[0; 16], Mark { sequence: u64::MAX, hash: [0; 32] }, u64::MAX, true);
        assert!(frame::size(head.encoded_len()) <= HEAD_ROOM, "{}", head.encoded_len());
    }
}
