//! Reading the configuration file, and saying what is wrong with it: file, line, key, the nearest known one.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde_saphyr::Error as Yaml;

use super::{NodeAgent, Trust, Untrusted};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A key that this version does not know.
    #[error("{path}:{line}: unknown key `{key}`{}", hint(.nearest, .known))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// As written.
        key: String,
        /// The known key that is most like it.
        nearest: Option<&'static str>,
        /// All that are known at that place.
        known: Vec<&'static str>,
    },
    /// A value of an enumeration that this version does not know.
    #[error("{path}:{line}: unknown value `{value}`{}", hint(.nearest, .known))]
    UnknownValue {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// As written.
        value: String,
        /// The known value that is most like it.
        nearest: Option<&'static str>,
        /// All that are known at that place.
        known: Vec<&'static str>,
    },
    /// A key that is needed.
    #[error("{path}:{line}: `{key}` is missing here")]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// From 1: where the mapping begins.
        line: u64,
        /// The key.
        key: &'static str,
    },
    /// Anything else in the file's grammar.
    #[error("{path}:{line}: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// From 1; 0 where it is not known.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// Values that don't go together.
    #[error("{path}: {problem}")]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// Which, and what to do.
        problem: String,
    },
}

fn hint(nearest: &Option<&'static str>, known: &[&'static str]) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`? (known here: {})", known.join(", ")),
        None => format!(" (known here: {})", known.join(", ")),
    }
}

/// Reads and checks a file.
///
/// # Errors
/// See [`ConfigError`].
pub fn load(path: &Path) -> Result<NodeAgent, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text, path)
}

/// Reads and checks a text; `path` is for errors.
///
/// # Errors
/// See [`ConfigError`].
pub fn parse(text: &str, path: &Path) -> Result<NodeAgent, ConfigError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let config: NodeAgent =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| explain(error, path))?;
    check(&config).map_err(|problem| ConfigError::Contradiction { path: path.to_owned(), problem })?;
    Ok(config)
}

fn explain(error: Yaml, path: &Path) -> ConfigError {
    let path = path.to_owned();
    let line = error.location().map_or(0, |location| location.line());
    match error {
        Yaml::SerdeUnknownField { field: key, expected: known, .. } => {
            ConfigError::UnknownKey { path, line, nearest: nearest(&key, &known), key, known }
        }
        Yaml::SerdeUnknownVariant { variant: value, expected: known, .. } => {
            ConfigError::UnknownValue { path, line, nearest: nearest(&value, &known), value, known }
        }
        Yaml::SerdeMissingField { field: key, .. } => ConfigError::MissingKey { path, line, key },
        error => ConfigError::Invalid { path, line, problem: first_line(&error) },
    }
}

fn first_line(error: &Yaml) -> String {
    let text = error.to_string();
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or("not valid YAML").to_owned()
}

fn nearest(wrong: &str, known: &[&'static str]) -> Option<&'static str> {
    let score =
        |candidate: &str| strsim::damerau_levenshtein(&wrong.to_lowercase(), &candidate.to_lowercase());
    let best = known.iter().copied().min_by_key(|candidate| score(candidate))?;
    // Further away than half of its letters is no slip of the pen.
    (score(best) <= best.len().div_ceil(2)).then_some(best)
}

/// What no single key can tell.
fn check(config: &NodeAgent) -> Result<(), String> {
    if config.destinations.is_empty() {
        return Err("`destinations` is empty, so nothing would be steered: list at least one".into());
    }
    if config.selectors.is_empty() {
        return Err("`selectors` is empty, so nothing would be steered: list at least one".into());
    }
    let before_last = config.selectors.len() - 1;
    if config.selectors.iter().take(before_last).any(|selector| selector.matching.is_everything()) {
        return Err("a selector without `match` decides for every workload: it must be the last".into());
    }
    if config.shards.is_some_and(|shards| shards == 0 || shards > 64) {
        return Err("`shards` must be 1 to 64".into());
    }
    if config.node.as_deref() == Some("") {
        return Err("`node` is empty: name the node, or leave the key out".into());
    }
    check_tls(config)?;
    for rule in &config.identities {
        let known: Vec<&str> = rule.cgroup.captures().collect();
        let templates = [Some(&rule.namespace), Some(&rule.service_account), rule.pod.name.as_ref()];
        let templates = templates.into_iter().chain([rule.pod.uid.as_ref(), rule.container.as_ref()]);
        for name in templates.flatten().flat_map(|template| template.names()) {
            if !known.contains(&name) {
                let pattern = &rule.cgroup;
                return Err(format!("identity of `{pattern}`: `{{{name}}}` is not captured by the pattern"));
            }
        }
    }
    let (segment, limit) = (config.spool.segment_size.0, config.spool.limit.0);
    if segment.saturating_mul(2) > limit {
        return Err(format!(
            "`spool.limit` ({limit} bytes) must hold two segments of `spool.segmentSize` ({segment} bytes)"
        ));
    }
    Ok(())
}

fn check_tls(config: &NodeAgent) -> Result<(), String> {
    let Some(tls) = &config.tls else {
        let sets = || config.selectors.iter().map(|selector| selector.set);
        if sets().any(|set| set.trust == Some(Trust::Injected)) {
            return Err(
                "a selector says `trust: injected`, but there is no `tls`: say whose roots were given".into(),
            );
        }
        if sets().any(|set| set.untrusted == Untrusted::Deny) {
            return Err(
                "a selector says `untrusted: deny`, but without `tls` no TLS is looked at: add it".into()
            );
        }
        return Ok(());
    };
    let authority = &tls.authority;
    match (&authority.ephemeral, authority.roots.is_empty(), authority.intermediates.is_empty()) {
        (Some(_), true, true) | (None, false, false) => {}
        (Some(_), _, _) => {
            return Err("`tls.authority.ephemeral` makes roots and intermediates: leave those out".into());
        }
        (None, true, _) => {
            return Err("`tls.authority.roots` is empty: name the file that workloads got".into());
        }
        (None, false, true) => return Err("`tls.authority.intermediates` is empty: name what signs".into()),
    }
    if !tls.upstream_roots.system && tls.upstream_roots.files.is_empty() {
        return Err("`tls.upstreamRoots` believes nobody: let `system` be true, or list `files`".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
apiVersion: verbatim.v1
kind: NodeAgent
destinations:
- {cidr: 10.0.0.0/8, ports: [5432], action: steer}
selectors:
- match: {cgroup: 'kubepods/**'}
  set: {capture: steer, failMode: closed}
- set: {capture: pass, failMode: open}
identities:
- cgroup: 'kubepods/**/pod{uid}/**'
  projectNumber: 123456789012
  pool: p.svc.id.goog
  namespace: shop
  serviceAccount: checkout
  pod: {uid: '{uid}'}
spool: {directory: /var/lib/verbatim/spool}
collector: {address: 'unix:/run/collector.sock'}
";

    /// What is said about the good file with one text replaced.
    fn said(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from}");
        match parse(&GOOD.replacen(from, to, 1), Path::new("agent.yaml")) {
            Ok(_) => "nothing".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_good_file_is_read_with_its_defaults() {
        let config = parse(GOOD, Path::new("agent.yaml")).expect("good");
        assert_eq!(config.spool.sync, super::super::Sync::Process);
        assert_eq!(config.drain_deadline.0.as_secs(), 30);
        assert_eq!(config.selectors.len(), 2);
        assert_eq!(config.identities[0].project_number, 123_456_789_012);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        let said = said("failMode: closed", "failmod: closed");
        assert!(said.starts_with("agent.yaml:7: unknown key `failmod`; did you mean `failMode`?"), "{said}");
        assert!(said.contains("known here: capture, failMode, trust, untrusted"), "{said}");
        let said = self::said("spool:", "spoool:");
        assert!(said.starts_with("agent.yaml:16: unknown key `spoool`; did you mean `spool`?"), "{said}");
    }

    #[test]
    fn a_key_like_no_other_gets_no_guess() {
        let said = said("spool:", "zzzzzzzzzz:");
        assert!(
            said.starts_with("agent.yaml:16: unknown key `zzzzzzzzzz` (known here: apiVersion, "),
            "{said}"
        );
    }

    #[test]
    fn the_fail_mode_has_no_default() {
        let said = said("capture: pass, failMode: open", "capture: pass");
        assert!(said.contains("`failMode` is missing"), "{said}");
        assert!(said.starts_with("agent.yaml:8:"), "{said}");
    }

    #[test]
    fn an_unknown_value_is_named_with_the_known_ones() {
        let said = said("failMode: closed", "failMode: close");
        let expected =
            "agent.yaml:7: unknown value `close`; did you mean `closed`? (known here: open, closed)";
        assert_eq!(said, expected);
        assert!(self::said("verbatim.v1", "verbatim.v2").contains("did you mean `verbatim.v1`?"));
    }

    #[test]
    fn a_value_that_cannot_be_read_is_named_with_its_line_and_what_was_expected() {
        for (from, to, line, part) in [
            ("10.0.0.0/8", "10.0.0.1/8", 4, "did you mean `10.0.0.0/8`?"),
            ("10.0.0.0/8", "db.example.com", 4, "no address range"),
            ("[5432]", "[70000]", 4, ""),
            ("spool: {", "spool: {limit: 5GB, ", 16, "no size"),
            ("pod{uid}/", "pod{uid/", 10, "must be followed by"),
        ] {
            let said = said(from, to);
            assert!(said.starts_with(&format!("agent.yaml:{line}: ")) && said.contains(part), "{to}: {said}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        let catch_all_first = said("match: {cgroup: 'kubepods/**'}", "match: {}");
        assert!(catch_all_first.contains("must be the last"), "{catch_all_first}");
        let no_capture = said("uid: '{uid}'", "uid: '{pod}'");
        assert!(no_capture.contains("`{pod}` is not captured"), "{no_capture}");
        let small = said("spool: {", "spool: {limit: 10MiB, ");
        assert!(small.contains("must hold two segments"), "{small}");
    }

    #[test]
    fn tls_is_one_authority_and_somebody_who_is_believed() {
        let tls = |keys: &str| said("spool: {", &format!("tls: {{stateFile: /s, {keys}}}\nspool: {{"));
        let issued = "authority: {roots: [r], intermediates: [{certificate: c, key: k}]}";
        assert_eq!(tls(issued), "nothing");
        assert_eq!(tls("authority: {ephemeral: {directory: d, names: [db.example]}}"), "nothing");
        for (keys, part) in [
            ("authority: {roots: [r]}".to_owned(), "`tls.authority.intermediates` is empty"),
            ("authority: {}".to_owned(), "`tls.authority.roots` is empty"),
            ("authority: {roots: [r], ephemeral: {directory: d}}".to_owned(), "leave those out"),
            (format!("{issued}, upstreamRoots: {{system: false}}"), "believes nobody"),
            (
                format!("{issued}, upstreamRoot: {{}}"),
                "unknown key `upstreamRoot`; did you mean `upstreamRoots`?",
            ),
            (
                "authority: {roots: [r], intermediates: [{certificate: c}]}".to_owned(),
                "`key` is missing here",
            ),
        ] {
            let said = tls(&keys);
            assert!(said.contains(part), "{keys}: {said}");
        }
    }

    #[test]
    fn trust_needs_an_authority_and_is_no_default() {
        let said = said("failMode: closed", "failMode: closed, trust: injected");
        assert!(said.contains("there is no `tls`"), "{said}");
        let said = self::said("failMode: closed", "failMode: closed, untrusted: deny");
        assert!(said.contains("without `tls`"), "{said}");
        assert_eq!(
            self::said("failMode: closed", "failMode: closed, trust: none, untrusted: splice"),
            "nothing"
        );
        let said = self::said("failMode: closed", "failMode: closed, trust: inject");
        assert!(said.contains("did you mean `injected`? (known here: injected, none)"), "{said}");
        let config = parse(GOOD, Path::new("agent.yaml")).expect("good");
        assert_eq!(config.selectors[0].set.trust, None);
        assert_eq!(config.selectors[0].set.untrusted, Untrusted::Splice);
    }

    #[test]
    fn a_key_that_is_there_twice_and_what_is_no_yaml_are_errors() {
        assert_ne!(said("kind: NodeAgent", "kind: NodeAgent\nkind: NodeAgent"), "nothing");
        assert!(said("selectors:", "selectors: [").starts_with("agent.yaml:"));
        assert!(parse("", Path::new("agent.yaml")).is_err());
    }
}
