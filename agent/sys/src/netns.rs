//! Network namespaces: entering one for a moment, cookies, addresses.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr,
};

use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::socket;

/// File system type of namespace files.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The network namespace that the calling thread is in.
///
/// # Errors
/// The system call's: no `/proc`.
pub fn current() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Whether a descriptor is a namespace's. Where a namespace is about to be mounted, its place is a
/// plain file for a moment.
///
/// # Errors
/// The system call's.
pub fn is_namespace(fd: impl AsFd) -> io::Result<bool> {
    Ok(u64::try_from(rustix::fs::fstatfs(fd)?.f_type).is_ok_and(|magic| magic == NSFS_MAGIC))
}

/// Cookie of the network namespace that the calling thread is in (from Linux 5.14).
///
/// # Errors
/// The system call's.
pub fn cookie_here() -> io::Result<u64> {
    let probe = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    socket::netns_cookie(probe)
}

/// A non-blocking TCP socket in the network namespace that the calling thread is in.
///
/// # Errors
/// The system call's: no descriptors left, or a family that the kernel lacks.
pub fn tcp_socket(v6: bool) -> io::Result<OwnedFd> {
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::STREAM, flags, Some(rustix::net::ipproto::TCP))?)
}

/// Does `work` with the calling thread in the network namespace `target`, then takes the thread back
/// to `home`, also when `work` panics. Needs SYS_ADMIN over both.
///
/// A thread that cannot go back ends the process: it would go on to work in a namespace that is not
/// its own, and nobody could tell.
///
/// # Errors
/// The system call's, when the thread cannot enter: not a network namespace, or no privilege. Then
/// `work` was not done.
pub fn within<T>(home: BorrowedFd<'_>, target: BorrowedFd<'_>, work: impl FnOnce() -> T) -> io::Result<T> {
    move_into_link_name_space(target, Some(LinkNameSpaceType::Network))?;
    let way_back = WayBack(home);
    let result = work();
    drop(way_back);
    Ok(result)
}

struct WayBack<'a>(BorrowedFd<'a>);

impl Drop for WayBack<'_> {
    fn drop(&mut self) {
        if move_into_link_name_space(self.0, Some(LinkNameSpaceType::Network)).is_err() {
            std::process::abort();
        }
    }
}

/// Addresses of all interfaces in the network namespace that the calling thread is in.
///
/// # Errors
/// The system call's.
pub fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let mut first: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: `first` is valid for a write; the list it gets is freed below.
    if unsafe { libc::getifaddrs(&raw mut first) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = Vec::new();
    let mut next = first;
    while !next.is_null() {
        // SAFETY: an element of the list that getifaddrs made and that is not freed yet.
        let entry = unsafe { &*next };
        // SAFETY: its address is null or valid for its family.
        addresses.extend(unsafe { ip_of(entry.ifa_addr) });
        next = entry.ifa_next;
    }
    // SAFETY: made by getifaddrs, freed once; nothing borrowed from it remains.
    unsafe { libc::freeifaddrs(first) };
    Ok(addresses)
}

/// # Safety
/// `address` is null or points to a socket address that is as long as its family says.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: every socket address begins with its family.
    let family = i32::from(unsafe { (*address).sa_family });
    if family == libc::AF_INET {
        // SAFETY: the family says so; read without asking for alignment.
        let v4 = unsafe { ptr::read_unaligned(address.cast::<libc::sockaddr_in>()) };
        return Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr))));
    }
    if family == libc::AF_INET6 {
        // SAFETY: as above.
        let v6 = unsafe { ptr::read_unaligned(address.cast::<libc::sockaddr_in6>()) };
        return Some(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_namespace_is_one_and_a_file_is_none() {
        assert!(is_namespace(current().unwrap()).unwrap());
        assert!(!is_namespace(tempfile::tempfile().unwrap()).unwrap());
        assert_ne!(cookie_here().unwrap(), 0);
    }

    #[test]
    fn a_file_that_is_no_namespace_is_not_entered() {
        let (home, file) = (current().unwrap(), tempfile::tempfile().unwrap());
        let entered = within(home.as_fd(), file.as_fd(), || ());
        assert!(entered.is_err());
    }

    #[test]
    fn a_listener_address_of_loopback_is_among_the_interfaces() {
        let addresses = interface_addresses().unwrap();
        assert!(addresses.iter().any(IpAddr::is_loopback) || addresses.is_empty(), "{addresses:?}");
    }
}
