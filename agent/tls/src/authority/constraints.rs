//! Name constraints of a certificate authority (RFC 5280, 4.2.1.10).
//!
//! Owns what a name must match, read as strictly as the strictest of the clients does. Knows no key.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use crate::name::{LeafName, NameError};

/// An address range; bits beyond the mask are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    V4 { network: u32, mask: u32 },
    V6 { network: u128, mask: u128 },
}

impl Range {
    pub(crate) const ALL_V4: Self = Self::V4 { network: 0, mask: 0 };
    pub(crate) const ALL_V6: Self = Self::V6 { network: 0, mask: 0 };

    /// `None` when the prefix is longer than the address.
    pub(crate) fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        Some(match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32_u32.checked_sub(prefix.into())?).unwrap_or(0);
                Self::V4 { network: u32::from(address) & mask, mask }
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128_u32.checked_sub(prefix.into())?).unwrap_or(0);
                Self::V6 { network: u128::from(address) & mask, mask }
            }
        })
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        if let Ok(&[a, b, c, d, ref mask @ ..]) = <&[u8; 8]>::try_from(bytes) {
            let mask = u32::from_be_bytes(*mask);
            return Some(Self::V4 { network: u32::from_be_bytes([a, b, c, d]) & mask, mask });
        }
        let (network, mask) = bytes.split_first_chunk::<16>()?;
        let mask = u128::from_be_bytes(mask.try_into().ok()?);
        Some(Self::V6 { network: u128::from_be_bytes(*network) & mask, mask })
    }

    fn contains(self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::V4 { network, mask }, IpAddr::V4(address)) => u32::from(address) & mask == network,
            (Self::V6 { network, mask }, IpAddr::V6(address)) => u128::from(address) & mask == network,
            _ => false,
        }
    }

    /// Its first address.
    pub(crate) fn first(self) -> IpAddr {
        match self {
            Self::V4 { network, .. } => Ipv4Addr::from(network).into(),
            Self::V6 { network, .. } => Ipv6Addr::from(network).into(),
        }
    }

    fn subtree(self) -> GeneralSubtree {
        GeneralSubtree::IpAddress(match self {
            Self::V4 { network, mask } => CidrSubnet::V4(network.to_be_bytes(), mask.to_be_bytes()),
            Self::V6 { network, mask } => CidrSubnet::V6(network.to_be_bytes(), mask.to_be_bytes()),
        })
    }
}

/// A name that a person configured: one of DNS with all below it, an address, or a range of addresses.
pub(crate) enum Configured {
    Dns(String),
    Range(Range),
}

impl Configured {
    /// `db.example`, `203.0.113.7`, `203.0.113.0/24`.
    pub(crate) fn parse(text: &str) -> Result<Self, NameError> {
        let refused = || NameError { name: text.to_owned() };
        if let Some((address, prefix)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_invalid| refused())?;
            let prefix = prefix.parse().map_err(|_invalid| refused())?;
            // A range of everything is no constraint.
            let range = (prefix != 0).then(|| Range::new(address, prefix)).flatten();
            return range.map(Self::Range).ok_or_else(refused);
        }
        let name = LeafName::parse(text)?;
        match (name.as_dns(), name.as_ip()) {
            (Some(name), _) => Ok(Self::Dns(name.to_owned())),
            (_, Some(address)) => {
                let prefix = if address.is_ipv4() { 32 } else { 128 };
                Range::new(address, prefix).map(Self::Range).ok_or_else(refused)
            }
            _ => Err(refused()),
        }
    }
}

/// What a certificate authority may vouch for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Constraints {
    pub(crate) permitted_dns: Vec<String>,
    pub(crate) excluded_dns: Vec<String>,
    pub(crate) permitted_ip: Vec<Range>,
    pub(crate) excluded_ip: Vec<Range>,
}

impl Constraints {
    /// From a certificate's extension; without one nothing is constrained.
    pub(crate) fn read(certificate: &X509Certificate<'_>) -> Option<Self> {
        let extension = certificate.name_constraints().ok().flatten()?.value;
        let mut constraints = Self::default();
        for subtree in extension.permitted_subtrees.iter().flatten() {
            match &subtree.base {
                GeneralName::DNSName(name) => constraints.permitted_dns.push(name.to_ascii_lowercase()),
                GeneralName::IPAddress(range) => constraints.permitted_ip.extend(Range::read(range)),
                _ => {}
            }
        }
        for subtree in extension.excluded_subtrees.iter().flatten() {
            match &subtree.base {
                GeneralName::DNSName(name) => constraints.excluded_dns.push(name.to_ascii_lowercase()),
                GeneralName::IPAddress(range) => constraints.excluded_ip.extend(Range::read(range)),
                _ => {}
            }
        }
        Some(constraints)
    }

    /// Which kind of name is not constrained: one that is not listed at all is unrestricted to a client.
    pub(crate) fn unconstrained(&self) -> Option<&'static str> {
        let permits_v4 = self.permitted_ip.iter().any(|range| matches!(range, Range::V4 { .. }));
        let permits_v6 = self.permitted_ip.iter().any(|range| matches!(range, Range::V6 { .. }));
        let everything =
            |range: &Range| matches!(range, Range::V4 { mask: 0, .. } | Range::V6 { mask: 0, .. });
        if self.permitted_dns.is_empty()
            || self.permitted_dns.iter().any(|name| name.is_empty() || name == ".")
        {
            Some("DNS names")
        } else if !permits_v4 && !self.excluded_ip.contains(&Range::ALL_V4) {
            Some("IPv4 addresses")
        } else if !permits_v6 && !self.excluded_ip.contains(&Range::ALL_V6) {
            Some("IPv6 addresses")
        } else if self.permitted_ip.iter().any(everything) {
            Some("IP addresses")
        } else {
            None
        }
    }

    pub(crate) fn permits(&self, name: &LeafName) -> bool {
        if let Some(name) = name.as_dns() {
            let within = |subtree: &String| below(name, subtree);
            return self.permitted_dns.iter().any(within) && !self.excluded_dns.iter().any(within);
        }
        name.as_ip().is_some_and(|address| {
            let within = |range: &Range| range.contains(address);
            self.permitted_ip.iter().any(within) && !self.excluded_ip.iter().any(within)
        })
    }

    pub(crate) fn extension(&self) -> NameConstraints {
        let subtrees = |names: &[String], ranges: &[Range]| {
            let names = names.iter().cloned().map(GeneralSubtree::DnsName);
            names.chain(ranges.iter().map(|range| range.subtree())).collect()
        };
        NameConstraints {
            permitted_subtrees: subtrees(&self.permitted_dns, &self.permitted_ip),
            excluded_subtrees: subtrees(&self.excluded_dns, &self.excluded_ip),
        }
    }

    /// Some name that is permitted, to try a chain with.
    pub(crate) fn sample(&self) -> Option<LeafName> {
        let dns = self.permitted_dns.iter().filter_map(|subtree| match subtree.strip_prefix('.') {
            Some(parent) => LeafName::parse(&format!("probe.{parent}")).ok(),
            None => LeafName::parse(subtree).ok(),
        });
        let ip = self.permitted_ip.iter().map(|range| LeafName::ip(range.first()));
        dns.chain(ip).find(|name| self.permits(name))
    }
}

/// Whether the name is the subtree's or below it; a leading dot leaves the subtree's own name out.
fn below(name: &str, subtree: &str) -> bool {
    if subtree.starts_with('.') {
        return name.len() > subtree.len() && name.ends_with(subtree);
    }
    match name.strip_suffix(subtree) {
        Some(rest) => rest.is_empty() || rest.ends_with('.') || subtree.is_empty(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> LeafName {
        LeafName::parse(text).unwrap()
    }

    fn range(text: &str) -> Range {
        match Configured::parse(text) {
            Ok(Configured::Range(range)) => range,
            _ => panic!("{text} is no range"),
        }
    }

    #[test]
    fn a_subtree_is_its_name_and_everything_below_it_and_nothing_beside_it() {
        let constraints = Constraints {
            permitted_dns: vec!["googleapis.com".into(), ".a.example".into()],
            ..Constraints::default()
        };
        for permitted in ["googleapis.com", "bigquery.googleapis.com", "a.b.googleapis.com", "x.a.example"] {
            assert!(constraints.permits(&name(permitted)), "{permitted}");
        }
        for refused in ["notgoogleapis.com", "com", "googleapis.com.evil.example", "a.example", "10.0.0.1"] {
            assert!(!constraints.permits(&name(refused)), "{refused}");
        }
    }

    #[test]
    fn an_excluded_name_is_refused_within_a_permitted_one() {
        let constraints = Constraints {
            permitted_dns: vec!["example".into()],
            excluded_dns: vec!["b.example".into()],
            permitted_ip: vec![range("10.0.0.0/8")],
            excluded_ip: vec![range("10.9.0.0/16")],
        };
        assert!(constraints.permits(&name("a.example")) && !constraints.permits(&name("x.b.example")));
        assert!(constraints.permits(&name("10.8.0.1")) && !constraints.permits(&name("10.9.0.1")));
    }

    #[test]
    fn a_range_is_what_its_mask_says() {
        let ranges = ["10.0.0.0/8", "203.0.113.7", "fd00::/8", "192.168.1.77/16"].map(range);
        let constraints = Constraints { permitted_ip: ranges.to_vec(), ..Constraints::default() };
        for permitted in ["10.255.0.1", "203.0.113.7", "fdff::1", "192.168.200.1"] {
            assert!(constraints.permits(&name(permitted)), "{permitted}");
        }
        for refused in ["11.0.0.1", "203.0.113.8", "fc00::1", "192.169.0.1", "::a00:1"] {
            assert!(!constraints.permits(&name(refused)), "{refused}");
        }
    }

    #[test]
    fn what_is_no_constraint_cannot_be_configured() {
        for text in ["0.0.0.0/0", "::/0", "10.0.0.0/33", "10.0.0.0/x", "*.example", "10.0.0.0/8/8", ""] {
            assert!(Configured::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_kind_of_name_that_is_not_listed_is_noticed() {
        let mut constraints = Constraints::default();
        assert_eq!(constraints.unconstrained(), Some("DNS names"));
        constraints.permitted_dns.push("invalid".into());
        assert_eq!(constraints.unconstrained(), Some("IPv4 addresses"));
        constraints.permitted_ip.push(range("10.0.0.0/8"));
        assert_eq!(constraints.unconstrained(), Some("IPv6 addresses"));
        constraints.excluded_ip.push(Range::ALL_V6);
        assert_eq!(constraints.unconstrained(), None);
        constraints.permitted_ip.push(Range::ALL_V4);
        assert_eq!(constraints.unconstrained(), Some("IP addresses"));
    }
}
