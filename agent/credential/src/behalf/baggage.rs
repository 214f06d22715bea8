//! W3C Baggage (<https://www.w3.org/TR/baggage/>, section 3.3): a list of members with values in percent encoding.

use crate::text::percent_decoded;

/// Longest list that is read; the standard asks for 8192 bytes at least to be passed on.
const MOST_BYTES: usize = 32 * 1024;
/// The standard's limit is 64.
const MOST_MEMBERS: usize = 180;

/// Names and values, their properties left out.
pub(super) fn members(header: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let header = header.get(..MOST_BYTES).unwrap_or(header);
    header.split(|byte| *byte == b',').take(MOST_MEMBERS).filter_map(|member| {
        let member = member.split(|byte| *byte == b';').next()?;
        let at = member.iter().position(|byte| *byte == b'=')?;
        let (name, value) = member.split_at(at);
        let name = std::str::from_utf8(name.trim_ascii()).ok()?;
        Some((name.to_owned(), percent_decoded(value.get(1..)?.trim_ascii())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_without_their_properties() {
        let header = b"a=1;p=q , on-behalf-of = ada%40example.com,bad,=x, b=c=d";
        let read: Vec<_> = members(header).collect();
        let expected = [("a", "1"), ("on-behalf-of", "ada@example.com"), ("", "x"), ("b", "c=d")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())));
    }
}
