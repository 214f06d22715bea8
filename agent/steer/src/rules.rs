//! Which destinations and which workloads are steered, as a caller says it.

use std::net::IpAddr;

use aya::maps::lpm_trie::Key;
pub use verbatim_ebpf_common::{Action, FailMode};
use verbatim_ebpf_common::{Address, Destination, TCP, Verdict};

use crate::SteerError;

/// What holds for a cgroup and those below it that have no verdict of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CgroupVerdict {
    /// What happens to its connects, where the destination matches a rule.
    pub action: Action,
    /// What happens to them while the proxy is dead.
    pub fail_mode: FailMode,
}

impl From<CgroupVerdict> for Verdict {
    fn from(verdict: CgroupVerdict) -> Self {
        Self::new(verdict.action, verdict.fail_mode)
    }
}

impl CgroupVerdict {
    /// From what is in the kernel; `None`: numbers of another version.
    pub(crate) fn of(verdict: Verdict) -> Option<Self> {
        let actions = [Action::Pass, Action::Steer, Action::Deny];
        let modes = [FailMode::Open, FailMode::Closed];
        Some(Self {
            action: actions.into_iter().find(|action| *action as u8 == verdict.action)?,
            fail_mode: modes.into_iter().find(|mode| *mode as u8 == verdict.fail_mode)?,
        })
    }
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// All of IPv4.
    pub const ALL_V4: Self = Self { address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), length: 0 };
    /// All of IPv6.
    pub const ALL_V6: Self = Self { address: IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), length: 0 };

    /// The range of addresses that share the first `length` bits of `address`.
    ///
    /// # Errors
    /// More bits than the address has.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, SteerError> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        if length > most {
            return Err(SteerError::Invalid {
                what: format!("prefix {address}/{length}").into(),
                cause: format!("expected a length of 0 to {most}"),
            });
        }
        Ok(Self { address, length })
    }

    /// Bits of the range in the trie, where IPv4 is v4-mapped.
    fn mapped_length(self) -> u32 {
        u32::from(self.length) + if self.address.is_ipv4() { 96 } else { 0 }
    }
}

impl From<IpAddr> for Prefix {
    /// The range of this one address.
    fn from(address: IpAddr) -> Self {
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }
}

/// Transport of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
}

/// What happens to connects to a range of destinations.
///
/// A rule with a port beats one without, then the longest prefix wins; destinations that no rule
/// names pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DestinationRule {
    /// Which addresses.
    pub prefix: Prefix,
    /// Which port; `None`: every one.
    pub port: Option<u16>,
    /// Which transport.
    pub protocol: Protocol,
    /// What happens.
    pub action: Action,
}

impl DestinationRule {
    /// Steer TCP.
    #[must_use]
    pub fn steer(prefix: impl Into<Prefix>, port: Option<u16>) -> Self {
        Self { prefix: prefix.into(), port, protocol: Protocol::Tcp, action: Action::Steer }
    }

    /// Rules that steer all TCP, IPv4 and IPv6.
    #[must_use]
    pub fn steer_everything() -> [Self; 2] {
        [Self::steer(Prefix::ALL_V4, None), Self::steer(Prefix::ALL_V6, None)]
    }

    pub(crate) fn key(&self) -> Key<Destination> {
        let Protocol::Tcp = self.protocol;
        let address = masked(self.prefix.address.into(), self.prefix.mapped_length());
        let data = Destination::new(TCP, self.port.unwrap_or(0), address);
        Key::new(Destination::FIXED_BITS + self.prefix.mapped_length(), data)
    }
}

/// The address with all but its first bits zero, so that equal ranges are equal keys.
fn masked(address: Address, bits: u32) -> Address {
    let mut words = address.0;
    for (word, first) in words.iter_mut().zip([0_u32, 32, 64, 96]) {
        let kept = bits.saturating_sub(first).min(32);
        let mask = u32::MAX.checked_shl(32 - kept).unwrap_or(0);
        *word &= mask.to_be();
    }
    Address(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(text: &str, length: u8, port: Option<u16>) -> (u32, Destination) {
        let prefix = Prefix::new(text.parse().unwrap(), length).unwrap();
        let key = DestinationRule::steer(prefix, port).key();
        (key.prefix_len(), key.data())
    }

    #[test]
    fn ipv4_ranges_are_keys_among_v4_mapped_addresses() {
        let (length, data) = key_of("10.1.2.3", 8, Some(5432));
        assert_eq!(length, 32 + 96 + 8);
        assert_eq!(IpAddr::from(data.address), "10.0.0.0".parse::<IpAddr>().unwrap());
        assert_eq!(data.port, [0x15, 0x38]);
        assert_eq!(key_of("10.9.9.9", 8, Some(5432)), (length, data));
    }

    #[test]
    fn all_of_ipv6_contains_all_of_ipv4_but_is_shorter() {
        assert_eq!(key_of("::", 0, None).0, 32);
        assert_eq!(key_of("0.0.0.0", 0, None).0, 32 + 96);
        assert!(key_of("0.0.0.0", 0, None).1.address.is_v4_mapped());
    }

    #[test]
    fn a_prefix_longer_than_its_address_is_refused() {
        assert!(Prefix::new("10.0.0.0".parse().unwrap(), 33).is_err());
        assert!(Prefix::new("::".parse().unwrap(), 128).is_ok());
    }
}
