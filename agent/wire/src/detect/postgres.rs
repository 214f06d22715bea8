//! PostgreSQL's start-up packets (protocol documentation, "Message Formats").

use super::Detection;
use crate::postgres::startup::{self, Code};

/// What a PostgreSQL client begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostgresStart {
    /// It asks for TLS.
    SslRequest,
    /// It asks for GSSAPI encryption.
    GssEncRequest,
    /// It wants another connection's command cancelled.
    CancelRequest,
    /// It starts a session, protocol 3.x.
    Startup,
}

pub(super) fn detect(bytes: &[u8]) -> Detection {
    let mut header = [0u8; 8];
    for (to, from) in header.iter_mut().zip(bytes) {
        *to = *from;
    }
    let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
    // Unread bytes count as 0 here, so that what is too long already is refused at once.
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    if length > startup::MAX_LENGTH || (bytes.len() >= 4 && length < startup::MIN_LENGTH) {
        return Detection::Unknown;
    }
    if bytes.len() < 8 {
        return Detection::NeedMore;
    }
    match Code::new(u32::from_be_bytes([c0, c1, c2, c3])) {
        Code::Ssl if length == 8 => Detection::Postgres(PostgresStart::SslRequest),
        Code::GssEnc if length == 8 => Detection::Postgres(PostgresStart::GssEncRequest),
        Code::Cancel if length >= 16 => Detection::Postgres(PostgresStart::CancelRequest),
        Code::Version { major: 3, .. } => Detection::Postgres(PostgresStart::Startup),
        _ => Detection::Unknown,
    }
}
