//! Which addresses the calling thread's network namespace has, as far as steering shows or needs them.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use verbatim_ebpf_common::{Address, Target};
use verbatim_sys::netns;

/// A namespace's addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// What an IPv4 connection to the outside comes from; `None` while there is none.
    pub v4: Option<Ipv4Addr>,
    /// What an IPv6 connection to the outside comes from.
    pub v6: Option<Ipv6Addr>,
    /// Whether there is an IPv6 route beyond loopback and link-local ones.
    pub has_v6_route: bool,
}

/// Documentation prefixes: never a neighbour's, so that the default route answers.
const OUTSIDE_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
const OUTSIDE_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9);

impl Addresses {
    /// Of the namespace that the calling thread is in.
    ///
    /// # Errors
    /// The interfaces cannot be listed.
    pub(crate) fn here() -> io::Result<Self> {
        let all = netns::interface_addresses()?;
        let v4 = match source_for(OUTSIDE_V4) {
            Some(IpAddr::V4(v4)) => Some(v4),
            _ => all.iter().find_map(|ip| match ip {
                IpAddr::V4(v4) if !v4.is_loopback() && !v4.is_link_local() => Some(*v4),
                _ => None,
            }),
        };
        let v6 = match source_for(OUTSIDE_V6) {
            Some(IpAddr::V6(v6)) => Some(v6),
            _ => all.iter().find_map(|ip| match ip {
                IpAddr::V6(v6) if !v6.is_loopback() && !v6.is_unicast_link_local() => Some(*v6),
                _ => None,
            }),
        };
        // Without the file there is no IPv6 in this kernel.
        let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
        Ok(Self { v4, v6, has_v6_route: has_global_route(&routes) })
    }

    /// Whether there is none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    /// Writes them into what the kernel is told.
    pub(crate) fn fill(&self, target: &mut Target) {
        target.shown_v4 = self.v4.map_or(Address::UNSPECIFIED, Into::into);
        target.shown_v6 = self.v6.map_or(Address::UNSPECIFIED, Into::into);
        target.has_v6_route = u8::from(self.has_v6_route);
    }
}

/// Which address a connection to there would come from; no packet is sent.
fn source_for(outside: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = match outside {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(outside).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

/// Whether `/proc/net/ipv6_route` has a route that leads out: columns are destination, its prefix
/// length, six more, flags, device, all but the last in hexadecimal.
fn has_global_route(routes: &str) -> bool {
    routes.lines().any(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let [destination, _, _, _, _, _, _, _, flags, device] = columns[..] else {
            return false;
        };
        let rejects = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & RTF_REJECT != 0);
        let link_local =
            ["fe8", "fe9", "fea", "feb", "ff"].iter().any(|start| destination.starts_with(start));
        device != "lo" && !rejects && !link_local
    })
}

/// `include/uapi/linux/route.h`: a route that refuses.
const RTF_REJECT: u32 = 0x0200;

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK_ONLY: &str = "\
00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 80200001       lo
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";
    const LINK_LOCAL: &str = "\
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000003 00000000 00000001     eth0
";
    const DEFAULT: &str = "\
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000002 00000000 00000003     eth0
";

    #[test]
    fn loopback_and_link_local_routes_lead_nowhere() {
        assert!(!has_global_route(""));
        assert!(!has_global_route(LOOPBACK_ONLY));
        assert!(!has_global_route(&format!("{LOOPBACK_ONLY}{LINK_LOCAL}")));
        assert!(!has_global_route("garbage in it"));
    }

    #[test]
    fn a_default_route_and_a_global_prefix_lead_out() {
        assert!(has_global_route(&format!("{LOOPBACK_ONLY}{DEFAULT}")));
        assert!(has_global_route(&DEFAULT.replacen("00000000", "fd000000", 1).replacen(" 00 ", " 40 ", 1)));
    }
}
