//! A TLS ClientHello (RFC 8446, 4.1.2), over as many records and segments as it takes (5.1).
//!
//! Post-quantum key shares make it longer than a segment as a rule.

use super::{Detection, MAX_BYTES};
use crate::reader::{Malformed, Reader};

const HANDSHAKE: u8 = 0x16;
const CLIENT_HELLO: u8 = 1;
/// Extensions (IANA, TLS ExtensionType Values).
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const EARLY_DATA: u16 = 42;
const SUPPORTED_VERSIONS: u16 = 43;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
/// Protocol versions (RFC 8446, 4.2.1; RFC 5246, 6.2.1).
const TLS12: u16 = 0x0303;
const TLS13: u16 = 0x0304;
/// RFC 8446, 5.1 and, for other versions' slack, RFC 5246, 6.2.3.
const MAX_RECORD: usize = (1 << 14) + 2048;

/// What a ClientHello says that steers what is done with the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Server name indication (RFC 6066, 3), in lower case.
    pub server_name: Option<String>,
    /// Protocols offered by ALPN (RFC 7301), as the client orders them.
    pub alpn: Vec<Vec<u8>>,
    /// TLS 1.2 is offered.
    pub tls12: bool,
    /// TLS 1.3 is offered (RFC 8446, 4.2.1). Where neither is, the hello is of an older version or broken, or was
    /// too long to be read whole.
    pub tls13: bool,
    /// Another hello is encrypted within, or its place is filled with noise (RFC 9849, 6): the server name is then
    /// the one that the client shows to everybody.
    pub encrypted_client_hello: bool,
    /// Application data follow before the server's answer (RFC 8446, 4.2.10).
    pub early_data: bool,
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
    // Without the extension it is the newest version that is offered.
    let version = reader.u16()?;
    let _random = reader.take(32)?;
    let session = reader.u8()?;
    reader.take(session.into())?;
    let suites = reader.u16()?;
    reader.take(suites.into())?;
    let compression = reader.u8()?;
    reader.take(compression.into())?;
    let mut hello = ClientHello { tls12: version >= TLS12, ..ClientHello::default() };
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
            SUPPORTED_VERSIONS => (hello.tls12, hello.tls13) = versions(data)?,
            ENCRYPTED_CLIENT_HELLO => hello.encrypted_client_hello = true,
            EARLY_DATA => hello.early_data = true,
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

/// Whether 1.2 and 1.3 are among them; others, invented ones (RFC 8701) too, are passed over.
fn versions(data: &[u8]) -> Result<(bool, bool), Malformed> {
    let mut reader = Reader::new(data);
    let length = reader.u8()?;
    let mut list = Reader::new(reader.take(length.into())?);
    let (mut tls12, mut tls13) = (false, false);
    while !list.is_empty() {
        let version = list.u16()?;
        tls12 |= version == TLS12;
        tls13 |= version == TLS13;
    }
    Ok((tls12, tls13))
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
    use proptest::prelude::*;

    use super::*;

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
        with_extensions(0x0303, &extensions)
    }

    fn with_extensions(version: u16, extensions: &[u8]) -> Vec<u8> {
        let mut body = version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(with_length(extensions));
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

    fn read(message: &[u8]) -> ClientHello {
        match detect(&records(message, 1000)) {
            Detection::Tls(hello) => hello,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn versions_are_those_of_the_extension_and_without_it_the_newest() {
        for (version, offered, expected) in [
            (0x0303, None, (true, false)),
            (0x0302, None, (false, false)),
            (0x0301, None, (false, false)),
            (0x0303, Some(&[0x7a7a, 0x0304, 0x0303][..]), (true, true)),
            (0x0303, Some(&[0x0304]), (false, true)),
            (0x0303, Some(&[0x0303, 0x0302]), (true, false)),
            (0x0303, Some(&[0x0a0a]), (false, false)),
        ] {
            let list: Vec<u8> = offered.into_iter().flatten().flat_map(|v: &u16| v.to_be_bytes()).collect();
            let list = [&[list.len() as u8][..], &list].concat();
            let extensions = if offered.is_some() { extension(43, &list) } else { Vec::new() };
            let hello = read(&with_extensions(version, &extensions));
            assert_eq!((hello.tls12, hello.tls13), expected, "{version:x} {offered:x?}");
        }
    }

    #[test]
    fn an_encrypted_hello_and_early_data_are_noticed() {
        let plain = read(&with_extensions(0x0303, &[]));
        assert!(!plain.encrypted_client_hello && !plain.early_data);
        let both = read(&with_extensions(0x0303, &[extension(0xfe0d, &[0; 9]), extension(42, &[])].concat()));
        assert!(both.encrypted_client_hello && both.early_data);
    }

    proptest! {
        #[test]
        fn a_hello_is_read_the_same_in_whatever_records_it_comes(
            sizes in prop::collection::vec(1usize..700, 1..200), padding in 0usize..1500,
        ) {
            let message = hello(Some("a.example"), &[b"h2"], padding);
            let (mut rest, mut bytes) = (message.as_slice(), Vec::new());
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, after) = rest.split_at((*size).min(rest.len()));
                bytes.extend(records(part, part.len()));
                rest = after;
            }
            prop_assert_eq!(detect(&bytes), Detection::Tls(read(&message)));
            for length in [bytes.len() / 3, bytes.len() - 1] {
                prop_assert_eq!(detect(&bytes[..length]), Detection::NeedMore);
            }
        }

        #[test]
        fn a_damaged_hello_never_panics_and_is_never_asked_for_beyond_the_bound(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
            more in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut bytes = records(&hello(Some("a.example"), &[b"h2", b"http/1.1"], 300), 97);
            for (index, byte) in changes {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            bytes.extend(more);
            detect(&bytes);
            bytes.resize(MAX_BYTES, 0x16);
            prop_assert_ne!(detect(&bytes), Detection::NeedMore);
        }
    }
}
