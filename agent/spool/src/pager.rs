//! Reads a segment's frames from its file, in windows, without mapping it: what the writer's pages hold
//! and what the file says is the same to the kernel.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use prost::bytes::Bytes;

use crate::{
    frame::{self, Parsed},
    segment::SegmentFile,
};

const WINDOW_BYTES: u64 = 256 * 1024;

/// A frame whose body shares its window's memory.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) kind: u8,
    pub(crate) body: Bytes,
    pub(crate) size: u64,
}

/// Why a frame could not be read.
#[derive(Debug)]
pub(crate) enum PageError {
    Io(io::Error),
    /// What was published once does not hold any more.
    Damaged,
}

/// One open segment file.
#[derive(Debug)]
pub(crate) struct Pager {
    file: Arc<File>,
    window: Bytes,
    at: u64,
}

impl Pager {
    pub(crate) fn open(segment: &SegmentFile) -> io::Result<Self> {
        Ok(Self { file: segment.open()?, window: Bytes::new(), at: 0 })
    }

    /// The frame at `offset`, which lies before `end`, up to where frames are published.
    pub(crate) fn frame(&mut self, offset: u64, end: u64) -> Result<Page, PageError> {
        if let Some(page) = self.parse(offset)? {
            return Ok(page);
        }
        self.load(offset, WINDOW_BYTES.min(end - offset))?;
        if let Some(page) = self.parse(offset)? {
            return Ok(page);
        }
        // Larger than a window.
        let Parsed::Short(needed) = frame::parse(&self.window) else { return Err(PageError::Damaged) };
        if offset + needed as u64 > end {
            return Err(PageError::Damaged);
        }
        self.load(offset, needed as u64)?;
        self.parse(offset)?.ok_or(PageError::Damaged)
    }

    /// `None`: not wholly in the window, or it was not published when the window was read.
    fn parse(&self, offset: u64) -> Result<Option<Page>, PageError> {
        let Some(start) = offset.checked_sub(self.at).and_then(|start| usize::try_from(start).ok()) else {
            return Ok(None);
        };
        let Some(bytes) = self.window.get(start..) else { return Ok(None) };
        match frame::parse(bytes) {
            Parsed::Frame(frame) => Ok(Some(Page {
                kind: frame.kind,
                body: self.window.slice_ref(frame.body),
                size: frame.size as u64,
            })),
            Parsed::End | Parsed::Short(_) => Ok(None),
            Parsed::Bad => Err(PageError::Damaged),
        }
    }

    fn load(&mut self, offset: u64, length: u64) -> Result<(), PageError> {
        let length = usize::try_from(length).map_err(|error| PageError::Io(io::Error::other(error)))?;
        let mut window = vec![0; length];
        match self.file.read_exact_at(&mut window, offset) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(PageError::Damaged),
            Err(error) => return Err(PageError::Io(error)),
        }
        self.window = window.into();
        self.at = offset;
        Ok(())
    }
}
