//! Reading a file, and saying what is wrong with it: file, line, key, the nearest known one.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_saphyr::Error as Yaml;

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

/// Reads a file. Whether its values go together is the caller's to check: [`ConfigError::Contradiction`].
///
/// # Errors
/// See [`ConfigError`].
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text, path)
}

/// Reads a text; `path` is for errors.
///
/// # Errors
/// See [`ConfigError`].
pub fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, ConfigError> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| explain(error, path))
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

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::{ByteSize, Span, positive};

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct File {
        kind: Kind,
        #[serde(deserialize_with = "positive")]
        segment_size: ByteSize,
        #[serde(default, deserialize_with = "positive")]
        max_age: Option<Span>,
        drain: Option<Span>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Kind {
        Agent,
        Other,
    }

    fn said(text: &str) -> String {
        match parse::<File>(text, Path::new("file.yaml")) {
            Ok(file) => format!("{:?} {:?} {:?}", file.kind, file.segment_size, (file.max_age, file.drain)),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_line_and_what_is_known_there() {
        for (text, expected) in [
            (
                "kind: agent\nsegmentSize: 1B\nmaxage: 1d",
                "file.yaml:3: unknown key `maxage`; did you mean `maxAge`? (known here: kind, segmentSize, maxAge, drain)",
            ),
            (
                "kind: agent\nzzzzzz: 1B",
                "file.yaml:2: unknown key `zzzzzz` (known here: kind, segmentSize, maxAge, drain)",
            ),
            (
                "kind: agen\nsegmentSize: 1B",
                "file.yaml:1: unknown value `agen`; did you mean `agent`? (known here: agent, other)",
            ),
            ("kind: agent", "file.yaml:1: `segmentSize` is missing here"),
        ] {
            assert_eq!(said(text), expected);
        }
        let said = said("kind: agent\nsegmentSize: 12");
        assert!(said.starts_with("file.yaml:2: ") && said.contains("`12` is no size"), "{said}");
    }

    #[test]
    fn zero_is_refused_only_where_it_makes_no_sense() {
        let good = said("kind: agent\nsegmentSize: 1B\ndrain: 0s");
        assert_eq!(good, "Agent ByteSize(1) (None, Some(Span(0ns)))");
        let size = said("kind: other\nsegmentSize: 0B");
        assert!(size.starts_with("file.yaml:2: ") && size.contains("more than zero"), "{size}");
        let age = said("kind: other\nsegmentSize: 1B\nmaxAge: 0d");
        assert!(age.starts_with("file.yaml:3: ") && age.contains("more than zero"), "{age}");
    }
}
