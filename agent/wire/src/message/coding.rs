//! Takes off a body's content-coding (RFC 9110, 8.4) as a stream, with bounded memory and work.
//!
//! Owns how much may come out of how little. Knows nothing of what comes out.

use std::{fmt, io::Write};

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header};

/// Bytes that are decoded at once. Deflate makes 1,032 bytes of one at most, so this bounds the memory.
const PIECE: usize = 256;
/// Bytes of output that are always decoded, whatever the input's length.
const FREE_BYTES: u64 = 4 << 20;
/// Beyond that, bytes of output for one of input. Text comes to 20, rows of one value to 100.
const MOST_RATIO: u64 = 200;
/// Bytes of output of one body at most.
const MOST_BYTES: u64 = 256 << 20;

/// Why a body was not decoded, or not to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undecoded {
    /// A coding that is not decoded here, e.g. `br`.
    Unknown,
    /// Not what its coding says it is.
    Malformed,
    /// Too much comes out of too little.
    Bomb,
}

impl fmt::Display for Undecoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "a content-coding that is not decoded",
            Self::Malformed => "not what its content-coding says",
            Self::Bomb => "more than is decoded",
        })
    }
}

enum Inner {
    Identity,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    /// Nothing was seen yet that tells zlib's format from bare deflate.
    Deflate,
    Zlib(Box<ZlibDecoder<Vec<u8>>>),
    Bare(Box<DeflateDecoder<Vec<u8>>>),
    Failed(Undecoded),
}

/// The coding of one body.
pub(super) struct Coding {
    inner: Inner,
    taken: u64,
    given: u64,
}

impl Coding {
    /// As the headers say.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut codings = headers.get_all(header::CONTENT_ENCODING).iter().flat_map(|value| {
            value
                .as_bytes()
                .split(|&byte| byte == b',')
                .map(<[u8]>::trim_ascii)
                .filter(|name| !name.is_empty())
        });
        let inner = match (codings.next(), codings.next()) {
            (None, _) => Inner::Identity,
            (Some(name), None) => Self::named(name),
            (Some(_), Some(_)) => Inner::Failed(Undecoded::Unknown),
        };
        Self { inner, taken: 0, given: 0 }
    }

    fn named(name: &[u8]) -> Inner {
        match name.to_ascii_lowercase().as_slice() {
            b"identity" => Inner::Identity,
            b"gzip" | b"x-gzip" => Self::gzip(),
            b"deflate" => Inner::Deflate,
            _ => Inner::Failed(Undecoded::Unknown),
        }
    }

    fn gzip() -> Inner {
        Inner::Gzip(Box::new(MultiGzDecoder::new(Vec::new())))
    }

    /// The coding of a gRPC message with its flag set.
    pub(super) fn of_message(name: &[u8]) -> Self {
        Self { inner: Self::named(name), taken: 0, given: 0 }
    }

    /// Why nothing comes out any more.
    pub(super) fn failure(&self) -> Option<Undecoded> {
        match self.inner {
            Inner::Failed(why) => Some(why),
            _ => None,
        }
    }

    /// The next bytes of the body; what they mean goes to `out`, piece by piece.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut dyn FnMut(&[u8])) {
        if matches!(self.inner, Inner::Identity) {
            out(bytes);
            return;
        }
        for piece in bytes.chunks(PIECE) {
            if self.failure().is_some() {
                return;
            }
            self.taken = self.taken.saturating_add(piece.len() as u64);
            let written = self.write(piece);
            self.drain(out);
            if !written {
                self.inner = Inner::Failed(Undecoded::Malformed);
            } else if self.given > MOST_BYTES
                || self.given > FREE_BYTES.max(self.taken.saturating_mul(MOST_RATIO))
            {
                self.inner = Inner::Failed(Undecoded::Bomb);
            }
        }
    }

    /// The body is whole.
    pub(super) fn finish(&mut self, out: &mut dyn FnMut(&[u8])) {
        let ended = match &mut self.inner {
            Inner::Identity | Inner::Failed(_) => return,
            Inner::Deflate => true,
            Inner::Gzip(decoder) => self.taken == 0 || decoder.try_finish().is_ok(),
            Inner::Zlib(decoder) => decoder.try_finish().is_ok(),
            Inner::Bare(decoder) => decoder.try_finish().is_ok(),
        };
        self.drain(out);
        if !ended {
            self.inner = Inner::Failed(Undecoded::Malformed);
        }
    }

    fn write(&mut self, piece: &[u8]) -> bool {
        if let (Inner::Deflate, Some(first)) = (&self.inner, piece.first()) {
            // RFC 1950: compression method 8, a window of 32 KiB at most. Some send bare deflate (RFC 1951).
            self.inner = if first & 0x0f == 8 && first >> 4 <= 7 {
                Inner::Zlib(Box::new(ZlibDecoder::new(Vec::new())))
            } else {
                Inner::Bare(Box::new(DeflateDecoder::new(Vec::new())))
            };
        }
        match &mut self.inner {
            Inner::Identity | Inner::Deflate | Inner::Failed(_) => true,
            Inner::Gzip(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()).is_ok(),
            Inner::Zlib(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()).is_ok(),
            Inner::Bare(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()).is_ok(),
        }
    }

    fn drain(&mut self, out: &mut dyn FnMut(&[u8])) {
        let output = match &mut self.inner {
            Inner::Identity | Inner::Deflate | Inner::Failed(_) => return,
            Inner::Gzip(decoder) => decoder.get_mut(),
            Inner::Zlib(decoder) => decoder.get_mut(),
            Inner::Bare(decoder) => decoder.get_mut(),
        };
        if !output.is_empty() {
            self.given = self.given.saturating_add(output.len() as u64);
            out(output);
            output.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write};
    use http::HeaderValue;

    use super::*;

    fn coding(value: &'static str) -> Coding {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(value));
        Coding::of(&headers)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = write::GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    fn run(mut coding: Coding, body: &[u8], piece: usize) -> (Vec<u8>, Option<Undecoded>) {
        let mut output = Vec::new();
        for piece in body.chunks(piece) {
            coding.push(piece, &mut |bytes| output.extend_from_slice(bytes));
        }
        coding.finish(&mut |bytes| output.extend_from_slice(bytes));
        (output, coding.failure())
    }

    #[test]
    fn every_known_coding_is_taken_off_at_every_split() {
        let text = b"{\"query\": \"SELECT 1\"}".repeat(20);
        let mut zlib = write::ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(&text).expect("memory");
        let mut bare = write::DeflateEncoder::new(Vec::new(), Compression::fast());
        bare.write_all(&text).expect("memory");
        let two = [gzip(&text), gzip(b"!")].concat();
        let bodies = [
            ("gzip", gzip(&text), text.clone()),
            ("X-GZIP", two, [text.clone(), b"!".to_vec()].concat()),
            ("deflate", zlib.finish().expect("memory"), text.clone()),
            ("deflate", bare.finish().expect("memory"), text.clone()),
            ("identity", text.clone(), text.clone()),
            ("gzip", Vec::new(), Vec::new()),
        ];
        for (name, body, expected) in bodies {
            for piece in 1..=body.len().max(1) {
                assert_eq!(run(coding(name), &body, piece), (expected.clone(), None), "{name}, {piece}");
            }
        }
    }

    #[test]
    fn what_cannot_be_decoded_says_why() {
        let body = gzip(b"text");
        let cut = &body[..body.len() - 6];
        assert_eq!(run(coding("br"), b"x", 1).1, Some(Undecoded::Unknown));
        assert_eq!(run(coding("gzip, gzip"), &body, 1).1, Some(Undecoded::Unknown));
        assert_eq!(run(coding("gzip"), b"plain text", 3).1, Some(Undecoded::Malformed));
        assert_eq!(run(coding("gzip"), cut, 3).1, Some(Undecoded::Malformed));
    }

    #[test]
    fn a_bomb_is_stopped_long_before_it_is_big() {
        let bomb = gzip(&vec![0; 64 << 20]);
        let mut largest = 0;
        let mut total = 0;
        let mut coding = coding("gzip");
        coding.push(&bomb, &mut |bytes| {
            largest = largest.max(bytes.len());
            total += bytes.len() as u64;
        });
        assert_eq!(coding.failure(), Some(Undecoded::Bomb));
        assert!(total < FREE_BYTES + 300_000 && largest < 300_000, "{total} in pieces of {largest}");
    }
}
