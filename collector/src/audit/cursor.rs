//! Where a page ended, as text that only we read.
//!
//! Bound to the question it came from: with another one it is refused instead of giving a page that belongs
//! to neither.

use crate::log::hex;

/// Why a cursor cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CursorError {
    #[error("cursor is not one of ours: begin again without it")]
    Malformed,
    #[error(
        "cursor belongs to another question: use it with the same filter and order, or begin again without it"
    )]
    OtherQuestion,
}

/// A place and the checksum of its question.
pub(super) fn encode(place: &[u8], question: &[u8]) -> String {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&crc32c::crc32c(question).to_be_bytes());
    bytes.extend_from_slice(place);
    let check = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&check.to_be_bytes());
    hex(&bytes)
}

/// The place, `N` bytes; `None` for the empty cursor.
pub(super) fn decode<const N: usize>(cursor: &str, question: &[u8]) -> Result<Option<[u8; N]>, CursorError> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let digits: Option<Vec<u8>> =
        cursor.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.ok_or(CursorError::Malformed)?;
    let bytes: Vec<u8> = digits.chunks(2).map(|d| d.iter().fold(0, |n, d| n << 4 | d)).collect();
    if digits.len() % 2 != 0 || bytes.len() != N + 9 || bytes[0] != 1 {
        return Err(CursorError::Malformed);
    }
    let (body, check) = bytes.split_at(N + 5);
    if crc32c::crc32c(body).to_be_bytes() != check {
        return Err(CursorError::Malformed);
    }
    if crc32c::crc32c(question).to_be_bytes() != body[1..5] {
        return Err(CursorError::OtherQuestion);
    }
    body[5..].try_into().map(Some).map_err(|_size| CursorError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_comes_back_only_with_its_own_question() {
        let cursor = encode(&7_i64.to_be_bytes(), b"question");
        assert_eq!(decode::<8>(&cursor, b"question"), Ok(Some(7_i64.to_be_bytes())));
        assert_eq!(decode::<8>(&cursor, b"another"), Err(CursorError::OtherQuestion));
        assert_eq!(decode::<8>("", b"question"), Ok(None));
        for bad in ["00", "zz", "é", &cursor[1..], &cursor.replace('0', "f")] {
            assert_eq!(decode::<8>(bad, b"question"), Err(CursorError::Malformed), "{bad}");
        }
    }
}
