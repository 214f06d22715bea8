//! Carries a connection that nobody decodes: inside the kernel, or, where a leg is TLS, through the shard's
//! buffers. Counted both ways.

mod patience;

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncWrite, Interest},
    net::TcpStream,
};
use verbatim_sys::splice::Pipe;
use verbatim_wire::seam::Direction;

use self::patience::Patience;

use crate::{
    Records,
    buffer::{Buffer, Pool},
    control::Control,
    legs::{BOTH, End, Ended, Leg, Legs, at, opposite, source},
    shard::Shard,
};

/// Empty pipes kept for the next reader, per shard.
const KEPT: usize = 32;

/// A shard's empty pipes: an idle connection holds none.
#[derive(Default)]
pub(crate) struct Pipes(RefCell<Vec<Pipe>>);

impl Pipes {
    fn take(&self) -> io::Result<Pipe> {
        let kept = self.0.borrow_mut().pop();
        kept.map_or_else(Pipe::new, Ok)
    }

    fn give(&self, pipe: Pipe) {
        let mut pipes = self.0.borrow_mut();
        if pipes.len() < KEPT {
            pipes.push(pipe);
        }
    }
}

/// What was read of a direction before it was spliced.
#[derive(Default)]
pub(crate) struct Input {
    pub(crate) buffer: Buffer,
    pub(crate) ended: Option<Ended>,
}

/// One direction.
struct Way {
    before: Buffer,
    ended: Option<Ended>,
    /// FIN was sent.
    shut: bool,
    /// The destination is gone: what comes is dropped.
    dead: bool,
    pipe: Option<Pipe>,
    in_pipe: usize,
    patience: Patience,
}

/// Carries both directions to their end.
pub(crate) async fn run<R: Records>(
    shard: &Shard<R>,
    legs: &mut Legs,
    inputs: [Input; 2],
    control: &Control,
    bytes: &mut [u64; 2],
) -> End {
    let mut ways = inputs.map(|input| Way {
        before: input.buffer,
        ended: input.ended,
        shut: false,
        dead: false,
        pipe: None,
        in_pipe: 0,
        patience: Patience::default(),
    });
    poll_fn(|cx| {
        if control.poll_killed(cx).is_ready() {
            return Poll::Ready(End::Killed);
        }
        loop {
            let mut moved = false;
            for direction in BOTH {
                let way = &mut ways[at(direction)];
                let Legs { client: Some(client), server: Some(server) } = &mut *legs else {
                    return Poll::Ready(End::Closed);
                };
                let (from, to) = match direction {
                    Direction::ToServer => (client, server),
                    Direction::ToClient => (server, client),
                };
                let bytes = &mut bytes[at(direction)];
                let carried = match (&mut *from, &mut *to) {
                    (Leg::Plain(from), Leg::Plain(to)) => {
                        // Without descriptors for a pipe it goes through memory, this time.
                        way.carry(from, to, &shard.pool, &shard.pipes, bytes, cx).ok()
                    }
                    _ => None,
                };
                moved |= match carried {
                    Some(progress) => progress,
                    None => way.copy(from, to, &shard.pool, bytes, cx),
                };
            }
            if let Some(end) = over(&ways) {
                return Poll::Ready(end);
            }
            if !moved {
                return Poll::Pending;
            }
        }
    })
    .await
}

fn over(ways: &[Way; 2]) -> Option<End> {
    for direction in BOTH {
        let (way, back) = (&ways[at(direction)], &ways[at(opposite(direction))]);
        // What was sent before the reset has gone on, or cannot any more.
        if way.ended == Some(Ended::Reset) {
            return Some(End::Reset(source(direction)));
        }
        if way.dead && back.shut {
            return Some(End::Reset(source(opposite(direction))));
        }
    }
    ways.iter().all(|way| way.shut).then_some(End::Closed)
}

impl Way {
    fn carry(
        &mut self,
        from: &TcpStream,
        to: &mut TcpStream,
        pool: &Pool,
        pipes: &Pipes,
        bytes: &mut u64,
        cx: &mut Context<'_>,
    ) -> io::Result<bool> {
        let mut moved = false;
        loop {
            if !self.flush(to, bytes, &mut moved, cx) {
                return Ok(moved);
            }
            self.before.release(pool);
            if self.ended.is_some() {
                if !self.shut && self.ended == Some(Ended::Fin) {
                    if let Poll::Ready(Err(error)) = Pin::new(&mut *to).poll_shutdown(cx) {
                        tracing::debug!(%error, "cannot shut down");
                    }
                    self.shut = true;
                    moved = true;
                }
                self.put_back(pipes);
                return Ok(moved);
            }
            match self.fill(from, pipes, cx)? {
                Poll::Pending => {
                    self.put_back(pipes);
                    return Ok(moved);
                }
                Poll::Ready(()) => moved = true,
            }
        }
    }

    /// As [`Way::carry`], through memory.
    fn copy(
        &mut self,
        from: &mut Leg,
        to: &mut Leg,
        pool: &Pool,
        bytes: &mut u64,
        cx: &mut Context<'_>,
    ) -> bool {
        let mut moved = false;
        loop {
            if !self.dead && to.poll_flushed(cx).is_pending() {
                return moved;
            }
            if !self.flush_before(|before| to.poll_put(before, cx), bytes, &mut moved) {
                return moved;
            }
            if self.dead {
                self.before.clear();
            }
            if let Some(ended) = self.ended {
                self.before.release(pool);
                let open = !self.shut && ended != Ended::Reset;
                if open && to.poll_shut(ended == Ended::Fin, cx).is_ready() {
                    self.shut = true;
                    moved = true;
                }
                return moved;
            }
            if from.poll_read_ready(cx).is_pending() {
                self.before.release(pool);
                return moved;
            }
            let Some(space) = self.before.space(pool) else { return moved };
            match from.poll_take(space, cx) {
                Poll::Pending => {
                    self.before.release(pool);
                    return moved;
                }
                Poll::Ready(Ok(0)) => self.ended = Some(Ended::Fin),
                Poll::Ready(Ok(n)) => self.before.filled(n),
                Poll::Ready(Err(error)) => self.ended = Some(Ended::by(&error)),
            }
            moved = true;
        }
    }

    /// Writes what is in memory. `false`: the destination takes no more now.
    fn flush_before(
        &mut self,
        mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
        bytes: &mut u64,
        moved: &mut bool,
    ) -> bool {
        while !self.dead && !self.before.is_empty() {
            match write(self.before.all()) {
                Poll::Pending => return false,
                Poll::Ready(Ok(n)) => {
                    self.before.dispose(n);
                    *bytes += n as u64;
                    *moved = true;
                }
                Poll::Ready(Err(_gone)) => self.dead = true,
            }
        }
        true
    }

    /// Writes what was read. `false`: the destination takes no more now.
    fn flush(&mut self, to: &mut TcpStream, bytes: &mut u64, moved: &mut bool, cx: &mut Context<'_>) -> bool {
        if !self.flush_before(|before| Pin::new(&mut *to).poll_write(cx, before), bytes, moved) {
            return false;
        }
        while let Some(pipe) = self.pipe.as_ref().filter(|_| !self.dead && self.in_pipe > 0) {
            match to.poll_write_ready(cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_gone)) => self.dead = true,
            }
            match to.try_io(Interest::WRITABLE, || pipe.drain(&*to, self.in_pipe)) {
                Ok(n) => {
                    self.in_pipe = self.in_pipe.saturating_sub(n);
                    *bytes += n as u64;
                    *moved = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_gone) => self.dead = true,
            }
        }
        if self.dead {
            self.before.clear();
            // Not given back: there are bytes in it.
            if self.in_pipe > 0 {
                self.pipe = None;
                self.in_pipe = 0;
            }
        }
        true
    }

    /// Reads into the empty pipe.
    fn fill(&mut self, from: &TcpStream, pipes: &Pipes, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        loop {
            match from.poll_read_ready(cx) {
                Poll::Pending => {
                    self.patience.poll_wait(from, cx);
                    return Ok(Poll::Pending);
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_reset)) => {
                    self.ended = Some(Ended::Reset);
                    return Ok(Poll::Ready(()));
                }
            }
            if self.pipe.is_none() {
                self.pipe = Some(pipes.take()?);
            }
            let Some(pipe) = &self.pipe else { continue };
            match from.try_io(Interest::READABLE, || pipe.fill(from)) {
                Ok(0) => self.ended = Some(Ended::Fin),
                Ok(n) => {
                    self.in_pipe = n;
                    self.patience.read(from, n, n < pipe.capacity());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_reset) => self.ended = Some(Ended::Reset),
            }
            return Ok(Poll::Ready(()));
        }
    }

    fn put_back(&mut self, pipes: &Pipes) {
        if self.in_pipe == 0
            && let Some(pipe) = self.pipe.take()
        {
            pipes.give(pipe);
        }
    }
}
