//! An IP address as the programs see it: words, network byte order, IPv4 mapped into IPv6.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Third word of every v4-mapped address (`::ffff:0:0/96`), in network byte order.
const MAPPED_WORD: u32 = 0x0000_ffff_u32.to_be();
/// 127.0.0.1 in network byte order.
const LOCALHOST_V4: u32 = 0x7f00_0001_u32.to_be();

/// An IP address: four words in network byte order, IPv4 as `::ffff:a.b.c.d`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address(pub [u32; 4]);

impl Address {
    /// `::`, which also stands for "none" where a field is optional.
    pub const UNSPECIFIED: Self = Self([0; 4]);

    /// From the kernel's word of an IPv4 address (network byte order).
    #[inline(always)]
    #[must_use]
    pub const fn from_v4_word(word: u32) -> Self {
        Self([0, 0, MAPPED_WORD, word])
    }

    /// The IPv4 word (network byte order) of a v4-mapped address; meaningless for others.
    #[inline(always)]
    #[must_use]
    pub const fn v4_word(&self) -> u32 {
        self.0[3]
    }

    /// Whether this is `::ffff:0:0/96`.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4_mapped(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED_WORD
    }

    /// Whether this is `::`.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && self.0[3] == 0
    }

    /// Whether a connect() to it stays on the host: 127/8, `::1`, and the unspecified addresses,
    /// which connect() takes for loopback.
    #[inline(always)]
    #[must_use]
    pub const fn connects_to_loopback(&self) -> bool {
        if self.is_v4_mapped() {
            self.0[3] == 0 || self.0[3].to_ne_bytes()[0] == 127
        } else {
            self.0[0] == 0
                && self.0[1] == 0
                && self.0[2] == 0
                && (self.0[3] == 0 || self.0[3] == 1_u32.to_be())
        }
    }

    /// Whether it says where only together with a device: `fe80::/10` (RFC 4291 §2.5.6).
    #[inline(always)]
    #[must_use]
    pub const fn is_link_local_v6(&self) -> bool {
        let [first, second, ..] = self.0[0].to_ne_bytes();
        first == 0xfe && second & 0xc0 == 0x80
    }

    /// 127.0.0.1, v4-mapped.
    pub const LOCALHOST_V4: Self = Self::from_v4_word(LOCALHOST_V4);
    /// `::1`.
    pub const LOCALHOST_V6: Self = Self([0, 0, 0, 1_u32.to_be()]);
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        let octets = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let word =
            |at: usize| u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<Ipv4Addr> for Address {
    fn from(ip: Ipv4Addr) -> Self {
        IpAddr::V4(ip).into()
    }
}

impl From<Ipv6Addr> for Address {
    fn from(ip: Ipv6Addr) -> Self {
        IpAddr::V6(ip).into()
    }
}

impl From<Address> for IpAddr {
    /// A v4-mapped address comes back as IPv4.
    fn from(address: Address) -> Self {
        let mut octets = [0; 16];
        for (bytes, word) in octets.chunks_exact_mut(4).zip(address.0) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        let v6 = Ipv6Addr::from(octets);
        v6.to_ipv4_mapped().map_or(Self::V6(v6), Self::V4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_to_words_and_back() {
        for text in ["10.1.2.3", "0.0.0.0", "255.255.255.255", "::", "::1", "2001:db8::1:2", "fe80::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Address::from(ip)), ip);
        }
    }

    #[test]
    fn link_local_is_fe80_10_alone() {
        let is = |text: &str| Address::from(text.parse::<IpAddr>().unwrap()).is_link_local_v6();
        assert_eq!(["fe80::1", "febf:ffff::"].map(is), [true; 2]);
        assert_eq!(
            ["fec0::1", "fe7f::1", "ff02::1", "::1", "169.254.169.254", "2001:db8::1"].map(is),
            [false; 6]
        );
    }

    #[test]
    fn words_are_in_network_order() {
        let address = Address::from(Ipv4Addr::new(10, 1, 2, 3));
        assert!(address.is_v4_mapped());
        assert_eq!(address.v4_word().to_ne_bytes(), [10, 1, 2, 3]);
        assert_eq!(Address::from(Ipv4Addr::LOCALHOST), Address::LOCALHOST_V4);
        assert_eq!(Address::from(Ipv6Addr::LOCALHOST), Address::LOCALHOST_V6);
    }

    #[test]
    fn loopback_is_what_connect_takes_for_loopback() {
        for (text, expected) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("0.0.0.0", true),
            ("::", true),
            ("::1", true),
            ("126.0.0.1", false),
            ("10.0.0.127", false),
            ("::2", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(
                Address::from(text.parse::<IpAddr>().unwrap()).connects_to_loopback(),
                expected,
                "{text}"
            );
        }
    }
}
