//! The one name that a leaf is for.
//!
//! Owns normalisation: lower case, no trailing dot, A-labels only, no wildcard, IPv4 never in IPv6's clothes.

use std::{borrow::Cow, fmt, net::IpAddr};

use rustls::pki_types::{DnsName, ServerName};

/// A DNS name or an IP address, in the one form in which names are compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeafName(ServerName<'static>);

/// A text is no name that a certificate could be for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is neither a DNS name (letters, digits, hyphens, underscores and dots; others in their \
     xn-- form; no wildcard) nor an IP address"
)]
pub struct NameError {
    /// The text.
    pub name: String,
}

impl LeafName {
    /// From a server name indication, a host name or an IP address as text.
    ///
    /// # Errors
    ///
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::ip(address));
        }
        let refused = || NameError { name: text.to_owned() };
        let absolute = text.strip_suffix('.').unwrap_or(text);
        let name = DnsName::try_from(absolute).map_err(|_invalid| refused())?;
        // An address in another notation (`127.1`) would be one to some resolvers.
        let last = absolute.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refused());
        }
        Ok(Self(ServerName::DnsName(name.to_lowercase_owned())))
    }

    /// An address, e.g. of the destination.
    #[must_use]
    pub fn ip(address: IpAddr) -> Self {
        Self(ServerName::IpAddress(address.to_canonical().into()))
    }

    /// For the upstream handshake: what the server's certificate must be for. The server name indication is
    /// sent when it is a DNS name.
    #[must_use]
    pub fn server_name(&self) -> ServerName<'static> {
        self.0.clone()
    }

    /// The name, without brackets or port.
    #[must_use]
    pub fn as_str(&self) -> Cow<'_, str> {
        self.0.to_str()
    }

    /// The DNS name, where it is one.
    #[must_use]
    pub fn as_dns(&self) -> Option<&str> {
        match &self.0 {
            ServerName::DnsName(name) => Some(name.as_ref()),
            _ => None,
        }
    }

    /// The address, where it is one.
    #[must_use]
    pub fn as_ip(&self) -> Option<IpAddr> {
        match self.0 {
            ServerName::IpAddress(address) => Some(address.into()),
            _ => None,
        }
    }
}

impl From<IpAddr> for LeafName {
    fn from(address: IpAddr) -> Self {
        Self::ip(address)
    }
}

impl fmt::Display for LeafName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_the_same_are_the_same() {
        let name = LeafName::parse("BigQuery.GoogleAPIs.com.").unwrap();
        assert_eq!(name, LeafName::parse("bigquery.googleapis.com").unwrap());
        assert_eq!(name.to_string(), "bigquery.googleapis.com");
        assert_eq!(LeafName::parse("::ffff:10.0.0.1").unwrap(), LeafName::parse("10.0.0.1").unwrap());
        assert_eq!(LeafName::parse("FD00::0:1").unwrap().to_string(), "fd00::1");
    }

    #[test]
    fn what_is_no_single_name_is_refused() {
        for text in [
            "",
            ".",
            "*.googleapis.com",
            "a b",
            "bücher.example",
            "a..b",
            "127.1",
            "1.2.3.4.5",
            "a/b",
            "[::1]",
            "10.0.0.1:5432",
            "-a.example.",
            "a\0.example",
        ] {
            assert!(LeafName::parse(text).is_err(), "{text:?}");
        }
        assert!(LeafName::parse("xn--bcher-kva.example").is_ok());
        assert!(LeafName::parse("my_db.internal").is_ok());
    }
}
