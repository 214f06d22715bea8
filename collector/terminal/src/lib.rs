//! Text that a workload wrote, made harmless for the terminal of whoever reads it.
//!
//! Owns which characters are written out. Knows no layout: what is too long is cut by whoever shows it.

use std::fmt::Write as _;

/// Appends text to a line. What could move a cursor, hide text or reverse it is written out as `\u{…}`, bytes
/// that are no UTF-8 as `\x…`; each run of white space becomes one space, so that the line stays one.
pub fn escape(bytes: &[u8], line: &mut String) {
    let mut space = false;
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            let white = matches!(char, ' ' | '\n' | '\t' | '\r');
            if white && space {
                continue;
            }
            space = white;
            match char {
                _ if white => line.push(' '),
                // Writing to a String cannot fail.
                _ if char.is_control() || is_invisible(char) => {
                    write!(line, "\\u{{{:x}}}", u32::from(char)).ok();
                }
                _ => line.push(char),
            }
        }
        for byte in chunk.invalid() {
            space = false;
            write!(line, "\\x{byte:02x}").ok();
        }
    }
}

/// JSON with every character written out as `\uXXXX` (RFC 8259, section 7; beyond the BMP a pair) that a terminal
/// takes for more than text. It says the same: outside of strings JSON has none of them but the ends of lines,
/// which stay.
#[must_use]
pub fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if char != '\n' && (char.is_control() || is_invisible(char)) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                write!(out, "\\u{unit:04x}").ok();
            }
        } else {
            out.push(char);
        }
    }
    out
}

/// Formatting characters of Unicode (category Cf, separators of lines, fillers, variation selectors):
/// zero-width ones, directional overrides, tags.
fn is_invisible(char: char) -> bool {
    matches!(u32::from(char),
        0xAD | 0x34F | 0x600..=0x605 | 0x61C | 0x6DD | 0x70F | 0x890..=0x891 | 0x8E2 | 0x115F..=0x1160
        | 0x17B4..=0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0x3164
        | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFB | 0x110BD | 0x110CD | 0x13430..=0x1343F
        | 0x1BCA0..=0x1BCA3 | 0x1D173..=0x1D17A | 0xE0000..=0xE0FFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(bytes: &[u8]) -> String {
        let mut line = String::new();
        escape(bytes, &mut line);
        line
    }

    #[test]
    fn what_steers_a_terminal_is_written_out() {
        let text = "a\u{1b}[2J\u{9b}31m\u{7}\u{7f}\u{202e}b\u{200b}\u{feff}\u{e0041}\u{2028}c\0";
        let expected = r"a\u{1b}[2J\u{9b}31m\u{7}\u{7f}\u{202e}b\u{200b}\u{feff}\u{e0041}\u{2028}c\u{0}";
        assert_eq!(escaped(text.as_bytes()), expected);
    }

    #[test]
    fn no_character_comes_through_that_is_a_control_or_formats() {
        for char in (0..=0x10_FFFF).filter_map(char::from_u32) {
            let shown = escaped(char.to_string().as_bytes());
            assert!(!shown.is_empty(), "{char:?}");
            let kept = shown.chars().eq([char]);
            let hidden = char.is_control() || is_invisible(char);
            assert_eq!(kept, !hidden, "{char:?} is shown as {shown}");
        }
    }

    #[test]
    fn json_says_the_same_and_steers_no_terminal() {
        let steers = |c: char| c != '\n' && (c.is_control() || is_invisible(c));
        // All that steer, and some of the others.
        let chars = (0..=0x10_FFFF).filter_map(char::from_u32);
        for char in chars.filter(|c| c.is_ascii() || steers(*c) || u32::from(*c) % 251 == 0) {
            let row = serde_json::json!({ "statement": format!("a{char}b"), (format!("{char}")): [1, 2] });
            for text in [serde_json::to_string(&row).unwrap(), serde_json::to_string_pretty(&row).unwrap()] {
                let shown = json(&text);
                assert!(!shown.contains(steers), "{char:?} is shown as {shown:?}");
                assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), row, "{char:?}");
            }
        }
        let written = json("\"\u{9b}2J\u{7f}\u{202e}\u{e0041}\u{e9}\u{1f600}\"");
        assert_eq!(written, "\"\\u009b2J\\u007f\\u202e\\udb40\\udc41\u{e9}\u{1f600}\"");
    }

    #[test]
    fn white_space_and_what_is_no_text_stay_in_the_line() {
        assert_eq!(escaped(b"select\r\n\t  1 \xff\xc3 \xe2\x82"), r"select 1 \xff\xc3 \xe2\x82");
        assert_eq!(escaped("d\u{e9}j\u{e0} \u{8868}".as_bytes()), "d\u{e9}j\u{e0} \u{8868}");
    }
}
