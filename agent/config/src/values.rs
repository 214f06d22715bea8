//! Values of the configuration that are written as text: address ranges, templates.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::Deserialize;

use crate::pattern::Captures;

/// Why a value cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ValueError {
    /// See [`Cidr`].
    #[error("`{0}` is no address range: write e.g. `10.0.0.0/8`, `fd00::/8` or `192.0.2.7`")]
    Cidr(String),
    /// See [`Cidr`].
    #[error("`{given}` has bits set behind its prefix: did you mean `{meant}`?")]
    HostBits {
        /// As written.
        given: String,
        /// Without those bits.
        meant: String,
    },
    /// See [`Template`].
    #[error("`{0}`: `{{` must be followed by a capture's name and `}}`")]
    Template(String),
}

/// An address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Cidr {
    /// Its first address.
    pub address: IpAddr,
    /// Bits of its prefix, 0 to 32 or 128.
    pub prefix: u8,
}

impl TryFrom<String> for Cidr {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        let invalid = || ValueError::Cidr(text.clone());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text.as_str(), None),
        };
        let address: IpAddr = address.parse().map_err(|_invalid| invalid())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= width).ok_or_else(invalid)?,
            None => width,
        };
        let base = masked(address, prefix);
        if base != address {
            return Err(ValueError::HostBits { meant: format!("{base}/{prefix}"), given: text });
        }
        Ok(Self { address, prefix })
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

/// A text with captures of a pattern, as `{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(Vec<TemplatePart>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum TemplatePart {
    Text(String),
    Capture(String),
}

impl TryFrom<String> for Template {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(|| ValueError::Template(text.clone()))?;
            if name.is_empty() {
                return Err(ValueError::Template(text));
            }
            parts.extend([TemplatePart::Text(before.to_owned()), TemplatePart::Capture(name.to_owned())]);
            rest = after;
        }
        parts.push(TemplatePart::Text(rest.to_owned()));
        Ok(Self(parts))
    }
}

impl Template {
    /// The captures that it needs.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            TemplatePart::Capture(name) => Some(name.as_str()),
            TemplatePart::Text(_) => None,
        })
    }

    /// With what the captures hold; one that is absent is empty.
    #[must_use]
    pub fn fill(&self, captures: &Captures) -> String {
        let part = |part: &TemplatePart| match part {
            TemplatePart::Text(text) => text.clone(),
            TemplatePart::Capture(name) => captures.get(name).cloned().unwrap_or_default(),
        };
        self.0.iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_range_has_no_bits_behind_its_prefix() {
        let cidr = |text: &str| Cidr::try_from(text.to_owned());
        assert_eq!(cidr("0.0.0.0/0").map(|cidr| cidr.prefix), Ok(0));
        assert_eq!(cidr("::1").map(|cidr| cidr.prefix), Ok(128));
        assert_eq!(cidr("fd00::/8").map(|cidr| cidr.to_string()), Ok("fd00::/8".into()));
        assert_eq!(
            cidr("10.1.2.3/8"),
            Err(ValueError::HostBits { given: "10.1.2.3/8".into(), meant: "10.0.0.0/8".into() })
        );
        for bad in ["10.0.0.0/33", "10.0.0/8", "db.example.com", "::/129", "1.2.3.4/"] {
            assert_eq!(cidr(bad), Err(ValueError::Cidr(bad.into())));
        }
    }

    #[test]
    fn a_template_is_filled_with_captures() {
        let template = Template::try_from("pod-{uid}-x{n}".to_owned()).expect("template");
        assert_eq!(template.names().collect::<Vec<_>>(), ["uid", "n"]);
        let captures = Captures::from([("uid".into(), "7".into()), ("n".into(), "y".into())]);
        assert_eq!(template.fill(&captures), "pod-7-xy");
        assert!(Template::try_from("{uid".to_owned()).is_err());
    }
}
