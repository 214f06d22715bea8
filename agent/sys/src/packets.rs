//! Unix sockets that keep messages apart (SOCK_SEQPACKET) and carry descriptors with them (SCM_RIGHTS).

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    sockopt::{Timeout, set_socket_timeout},
};

/// The longest message.
pub const MESSAGE_BYTES: usize = 16 * 1024;
/// Descriptors that one message may carry.
pub const DESCRIPTORS: usize = 8;

/// One message.
#[derive(Debug)]
pub struct Packet {
    /// What it says; never empty.
    pub bytes: Vec<u8>,
    /// What came with it; closed upon exec.
    pub descriptors: Vec<OwnedFd>,
}

/// One end of a connection. Sending is atomic: threads may share an end.
#[derive(Debug)]
pub struct Packets(OwnedFd);

impl Packets {
    /// Both ends of a connection.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, two) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(two)))
    }

    /// Connects to who listens under this path.
    ///
    /// # Errors
    /// Nobody does: `NotFound` or `ConnectionRefused`; no permission.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(socket))
    }

    /// Gives up waiting, to send as to receive, after so long (`WouldBlock`).
    ///
    /// # Errors
    /// The system call's.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        set_socket_timeout(&self.0, Timeout::Send, Some(patience))?;
        Ok(set_socket_timeout(&self.0, Timeout::Recv, Some(patience))?)
    }

    /// Sends one message, whole.
    ///
    /// # Errors
    /// Too long, too many descriptors, or the other end is gone (`BrokenPipe`).
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if bytes.is_empty() || bytes.len() > MESSAGE_BYTES || descriptors.len() > DESCRIPTORS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        loop {
            let sent =
                rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
            match sent {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for the next message; `None`: the other end is gone.
    ///
    /// # Errors
    /// The system call's, or a message that is too long (`InvalidData`).
    pub fn receive(&self) -> io::Result<Option<Packet>> {
        let mut bytes = vec![0; MESSAGE_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut into = [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&self.0, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                received => break received?,
            }
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message or its descriptors were cut"));
        }
        bytes.truncate(received.bytes);
        Ok(Some(Packet { bytes, descriptors }))
    }
}

impl AsFd for Packets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Packets {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl From<Packets> for OwnedFd {
    fn from(packets: Packets) -> Self {
        packets.0
    }
}

/// Waits for connections under a path.
#[derive(Debug)]
pub struct PacketListener(OwnedFd);

impl PacketListener {
    /// Takes the path, where nothing may be yet.
    ///
    /// # Errors
    /// Something is there, or no permission.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, 8)?;
        Ok(Self(socket))
    }

    /// The next connection.
    ///
    /// # Errors
    /// The system call's.
    pub fn accept(&self) -> io::Result<Packets> {
        Ok(Packets(rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC)?))
    }
}

impl AsFd for PacketListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn messages_stay_apart_and_bring_their_descriptors() {
        let (one, two) = Packets::pair().unwrap();
        let (mut reading, writing) = io::pipe().unwrap();
        one.send(b"first", &[writing.as_fd()]).unwrap();
        one.send(b"second", &[]).unwrap();
        drop(writing);
        let first = two.receive().unwrap().unwrap();
        assert_eq!((first.bytes.as_slice(), first.descriptors.len()), (&b"first"[..], 1));
        assert_eq!(two.receive().unwrap().unwrap().bytes, b"second");
        for descriptor in first.descriptors {
            std::fs::File::from(descriptor).write_all(b"through").unwrap();
        }
        let mut said = String::new();
        reading.read_to_string(&mut said).unwrap();
        assert_eq!(said, "through");
        drop(one);
        assert!(two.receive().unwrap().is_none());
    }

    #[test]
    fn a_listener_that_was_handed_over_keeps_who_waits() {
        let (one, two) = Packets::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        one.send(b"listener", &[listener.as_fd()]).unwrap();
        drop(listener);
        client.write_all(b"waited").unwrap();
        drop(client);
        let handed = two.receive().unwrap().unwrap().descriptors.pop().unwrap();
        let mut said = String::new();
        TcpListener::from(handed).accept().unwrap().0.read_to_string(&mut said).unwrap();
        assert_eq!(said, "waited");
    }

    #[test]
    fn nothing_is_sent_that_could_be_taken_for_an_end_or_be_cut() {
        let (one, two) = Packets::pair().unwrap();
        for bytes in [&[][..], &[0; MESSAGE_BYTES + 1]] {
            assert_eq!(one.send(bytes, &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        one.send(&[7; MESSAGE_BYTES], &[]).unwrap();
        assert_eq!(two.receive().unwrap().unwrap().bytes.len(), MESSAGE_BYTES);
        two.set_patience(Duration::from_millis(1)).unwrap();
        assert_eq!(two.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_path_is_found_by_who_connects() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        assert_eq!(Packets::connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = PacketListener::bind(&path).unwrap();
        let client = Packets::connect(&path).unwrap();
        let server = listener.accept().unwrap();
        server.send(b"hello", &[]).unwrap();
        assert_eq!(client.receive().unwrap().unwrap().bytes, b"hello");
        drop(listener);
        // A child that another test is just starting holds the listener until its exec.
        let refused = (0..100).find_map(|_| {
            let refused = Packets::connect(&path).err();
            if refused.is_none() {
                std::thread::sleep(Duration::from_millis(50));
            }
            refused
        });
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::ConnectionRefused);
    }
}
