//! Ports for what a test starts as a process of its own, which binds them later than they are chosen.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Below those that the kernel hands out to whoever names none (ip(7), `ip_local_port_range`).
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;
/// Where the next process's begin.
const EACH: u32 = 131;

/// A port of loopback that is free now and is given to nobody else by chance: not by the kernel, not by another call,
/// and hardly by another process of tests.
///
/// # Errors
/// All of them are taken.
pub fn free() -> io::Result<SocketAddr> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = process::id().wrapping_mul(EACH);
    (0..COUNT)
        .filter_map(|_| {
            let offset = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
            u16::try_from(FIRST + offset).ok()
        })
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .ok_or_else(|| io::ErrorKind::AddrInUse.into())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::TcpListener};

    #[test]
    fn a_port_is_given_once_and_can_be_bound() {
        let given: BTreeSet<_> = (0..50).map(|_| super::free().unwrap()).collect();
        assert_eq!(given.len(), 50);
        assert!(given.iter().all(|address| (12_000..32_000).contains(&address.port())));
        assert!(given.iter().any(|address| TcpListener::bind(address).is_ok()));
    }
}
