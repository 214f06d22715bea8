//! Start-up packets: the only messages without a type byte.
//!
//! Owns their layout (PostgreSQL documentation, "Message Formats": StartupMessage, SSLRequest,
//! GSSENCRequest, CancelRequest). Knows nothing of what follows.

use crate::reader::{Malformed, Reader};

/// Shortest packet, its length field included.
pub(crate) const MIN_LENGTH: usize = 8;
/// Longest packet, as the server has it (`MAX_STARTUP_PACKET_LENGTH`), its length field included.
pub(crate) const MAX_LENGTH: usize = 10_000;

/// The number after the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Ssl,
    GssEnc,
    Cancel,
    Version { major: u16, minor: u16 },
}

impl Code {
    pub(crate) fn new(code: u32) -> Self {
        match code {
            80_877_103 => Self::Ssl,
            80_877_104 => Self::GssEnc,
            80_877_102 => Self::Cancel,
            _ => {
                let [m0, m1, n0, n1] = code.to_be_bytes();
                Self::Version { major: u16::from_be_bytes([m0, m1]), minor: u16::from_be_bytes([n0, n1]) }
            }
        }
    }
}

/// A start-up packet that was read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    Ssl,
    GssEnc,
    Cancel { process_id: u32, secret: &'a [u8] },
    Session(Parameters<'a>),
    UnsupportedVersion,
}

/// What a session starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters<'a> {
    pub(super) user: &'a [u8],
    pub(super) database: &'a [u8],
    pub(super) replication: bool,
    pub(super) others: Vec<(&'a [u8], &'a [u8])>,
}

/// Parses everything after the length field.
pub(super) fn parse(body: &[u8]) -> Result<Packet<'_>, Malformed> {
    let mut reader = Reader::new(body);
    let packet = match Code::new(reader.u32()?) {
        Code::Ssl => Packet::Ssl,
        Code::GssEnc => Packet::GssEnc,
        Code::Cancel => {
            let process_id = reader.u32()?;
            let secret = reader.rest();
            if !(4..=256).contains(&secret.len()) {
                return Err(Malformed);
            }
            Packet::Cancel { process_id, secret }
        }
        Code::Version { major: 3, .. } => return parameters(reader).map(Packet::Session),
        Code::Version { .. } => return Ok(Packet::UnsupportedVersion),
    };
    reader.end()?;
    Ok(packet)
}

fn parameters(mut reader: Reader<'_>) -> Result<Parameters<'_>, Malformed> {
    let mut parameters = Parameters::default();
    loop {
        let name = reader.string()?;
        if name.is_empty() {
            break;
        }
        let value = reader.string()?;
        match name {
            b"user" => parameters.user = value,
            b"database" => parameters.database = value,
            b"replication" => parameters.replication = !is_false(value),
            _ => parameters.others.push((name, value)),
        }
    }
    reader.end()?;
    if parameters.database.is_empty() {
        parameters.database = parameters.user;
    }
    Ok(parameters)
}

/// The server takes any unambiguous beginning of a word (`parse_bool`).
fn is_false(value: &[u8]) -> bool {
    let value = value.to_ascii_lowercase();
    let begins = |word: &[u8], least: usize| value.len() >= least && word.starts_with(&value);
    begins(b"false", 1) || begins(b"no", 1) || begins(b"off", 2) || value == b"0"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_defaults_to_the_user() {
        let packet = parse(b"\0\x03\0\0user\0bob\0application_name\0psql\0\0");
        let Ok(Packet::Session(parameters)) = packet else { panic!("{packet:?}") };
        assert_eq!(parameters.database, b"bob");
        assert_eq!(parameters.others, [(&b"application_name"[..], &b"psql"[..])]);
        assert!(!parameters.replication);
    }

    #[test]
    fn replication_is_what_the_server_takes_for_it() {
        for (value, expected) in
            [("database", true), ("true", true), ("1", true), ("off", false), ("f", false), ("0", false)]
        {
            let body = format!("\0\u{3}\0\0replication\0{value}\0\0");
            let Ok(Packet::Session(parameters)) = parse(body.as_bytes()) else { panic!("{value}") };
            assert_eq!(parameters.replication, expected, "{value}");
        }
    }

    #[test]
    fn packets_with_too_little_or_too_much_are_malformed() {
        assert_eq!(parse(b"\0\x03\0\0user\0bob\0"), Err(Malformed));
        assert_eq!(parse(b"\0\x03\0\0user\0bob\0\0x"), Err(Malformed));
        assert_eq!(parse(b"\x04\xd2\x16\x2fx"), Err(Malformed));
        assert_eq!(parse(b"\x04\xd2\x16\x2e\0\0\0\x01abc"), Err(Malformed));
        assert_eq!(parse(b"\0\x02\0\0"), Ok(Packet::UnsupportedVersion));
    }
}
