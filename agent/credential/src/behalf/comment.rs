//! sqlcommenter (<https://google.github.io/sqlcommenter/spec/>): a comment at a statement's end, or before it, with
//! `key='value'` pairs, both in percent encoding.

use std::ops::Range;

use crate::text::percent_decoded;

/// Longest comment that is read, bytes.
const MOST_BYTES: usize = 64 * 1024;
const MOST_PAIRS: usize = 64;

/// One pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    /// Where its value stands in the statement.
    pub(super) at: Range<u64>,
}

/// The pairs of a statement's comments; empty where they are of another form.
pub(super) fn pairs(statement: &[u8]) -> Vec<Pair> {
    let mut all = Vec::new();
    let comments = [trailing(statement), leading(statement)];
    let [last, first] = comments;
    for comment in [last.clone(), first.filter(|first| last.as_ref() != Some(first))].into_iter().flatten() {
        all.extend(read(statement, comment).unwrap_or_default());
    }
    all
}

/// A quick look: most statements have no comment.
fn trailing(statement: &[u8]) -> Option<Range<usize>> {
    let end = statement.iter().rposition(|byte| !byte.is_ascii_whitespace() && !matches!(byte, b';' | 0))?;
    let before = statement.get(..=end)?.strip_suffix(b"*/")?;
    let begin = before.len().saturating_sub(MOST_BYTES);
    let at = before.get(begin..)?.windows(2).rposition(|two| two == b"/*")?;
    Some(begin + at + 2..before.len())
}

fn leading(statement: &[u8]) -> Option<Range<usize>> {
    let begin = statement.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let rest = statement.get(begin..)?.strip_prefix(b"/*")?;
    let rest = rest.get(..MOST_BYTES).unwrap_or(rest);
    let length = rest.windows(2).position(|two| two == b"*/")?;
    Some(begin + 2..begin + 2 + length)
}

/// `None`: not of this form.
fn read(statement: &[u8], range: Range<usize>) -> Option<Vec<Pair>> {
    let mut at = range.start;
    let mut pairs = Vec::new();
    while pairs.len() < MOST_PAIRS {
        let rest = statement.get(at..range.end)?;
        at += rest.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == b',').count();
        let rest = statement.get(at..range.end)?;
        if rest.is_empty() {
            break;
        }
        let equals = rest.iter().position(|byte| *byte == b'=')?;
        let key = percent_decoded(rest.get(..equals)?.trim_ascii());
        let value_at = at + equals + 1;
        let (value_at, length) = quoted(statement.get(value_at..range.end)?, value_at)?;
        let raw = statement.get(value_at..value_at + length)?;
        let unescaped = unescaped(raw);
        pairs.push(Pair {
            key: String::from_utf8(key).ok()?,
            value: percent_decoded(&unescaped),
            at: value_at as u64..(value_at + length) as u64,
        });
        at = value_at + length + 1;
    }
    Some(pairs)
}

/// The inside of a text in single quotes, `\'` standing for one.
fn quoted(text: &[u8], from: usize) -> Option<(usize, usize)> {
    let spaces = text.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let inside = text.get(spaces..)?.strip_prefix(b"'")?;
    let mut escaped = false;
    let length = inside.iter().position(|byte| {
        let ends = *byte == b'\'' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })?;
    Some((from + spaces + 1, length))
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.peek()) {
            (b'\\', Some(&next @ (b'\'' | b'\\'))) => {
                plain.push(next);
                bytes.next();
            }
            _ => plain.push(byte),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(statement: &str) -> Vec<(String, String)> {
        let pairs = pairs(statement.as_bytes());
        for pair in &pairs {
            let raw = &statement.as_bytes()[pair.at.start as usize..pair.at.end as usize];
            assert_eq!(percent_decoded(&unescaped(raw)), pair.value);
        }
        pairs.into_iter().map(|pair| (pair.key, String::from_utf8_lossy(&pair.value).into_owned())).collect()
    }

    #[test]
    fn comments_at_either_end_are_read() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            all("SELECT 1 /*on_behalf_of='ada%40example.com',route='%2Fpolls%201000'*/ ;\n"),
            [pair("on_behalf_of", "ada@example.com"), pair("route", "/polls 1000")]
        );
        assert_eq!(all(" /* a='b\\'c' */ SELECT 1"), [pair("a", "b'c")]);
        assert_eq!(all("/*a='1'*/ SELECT 1 /*b='2'*/"), [pair("b", "2"), pair("a", "1")]);
        assert_eq!(all("/*a='1'*/"), [pair("a", "1")]);
    }

    #[test]
    fn what_is_of_another_form_is_nothing() {
        for text in [
            "",
            "*/",
            "SELECT 1",
            "SELECT 1 /* plain */",
            "SELECT 1 /*a=1*/",
            "SELECT 1 /*a='1*/",
            "SELECT '/*a=''1''*/'",
            "SELECT 1 /*a='1'*/ + 2",
            "/*a='1'",
        ] {
            assert_eq!(all(text), [], "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_statement_stops_the_reader(text in "[ /*=',a\\\\%4]{0,40}") {
            all(&text);
        }
    }
}
