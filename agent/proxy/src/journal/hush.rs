//! What a server says of a command that held a password: it may quote it, so what it quotes is not kept.

use verbatim_api::v1;
use verbatim_wire::seam::{Outcome, ServerMessage};

const MARK: &str = "[redacted]";

/// The same outcome without what the server quotes.
pub(super) fn outcome(outcome: &Outcome, protocol: v1::Protocol) -> Outcome {
    let mut outcome = outcome.clone();
    for message in outcome.error.iter_mut().chain(&mut outcome.notices) {
        hush(message, protocol);
    }
    outcome
}

fn hush(message: &mut ServerMessage, protocol: v1::Protocol) {
    let withhold = |text: &mut Vec<u8>| {
        if !text.is_empty() {
            *text = MARK.into();
        }
    };
    if protocol == v1::Protocol::Postgresql {
        message.message = unquoted(&message.message);
        message.hint = unquoted(&message.hint);
    } else {
        // GoogleSQL quotes a literal with the marks that it was written with, and a value with none. What is left is
        // the code.
        withhold(&mut message.message);
        withhold(&mut message.hint);
    }
    // A detail shows rows and connection strings as they are.
    withhold(&mut message.detail);
}

/// Quotation marks of the languages that PostgreSQL speaks.
fn is_mark(character: char) -> bool {
    matches!(
        character,
        '"' | '\u{ab}'
            | '\u{bb}'
            | '\u{201c}'
            | '\u{201d}'
            | '\u{201e}'
            | '\u{300c}'
            | '\u{300d}'
            | '\u{ff02}'
    )
}

/// What stands between quotation marks is left out; where they do not pair, all from the first one on.
fn unquoted(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let mut plain = String::with_capacity(text.len());
    let Some(first) = text.find(is_mark) else { return text.into_owned().into_bytes() };
    let last = text.rfind(is_mark).unwrap_or(first);
    let mut characters = text.get(first..).unwrap_or_default().chars();
    plain.push_str(text.get(..first).unwrap_or_default());
    plain.extend(characters.next());
    plain.push_str(MARK);
    // The password may hold quotation marks itself: only the outermost are sure to be the server's.
    plain.push_str(text.get(last..).filter(|_| last > first).unwrap_or_default());
    plain.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_quotes_is_left_out() {
        for (said, kept) in [
            ("syntax error at or near \"'s3cret'\"", "syntax error at or near \"[redacted]\""),
            (
                "unterminated quoted string at or near \"'s3\"cret\"",
                "unterminated quoted string at or near \"[redacted]\"",
            ),
            ("Syntaxfehler bei \u{bb}'s3cret'\u{ab}", "Syntaxfehler bei \u{bb}[redacted]\u{ab}"),
            ("role \"a\" does not exist: \"s3cret\" at 1", "role \"[redacted]\" at 1"),
            ("near \"s3cret", "near \"[redacted]"),
            ("no quotation", "no quotation"),
            ("", ""),
        ] {
            assert_eq!(String::from_utf8_lossy(&unquoted(said.as_bytes())), kept);
        }
        let error = ServerMessage { detail: b"Key (dsn)=(s3cret)".to_vec(), ..ServerMessage::default() };
        let told = outcome(&Outcome { error: Some(error), ..Outcome::default() }, v1::Protocol::Postgresql);
        assert_eq!(told.error.expect("an error").detail, MARK.as_bytes());
    }

    #[test]
    fn of_what_an_api_says_only_the_code_is_left() {
        for said in
            ["Unexpected string literal 's3cret' at [1:16]", "Bad int64 value: s3cret", "near `s3cret`"]
        {
            let error = ServerMessage {
                code: "invalidQuery".into(),
                message: said.into(),
                ..ServerMessage::default()
            };
            let told = outcome(&Outcome { error: Some(error), ..Outcome::default() }, v1::Protocol::Http2);
            let error = told.error.expect("an error");
            assert_eq!((error.code.as_str(), error.message.as_slice()), ("invalidQuery", MARK.as_bytes()));
            assert!(error.detail.is_empty());
        }
    }
}
