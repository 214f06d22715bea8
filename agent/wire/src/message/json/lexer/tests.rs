use super::*;

#[derive(Default)]
struct Seen(String, bool);

impl Events for Seen {
    fn begin(&mut self, object: bool) {
        self.0.push(if object { '{' } else { '[' });
    }
    fn end(&mut self) {
        self.0.push('^');
    }
    fn name(&mut self, name: &[u8]) {
        self.0 += &format!("<{}>", String::from_utf8_lossy(name));
    }
    fn text(&mut self, piece: &[u8]) {
        if !std::mem::replace(&mut self.1, true) {
            self.0.push('"');
        }
        self.0.extend(piece.iter().map(|byte| char::from(*byte)));
    }
    fn text_end(&mut self) {
        if !std::mem::take(&mut self.1) {
            self.0.push('"');
        }
        self.0.push('"');
    }
    fn word(&mut self, word: &[u8]) {
        self.0 += &format!("({})", String::from_utf8_lossy(word));
    }
}

fn read(text: &[u8], piece: usize) -> (String, Result<(), Fault>) {
    let (mut lexer, mut seen) = (Lexer::new(), Seen::default());
    for piece in text.chunks(piece) {
        lexer.push(piece, &mut seen);
    }
    let result = lexer.finish(&mut seen);
    (seen.0, result)
}

#[track_caller]
fn reads(text: &str, expected: &str) {
    for piece in 1..=text.len() {
        assert_eq!(read(text.as_bytes(), piece), (expected.to_owned(), Ok(())), "{text} by {piece}");
    }
}

#[test]
fn every_kind_of_value_is_read_at_every_split() {
    reads(
        r#" {"a" : [1, -2.5e3, true,null], "b":{} , "":"x"} "#,
        r#"{<a>[(1)(-2.5e3)(true)(null)^<b>{^<>"x"^"#,
    );
    reads("12", "(12)");
    reads(r#""""#, r#""""#);
}

#[test]
fn escapes_are_resolved_at_every_split() {
    let bytes = |text: &str| text.bytes().map(char::from).collect::<String>();
    reads(r#""\"\\\/\b\f\n\r\t\u0041""#, "\"\"\\/\u{8}\u{c}\n\r\tA\"");
    reads(r#""\ud83d\ude00""#, &format!("\"{}\"", bytes("😀")));
    reads(r#""\ud83dx""#, "\"\u{ed}\u{a0}\u{bd}x\"");
    reads(r#""\ude00\ud83d\u0041""#, "\"\u{ed}\u{b8}\u{80}\u{ed}\u{a0}\u{bd}A\"");
    reads(r#"{"\u0061":1}"#, "{<a>(1)^");
}

#[test]
fn what_googles_parser_takes_is_taken() {
    reads("{'a': 'b\"c', d: 1, $e_1: [2,],}", "{<a>\"b\"c\"<d>(1)<$e_1>[(2)^^");
    reads("\u{feff}1", "(1)");
}

#[test]
fn what_is_no_json_is_a_fault() {
    let texts = [
        "",
        " ",
        "{",
        "[1",
        "{\"a\"}",
        "{\"a\":1 2}",
        "[}",
        "1 2",
        "\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "nul",
        "}",
        "{,}",
    ];
    for text in texts {
        for piece in 1..=text.len().max(1) {
            assert_eq!(read(text.as_bytes(), piece).1, Err(Fault::Malformed), "{text}");
        }
    }
}

#[test]
fn nesting_without_end_is_a_fault_and_costs_nothing() {
    let deep = "[".repeat(10_000);
    assert_eq!(read(deep.as_bytes(), 7).1, Err(Fault::TooDeep));
    let just = ["[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)].concat();
    assert_eq!(read(just.as_bytes(), 7).1, Ok(()));
}

#[test]
fn a_number_or_name_without_end_costs_nothing() {
    let mut lexer = Lexer::new();
    let mut seen = Seen::default();
    for _ in 0..1000 {
        lexer.push(&[b'1'; 1000], &mut seen);
    }
    assert_eq!(lexer.word.len(), MAX_WORD);
}
