//! Moving bytes between sockets without copying them.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Asked for; the kernel's default of 64 KiB does as well where a user's pipes are limited.
const PIPE_BYTES: usize = 512 * 1024;

/// A non-blocking pipe that bytes pass through inside the kernel.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
}

impl Pipe {
    /// Makes a pipe of 512 KiB, or of 64 KiB where that is not granted.
    ///
    /// # Errors
    /// When descriptors are used up.
    pub fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let capacity = fcntl_setpipe_size(&write, PIPE_BYTES).unwrap_or(64 * 1024);
        Ok(Self { read, write, capacity })
    }

    /// What it holds at most, bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Moves what a non-blocking socket has into the pipe, as much as fits; 0 at the end of its input.
    ///
    /// # Errors
    /// `WouldBlock` when the socket has nothing (or the pipe is full: fill an empty one only), else the
    /// socket's own error.
    pub fn fill(&self, socket: impl AsFd) -> io::Result<usize> {
        Ok(splice(socket, None, &self.write, None, self.capacity, flags())?)
    }

    /// Moves up to `bytes` from the pipe into a non-blocking socket.
    ///
    /// # Errors
    /// `WouldBlock` when the socket takes nothing (or the pipe is empty: call it with what is in it),
    /// else the socket's own error.
    pub fn drain(&self, socket: impl AsFd, bytes: usize) -> io::Result<usize> {
        Ok(splice(&self.read, None, socket, None, bytes, flags())?)
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
        let near = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (far, _) = listener.accept().expect("accept");
        (near, far)
    }

    #[test]
    fn bytes_pass_from_one_socket_to_another_and_the_end_is_seen() {
        let (mut client, from) = pair();
        let (to, mut server) = pair();
        from.set_nonblocking(true).expect("non-blocking");
        let pipe = Pipe::new().expect("pipe");
        let empty = pipe.fill(&from).expect_err("nothing to read");
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);

        client.write_all(b"through the pipe").expect("write");
        drop(client);
        let mut moved = 0;
        loop {
            match pipe.fill(&from) {
                Ok(0) => break,
                Ok(n) => {
                    moved += n;
                    assert_eq!(pipe.drain(&to, n).expect("drain"), n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        drop(to);
        let mut arrived = String::new();
        server.read_to_string(&mut arrived).expect("read");
        assert_eq!((moved, arrived.as_str()), (16, "through the pipe"));
    }
}
