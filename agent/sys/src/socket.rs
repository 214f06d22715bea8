//! Sockets: options that std does not know, peers of Unix sockets.

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use rustix::net::sockopt;

/// Who is at the other end of a Unix socket, as of its connect().
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process id, in our pid namespace.
    pub pid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// `SO_COOKIE`: the socket's number, unique on this host until it boots again.
///
/// # Errors
/// The system call's: not a socket.
pub fn cookie(socket: impl AsFd) -> io::Result<u64> {
    Ok(sockopt::socket_cookie(socket)?)
}

/// `SO_NETNS_COOKIE`: the number of the network namespace that the socket is in (from Linux 5.14).
///
/// # Errors
/// The system call's: not a socket, or an older kernel.
pub fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    get_option(socket, libc::SO_NETNS_COOKIE, &mut cookie)?;
    Ok(cookie)
}

/// `SO_PEERCRED` of a connected Unix socket.
///
/// # Errors
/// The system call's: not a Unix socket.
pub fn peer_credentials(socket: impl AsFd) -> io::Result<PeerCredentials> {
    let found = sockopt::socket_peercred(socket)?;
    Ok(PeerCredentials {
        pid: found.pid.as_raw_nonzero().get().unsigned_abs(),
        uid: found.uid.as_raw(),
        gid: found.gid.as_raw(),
    })
}

/// `SO_PEERPIDFD` of a connected Unix socket: names the peer's process safely, also when its number
/// is given to another (from Linux 6.5).
///
/// # Errors
/// The system call's: not a Unix socket, a peer that is gone, or an older kernel (`ENOPROTOOPT`).
pub fn peer_pidfd(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    get_option(socket, libc::SO_PEERPIDFD, &mut fd)?;
    if fd < 0 {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the peer has no process any more"));
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has a socket whose bytes stay on this machine sent without pacing: Reno's congestion control, which every
/// kernel has and every process may choose (tcp(7), `TCP_CONGESTION`). What a listener has, its connections get.
///
/// Where the machine's default paces (BBR), loopback would pay for it with a timer for every few segments, and with
/// segments cut small; there is no path there that could be congested.
///
/// # Errors
/// The system call's: not a socket of TCP.
pub fn without_pacing(socket: impl AsFd) -> io::Result<()> {
    Ok(sockopt::set_tcp_congestion(socket, "reno")?)
}

/// Has a socket count as readable only with so many bytes, or at its end, or where its window or its memory is used up
/// (socket(7), `SO_RCVLOWAT`). Whoever polls it is told when this is set, if there is enough.
///
/// # Errors
/// The system call's: not a socket.
pub fn wake_at(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: `bytes` is valid for reads of its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reads a `SOL_SOCKET` option that is a plain integer.
fn get_option<T: Integer>(socket: impl AsFd, option: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is valid for writes of `length` bytes, and any bytes are an integer.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_mut(value).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if length as usize != size_of::<T>() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a socket option has an unknown size"));
    }
    Ok(())
}

/// Types of which every bit pattern is a value.
trait Integer {}
impl Integer for u64 {}
impl Integer for libc::c_int {}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn sockets_of_one_namespace_share_its_cookie_and_have_cookies_of_their_own() {
        let (one, two) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        assert_eq!(netns_cookie(&one).unwrap(), netns_cookie(&two).unwrap());
        assert_ne!(netns_cookie(&one).unwrap(), 0);
        assert_ne!(cookie(&one).unwrap(), cookie(&two).unwrap());
    }

    #[test]
    fn the_peer_of_a_socketpair_is_this_process() {
        let (one, _two) = UnixStream::pair().unwrap();
        let peer = peer_credentials(&one).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        match peer_pidfd(&one) {
            Ok(pidfd) => rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::CONT).unwrap(),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOPROTOOPT)),
        }
    }

    #[test]
    fn connections_to_a_listener_without_pacing_have_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        without_pacing(&listener).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(sockopt::tcp_congestion(&accepted).unwrap(), "reno");
        without_pacing(&client).unwrap();
        assert_eq!(sockopt::tcp_congestion(&client).unwrap(), "reno");
    }

    #[test]
    fn a_socket_is_readable_with_as_much_as_was_said_or_at_its_end() {
        use std::io::Write as _;

        use rustix::event::{PollFd, PollFlags, poll};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let readable = |millis: i64| {
            let limit = rustix::time::Timespec { tv_sec: 0, tv_nsec: millis * 1_000_000 };
            let mut polled = [PollFd::new(&far, PollFlags::IN)];
            poll(&mut polled, Some(&limit)).unwrap() == 1
        };
        wake_at(&far, 1000).unwrap();
        near.write_all(&[0; 999]).unwrap();
        assert!(!readable(100));
        near.write_all(&[0]).unwrap();
        assert!(readable(999));
        wake_at(&far, 2000).unwrap();
        assert!(!readable(0));
        wake_at(&far, 1).unwrap();
        assert!(readable(999));
        wake_at(&far, 2000).unwrap();
        drop(near);
        assert!(readable(999), "its end");
    }

    #[test]
    fn what_is_no_socket_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(netns_cookie(&file).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
        assert_eq!(peer_pidfd(&file).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
        assert_eq!(wake_at(&file, 1).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
        assert_eq!(without_pacing(&file).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
    }
}
