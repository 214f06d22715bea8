//! Read buffers: taken when a socket is readable, given back when everything in them was disposed of.
//!
//! A thousand idle connections hold none. Knows nothing of sockets.

use std::cell::RefCell;

use verbatim_wire::seam::Limits;
use zeroize::Zeroize;

/// Size of a read.
pub(crate) const READ_BYTES: usize = 64 * 1024;
/// A read into less than this is not worth its system call: move or grow first.
const LEAST_BYTES: usize = READ_BYTES / 4;
/// Buffers kept for the next reader, per shard: 4 MiB.
const KEPT: usize = 64;

/// A shard's free buffers.
pub(crate) struct Pool {
    free: RefCell<Vec<Vec<u8>>>,
    /// What one buffer may grow to, bytes.
    bound: usize,
}

impl Pool {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { free: RefCell::default(), bound: limits.capture_bytes.saturating_add(READ_BYTES) }
    }

    fn take(&self) -> Vec<u8> {
        self.free.borrow_mut().pop().unwrap_or_else(|| vec![0; READ_BYTES])
    }

    fn give(&self, store: Vec<u8>) {
        let mut free = self.free.borrow_mut();
        if store.len() == READ_BYTES && free.len() < KEPT {
            free.push(store);
        }
    }
}

/// Input of one direction that is not disposed of yet: first what the decoder has consumed, then what it
/// has not.
#[derive(Default)]
pub(crate) struct Buffer {
    store: Vec<u8>,
    start: usize,
    fed: usize,
    end: usize,
}

impl Buffer {
    /// Where to read to; `None` when the bound is reached.
    pub(crate) fn space(&mut self, pool: &Pool) -> Option<&mut [u8]> {
        if self.store.is_empty() {
            self.store = pool.take();
        }
        if self.store.len() - self.end < LEAST_BYTES {
            self.store.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.fed -= self.start;
            self.start = 0;
            if self.store.len() - self.end < LEAST_BYTES && self.store.len() < pool.bound {
                let grown = (self.store.len() * 2).min(pool.bound);
                self.store.resize(grown, 0);
            }
        }
        let space = self.store.get_mut(self.end..)?;
        (!space.is_empty()).then_some(space)
    }

    /// So many bytes were read into [`Buffer::space`].
    pub(crate) fn filled(&mut self, n: usize) {
        self.end = (self.end + n).min(self.store.len());
    }

    /// What the decoder has not consumed.
    pub(crate) fn unfed(&self) -> &[u8] {
        self.store.get(self.fed..self.end).unwrap_or_default()
    }

    /// The decoder consumed so many bytes.
    pub(crate) fn consumed(&mut self, n: usize) {
        self.fed = (self.fed + n).min(self.end);
    }

    /// What the decoder has consumed and no edit has disposed of.
    pub(crate) fn held(&self) -> &[u8] {
        self.store.get(self.start..self.fed).unwrap_or_default()
    }

    /// Everything.
    pub(crate) fn all(&self) -> &[u8] {
        self.store.get(self.start..self.end).unwrap_or_default()
    }

    /// The first `n` bytes are done with.
    pub(crate) fn dispose(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
        self.fed = self.fed.max(self.start);
        if self.start == self.end {
            (self.start, self.fed, self.end) = (0, 0, 0);
        }
    }

    /// The first `n` bytes are done with and must not stay in memory: they are a credential's.
    pub(crate) fn wipe(&mut self, n: usize) {
        let end = (self.start + n).min(self.end);
        self.store.get_mut(self.start..end).unwrap_or_default().zeroize();
        self.dispose(n);
    }

    /// Nothing of it has been given to a decoder: another one begins with it.
    pub(crate) fn rewind(&mut self) {
        self.fed = self.start;
    }

    /// Holds these bytes, outside of the pool.
    pub(crate) fn holding(bytes: &[u8]) -> Self {
        Self { store: bytes.to_vec(), start: 0, fed: 0, end: bytes.len() }
    }

    /// Whatever is there is done with.
    pub(crate) fn clear(&mut self) {
        (self.start, self.fed, self.end) = (0, 0, 0);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Gives the memory back if nothing is in it.
    pub(crate) fn release(&mut self, pool: &Pool) {
        if self.is_empty() && !self.store.is_empty() {
            self.clear();
            pool.give(std::mem::take(&mut self.store));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        Pool::new(&Limits { capture_bytes: 100_000, ..Limits::default() })
    }

    fn put(buffer: &mut Buffer, pool: &Pool, bytes: &[u8]) {
        let space = buffer.space(pool).expect("room");
        let n = bytes.len().min(space.len());
        space[..n].copy_from_slice(&bytes[..n]);
        buffer.filled(n);
    }

    #[test]
    fn bytes_come_out_in_order_through_moves_and_growth() {
        let pool = pool();
        let mut buffer = Buffer::default();
        let input: Vec<u8> = (0..150_000_u32).map(|n| (n % 251) as u8).collect();
        let mut output = Vec::new();
        for part in input.chunks(9_000) {
            put(&mut buffer, &pool, part);
            buffer.consumed(usize::MAX - buffer.end);
            let take = buffer.held().len() / 3;
            output.extend_from_slice(&buffer.held()[..take]);
            buffer.dispose(take);
        }
        output.extend_from_slice(buffer.held());
        assert_eq!(output, input);
    }

    #[test]
    fn a_buffer_stops_at_its_bound_and_goes_on_when_something_was_disposed_of() {
        let pool = pool();
        let mut buffer = Buffer::default();
        let mut total = 0;
        while let Some(space) = buffer.space(&pool) {
            let n = space.len();
            buffer.filled(n);
            total += n;
        }
        assert_eq!(total, 100_000 + READ_BYTES);
        buffer.dispose(1);
        assert_eq!(buffer.space(&pool).expect("one byte").len(), 1);
    }

    #[test]
    fn an_empty_buffer_gives_its_memory_back_and_a_grown_one_is_not_kept() {
        let pool = pool();
        let mut buffer = Buffer::default();
        put(&mut buffer, &pool, b"abc");
        buffer.release(&pool);
        assert_eq!(buffer.all(), b"abc");
        buffer.dispose(3);
        buffer.release(&pool);
        assert_eq!(pool.free.borrow().len(), 1);
        while let Some(space) = buffer.space(&pool) {
            let n = space.len();
            buffer.filled(n);
        }
        buffer.clear();
        buffer.release(&pool);
        assert_eq!(pool.free.borrow().len(), 0);
    }
}
