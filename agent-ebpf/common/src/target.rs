//! Where a network namespace's connects are steered to: the value of `TGT`, by netns cookie.

use crate::Address;

/// The listener that stands in one network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Address for IPv4 (and v4-mapped) sockets: 127.0.0.1, v4-mapped.
    pub listen_v4: Address,
    /// Address for IPv6 sockets: `::1`, or `::` where the namespace has no IPv6 listener.
    pub listen_v6: Address,
    /// What getsockname() shows to IPv4 sockets that were unbound; `::` while unknown.
    pub shown_v4: Address,
    /// The same for IPv6 sockets.
    pub shown_v6: Address,
    /// Port of the listener.
    pub port: u16,
    /// 1 where the namespace has an IPv6 route beyond loopback and link-local.
    pub has_v6_route: u8,
    /// Zero.
    pub reserved: [u8; 5],
}
