//! A TLS ClientHello (RFC 8446, 4.1.2), over as many records and segments as it takes (5.1).
//!
//! Post-quantum key shares make it longer than a segment as a rule.

use super::{Detection, MAX_BYTES};
use crate::reader::{Malformed, Reader};

const HANDSHAKE: u8 = 0x16;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
/// RFC 8446, 5.1 and, for other versions' slack, RFC 5246, 6.2.3.
const MAX_RECORD: usize = (1 << 14) + 2048;

/// What a ClientHello says that steers what is done with the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Server name indication (RFC 6066, 3), in lower case.
    pub server_name: Option<String>,
    /// Protocols offered by ALPN (RFC 7301), as the client orders them.
    pub alpn: Vec<Vec<u8>>,
}

pub(super) fn detect(bytes: &[u8]) -> Detection {
    match gather(bytes) {
        Gathered::Whole(hello) => Detection::Tls(parse(&hello).unwrap_or_default()),
        Gathered::NotTls => Detection::Unknown,
        Gathered::NeedMore if bytes.len() < MAX_BYTES => Detection::NeedMore,
        Gathered::NeedMore | Gathered::TooLong => Detection::Tls(ClientHello::default()),
    }
}

enum Gathered {
    NeedMore,
    NotTls,
    TooLong,
    /// The body of the ClientHello.
    Whole(Vec<u8>),
}

/// Takes the handshake message out of its records.
fn gather(bytes: &[u8]) -> Gathered {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        let [kind, major, minor, l0, l1, after @ ..] = rest else {
            return match rest {
                [] | [HANDSHAKE] | [HANDSHAKE, 3] | [HANDSHAKE, 3, 0..=4, ..] => Gathered::NeedMore,
                _ => Gathered::NotTls,
            };
        };
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        if *kind != HANDSHAKE || *major != 3 || *minor > 4 || length == 0 || length > MAX_RECORD {
            return Gathered::NotTls;
        }
        let part = after.get(..length).unwrap_or(after);
        message.extend_from_slice(part);
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Gathered::NotTls;
        }
        if let [_, l0, l1, l2, body @ ..] = message.as_slice() {
            let length = u32::from_be_bytes([0, *l0, *l1, *l2]) as usize;
            if length > MAX_BYTES {
                return Gathered::TooLong;
            }
            if let Some(body) = body.get(..length) {
                return Gathered::Whole(body.to_vec());
            }
        }
        match after.get(length..) {
            Some(next) => rest = next,
            None => return Gathered::NeedMore,
        }
    }
}

fn parse(body: &[u8]) -> Result<ClientHello, Malformed> {
    let mut reader = Reader::new(body);
    let _version_and_random = reader.take(34)?;
    let session = reader.u8()?;
    reader.take(session.into())?;
    let suites = reader.u16()?;
    reader.take(suites.into())?;
    let compression = reader.u8()?;
    reader.take(compression.into())?;
    let mut hello = ClientHello::default();
    if reader.is_empty() {
        return Ok(hello);
    }
    let length = reader.u16()?;
    let mut extensions = Reader::new(reader.take(length.into())?);
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let length = extensions.u16()?;
        let data = extensions.take(length.into())?;
        match kind {
            SERVER_NAME => hello.server_name = server_name(data)?,
            ALPN => hello.alpn = alpn(data)?,
            _ => {}
        }
    }
    Ok(hello)
}

fn server_name(data: &[u8]) -> Result<Option<String>, Malformed> {
    let mut reader = Reader::new(data);
    let length = reader.u16()?;
    let mut names = Reader::new(reader.take(length.into())?);
    while !names.is_empty() {
        let kind = names.u8()?;
        let length = names.u16()?;
        let name = names.take(length.into())?;
        let clean = !name.is_empty() && name.len() <= 255 && name.iter().all(u8::is_ascii_graphic);
        if kind == 0 && clean {
            return Ok(std::str::from_utf8(name).ok().map(str::to_ascii_lowercase));
        }
    }
    Ok(None)
}

fn alpn(data: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut reader = Reader::new(data);
    let length = reader.u16()?;
    let mut list = Reader::new(reader.take(length.into())?);
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let length = list.u8()?;
        protocols.push(list.take(length.into())?.to_vec());
    }
    Ok(protocols)
}

#[cfg(test)]
pub(super) mod tests {
    /// A ClientHello handshake message with `padding` bytes in an extension before the others.
    pub(crate) fn hello(name: Option<&str>, alpn: &[&[u8]], padding: usize) -> Vec<u8> {
        let mut extensions = extension(0xfafa, &vec![0; padding]);
        if let Some(name) = name {
            let entry = [&[0u8][..], &with_length(name.as_bytes())].concat();
            extensions.extend(extension(0, &with_length(&entry)));
        }
        if !alpn.is_empty() {
            let list: Vec<u8> = alpn.iter().flat_map(|p| [&[p.len() as u8][..], p].concat()).collect();
            extensions.extend(extension(16, &with_length(&list)));
        }
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(with_length(&extensions));
        let length = (body.len() as u32).to_be_bytes();
        [&[1][..], &length[1..], &body].concat()
    }

    /// The message in records of at most `size` bytes.
    pub(crate) fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|part| [&[0x16, 3, 1][..], &with_length(part)].concat()).collect()
    }

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &with_length(data)].concat()
    }

    fn with_length(data: &[u8]) -> Vec<u8> {
        [&(data.len() as u16).to_be_bytes()[..], data].concat()
    }
}
