//! The limits of a pair, each with why it is what it is.

use std::time::Duration;

use crate::seam::HELD_BYTES;

/// Limits of a connection. All sizes in bytes.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// How much of a request's body is kept at most while nothing of it may go on.
    pub held_bytes: usize,
    /// The longest head of a request or an answer: request line and header section (HTTP/1.1), header list as
    /// RFC 9113 section 6.5.2 counts it (HTTP/2).
    pub header_bytes: u32,
    /// The most header lines of an HTTP/1.1 message.
    pub header_count: usize,
    /// Streams that a client may have open at once (HTTP/2).
    pub concurrent_streams: u32,
    /// What a stream may send ahead (HTTP/2). More than `held_bytes`, or what is held would never fill.
    pub stream_window: u32,
    /// What all streams of a connection may send ahead (HTTP/2). Many times `stream_window`: streams that are
    /// held or stalled keep theirs, and must not stop the others.
    pub connection_window: u32,
    /// What is kept of one stream's answer or request that its receiver does not take (HTTP/2).
    pub send_buffer: usize,
    /// What is read ahead of an HTTP/1.1 connection.
    pub read_buffer: usize,
    /// Frames that cost work and move nothing (PING, SETTINGS, PRIORITY, RST_STREAM, empty DATA) that may come
    /// at once; ten times fewer may follow each second (HTTP/2).
    pub control_frames: u32,
    /// Whether both legs are encrypted: the scheme of a request that names a Host and no authority (HTTP/2).
    pub encrypted: bool,
    /// How long the last bytes of a connection that we end may take to leave.
    pub linger: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            held_bytes: HELD_BYTES,
            header_bytes: 64 << 10,
            header_count: 256,
            concurrent_streams: 128,
            stream_window: 512 << 10,
            connection_window: 16 << 20,
            send_buffer: 128 << 10,
            read_buffer: 64 << 10,
            control_frames: 2000,
            encrypted: true,
            linger: Duration::from_secs(1),
        }
    }
}
