use super::*;
use crate::tokens::MARK;

fn redacted(text: &str, piece: usize) -> String {
    let mut capture = RedactedCapture::new(usize::MAX);
    for piece in text.as_bytes().chunks(piece) {
        capture.push(piece);
    }
    let (captured, redactions) = capture.finish();
    for redaction in redactions {
        let from = redaction.offset as usize;
        assert_eq!(&captured.bytes[from..from + redaction.length as usize], MARK);
    }
    String::from_utf8(captured.bytes).expect("text")
}

#[track_caller]
fn becomes(text: &str, expected: &str) {
    for piece in 1..=text.len() {
        assert_eq!(redacted(text, piece), expected, "by {piece}");
    }
}

#[test]
fn credentials_are_marked_however_they_are_written() {
    becomes("ALTER USER a PASSWORD 's3cret' x", "ALTER USER a PASSWORD '[redacted]' x");
    becomes("CREATE USER a IDENTIFIED  BY \"s3c''ret\"", "CREATE USER a IDENTIFIED  BY \"[redacted]\"");
    becomes("OPTIONS(db_password=\"s3\\\"cret\", a=1)", "OPTIONS(db_password=\"[redacted]\", a=1)");
    becomes("PASSWORD'it''s3cret',", "PASSWORD'[redacted]',");
    becomes("password = '''s3c'ret''' b", "password = '[redacted]' b");
    becomes(r#"{"password": "s3cret", "b": 1}"#, r#"{"password": "[redacted]", "b": 1}"#);
    becomes(r#"{"q": "x PASSWORD \"s3cret\" y"}"#, r#"{"q": "x PASSWORD \"[redacted]\" y"}"#);
    becomes(r#"{"q": "{\"password\": \"s3cret\", y"}"#, r#"{"q": "{\"password\": \"[redacted]\", y"}"#);
    becomes("'host=h password=s3cret user=u'", "'host=h password=[redacted] user=u'");
    becomes("'postgres://ada:s3cr/et@h/db'", "'postgres://ada:[redacted]@h/db'");
}

#[test]
fn what_is_no_credential_stays() {
    let texts = [
        "SELECT 'password', 'x'",
        "SELECT password FROM t WHERE a = 'b'",
        "'https://host:8080/path'",
        "gs://bucket/a:b",
        "SELECT ''",
        "password = ''",
        "IDENTIFIED x BY 'y'",
        "passwords 'x'",
        "password",
        "x://a:b",
    ];
    for text in texts {
        becomes(text, text);
    }
}

#[test]
fn a_secret_is_not_there_before_it_is_whole_either() {
    for text in ["PASSWORD 's3cret'", "x://u:s3cret@h", "password=s3cret"] {
        for end in 0..=text.len() {
            let mut capture = RedactedCapture::new(1000);
            capture.push(&text.as_bytes()[..end]);
            let so_far = String::from_utf8(capture.so_far().0.bytes).expect("text");
            assert!(!so_far.contains("s3"), "{so_far}");
        }
    }
}
