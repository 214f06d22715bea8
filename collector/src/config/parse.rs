//! Reads the file, and says what in it does not go together.

use std::{fs, path::Path};

use verbatim_config::ConfigError;

use super::{Address, Config, Listener};

pub(super) const API_VERSION: &str = "verbatim.v1";
pub(super) const KIND: &str = "Collector";

/// Reads and checks a file.
///
/// # Errors
/// See [`ConfigError`].
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    checked(verbatim_config::load(path)?, path)
}

/// Reads and checks a text; `path` is for errors.
///
/// # Errors
/// See [`ConfigError`].
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    checked(verbatim_config::parse(text, path)?, path)
}

fn checked(config: Config, path: &Path) -> Result<Config, ConfigError> {
    match check(&config) {
        Ok(()) => Ok(config),
        Err(problem) => Err(ConfigError::Contradiction { path: path.to_owned(), problem }),
    }
}

/// What no single key can tell.
fn check(config: &Config) -> Result<(), String> {
    if (config.api_version.as_str(), config.kind.as_str()) != (API_VERSION, KIND) {
        return Err(format!(
            "this is {} {}, expected apiVersion: {API_VERSION}, kind: {KIND}",
            config.api_version, config.kind
        ));
    }
    for (name, listener) in [("ingest", &config.ingest), ("audit", &config.audit)] {
        if let Some(detail) = contradiction(listener) {
            return Err(format!("{name}: {detail}"));
        }
    }
    if config.ingest.listen == config.audit.listen {
        return Err("audit: has the address of ingest: give it one of its own".to_owned());
    }
    // A node writes and reads nothing: its certificate must not open the other listener.
    if let (Some(ingest), Some(audit)) = (&config.ingest.tls, &config.audit.tls)
        && config.audit.allowed_names.is_empty()
        && same_file(&ingest.client_ca, &audit.client_ca)
    {
        return Err(
            "audit: has the clientCa of ingest, so that every node could read: use another CA, or list \
                    those who may ask in allowedNames"
                .to_owned(),
        );
    }
    Ok(())
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
        parse(text, Path::new("collector.yaml")).expect_err("refused").to_string()
    }

    #[test]
    fn complete_configuration_is_read() {
        let config = parse(GOOD, Path::new("collector.yaml")).expect("good");
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
            "collector.yaml:7: unknown key `maxMesage`; did you mean `maxMessage`? (known here: listen, tls, \
             allowedNames, refuseCgroups, maxMessage)"
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
            ("maxAge: 30d", "maxAge: 0d", "collector.yaml:11: it must be more than zero"),
            ("maxSize: 100GiB", "maxSize: 0B", "collector.yaml:12: it must be more than zero"),
            ("maxMessage: 8MiB", "maxMessage: 0B", "collector.yaml:7: it must be more than zero"),
            ("data: /var/lib/verbatim\n", "", "`data` is missing here"),
        ] {
            let told = error(&GOOD.replace(from, to));
            assert!(told.contains(complaint), "{to}: {told}");
        }
        assert!(parse(&GOOD.replace(audit, &allowed), Path::new("collector.yaml")).is_ok());
    }
}
