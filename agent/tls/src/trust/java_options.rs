//! Options in the variables that Java reads, taken apart as the JVM does it.
//!
//! Owns quoting and the three properties of a trust store.

/// One property, `-Dname=value`; the last one counts.
fn property<'a>(words: &'a [String], name: &str) -> Option<&'a str> {
    words.iter().rev().find_map(|word| word.strip_prefix("-D")?.strip_prefix(name)?.strip_prefix('='))
}

/// What a variable says about the trust store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StoreOptions {
    pub(super) path: Option<String>,
    pub(super) password: Option<String>,
}

pub(super) fn store_options(text: &str) -> StoreOptions {
    let words = words(text);
    let value = |name| property(&words, name).map(str::to_owned);
    StoreOptions {
        path: value("javax.net.ssl.trustStore"),
        password: value("javax.net.ssl.trustStorePassword"),
    }
}

/// White space parts words; either quote keeps it, and everything else, up to its like.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, _) if c.is_ascii_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The text with our trust store appended: what comes last counts. A store of ours has no password, but Java takes
/// an earlier one for it, which does no harm.
pub(super) fn with_store(text: &str, path: &str) -> String {
    let option = |name: &str, value: &str| {
        let option = format!("-Djavax.net.ssl.{name}={value}");
        if value.contains(|c: char| c.is_ascii_whitespace() || c == '\'') {
            format!("\"{option}\"")
        } else {
            option
        }
    };
    let ours = [option("trustStore", path), option("trustStoreType", "PKCS12")].join(" ");
    if text.trim().is_empty() { ours } else { format!("{text} {ours}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_the_jvm_reads_them() {
        let text = "-Xmx1g  \"-Djavax.net.ssl.trustStore=/a b/old.jks\" -Djavax.net.ssl.trustStorePassword='p w' \
                    -Djavax.net.ssl.trustStore=/last.jks";
        let options = store_options(text);
        assert_eq!(options.path.as_deref(), Some("/last.jks"));
        assert_eq!(options.password.as_deref(), Some("p w"));
        assert_eq!(store_options("-Xmx1g -Djavax.net.ssl.trustStoreType=JKS"), StoreOptions::default());
    }

    #[test]
    fn ours_come_last_and_survive_a_space_in_the_path() {
        let merged = with_store("-Xmx1g -Djavax.net.ssl.trustStore=/theirs", "/run/our s/t.p12");
        assert!(merged.starts_with("-Xmx1g -Djavax.net.ssl.trustStore=/theirs "));
        assert_eq!(store_options(&merged).path.as_deref(), Some("/run/our s/t.p12"));
        assert_eq!(
            with_store("", "/t.p12"),
            "-Djavax.net.ssl.trustStore=/t.p12 -Djavax.net.ssl.trustStoreType=PKCS12"
        );
    }
}
