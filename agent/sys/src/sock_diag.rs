//! Ending somebody's TCP socket from outside, by the kernel's `sock_diag`.

use std::{
    io,
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{SOCK_DIAG, SocketAddrNetlink},
    recv, sendto, socket_with, sockopt,
};

// Numbers of `include/uapi/linux/{netlink,sock_diag}.h`.
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const TCP: u8 = 6;
/// A message's header, and what is asked in it.
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
/// How long the kernel may take, which answers at once.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// A TCP socket, named so that no other can be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    /// Whether it is an IPv6 socket; such a one may have v4-mapped addresses.
    pub v6: bool,
    /// Its own end; of a v4-mapped one either form.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// `SO_COOKIE`.
    pub cookie: u64,
}

/// Ends a socket in the calling thread's network namespace: its owner gets ECONNABORTED, the other end a reset
/// (from Linux 4.5, with `CONFIG_INET_DIAG_DESTROY`). `false`: there is none of that name here.
///
/// # Errors
/// The system calls': no CAP_NET_ADMIN over the namespace (`EPERM`), or a kernel without it (`EOPNOTSUPP`).
pub fn destroy_tcp(socket: &TcpSocket) -> io::Result<bool> {
    let netlink =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
    sockopt::set_socket_timeout(&netlink, sockopt::Timeout::Recv, Some(PATIENCE))?;
    sendto(&netlink, &request(socket), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut buffer = [MaybeUninit::uninit(); 256];
    let ((answer, _), _) = recv(&netlink, &mut buffer, RecvFlags::empty())?;
    match error(answer) {
        Some(0) => Ok(true),
        Some(code) if code == -libc::ENOENT => Ok(false),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that sock_diag does not give")),
    }
}

/// Whether the kernel can end sockets: has it end a listening one of our own, which nobody was told of.
///
/// # Errors
/// The system calls': `EPERM` without CAP_NET_ADMIN in the network namespace.
pub fn knows_destroy() -> io::Result<bool> {
    // Without a loopback address there is nothing to try it with: what it cannot do it says when it is asked to.
    let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)) else { return Ok(true) };
    let socket = TcpSocket {
        v6: false,
        local: listener.local_addr()?,
        remote: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        cookie: crate::socket::cookie(&listener)?,
    };
    match destroy_tcp(&socket) {
        Err(error) if [Some(libc::EOPNOTSUPP), Some(libc::EINVAL)].contains(&error.raw_os_error()) => {
            Ok(false)
        }
        // Not found, although it is there: the kernel has no `inet_diag`.
        ended => ended,
    }
}

fn request(socket: &TcpSocket) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    let mut at = 0;
    let mut put = |part: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at + part.len()) {
            place.copy_from_slice(part);
        }
        at += part.len();
    };
    put(&(REQUEST as u32).to_ne_bytes());
    put(&SOCK_DESTROY.to_ne_bytes());
    put(&(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    put(&[0; 8]);
    let family = if socket.v6 { libc::AF_INET6 } else { libc::AF_INET };
    put(&[family as u8, TCP, 0, 0]);
    // Whatever its state.
    put(&u32::MAX.to_ne_bytes());
    put(&socket.local.port().to_be_bytes());
    put(&socket.remote.port().to_be_bytes());
    put(&octets(socket.v6, socket.local.ip()));
    put(&octets(socket.v6, socket.remote.ip()));
    // Whatever its device.
    put(&[0; 4]);
    put(&(socket.cookie as u32).to_ne_bytes());
    put(&((socket.cookie >> 32) as u32).to_ne_bytes());
    bytes
}

/// As `inet_diag_sockid` has it: an IPv4 address is the first word.
fn octets(v6: bool, ip: IpAddr) -> [u8; 16] {
    match (v6, ip) {
        (_, IpAddr::V6(ip)) => ip.octets(),
        (true, IpAddr::V4(ip)) => ip.to_ipv6_mapped().octets(),
        (false, IpAddr::V4(ip)) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}

/// The error number of an answer, negative, 0 for none.
fn error(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let code = i32::from_ne_bytes(answer.get(HEADER..HEADER + 4)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(code)
}

#[cfg(test)]
mod tests {
    use std::{io::Read, net::TcpStream};

    use super::*;

    fn named(stream: &TcpStream, v6: bool) -> TcpSocket {
        TcpSocket {
            v6,
            local: stream.local_addr().unwrap(),
            remote: stream.peer_addr().unwrap(),
            cookie: crate::socket::cookie(stream).unwrap(),
        }
    }

    #[test]
    fn a_kernel_that_ends_sockets_is_told_from_one_that_does_not() {
        let Ok(listener) = TcpListener::bind("127.0.0.1:0") else { return };
        let known = match knows_destroy() {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => return,
            known => known.unwrap(),
        };
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(destroy_tcp(&named(&client, false)).is_ok_and(|ended| ended), known);
    }

    #[test]
    fn a_socket_is_ended_for_both_ends_and_no_other_is_meant() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            let name = named(&client, address.starts_with('['));
            let other = TcpSocket { cookie: name.cookie + 1, ..name };
            match destroy_tcp(&other) {
                // Without the privilege there is nothing more to see.
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => return,
                found => assert!(!found.unwrap()),
            }
            match destroy_tcp(&name) {
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return,
                found => assert!(found.unwrap()),
            }
            let mut buffer = [0; 8];
            assert_eq!(client.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
            assert_eq!(server.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    }
}
