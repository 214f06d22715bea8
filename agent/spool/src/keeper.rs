//! The thread that does what a shard must not wait for: signs heads, makes segments ahead, looks after
//! their pages. Wakes every head interval, and when a shard rings.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    lock,
    segment::OpenSegment,
    shard::{Common, Shard},
};

/// How far ahead of the writer pages are made present.
pub(crate) const POPULATE_BYTES: usize = 1024 * 1024;

/// Pages are dropped from the resident set in steps of this.
const RELEASE_BYTES: usize = 256 * 1024;

/// Without a head for this long an idle thread looks anyway.
const SHORTEST: Duration = Duration::from_millis(1);

/// Runs until the last shard is gone.
pub(crate) fn run(common: &Common, shards: &[Weak<Shard>], head_interval: Duration) {
    let interval = head_interval.max(SHORTEST);
    let mut pages = vec![Window::default(); shards.len()];
    let mut last_heads = Instant::now();
    loop {
        common.keeper.wait(interval.saturating_sub(last_heads.elapsed()).max(SHORTEST));
        let newest = last_heads.elapsed() >= interval;
        if newest {
            last_heads = Instant::now();
        }
        let mut alive = false;
        for (shard, window) in shards.iter().zip(&mut pages) {
            let Some(shard) = shard.upgrade() else { continue };
            alive = true;
            tend(&shard, newest, window);
        }
        if !alive {
            return;
        }
    }
}

fn tend(shard: &Arc<Shard>, newest: bool, window: &mut Window) {
    if shard.closed.load(Ordering::Acquire) {
        return;
    }
    shard.supply();
    shard.sign(newest);
    let seen = lock(&shard.writer).active.as_ref().map(Seen::of);
    if let Some(seen) = seen {
        window.follow(&seen, newest);
    }
}

/// Where the writer was when the keeper looked.
struct Seen {
    ordinal: u32,
    offset: usize,
    pages: verbatim_sys::mapped::Pages,
}

impl Seen {
    fn of(active: &OpenSegment) -> Self {
        Self { ordinal: active.info.header.ordinal, offset: active.offset(), pages: active.pages.clone() }
    }
}

/// Which pages of a segment are present on purpose: some ahead of the writer, none long behind it.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    ordinal: u32,
    from: usize,
    to: usize,
    last_offset: usize,
}

impl Window {
    /// What the kernel answers changes nothing: without its help the writer meets page faults.
    fn follow(&mut self, seen: &Seen, tick: bool) {
        if seen.ordinal != self.ordinal {
            *self = Self { ordinal: seen.ordinal, ..Self::default() };
        }
        let moved = seen.offset != self.last_offset;
        if moved && seen.offset + POPULATE_BYTES / 2 > self.to {
            let to = seen.offset + POPULATE_BYTES;
            seen.pages.populate(page(self.to.max(seen.offset))..to).ok();
            self.to = page(to);
        }
        let behind = page(seen.offset);
        // An idle shard keeps nothing resident behind it; a busy one is not asked for every page.
        if behind >= self.from + RELEASE_BYTES || tick && !moved && behind > self.from {
            seen.pages.release(self.from..behind).ok();
            self.from = behind;
        }
        if tick {
            self.last_offset = seen.offset;
        }
    }
}

fn page(offset: usize) -> usize {
    const PAGE: usize = 4096;
    offset / PAGE * PAGE
}
