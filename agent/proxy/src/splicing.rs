//! Carries a connection that nobody decodes: inside the kernel, counted both ways.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use tokio::{io::Interest, net::TcpStream};
use verbatim_sys::splice::Pipe;
use verbatim_wire::seam::Direction;

use crate::{
    Records,
    buffer::{Buffer, Pool},
    control::Control,
    legs::{BOTH, End, Ended, Legs, at, opposite, poll_write, shut, source},
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
    });
    poll_fn(|cx| {
        if control.poll_killed(cx).is_ready() {
            return Poll::Ready(End::Killed);
        }
        loop {
            let mut moved = false;
            for direction in BOTH {
                let way = &mut ways[at(direction)];
                let Legs { client, server: Some(server) } = &mut *legs else {
                    return Poll::Ready(End::Closed);
                };
                let (from, to) = match direction {
                    Direction::ToServer => (client, server),
                    Direction::ToClient => (server, client),
                };
                match way.carry(from, to, &shard.pool, &shard.pipes, &mut bytes[at(direction)], cx) {
                    Ok(progress) => moved |= progress,
                    Err(error) => return Poll::Ready(End::Panicked(format!("no pipe: {error}"))),
                }
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
                    shut(to, cx);
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

    /// Writes what was read. `false`: the destination takes no more now.
    fn flush(&mut self, to: &mut TcpStream, bytes: &mut u64, moved: &mut bool, cx: &mut Context<'_>) -> bool {
        while !self.dead && !self.before.is_empty() {
            match poll_write(to, self.before.all(), cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok(n)) => {
                    self.before.dispose(n);
                    *bytes += n as u64;
                    *moved = true;
                }
                Poll::Ready(Err(_gone)) => self.dead = true,
            }
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
                Poll::Pending => return Ok(Poll::Pending),
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
                Ok(n) => self.in_pipe = n,
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
