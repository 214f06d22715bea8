use proptest::prelude::*;

use super::*;

fn redacted(text: &str) -> String {
    match redact(text.as_bytes(), true) {
        Some((captured, redactions)) => {
            let bytes = captured.bytes;
            for redaction in redactions {
                let range = redaction.offset as usize..(redaction.offset + redaction.length) as usize;
                assert_eq!(&bytes[range], MARK);
            }
            String::from_utf8(bytes).expect("test texts are UTF-8")
        }
        None => text.to_owned(),
    }
}

fn streamed(text: &[u8], split: usize) -> (Vec<u8>, Vec<Redaction>) {
    let mut output = RedactedCapture::new(usize::MAX);
    let mut redactor = Redactor::new(true);
    let (head, tail) = text.split_at(split);
    redactor.push(head, &mut output);
    redactor.push(tail, &mut output);
    redactor.finish(&mut output);
    let (captured, redactions) = output.finish();
    (captured.bytes, redactions)
}

/// Texts with `SECRET` where the credential is, and what must come out.
const CASES: &[(&str, &str)] = &[
    ("create role a password 'SECRET' login", "create role a password '[redacted]' login"),
    ("ALTER USER a WITH ENCRYPTED PASSWORD 'SEC''RET'", "ALTER USER a WITH ENCRYPTED PASSWORD '[redacted]'"),
    (
        "alter role a password E'SEC\\'RET' valid until 'x'",
        "alter role a password E'[redacted]' valid until 'x'",
    ),
    (
        "select 1 /* alter role a password 'SECRET' */ from t",
        "select 1 /* alter role a password '[redacted]' */ from t",
    ),
    (
        "select 1 -- password => 'SECRET'\nfrom t where a = 'b'",
        "select 1 -- password => '[redacted]'\nfrom t where a = 'b'",
    ),
    ("select 1 /* postgres://u:SECRET@h */", "select 1 /* postgres://u:[redacted]@h */"),
    ("select 1 /* a /* password='SECRET' */ b */", "select 1 /* a /* password='[redacted]' */ b */"),
    ("select 1 /* password 'SECRET */", "select 1 /* password '[redacted]*/"),
    ("select 1 /* password 'SECRET **/; select 2", "select 1 /* password '[redacted]*/; select 2"),
    ("select 1 -- password 'SECRET", "select 1 -- password '[redacted]"),
    ("alter role a password U&'SECRET'", "alter role a password U&'[redacted]'"),
    ("alter role a password $$SECRET$$", "alter role a password $$[redacted]$$"),
    ("alter role a password $t$SE$$C$RET$t$;", "alter role a password $t$[redacted]$t$;"),
    ("alter role a password'SECRET'", "alter role a password'[redacted]'"),
    ("alter role a password /* x */ -- y\n 'SECRET'", "alter role a password /* x */ -- y\n '[redacted]'"),
    ("alter role a password 'SEC'\n'RET'", "alter role a password '[redacted]'\n'[redacted]'"),
    ("alter role a password 'SECRET", "alter role a password '[redacted]"),
    ("create user a identified by 'SECRET'", "create user a identified by '[redacted]'"),
    ("options (user 'bob', password 'SECRET')", "options (user 'bob', password '[redacted]')"),
    ("options (\"password\" 'SECRET')", "options (\"password\" '[redacted]')"),
    ("set my.password = 'SECRET'", "set my.password = '[redacted]'"),
    ("select 1; set local x.db_password to 'SECRET'", "select 1; set local x.db_password to '[redacted]'"),
    ("select dblink('host=h password=SECRET user=u')", "select dblink('host=h password=[redacted] user=u')"),
    ("select dblink('password = SECRET')", "select dblink('password = [redacted]')"),
    ("select dblink('password=''SE CRET'' user=u')", "select dblink('password=''[redacted]'' user=u')"),
    ("select dblink(E'password=\\'SE CRET\\' user=u')", "select dblink(E'password=\\'[redacted]\\' user=u')"),
    ("select dblink('password=SE\\ CRET user=u')", "select dblink('password=[redacted] user=u')"),
    ("select dblink($$password='SECRET' user=u$$)", "select dblink($$password='[redacted]' user=u$$)"),
    (
        "create subscription s connection 'postgres://u:SECRET@h/db'",
        "create subscription s connection 'postgres://u:[redacted]@h/db'",
    ),
    ("select 'postgresql://u:SECRET@[::1]:5432/'", "select 'postgresql://u:[redacted]@[::1]:5432/'"),
    ("select 'x?sslpassword=SECRET&a=b'", "select 'x?sslpassword=[redacted]'"),
    ("select 'password=' || 'SECRET'", "select 'password=' || '[redacted]'"),
];

#[test]
fn credentials_are_marked_and_nothing_else_changes() {
    for (text, expected) in CASES {
        assert_eq!(redacted(text), *expected);
    }
}

#[test]
fn what_is_no_credential_stays_verbatim() {
    for text in [
        "select 1",
        "select password from users where password = 'x'",
        "update users set password = 'x'",
        "select password, 'x'",
        "alter role a password null valid until 'x'",
        "set password_encryption = 'md5'",
        "select 'http://h:80/' , 'https://h/a:b@c'",
        "select 'my password is'",
        "-- password\nselect 'x'",
        "select e'a', 'b' password",
        "select $1, 'password'",
    ] {
        assert_eq!(redacted(text), text);
    }
}

#[test]
fn backslashes_escape_where_strings_do_not_conform() {
    let text = br"alter role a password 'a\'SECRET' login";
    let (captured, _) = redact(text, false).expect("a password");
    assert_eq!(captured.bytes, b"alter role a password '[redacted]' login");
}

#[test]
fn the_result_does_not_depend_on_the_split() {
    for (text, expected) in CASES {
        for split in 0..=text.len() {
            let (bytes, redactions) = streamed(text.as_bytes(), split);
            assert_eq!(String::from_utf8_lossy(&bytes), *expected, "split at {split}");
            assert!(!redactions.is_empty());
        }
    }
}

#[test]
fn a_mark_that_is_cut_is_recorded_as_far_as_it_is_there() {
    let mut output = RedactedCapture::new(12);
    let mut redactor = Redactor::new(true);
    redactor.push(b"password 'x' password 'y'", &mut output);
    redactor.finish(&mut output);
    let (captured, redactions) = output.finish();
    assert_eq!(captured.bytes, b"password '[r");
    assert_eq!(redactions.len(), 1);
    assert_eq!((redactions[0].offset, redactions[0].length), (10, 2));
}

#[test]
fn an_endless_candidate_is_taken_for_a_password() {
    let secret = "S".repeat(100_000);
    let text = redacted(&format!("select 'a://u:{secret}@h'"));
    assert_eq!(text, "select 'a://u:[redacted]@h'");
}

proptest! {
    #[test]
    fn a_secret_never_leaks_at_any_split(
        before in "[a-z ]{0,10}",
        secret in "[A-Z0-9]{6,20}",
        form in 0usize..CASES.len(),
        split in 0usize..200,
    ) {
        let text = format!("{before}; {}", CASES[form].0.replace("SECRET", &secret));
        let split = split.min(text.len());
        let (bytes, _) = streamed(text.as_bytes(), split);
        prop_assert!(!String::from_utf8_lossy(&bytes).contains(&secret[..]));
    }

    #[test]
    fn any_text_comes_out_the_same_at_every_split(
        text in "([a-c ;=:@/'\"$\\\\*\\-&UEp\n]|password|://|IDENTIFIED BY){0,40}",
        split in 0usize..200,
    ) {
        let whole = streamed(text.as_bytes(), 0);
        prop_assert_eq!(streamed(text.as_bytes(), split.min(text.len())), whole.clone());
        if let Some((captured, redactions)) = redact(text.as_bytes(), true) {
            prop_assert_eq!((captured.bytes, redactions), whole);
        } else {
            prop_assert_eq!(whole.0, text.as_bytes());
        }
    }
}
