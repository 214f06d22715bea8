//! What a server says of a command that held a password: it may quote it, so what it quotes is not kept.

use verbatim_wire::seam::{Outcome, ServerMessage};

const MARK: &str = "[redacted]";

/// The same outcome without what the server quotes.
pub(super) fn outcome(outcome: &Outcome) -> Outcome {
    let mut outcome = outcome.clone();
    for message in outcome.error.iter_mut().chain(&mut outcome.notices) {
        hush(message);
    }
    outcome
}

fn hush(message: &mut ServerMessage) {
    message.message = unquoted(&message.message);
    message.hint = unquoted(&message.hint);
    // A detail shows rows and connection strings as they are.
    if !message.detail.is_empty() {
        message.detail = MARK.into();
    }
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
        let told = outcome(&Outcome { error: Some(error), ..Outcome::default() });
        assert_eq!(told.error.expect("an error").detail, MARK.as_bytes());
    }
}
