//! Messages of the server.

use crate::{
    reader::{Malformed, Reader},
    seam::{ServerMessage, TransactionState},
};

/// Bytes kept of an ErrorResponse or NoticeResponse; what is beyond is not read.
pub(in crate::postgres) const MAX_FIELDS: usize = 64 * 1024;

/// ErrorResponse and NoticeResponse. Lenient, since the message may have been cut at [`MAX_FIELDS`].
pub(in crate::postgres) fn fields(body: &[u8]) -> ServerMessage {
    let mut message = ServerMessage::default();
    let mut reader = Reader::new(body);
    let mut localised = String::new();
    while let Ok(kind) = reader.u8() {
        if kind == 0 {
            break;
        }
        let mut cut = reader;
        let value = match reader.string() {
            Ok(value) => value,
            Err(Malformed) => {
                reader.rest();
                cut.rest()
            }
        };
        match kind {
            b'S' => localised = lossy(value),
            b'V' => message.severity = lossy(value),
            b'C' => message.code = lossy(value),
            b'M' => message.message = value.to_vec(),
            b'D' => message.detail = value.to_vec(),
            b'H' => message.hint = value.to_vec(),
            _ => {}
        }
    }
    if message.severity.is_empty() {
        // Servers before 9.6.
        message.severity = localised;
    }
    message
}

fn lossy(value: &[u8]) -> String {
    String::from_utf8_lossy(value.get(..value.len().min(64)).unwrap_or_default()).into_owned()
}

/// ReadyForQuery.
pub(in crate::postgres) fn ready(body: &[u8]) -> Result<TransactionState, Malformed> {
    match body {
        b"I" => Ok(TransactionState::Idle),
        b"T" => Ok(TransactionState::InTransaction),
        b"E" => Ok(TransactionState::Failed),
        _ => Err(Malformed),
    }
}

/// ParameterStatus: name and value.
pub(in crate::postgres) fn parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut reader = Reader::new(body);
    let pair = (reader.string()?, reader.string()?);
    reader.end()?;
    Ok(pair)
}

/// BackendKeyData: process and secret (4 bytes, up to 256 from protocol 3.2 on).
pub(in crate::postgres) fn key_data(body: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    let mut reader = Reader::new(body);
    let process_id = reader.u32()?;
    let secret = reader.rest();
    if (4..=256).contains(&secret.len()) { Ok((process_id, secret)) } else { Err(Malformed) }
}

/// CommandComplete: the tag.
pub(in crate::postgres) fn tag(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(body);
    let tag = reader.string()?;
    reader.end()?;
    Ok(tag)
}

/// The row count at the end of a tag ("INSERT 0 5", "SELECT 5"), if it has one.
pub(in crate::postgres) fn rows(tag: &[u8]) -> Option<u64> {
    let digits = tag.rsplit(|byte| *byte == b' ').next()?;
    if digits.len() == tag.len() || digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| byte.wrapping_sub(b'0'))?;
        sum.checked_mul(10)?.checked_add(digit.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_from_the_tags_that_have_them() {
        assert_eq!(rows(b"INSERT 0 5"), Some(5));
        assert_eq!(rows(b"SELECT 12"), Some(12));
        assert_eq!(rows(b"COPY 3"), Some(3));
        assert_eq!(rows(b"CREATE TABLE"), None);
        assert_eq!(rows(b"BEGIN"), None);
        assert_eq!(rows(b"5"), None);
        assert_eq!(rows(b"X 99999999999999999999999"), None);
    }

    #[test]
    fn fields_are_read_and_a_cut_message_keeps_what_there_is() {
        let body = b"SFEHLER\0VERROR\0C42601\0Mbad\0Dd\0Hh\0Fscan.l\0\0";
        let message = fields(body);
        assert_eq!((message.severity.as_str(), message.code.as_str()), ("ERROR", "42601"));
        assert_eq!((&message.message[..], &message.detail[..]), (&b"bad"[..], &b"d"[..]));
        assert_eq!(fields(b"C42601\0Mba").message, b"ba");
        assert_eq!(fields(b"SERROR\0\0").severity, "ERROR");
    }
}
