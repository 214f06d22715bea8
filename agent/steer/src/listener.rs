//! Listening sockets in the calling thread's network namespace: one port, both loopback addresses,
//! one socket for each shard.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    ops::RangeInclusive,
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Ports above and below those that Linux hands out by itself.
const OTHER_PORTS: [RangeInclusive<u16>; 2] = [61_000..=65_535, 10_000..=32_767];
/// How many ports of each range are tried.
const TRIES: u16 = 64;
/// How many ports beside the preferred ones are tried.
pub(crate) const OTHER_TRIES: usize = OTHER_PORTS.len() * TRIES as usize;

/// One shard's listeners in one namespace.
#[derive(Debug)]
pub struct ShardListeners {
    /// On 127.0.0.1, non-blocking.
    pub v4: TcpListener,
    /// On `::1`, non-blocking; `None` where the kernel has no IPv6.
    pub v6: Option<TcpListener>,
}

/// Listeners of all shards on the first port that is free. `Ok(None)`: none is.
pub(crate) fn open(shards: usize, preferred: &[u16]) -> io::Result<Option<(u16, Vec<ShardListeners>)>> {
    for port in preferred.iter().copied().chain(other_ports()) {
        match open_at(port, shards) {
            Ok(listeners) => return Ok(Some((port, listeners))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// From a random place on, so that a port is no fixed address either.
fn other_ports() -> impl Iterator<Item = u16> {
    OTHER_PORTS.into_iter().flat_map(|range| {
        let (first, count) = (*range.start(), range.end() - range.start());
        let from = (RandomState::new().hash_one(first) % u64::from(count)) as u16;
        (0..TRIES).map(move |step| first + (from + step) % count)
    })
}

fn open_at(port: u16, shards: usize) -> io::Result<Vec<ShardListeners>> {
    let mut v4 = listen((Ipv4Addr::LOCALHOST, port).into(), shards)?;
    let mut v6 = match listen((Ipv6Addr::LOCALHOST, port).into(), shards) {
        Ok(listeners) => listeners,
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => {
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    Ok(v4.drain(..).map(|v4| ShardListeners { v4, v6: v6.pop() }).collect())
}

/// More listeners on a port that ours stand on already, for as many shards.
pub(crate) fn more(port: u16, shards: usize) -> io::Result<Vec<ShardListeners>> {
    let mut listeners = Vec::with_capacity(shards);
    for _ in 0..shards {
        let v4 = join((Ipv4Addr::LOCALHOST, port).into())?;
        let v6 = match join((Ipv6Addr::LOCALHOST, port).into()) {
            Ok(listener) => Some(listener),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => None,
            Err(error) => return Err(error),
        };
        listeners.push(ShardListeners { v4, v6 });
    }
    Ok(listeners)
}

fn join(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = unbound(address)?;
    share(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The first socket takes the port alone, without SO_REUSEADDR or SO_REUSEPORT: another agent's
/// listeners, which run as the same user, would otherwise share the port and half of its connections.
/// Only then is it opened for the other shards.
fn listen(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::with_capacity(count);
    for index in 0..count {
        let socket = unbound(address)?;
        if index == 0 {
            socket.bind(&address.into())?;
            share(&socket)?;
        } else {
            share(&socket)?;
            socket.bind(&address.into())?;
        }
        socket.listen(BACKLOG)?;
        listeners.push(socket.into());
    }
    Ok(listeners)
}

fn share(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)
}

/// May be bound while loopback is down, which it is when a namespace has just been made.
fn unbound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Err(error) = verbatim_sys::socket::without_pacing(&socket) {
        tracing::debug!(%error, "listening with the machine's congestion control");
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::TcpStream};

    use super::*;

    #[test]
    fn every_shard_gets_a_listener_on_the_same_port() {
        let (port, listeners) = open(3, &[]).unwrap().unwrap();
        assert_eq!(listeners.len(), 3);
        for shard in &listeners {
            assert_eq!(shard.v4.local_addr().unwrap(), (Ipv4Addr::LOCALHOST, port).into());
        }
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    }

    #[test]
    fn what_a_listener_takes_is_sent_to_without_pacing() {
        let (port, listeners) = open(1, &[]).unwrap().unwrap();
        let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let accepted = loop {
            match listeners[0].v4.accept() {
                Ok((accepted, _)) => break accepted,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        assert_eq!(rustix::net::sockopt::tcp_congestion(&accepted).unwrap(), "reno");
    }

    #[test]
    fn a_port_that_is_ours_takes_more_shards() {
        let (port, _first) = open(1, &[]).unwrap().unwrap();
        for shard in more(port, 2).unwrap() {
            assert_eq!(shard.v4.local_addr().unwrap(), (Ipv4Addr::LOCALHOST, port).into());
        }
    }

    #[test]
    fn a_port_of_another_agent_is_left_alone() {
        let (taken, _first) = open(2, &[]).unwrap().unwrap();
        let (port, _second) = open(2, &[taken]).unwrap().unwrap();
        assert_ne!(port, taken);
    }

    #[test]
    fn other_ports_lie_outside_what_linux_hands_out_and_do_not_repeat() {
        let ports: Vec<u16> = other_ports().collect();
        assert_eq!(ports.len(), OTHER_TRIES);
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), OTHER_TRIES);
        assert!(ports.iter().all(|port| !(32_768..=60_999).contains(port)));
    }
}
