//! What a person types to find statements: words, all of which must be there.
//!
//! A word is cut into tokens as the full-text index cuts statements; a word that makes several tokens
//! (`public.accounts`) means them one after another.

/// Parsed words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Vec<Vec<String>>);

/// Why words cannot be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// Only signs.
    #[error("the text to look for has no letter and no digit: name at least one word")]
    NoWord,
}

impl Words {
    /// Parses what a person typed; empty means: everything.
    pub fn parse(text: &str) -> Result<Self, WordsError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let words: Vec<_> = text.split_whitespace().map(tokens).filter(|t| !t.is_empty()).collect();
        if words.is_empty() { Err(WordsError::NoWord) } else { Ok(Self(words)) }
    }

    /// Whether everything matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As an expression of FTS5: a phrase a word, all of them.
    #[must_use]
    pub fn fts5(&self) -> String {
        let phrases: Vec<_> = self.0.iter().map(|tokens| format!("\"{}\"", tokens.join(" "))).collect();
        phrases.join(" AND ")
    }

    /// Whether a statement has all of them.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let text = tokens(text);
        self.0.iter().all(|word| text.windows(word.len()).any(|w| w == word))
    }
}

/// Letters and digits, without case. FTS5's `unicode61` also takes diacritics off; it does so with the words,
/// too, for they are handed to it as they are.
fn tokens(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|t| !t.is_empty()).map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_must_all_be_there_and_their_tokens_stand_together() {
        let text = "SELECT balance FROM public.accounts WHERE id = 'A-17'";
        for (words, found) in [
            ("select BALANCE", true),
            ("public.accounts", true),
            ("accounts.public", false),
            ("a-17", true),
            ("delete", false),
            ("bal", false),
        ] {
            assert_eq!(Words::parse(words).expect("words").matches(text), found, "{words}");
        }
    }

    #[test]
    fn signs_alone_are_refused_and_cannot_escape_into_the_query_language() {
        assert_eq!(Words::parse(" * \" "), Err(WordsError::NoWord));
        assert_eq!(Words::parse("a\" OR \"b").expect("words").fts5(), "\"a\" AND \"or\" AND \"b\"");
    }
}
