//! Moving one direction's bytes: read, feed, carry out the script.

use std::task::{Context, Poll};

use tokio::time::{Sleep, sleep};
use verbatim_wire::seam::Direction;

use super::{Collect, Gate, Relay, script::Step};
use crate::{
    Records,
    buffer::Buffer,
    legs::{BOTH, End, Ended, Legs, at, opposite, source},
};

/// One direction.
#[derive(Default)]
pub(super) struct Way {
    pub(super) buffer: Buffer,
    /// Its input has ended.
    pub(super) ended: Option<Ended>,
    /// The decoder was told so.
    pub(super) finished: bool,
    /// FIN was sent.
    pub(super) shut: bool,
    /// Its destination is gone: output is dropped.
    pub(super) dead: bool,
    /// The destination took less than there is.
    blocked: bool,
    /// Its readiness was looked past: read without asking.
    stale: bool,
    /// Bytes forwarded.
    pub(super) bytes: u64,
}

impl Way {
    pub(super) fn begin(mut buffer: Buffer, ended: Option<Ended>) -> Self {
        buffer.rewind();
        Self { buffer, ended, ..Self::default() }
    }
}

/// How the connection ended, if it has.
pub(super) fn over(ways: &[Way; 2]) -> Option<End> {
    for direction in BOTH {
        let (way, back) = (&ways[at(direction)], &ways[at(opposite(direction))]);
        let told = way.finished || way.dead;
        if way.ended == Some(Ended::Reset) && told {
            return Some(End::Reset(source(direction)));
        }
        if way.dead && back.shut {
            return Some(End::Reset(source(opposite(direction))));
        }
    }
    ways.iter().all(|way| way.shut).then_some(End::Closed)
}

impl<R: Records> Relay<'_, R> {
    /// Gives the decoder what it has not seen. `true`: something is to be recorded or decided.
    pub(super) fn feed(&mut self) -> bool {
        let mut changed = false;
        for direction in BOTH {
            let waits = direction == Direction::ToServer && !matches!(self.gate, Gate::Open);
            let way = &mut self.ways[at(direction)];
            if direction == Direction::ToServer && way.dead {
                // A command that cannot be forwarded is not one that was started.
                way.buffer.clear();
                way.finished |= way.ended.is_some();
            }
            if waits {
                continue;
            }
            if !way.buffer.unfed().is_empty() {
                let mut sink = Collect { entries: &mut self.entries, scripts: &mut self.scripts };
                let consumed = self.decoder.feed(direction, way.buffer.unfed(), &mut sink);
                way.buffer.consumed(consumed);
                changed |= consumed > 0;
            }
            if way.ended.is_some() && way.buffer.unfed().is_empty() && !way.finished {
                self.finish(direction);
                changed = true;
            }
            // In order: an answer is looked at after the command before it was recorded.
            if !self.entries.is_empty() {
                return true;
            }
        }
        changed
    }

    /// Carries out a direction's script as far as input and destination allow. `true`: something moved.
    pub(super) fn poll_write(&mut self, direction: Direction, legs: &mut Legs, cx: &mut Context<'_>) -> bool {
        let way = &mut self.ways[at(direction)];
        let script = &mut self.scripts[at(direction)];
        let mut moved = false;
        way.blocked = false;
        if legs.to(direction).is_some_and(|to| to.poll_flushed(cx).is_pending()) {
            way.blocked = true;
            return false;
        }
        while let Some(step) = script.step() {
            let (bytes, ours) = match step {
                Step::Close => {
                    script.done(1);
                    self.close_server(legs);
                    return true;
                }
                Step::Drop(n) => {
                    let n = within(n, way.buffer.held().len());
                    if n == 0 {
                        break;
                    }
                    // It may be a password.
                    way.buffer.wipe(n);
                    script.done(n);
                    moved = true;
                    continue;
                }
                Step::Forward(n) => {
                    let held = way.buffer.held();
                    (&held[..within(n, held.len())], false)
                }
                Step::Insert(bytes) => (bytes, true),
            };
            if bytes.is_empty() {
                break;
            }
            let written = match legs.to(direction).filter(|_| !way.dead) {
                Some(to) => to.poll_put(bytes, cx),
                None => Poll::Ready(Ok(bytes.len())),
            };
            match written {
                Poll::Pending => {
                    way.blocked = true;
                    break;
                }
                Poll::Ready(Ok(n)) => {
                    if !ours {
                        way.buffer.dispose(n);
                        way.bytes += if way.dead { 0 } else { n as u64 };
                    }
                    script.done(n);
                }
                Poll::Ready(Err(_gone)) => {
                    way.dead = true;
                    script.clear();
                }
            }
            moved = true;
        }
        moved | self.poll_shut(direction, legs, cx)
    }

    /// Passes the end of a direction's input on, when everything before it was.
    fn poll_shut(&mut self, direction: Direction, legs: &mut Legs, cx: &mut Context<'_>) -> bool {
        let way = &mut self.ways[at(direction)];
        let clean = match way.ended {
            Some(Ended::Fin) => true,
            Some(Ended::Truncated) => false,
            Some(Ended::Reset) | None => return false,
        };
        if way.blocked || way.shut || !way.finished {
            return false;
        }
        // What the decoder did not dispose of was not whole and never will be.
        way.buffer.clear();
        way.buffer.release(&self.shard.pool);
        let vain = self.ways[at(opposite(direction))].dead;
        if let Some(to) = legs.to(direction).filter(|_| !vain)
            && to.poll_shut(clean, cx).is_pending()
        {
            return false;
        }
        self.ways[at(direction)].shut = true;
        true
    }

    /// Resets the server's leg and gives the client time to read what we have to say.
    fn close_server(&mut self, legs: &mut Legs) {
        legs.abort_server();
        self.ways[at(Direction::ToServer)].dead = true;
        self.ways[at(Direction::ToClient)].ended = Some(Ended::Fin);
        let linger: Sleep = sleep(self.shard.config.linger);
        self.lingering = Some(Box::pin(linger));
    }

    /// Reads more of a direction when what was read has gone on. `true`: there is something new.
    pub(super) fn poll_read(
        &mut self,
        direction: Direction,
        legs: &mut Legs,
        cx: &mut Context<'_>,
    ) -> Result<bool, End> {
        let waits = direction == Direction::ToServer && !matches!(self.gate, Gate::Open);
        let held = matches!(self.gate, Gate::Held(_));
        let way = &mut self.ways[at(direction)];
        let Some(from) = legs.from(direction) else { return Ok(false) };
        // What is not fed yet waits for the other side.
        if way.blocked || way.ended.is_some() || (!waits && !way.buffer.unfed().is_empty()) {
            return Ok(false);
        }
        if way.buffer.is_empty() && !way.stale && from.poll_read_ready(cx).is_pending() {
            // An idle connection holds no buffer.
            way.buffer.release(&self.shard.pool);
            return Ok(false);
        }
        let Some(space) = way.buffer.space(&self.shard.pool) else {
            if !waits {
                return Err(End::Stuck("the decoder holds more than the capture limit"));
            }
            if !held {
                return Ok(false);
            }
            way.stale = true;
            let gone = from.peer_has_gone(cx);
            if gone {
                way.ended = Some(Ended::Fin);
            }
            return Ok(gone);
        };
        let read = match way.stale.then(|| from.take_regardless(space, cx)) {
            Some(Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock => from.poll_take(space, cx),
            Some(read) => Poll::Ready(read),
            None => from.poll_take(space, cx),
        };
        match read {
            Poll::Pending => {
                way.stale = false;
                way.buffer.release(&self.shard.pool);
                return Ok(false);
            }
            Poll::Ready(Ok(0)) => way.ended = Some(Ended::Fin),
            Poll::Ready(Ok(n)) => way.buffer.filled(n),
            Poll::Ready(Err(error)) => way.ended = Some(Ended::by(&error)),
        }
        Ok(true)
    }
}

fn within(n: u64, available: usize) -> usize {
    usize::try_from(n).map_or(available, |n| n.min(available))
}
