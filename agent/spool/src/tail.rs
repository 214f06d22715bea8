//! What is remembered of segments that were deleted: how far their chain went, and what was open then.
//! Without it a crash would forget the end of a command that runs longer than its segment is kept.
//!
//! Two files take turns, the other one being a spare with its blocks on disk: writing one and exchanging
//! their names needs no room on a full disk.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use verbatim_api::chain::{ChainId, Hash};

use crate::{
    frame::{self, Parsed},
    pending::Pending,
    surroundings::SyncFile,
};

const NAME: &str = "tail";
const SPARE: &str = "tail.spare";

/// On disk before it is needed; more is allocated when more is open.
const SPARE_BYTES: usize = 256 * 1024;

/// The deleted part of a folder's oldest chain.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    pub(crate) chain: ChainId,
    /// Segments up to this one are deleted.
    pub(crate) ordinal: u32,
    /// Sequence of the first entry that is not deleted.
    pub(crate) next_sequence: u64,
    /// h of the entry before.
    pub(crate) hash: Hash,
    /// The chain's closing record was deleted, too.
    pub(crate) closed: bool,
    pub(crate) pending: Pending,
}

impl Tail {
    /// What is remembered in a folder. A file that does not hold is as good as none.
    pub(crate) fn read(folder: &Path) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        match File::open(folder.join(NAME)) {
            Ok(mut file) => file.read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Parsed::Frame(frame) = frame::parse(&bytes) else { return Ok(None) };
        Ok((frame.kind == frame::TAIL).then(|| Self::decode(frame.body)).flatten())
    }

    /// Remembers; when this returns, a process that dies or (with `sync`) a machine that loses power
    /// finds either what stood there before or this.
    pub(crate) fn write(&self, folder: &Path, sync: Option<&SyncFile>) -> io::Result<()> {
        let bytes = frame::whole(frame::TAIL, &self.encode());
        let spare = open_spare(folder, bytes.len())?;
        spare.write_all_at(&bytes, 0)?;
        if let Some(sync) = sync {
            sync(&spare)?;
        }
        exchange(folder)?;
        if let Some(sync) = sync {
            sync(&File::open(folder)?)?;
        }
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.chain);
        out.extend_from_slice(&self.ordinal.to_be_bytes());
        out.extend_from_slice(&self.next_sequence.to_be_bytes());
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(&u32::from(self.closed).to_be_bytes());
        for envelope in self.pending.envelopes() {
            out.extend_from_slice(&u32::try_from(envelope.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(envelope);
        }
        out
    }

    fn decode(mut body: &[u8]) -> Option<Self> {
        let chain = take(&mut body)?;
        let ordinal = u32::from_be_bytes(take(&mut body)?);
        let next_sequence = u64::from_be_bytes(take(&mut body)?);
        let hash = take(&mut body)?;
        let closed = u32::from_be_bytes(take(&mut body)?) != 0;
        let mut pending = Pending::default();
        while !body.is_empty() {
            let length = u32::from_be_bytes(take(&mut body)?) as usize;
            let (envelope, rest) = body.split_at_checked(length)?;
            pending.read(envelope);
            body = rest;
        }
        Some(Self { chain, ordinal, next_sequence, hash, closed, pending })
    }
}

/// Makes the spare, so that it is there when the disk is full.
pub(crate) fn prepare(folder: &Path) -> io::Result<()> {
    open_spare(folder, 0).map(drop)
}

fn open_spare(folder: &Path, bytes: usize) -> io::Result<File> {
    let path = folder.join(SPARE);
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let wanted = bytes.next_multiple_of(SPARE_BYTES).max(SPARE_BYTES);
    if file.metadata()?.len() < wanted as u64 {
        verbatim_sys::mapped::allocate(&file, wanted)?;
    }
    Ok(file)
}

fn exchange(folder: &Path) -> io::Result<()> {
    let (spare, name) = (folder.join(SPARE), folder.join(NAME));
    match renameat_with(CWD, &spare, CWD, &name, RenameFlags::EXCHANGE) {
        // The first time there is nothing to exchange with; a file system may not know how to.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            std::fs::rename(&spare, &name)?;
            // A spare that cannot be made now is made when it is needed.
            prepare(folder).ok();
            Ok(())
        }
        result => Ok(result?),
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(next_sequence: u64) -> Tail {
        Tail {
            chain: [1; 16],
            ordinal: 3,
            next_sequence,
            hash: [2; 32],
            closed: true,
            pending: Pending::default(),
        }
    }

    #[test]
    fn what_was_written_last_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Tail::read(dir.path()).unwrap().is_none());
        prepare(dir.path()).unwrap();
        for sequence in 1..5 {
            tail(sequence).write(dir.path(), Some(&File::sync_data)).unwrap();
            let read = Tail::read(dir.path()).unwrap().unwrap();
            assert_eq!((read.chain, read.ordinal, read.next_sequence), ([1; 16], 3, sequence));
            assert_eq!((read.hash, read.closed), ([2; 32], true));
            assert!(dir.path().join(SPARE).metadata().unwrap().len() >= SPARE_BYTES as u64);
        }
    }

    #[test]
    fn a_damaged_tail_is_none() {
        let dir = tempfile::tempdir().unwrap();
        tail(1).write(dir.path(), None).unwrap();
        let path = dir.path().join(NAME);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(Tail::read(dir.path()).unwrap().is_none());
    }
}
