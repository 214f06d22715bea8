//! Files mapped into memory, allocated on disk before they are mapped.
//!
//! Owns the only pointers into such a file. Knows nothing of what is written.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    ops::Range,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use memmap2::{Advice, MmapRaw, UncheckedAdvice};
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

/// A new file, mapped: what writes, what advises the kernel, what syncs.
#[derive(Debug)]
pub struct Mapped {
    /// Writes into the file.
    pub writer: Writer,
    /// Advises the kernel about its pages, from any thread.
    pub pages: Pages,
    /// The file, for syncing.
    pub file: File,
}

/// Makes a file of `len` zero bytes that only its owner may read, with all its blocks on disk, and maps
/// it: a later write into the mapping cannot meet a full disk (which would be a SIGBUS).
///
/// # Errors
/// `StorageFull` where there is no room; the file is removed again. `AlreadyExists` where it exists.
pub fn create(path: &Path, len: usize) -> io::Result<Mapped> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    match allocate(&file, len).and_then(|()| MmapRaw::map_raw(&file)) {
        Ok(map) => {
            let map = Arc::new(map);
            Ok(Mapped { writer: Writer { map: map.clone() }, pages: Pages { map }, file })
        }
        Err(error) => {
            // What matters is the first error.
            std::fs::remove_file(path).ok();
            Err(error)
        }
    }
}

/// Gives the file `len` bytes on disk.
///
/// # Errors
/// `StorageFull` where there is no room.
pub fn allocate(file: &File, len: usize) -> io::Result<()> {
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, len as u64) {
            Err(Errno::INTR) => {}
            // A file system that cannot allocate: writing zeros does the same, slowly.
            Err(Errno::OPNOTSUPP) => return write_zeros(file, len),
            result => return Ok(result?),
        }
    }
}

fn write_zeros(mut file: &File, len: usize) -> io::Result<()> {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let mut left = len;
    while left > 0 {
        let n = left.min(ZEROS.len());
        file.write_all(&ZEROS[..n])?;
        left -= n;
    }
    Ok(())
}

/// The one writer of a mapped file.
///
/// Readers use `read(2)` and friends: the kernel keeps both views the same. No Rust reference into the
/// mapping is ever made, so that no reader in this process or another can break an aliasing rule.
#[derive(Debug)]
pub struct Writer {
    map: Arc<MmapRaw>,
}

impl Writer {
    /// Length of the mapping, bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether the mapping has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Panics
    /// When they do not fit: a mistake of the caller's, never of the input's.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len());
        assert!(end.is_some_and(|end| end <= self.len()), "write beyond the mapping");
        // SAFETY: the range was just checked to lie in the mapping, which lives as long as `self.map`;
        // `bytes` is a Rust slice and so never part of it.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(offset), bytes.len());
        }
    }

    /// Stores four bytes at `offset`, after everything that was written before (release).
    ///
    /// # Panics
    /// When they do not fit or `offset` is no multiple of four.
    pub fn publish(&mut self, offset: usize, bytes: [u8; 4]) {
        let end = offset.checked_add(4);
        assert!(
            end.is_some_and(|end| end <= self.len()) && offset.is_multiple_of(4),
            "publish beyond the mapping"
        );
        // SAFETY: in range and aligned (a mapping starts at a page), as checked; the memory is only ever
        // written through this `&mut` writer, so no other access in this process races with it.
        let word = unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().add(offset).cast()) };
        word.store(u32::from_ne_bytes(bytes), Ordering::Release);
    }
}

/// Tells the kernel which pages of a mapped file will be written and which will not be seen again.
/// Changes no byte.
#[derive(Clone, Debug)]
pub struct Pages {
    map: Arc<MmapRaw>,
}

impl Pages {
    /// Makes the pages present and writable, so that the writer does not wait for them.
    ///
    /// # Errors
    /// Kernels before 5.14 do not know how; nothing is lost but the writer's time.
    pub fn populate(&self, range: Range<usize>) -> io::Result<()> {
        let range = self.clamp(range);
        if range.is_empty() {
            return Ok(());
        }
        self.map.advise_range(Advice::PopulateWrite, range.start, range.len())
    }

    /// Takes the pages out of the process's resident set; their bytes stay in the file.
    ///
    /// # Errors
    /// What `madvise` says.
    pub fn release(&self, range: Range<usize>) -> io::Result<()> {
        let range = self.clamp(range);
        if range.is_empty() {
            return Ok(());
        }
        // SAFETY: MADV_DONTNEED on a shared file mapping drops page table entries only; the contents are
        // the file's and are found again at the next access. No reference into the mapping exists.
        unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) }
    }

    fn clamp(&self, range: Range<usize>) -> Range<usize> {
        range.start.min(self.map.len())..range.end.min(self.map.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_through_the_mapping_is_read_from_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut mapped = create(&path, 64 * 1024).unwrap();
        mapped.pages.populate(0..8192).ok();
        mapped.writer.write(5, b"hello");
        mapped.writer.publish(0, *b"head");
        mapped.pages.release(0..64 * 1024).unwrap();
        let read = std::fs::read(&path).unwrap();
        assert_eq!(read.len(), 64 * 1024);
        assert_eq!(&read[..10], b"head\0hello");
        mapped.writer.write(10, b"!");
        assert_eq!(std::fs::read(&path).unwrap()[10], b'!');
    }

    #[test]
    fn a_file_larger_than_the_disk_is_refused_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        // Larger than any file system's largest file.
        assert!(create(&path, isize::MAX as usize).is_err());
        assert!(!path.exists());
    }

    #[test]
    fn an_existing_file_is_never_mapped_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"kept").unwrap();
        assert_eq!(create(&path, 4096).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"kept");
    }

    #[test]
    #[should_panic(expected = "beyond the mapping")]
    fn a_write_beyond_the_mapping_is_a_mistake_of_the_callers() {
        let dir = tempfile::tempdir().unwrap();
        let mut mapped = create(&dir.path().join("file"), 4096).unwrap();
        mapped.writer.write(4090, b"too long");
    }
}
