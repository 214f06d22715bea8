//! HTTP/2 frames by hand, for what no well-behaved library sends.

use bytes::{BufMut, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A frame as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The code of a RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let code = self.payload.get(at..at + 4).expect("a code");
        u32::from_be_bytes(code.try_into().expect("4 bytes"))
    }
}

/// One frame as bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_uint(payload.len() as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
    out.extend_from_slice(payload);
    out.to_vec()
}

/// A header field that enters no table (RFC 7541 section 6.2.2), names and values below 128 bytes or longer.
pub(crate) fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = vec![0x00];
    length(&mut out, name.len());
    out.extend_from_slice(name.as_bytes());
    length(&mut out, value.len());
    out.extend_from_slice(value);
    out
}

fn length(out: &mut Vec<u8>, mut length: usize) {
    if length < 127 {
        out.push(length as u8);
        return;
    }
    out.push(127);
    length -= 127;
    while length >= 128 {
        out.push((length % 128 + 128) as u8);
        length /= 128;
    }
    out.push(length as u8);
}

/// The fields of a request.
pub(crate) fn request(method: &str, path: &str) -> Vec<u8> {
    [
        field(":method", method.as_bytes()),
        field(":scheme", b"https"),
        field(":authority", b"example.test"),
        field(":path", path.as_bytes()),
    ]
    .concat()
}

/// A connection spoken by hand.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    /// As a client: the preface and empty settings.
    pub(crate) async fn client(stream: TcpStream) -> Self {
        let mut raw = Self(stream);
        raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        raw
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("written");
    }

    /// Sends for as long as it is taken.
    pub(crate) async fn send_on(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }

    /// The next frame; `None` at the end of the connection, however it comes.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        let mut header = [0; 9];
        self.0.read_exact(&mut header).await.ok()?;
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]), payload })
    }

    /// The next frame of a kind; others are passed over, settings acknowledged.
    pub(crate) async fn next(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.frame().await?;
            if frame.kind == SETTINGS && frame.flags == 0 {
                self.send_on(&self::frame(SETTINGS, 1, 0, &[])).await;
            }
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }
}
