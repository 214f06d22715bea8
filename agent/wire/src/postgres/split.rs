//! Where the statements of a simple query begin and end.
//!
//! Owns the lexical rules that decide whether a semicolon ends a statement (PostgreSQL documentation,
//! "Lexical Structure"): quotes, dollar quotes, escape strings, nested comments, parentheses, and bodies
//! of SQL-standard functions. The parts are contiguous: joined they are the text.

use std::ops::Range;

/// Splits into at most `limit` parts (at least one); the last takes what is left.
pub(super) fn split(text: &[u8], standard_strings: bool, limit: usize) -> Vec<Range<usize>> {
    if is_single(text) {
        return core::iter::once(0..text.len()).collect();
    }
    let mut splitter = Splitter {
        text,
        at: 0,
        standard_strings,
        parentheses: 0,
        head: [Word::Other; 4],
        words: 0,
        begins: 0,
        tokens: false,
    };
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    while splitter.next_semicolon() {
        let end = splitter.at;
        let last = parts.len().saturating_add(1) >= limit;
        match (splitter.tokens, parts.last_mut()) {
            (true, _) if last => {}
            (true, _) => {
                parts.push(start..end);
                start = end;
            }
            // Nothing between two semicolons is no statement.
            (false, Some(before)) => {
                before.end = end;
                start = end;
            }
            (false, None) => {}
        }
        splitter.begin_statement(last);
    }
    match parts.last_mut() {
        Some(before) if !splitter.tokens => before.end = text.len(),
        _ => parts.push(start..text.len()),
    }
    parts
}

/// No semicolon, or just one at the end: the common case, whatever the quoting.
fn is_single(text: &[u8]) -> bool {
    match text.iter().position(|byte| *byte == b';') {
        None => true,
        Some(at) => text.get(at.saturating_add(1)..).unwrap_or_default().trim_ascii().is_empty(),
    }
}

/// Whether the rest of a statement may hold semicolons of its own depends on its first words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Create,
    Or,
    Replace,
    Routine,
    Begin,
    Case,
    End,
    Other,
}

struct Splitter<'a> {
    text: &'a [u8],
    at: usize,
    standard_strings: bool,
    parentheses: usize,
    head: [Word; 4],
    words: usize,
    begins: usize,
    /// Whether the statement has anything but white space and comments.
    tokens: bool,
}

impl Splitter<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at.saturating_add(ahead)).copied()
    }

    fn skip(&mut self, count: usize) {
        self.at = self.at.saturating_add(count).min(self.text.len());
    }

    fn begin_statement(&mut self, keep_tokens: bool) {
        self.parentheses = 0;
        self.head = [Word::Other; 4];
        self.words = 0;
        self.begins = 0;
        self.tokens &= keep_tokens;
    }

    /// Goes behind the next semicolon that ends a statement; false at the end of the text.
    fn next_semicolon(&mut self) -> bool {
        while let Some(byte) = self.peek(0) {
            match byte {
                b';' if self.parentheses == 0 && self.begins == 0 => {
                    self.skip(1);
                    return true;
                }
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => self.skip(1),
                b'-' if self.peek(1) == Some(b'-') => self.line_comment(),
                b'/' if self.peek(1) == Some(b'*') => self.block_comment(),
                _ => {
                    self.tokens = true;
                    self.token(byte);
                }
            }
        }
        false
    }

    fn token(&mut self, byte: u8) {
        match byte {
            b'\'' => self.string(!self.standard_strings),
            b'"' => self.quoted_identifier(),
            b'$' => self.dollar_quote(),
            b'(' => {
                self.parentheses = self.parentheses.saturating_add(1);
                self.skip(1);
            }
            b')' => {
                self.parentheses = self.parentheses.saturating_sub(1);
                self.skip(1);
            }
            _ if is_word_start(byte) => self.word(),
            // A number may not swallow a word after it, but a dollar in it begins no quote.
            b'0'..=b'9' => {
                while self.peek(0).is_some_and(is_word) {
                    self.skip(1);
                }
            }
            _ => self.skip(1),
        }
    }

    fn line_comment(&mut self) {
        while self.peek(0).is_some_and(|byte| byte != b'\n' && byte != b'\r') {
            self.skip(1);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0usize;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth = depth.saturating_add(1);
                    self.skip(2);
                }
                (Some(b'*'), Some(b'/')) => {
                    depth = depth.saturating_sub(1);
                    self.skip(2);
                    if depth == 0 {
                        return;
                    }
                }
                (Some(_), _) => self.skip(1),
                (None, _) => return,
            }
        }
    }

    /// From the opening quote on. A doubled quote is two strings in a row here, which is the same.
    fn string(&mut self, escapes: bool) {
        self.skip(1);
        while let Some(byte) = self.peek(0) {
            match byte {
                b'\\' if escapes => self.skip(2),
                b'\'' if self.peek(1) == Some(b'\'') => self.skip(2),
                b'\'' => {
                    self.skip(1);
                    return;
                }
                _ => self.skip(1),
            }
        }
    }

    fn quoted_identifier(&mut self) {
        self.skip(1);
        while self.peek(0).is_some_and(|byte| byte != b'"') {
            self.skip(1);
        }
        self.skip(1);
        self.count_word(Word::Other);
    }

    fn dollar_quote(&mut self) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let Some(tag) = dollar_tag(rest) else {
            self.skip(1);
            // `$1`, and what sticks to it.
            while self.peek(0).is_some_and(|byte| byte.is_ascii_digit()) {
                self.skip(1);
            }
            return;
        };
        self.skip(tag.len());
        while let Some(rest) = self.text.get(self.at..).filter(|rest| !rest.is_empty()) {
            if rest.starts_with(tag) {
                self.skip(tag.len());
                return;
            }
            self.skip(1);
        }
    }

    fn word(&mut self) {
        let start = self.at;
        while self.peek(0).is_some_and(is_word) {
            self.skip(1);
        }
        let word = self.text.get(start..self.at).unwrap_or_default();
        if self.peek(0) == Some(b'\'') && word.eq_ignore_ascii_case(b"e") {
            self.string(true);
            return;
        }
        if self.peek(0) == Some(b'&') && word.eq_ignore_ascii_case(b"u") && self.peek(1) == Some(b'\'') {
            self.skip(1);
            self.string(false);
            return;
        }
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword.as_bytes());
        let word = match word.first().map(u8::to_ascii_lowercase) {
            Some(b'c') if is("create") => Word::Create,
            Some(b'c') if is("case") => Word::Case,
            Some(b'o') if is("or") => Word::Or,
            Some(b'r') if is("replace") => Word::Replace,
            Some(b'f') if is("function") => Word::Routine,
            Some(b'p') if is("procedure") => Word::Routine,
            Some(b'b') if is("begin") => Word::Begin,
            Some(b'e') if is("end") => Word::End,
            _ => Word::Other,
        };
        self.count_word(word);
        self.track_body(word);
    }

    fn count_word(&mut self, word: Word) {
        if let Some(place) = self.head.get_mut(self.words) {
            *place = word;
        }
        self.words = self.words.saturating_add(1);
    }

    /// `CREATE [OR REPLACE] FUNCTION | PROCEDURE … BEGIN ATOMIC …; …; END`.
    fn track_body(&mut self, word: Word) {
        let routine = matches!(
            self.head,
            [Word::Create, Word::Routine, ..] | [Word::Create, Word::Or, Word::Replace, Word::Routine]
        );
        if !routine || self.parentheses > 0 {
            return;
        }
        match word {
            Word::Begin => self.begins = self.begins.saturating_add(1),
            Word::Case if self.begins > 0 => self.begins = self.begins.saturating_add(1),
            Word::End => self.begins = self.begins.saturating_sub(1),
            _ => {}
        }
    }
}

pub(super) fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

pub(super) fn is_word(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// `$$` or `$tag$` at the beginning of `text`.
fn dollar_tag(text: &[u8]) -> Option<&[u8]> {
    let name = text.get(1..)?;
    let length = name.iter().position(|byte| *byte == b'$')?;
    let name = name.get(..length)?;
    let well_formed =
        name.first().is_none_or(|first| is_word_start(*first)) && name.iter().all(|byte| is_word(*byte));
    well_formed.then(|| text.get(..length.saturating_add(2))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(text: &str) -> Vec<&str> {
        split(text.as_bytes(), true, usize::MAX).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_quotes_and_comments() {
        assert_eq!(parts("select 1; select 2"), ["select 1;", " select 2"]);
        assert_eq!(parts("select ';'; select 2;"), ["select ';';", " select 2;"]);
        assert_eq!(parts("select 'a'';b'; x"), ["select 'a'';b';", " x"]);
        assert_eq!(parts("select \"a;\"\";b\"; x"), ["select \"a;\"\";b\";", " x"]);
        assert_eq!(parts("select E'a\\';b'; x"), ["select E'a\\';b';", " x"]);
        assert_eq!(parts("select U&'a\\';b"), ["select U&'a\\';", "b"]);
        assert_eq!(parts("select 'a\\'; b"), ["select 'a\\';", " b"]);
        assert_eq!(parts("select $$a;b$$; x"), ["select $$a;b$$;", " x"]);
        assert_eq!(parts("select $t$a;$$;$t$; x"), ["select $t$a;$$;$t$;", " x"]);
        assert_eq!(parts("select a$b$;b$b$"), ["select a$b$;", "b$b$"]);
        assert_eq!(parts("select $1; x$1"), ["select $1;", " x$1"]);
        assert_eq!(parts("a -- ;\n; b"), ["a -- ;\n;", " b"]);
        assert_eq!(parts("a /* ; /* ; */ ; */ ; b"), ["a /* ; /* ; */ ; */ ;", " b"]);
        assert_eq!(parts("create rule r as on x do (a; b); c"), ["create rule r as on x do (a; b);", " c"]);
    }

    #[test]
    fn what_is_empty_is_no_statement_but_belongs_to_one() {
        assert_eq!(parts(""), [""]);
        assert_eq!(parts(" ; ; "), [" ; ; "]);
        assert_eq!(parts("a;;b"), ["a;;", "b"]);
        assert_eq!(parts("a; -- done"), ["a; -- done"]);
        assert_eq!(parts(";a;b"), [";a;", "b"]);
        assert_eq!(parts("a;b; "), ["a;", "b; "]);
    }

    #[test]
    fn bodies_of_standard_functions_keep_their_semicolons() {
        let function = "create or replace function f() returns int begin atomic select case when 1=1 then 1 \
                        end; select 2; end;";
        let text = format!("{function} select 3");
        assert_eq!(parts(&text), [function, " select 3"]);
        assert_eq!(parts("begin; select 1; end;"), ["begin;", " select 1;", " end;"]);
    }

    #[test]
    fn backslashes_escape_where_the_session_says_so() {
        assert_eq!(split(b"select 'a\\';b'; x", false, 9).len(), 2);
        assert_eq!(split(b"select 'a\\';b; x", true, 9).len(), 3);
    }

    #[test]
    fn the_last_part_takes_what_is_beyond_the_limit() {
        let text = "a;b;c;d";
        assert_eq!(split(text.as_bytes(), true, 2), [0..2, 2..7]);
        assert_eq!(split(b"a;b;", true, 1).first(), Some(&(0..4)));
        assert_eq!(split(b"a;b;c;;", true, 2), [0..2, 2..7]);
    }

    proptest! {
        #[test]
        fn joined_the_parts_are_the_text(text in "[a-c;'\"$\\\\/*\\- \n()E]{0,60}", standard: bool, limit in 1usize..6) {
            let parts = split(text.as_bytes(), standard, limit);
            prop_assert!(parts.len() <= limit);
            let joined: Vec<u8> =
                parts.iter().flat_map(|range| text.as_bytes()[range.clone()].to_vec()).collect();
            prop_assert_eq!(joined, text.as_bytes());
            let mut end = 0;
            for part in parts {
                prop_assert_eq!(part.start, end);
                end = part.end;
            }
        }
    }
}
