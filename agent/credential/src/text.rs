//! Small things about texts that come from outside.

/// `%41` → `A` (RFC 3986 section 2.1). What is no escape stays.
pub(crate) fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escape = (byte == b'%').then(|| after.split_first_chunk::<2>()).flatten();
        match escape.and_then(|([high, low], rest)| Some((digit(*high)? * 16 + digit(*low)?, rest))) {
            Some((byte, after)) => {
                bytes.push(byte);
                rest = after;
            }
            None => bytes.push(byte),
        }
    }
    bytes
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The beginning of a text, at most so many bytes.
pub(crate) fn cut(text: &str, bytes: usize) -> String {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// The same of bytes that should be UTF-8.
pub(crate) fn lossy(bytes: &[u8], most: usize) -> String {
    cut(&String::from_utf8_lossy(bytes.get(..most).unwrap_or(bytes)), most)
}

/// Whether a name is an e-mail address of a service account of Google's
/// (<https://cloud.google.com/iam/docs/service-account-types>).
pub(crate) fn is_service_account(name: &str) -> bool {
    let Some((local, domain)) = name.rsplit_once('@') else { return false };
    let domain = domain.to_ascii_lowercase();
    !local.is_empty() && (domain == "gserviceaccount.com" || domain.ends_with(".gserviceaccount.com"))
}

/// Whether a name is an e-mail address that can only be a person's, or a group's.
pub(crate) fn is_person(name: &str) -> bool {
    let Some((local, domain)) = name.rsplit_once('@') else { return false };
    let plain =
        |text: &str| !text.is_empty() && !text.contains(char::is_whitespace) && !text.contains(['/', ':']);
    plain(local)
        && plain(domain)
        && domain.contains('.')
        && !is_service_account(name)
        && !domain.ends_with(".iam")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_where_they_are_escapes() {
        assert_eq!(percent_decoded(b"a%3Ab%2"), b"a:b%2");
        assert_eq!(percent_decoded(b"%zz%+1%"), b"%zz%+1%");
    }

    #[test]
    fn people_are_told_from_service_accounts() {
        for (name, service, person) in [
            ("a@p.iam.gserviceaccount.com", true, false),
            ("1-compute@developer.gserviceaccount.com", true, false),
            ("ada@example.com", false, true),
            ("a@p.iam", false, false),
            ("ada", false, false),
            ("@example.com", false, false),
            ("ada@localhost", false, false),
        ] {
            assert_eq!((is_service_account(name), is_person(name)), (service, person), "{name}");
        }
    }

    #[test]
    fn a_cut_ends_at_a_character() {
        assert_eq!(cut("aä", 2), "a");
        assert_eq!(cut("aä", 3), "aä");
    }
}
