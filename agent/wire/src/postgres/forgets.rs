//! Reads which prepared statements a statement takes away: DEALLOCATE and DISCARD, which clients use to
//! bound their own caches.

use super::{
    names::significant,
    pipeline::Forgets,
    split::{is_word, is_word_start},
};

pub(super) fn forgets(text: &[u8]) -> Option<Box<Forgets>> {
    let text = text.trim_ascii_start();
    if !matches!(text.first(), Some(b'd' | b'D')) {
        return None;
    }
    let (verb, rest) = word(text)?;
    let (object, rest) = word(rest)?;
    let is = |word: &[u8], keyword: &[u8]| word.eq_ignore_ascii_case(keyword);
    if is(verb, b"discard") {
        return is(object, b"all").then(|| Box::new(Forgets::AllStatements));
    }
    if !is(verb, b"deallocate") {
        return None;
    }
    let (object, rest) = if is(object, b"prepare") { word(rest)? } else { (object, rest) };
    if is(object, b"all") {
        return Some(Box::new(Forgets::AllStatements));
    }
    let name = match object {
        b"\"" => quoted(rest)?,
        _ => object.to_ascii_lowercase(),
    };
    Some(Box::new(Forgets::Statement(significant(&name).to_vec())))
}

/// The next word, or a quote; and what follows.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.trim_ascii_start();
    let first = *text.first()?;
    if first == b'"' {
        return text.split_at_checked(1);
    }
    if !is_word_start(first) {
        return None;
    }
    let end = text.iter().position(|byte| !is_word(*byte)).unwrap_or(text.len());
    text.split_at_checked(end)
}

/// A quoted name after its opening quote.
fn quoted(text: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let mut bytes = text.iter().copied().peekable();
    loop {
        match bytes.next()? {
            b'"' if bytes.peek() == Some(&b'"') => {
                bytes.next();
                name.push(b'"');
            }
            b'"' => return Some(name),
            byte => name.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deallocated_names_are_read_as_the_server_reads_them() {
        let statement = |name: &[u8]| Some(Box::new(Forgets::Statement(name.to_vec())));
        assert_eq!(forgets(b"DEALLOCATE \"_pg3_0\""), statement(b"_pg3_0"));
        assert_eq!(forgets(b" deallocate prepare Foo;"), statement(b"foo"));
        assert_eq!(forgets(b"deallocate \"a\"\"b\""), statement(b"a\"b"));
        assert_eq!(forgets(b"deallocate all"), Some(Box::new(Forgets::AllStatements)));
        assert_eq!(forgets(b"DISCARD ALL"), Some(Box::new(Forgets::AllStatements)));
        assert_eq!(forgets(b"discard temp"), None);
        assert_eq!(forgets(b"delete from t"), None);
        assert_eq!(forgets(b"deallocate"), None);
    }
}
