//! Reads the file, and says what is wrong with it where it is wrong.

use std::{fs, io, path::Path};

use super::{Address, Config, Listener};

pub(super) const API_VERSION: &str = "verbatim.v1";
pub(super) const KIND: &str = "Collector";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error("cannot read configuration {path}: {source}")]
    Read {
        /// Which.
        path: String,
        /// The system's own words.
        source: io::Error,
    },
    /// A key that does not exist.
    #[error("{path}: line {line}: unknown key `{key}`{}", hint(.nearest.as_deref(), .known))]
    UnknownKey {
        /// Which file.
        path: String,
        /// Where, from 1.
        line: u64,
        /// The key.
        key: String,
        /// The known key that is nearest.
        nearest: Option<String>,
        /// Those that would be known there.
        known: Vec<String>,
    },
    /// Any other mistake in the file.
    #[error("{path}: {detail}")]
    Invalid {
        /// Which file.
        path: String,
        /// What, and where.
        detail: String,
    },
    /// Values that do not go together.
    #[error("{path}: {listener}: {detail}")]
    Listener {
        /// Which file.
        path: String,
        /// `ingest` or `audit`.
        listener: &'static str,
        /// What is wrong, what to do.
        detail: String,
    },
}

fn hint(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None => format!("; known here are {}", known.join(", ")),
    }
}

/// Reads a file.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: name.clone(), source })?;
    parse(&text, &name)
}

/// Reads text that came from `path`.
pub fn parse(text: &str, path: &str) -> Result<Config, ConfigError> {
    let config: Config = serde_saphyr::from_str(text).map_err(|e| explain(&e, path))?;
    if (config.api_version.as_str(), config.kind.as_str()) != (API_VERSION, KIND) {
        return Err(ConfigError::Invalid {
            path: path.to_owned(),
            detail: format!(
                "this is {} {}, expected apiVersion: {API_VERSION}, kind: {KIND}",
                config.api_version, config.kind
            ),
        });
    }
    let wrong = |listener, detail: String| ConfigError::Listener { path: path.to_owned(), listener, detail };
    for (name, listener) in [("ingest", &config.ingest), ("audit", &config.audit)] {
        if let Some(detail) = contradiction(listener) {
            return Err(wrong(name, detail.to_owned()));
        }
    }
    if config.ingest.listen == config.audit.listen {
        return Err(wrong("audit", "has the address of ingest: give it one of its own".to_owned()));
    }
    // A node writes and reads nothing: its certificate must not open the other listener.
    if let (Some(ingest), Some(audit)) = (&config.ingest.tls, &config.audit.tls)
        && config.audit.allowed_names.is_empty()
        && same_file(&ingest.client_ca, &audit.client_ca)
    {
        let detail = "has the clientCa of ingest, so that every node could read: use another CA, or list those \
                      who may ask in allowedNames";
        return Err(wrong("audit", detail.to_owned()));
    }
    Ok(config)
}

fn contradiction(listener: &Listener) -> Option<&'static str> {
    match &listener.listen {
        Address::Tcp(_) if listener.tls.is_none() => {
            Some("a TCP address needs tls (certificate, key, clientCa): plaintext is for Unix sockets only")
        }
        Address::Tcp(_) if !listener.refuse_cgroups.is_empty() => {
            Some("refuseCgroups works on Unix sockets only")
        }
        Address::Unix(_) if listener.tls.is_some() || !listener.allowed_names.is_empty() => {
            Some("tls and allowedNames are for TCP addresses: a Unix socket knows its peers by user")
        }
        _ => None,
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((fs::read(a), fs::read(b)), (Ok(a), Ok(b)) if a == b)
}

fn explain(error: &serde_saphyr::Error, path: &str) -> ConfigError {
    let error = error.without_snippet();
    match error {
        serde_saphyr::Error::SerdeUnknownField { field, expected, location } => {
            let nearest = expected
                .iter()
                .map(|known| (strsim::damerau_levenshtein(known, field), *known))
                .min()
                .filter(|(distance, known)| *distance <= known.len().max(3) / 2)
                .map(|(_, known)| known.to_owned());
            ConfigError::UnknownKey {
                path: path.to_owned(),
                line: location.line(),
                key: field.clone(),
                nearest,
                known: expected.iter().map(|k| (*k).to_owned()).collect(),
            }
        }
        other => ConfigError::Invalid { path: path.to_owned(), detail: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: verbatim.v1
kind: Collector
data: /var/lib/verbatim
ingest:
  listen: tcp:0.0.0.0:7443
  tls: {certificate: /tls/c.pem, key: /tls/k.pem, clientCa: /tls/nodes.pem}
  maxMessage: 8MiB
audit:
  listen: unix:/run/verbatim/audit.sock
retention:
  contents: {maxAge: 30d}
  envelopes: {maxAge: 365d, maxSize: 100GiB}
";

    fn error(text: &str) -> String {
        parse(text, "collector.yaml").expect_err("refused").to_string()
    }

    #[test]
    fn complete_configuration_is_read() {
        let config = parse(GOOD, "collector.yaml").expect("good");
        assert_eq!(config.ingest.max_message.0, 8 << 20);
        assert_eq!(config.audit.max_message.0, 16 << 20);
        assert_eq!(config.retention.contents.max_age.map(|a| a.0.as_secs()), Some(30 * 86_400));
        assert_eq!(config.retention.contents.max_size, None);
    }

    #[test]
    fn unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        let text = GOOD.replace("maxMessage", "maxMesage");
        assert_eq!(
            error(&text),
            "collector.yaml: line 7: unknown key `maxMesage`; did you mean `maxMessage`?"
        );
    }

    #[test]
    fn values_that_do_not_go_together_are_refused_with_what_to_do() {
        let audit = "listen: unix:/run/verbatim/audit.sock";
        let same_ca = "listen: tcp:0.0.0.0:7444\n  tls: {certificate: /c, key: /k, clientCa: /tls/nodes.pem}";
        let allowed = format!("{same_ca}\n  allowedNames: [auditor.example]");
        for (from, to, complaint) in [
            (audit, "listen: tcp:0.0.0.0:7444", "needs tls"),
            (audit, "listen: /run/audit.sock", "is no address"),
            (audit, same_ca, "every node could read"),
            ("kind: Collector", "kind: Agent", "expected apiVersion"),
            ("maxAge: 30d", "maxAge: 30", "is no time"),
        ] {
            let told = error(&GOOD.replace(from, to));
            assert!(told.contains(complaint), "{to}: {told}");
        }
        assert!(parse(&GOOD.replace(audit, &allowed), "collector.yaml").is_ok());
    }
}
