//! Patterns over cgroup paths, with named captures.
//!
//! Owns their grammar: per component `*` (any text), `?` (one character), `{name}` (one or more
//! characters, captured); a component `**` stands for any number of components, none included. So
//! `kubepods/**` also matches `kubepods` itself. Knows nothing of who uses a path.

use std::{collections::BTreeMap, fmt};

/// Most components of a pattern.
const COMPONENTS_LIMIT: usize = 64;

/// Most `**` of a pattern, and most `*` and `{name}` of a component: bounds the work of a match.
const WILDCARDS_LIMIT: usize = 4;

/// What captures hold after a match, by name.
pub type Captures = BTreeMap<String, String>;

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern {
    source: String,
    components: Vec<Component>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Component {
    Deep,
    Pieces(Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    One,
    Any,
    Capture(String),
}

/// Why a pattern cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PatternError {
    /// Nothing in it.
    #[error("an empty cgroup pattern matches nothing: write `**` for every cgroup")]
    Empty,
    /// `{` without `}`, or no name between them.
    #[error("cgroup pattern `{0}`: `{{` must be followed by a name (letters, digits, `_`) and `}}`")]
    Capture(String),
    /// The same name twice.
    #[error("cgroup pattern `{pattern}`: `{{{name}}}` is there twice")]
    Twice {
        /// The pattern.
        pattern: String,
        /// The name.
        name: String,
    },
    /// See the limits.
    #[error(
        "cgroup pattern `{0}`: at most {COMPONENTS_LIMIT} components, {WILDCARDS_LIMIT} `**`, and \
         {WILDCARDS_LIMIT} of `*` and `{{name}}` in one component"
    )]
    TooLong(String),
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(source: String) -> Result<Self, PatternError> {
        let trimmed = source.trim_matches('/');
        if trimmed.is_empty() {
            return Err(PatternError::Empty);
        }
        let components: Vec<Component> = trimmed
            .split('/')
            .filter(|component| !component.is_empty())
            .map(|component| parse_component(&source, component))
            .collect::<Result<_, _>>()?;
        let deep = components.iter().filter(|component| **component == Component::Deep).count();
        let pattern = Self { source, components };
        if pattern.components.len() > COMPONENTS_LIMIT || deep > WILDCARDS_LIMIT {
            return Err(PatternError::TooLong(pattern.source));
        }
        let mut names = Vec::new();
        for name in pattern.captures() {
            if names.contains(&name) {
                return Err(PatternError::Twice { name: name.to_owned(), pattern: pattern.source.clone() });
            }
            names.push(name);
        }
        Ok(pattern)
    }
}

fn parse_component(source: &str, text: &str) -> Result<Component, PatternError> {
    if text == "**" {
        return Ok(Component::Deep);
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        rest = match first {
            '*' => {
                pieces.push(Piece::Any);
                after
            }
            '?' => {
                pieces.push(Piece::One);
                after
            }
            '{' => {
                let (name, after) =
                    after.split_once('}').ok_or_else(|| PatternError::Capture(source.to_owned()))?;
                if name.is_empty() || !name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_') {
                    return Err(PatternError::Capture(source.to_owned()));
                }
                pieces.push(Piece::Capture(name.to_owned()));
                after
            }
            _ => {
                let end = rest.find(['*', '?', '{']).unwrap_or(rest.len());
                pieces.push(Piece::Text(rest[..end].to_owned()));
                &rest[end..]
            }
        };
    }
    let wide = pieces.iter().filter(|piece| matches!(piece, Piece::Any | Piece::Capture(_))).count();
    if wide > WILDCARDS_LIMIT {
        return Err(PatternError::TooLong(source.to_owned()));
    }
    Ok(Component::Pieces(pieces))
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.source)
    }
}

impl Pattern {
    /// Matches every path.
    #[must_use]
    pub fn any() -> Self {
        Self { source: "**".to_owned(), components: vec![Component::Deep] }
    }

    /// Names of its captures, in order.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.components
            .iter()
            .flat_map(|component| match component {
                Component::Deep => &[][..],
                Component::Pieces(pieces) => pieces.as_slice(),
            })
            .filter_map(|piece| match piece {
                Piece::Capture(name) => Some(name.as_str()),
                _ => None,
            })
    }

    /// Matches a whole path; slashes at its ends don't count.
    #[must_use]
    pub fn matches(&self, path: &str) -> Option<Captures> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut captures = Captures::new();
        match_components(&self.components, &parts, &mut captures).then_some(captures)
    }
}

fn match_components(components: &[Component], parts: &[&str], captures: &mut Captures) -> bool {
    match components.split_first() {
        None => parts.is_empty(),
        Some((Component::Deep, rest)) => {
            (0..=parts.len()).any(|skipped| match_components(rest, &parts[skipped..], captures))
        }
        Some((Component::Pieces(pieces), rest)) => parts.split_first().is_some_and(|(part, parts)| {
            let mut found = Vec::new();
            if !match_pieces(pieces, part, &mut found) || !match_components(rest, parts, captures) {
                return false;
            }
            captures.extend(found);
            true
        }),
    }
}

/// `found` is only to be used where this returns true.
fn match_pieces(pieces: &[Piece], text: &str, found: &mut Vec<(String, String)>) -> bool {
    let Some((piece, rest)) = pieces.split_first() else {
        return text.is_empty();
    };
    // Shortest first; every cut falls between characters.
    let cuts = || text.char_indices().map(|(at, _)| at).chain([text.len()]);
    match piece {
        Piece::Text(wanted) => {
            text.strip_prefix(wanted.as_str()).is_some_and(|after| match_pieces(rest, after, found))
        }
        Piece::One => {
            let mut chars = text.chars();
            chars.next().is_some() && match_pieces(rest, chars.as_str(), found)
        }
        Piece::Any => cuts().any(|cut| match_pieces(rest, &text[cut..], found)),
        Piece::Capture(name) => cuts().skip(1).any(|cut| {
            let matched = match_pieces(rest, &text[cut..], found);
            if matched {
                found.push((name.clone(), text[..cut].to_owned()));
            }
            matched
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::try_from(text.to_owned()).expect(text)
    }

    #[test]
    fn literals_match_the_whole_path_and_nothing_more() {
        assert!(pattern("a/b").matches("/a/b/").is_some());
        for other in ["a", "a/b/c", "a/bc", "b", ""] {
            assert!(pattern("a/b").matches(other).is_none(), "{other}");
        }
    }

    #[test]
    fn a_deep_wildcard_matches_none_and_many_components() {
        for path in ["kubepods", "kubepods/x", "kubepods/x/y/z"] {
            assert!(pattern("kubepods/**").matches(path).is_some(), "{path}");
        }
        assert!(pattern("kubepods/**").matches("kubepodsx").is_none());
        assert!(pattern("**/leaf").matches("leaf").is_some());
        assert!(pattern("**/leaf").matches("a/b/leaf").is_some());
        assert!(pattern("**/leaf").matches("a/leaf/b").is_none());
    }

    #[test]
    fn captures_take_what_a_kubelet_writes() {
        let systemd = pattern("kubepods.slice/**/kubepods-*pod{uid}.slice/**");
        let path = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1a_2b.slice/cri-x.scope";
        assert_eq!(systemd.matches(path).expect("match")["uid"], "1a_2b");
        let cgroupfs = pattern("kubepods/**/pod{uid}/{container}");
        let captures = cgroupfs.matches("kubepods/besteffort/pod1a-2b/0123abc").expect("match");
        assert_eq!((captures["uid"].as_str(), captures["container"].as_str()), ("1a-2b", "0123abc"));
        assert!(cgroupfs.matches("kubepods/pod/0123abc").is_none(), "a capture is never empty");
    }

    #[test]
    fn a_question_mark_is_one_character_of_any_width() {
        assert!(pattern("a?c").matches("aéc").is_some());
        assert!(pattern("a?c").matches("ac").is_none());
    }

    #[test]
    fn what_cannot_be_a_pattern_is_refused_with_its_reason() {
        let refused = |text: &str| Pattern::try_from(text.to_owned()).expect_err(text);
        assert_eq!(refused(""), PatternError::Empty);
        assert_eq!(refused("a/{b"), PatternError::Capture("a/{b".into()));
        assert_eq!(refused("a/{}"), PatternError::Capture("a/{}".into()));
        assert!(matches!(refused("{x}/{x}"), PatternError::Twice { name, .. } if name == "x"));
        assert!(matches!(refused("*a*a*a*a*"), PatternError::TooLong(_)));
        assert!(matches!(refused("**/a/**/a/**/a/**/a/**"), PatternError::TooLong(_)));
    }
}
