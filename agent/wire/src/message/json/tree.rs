//! What is wanted of a JSON text, as a tree; the rest is skipped or counted.
//!
//! Owns the bounds: bytes and values kept. Which values are wanted is the caller's to say.

mod nodes;

use self::nodes::Nodes;
use super::lexer::{Fault, Lexer};
use crate::seam::{Captured, Redaction};

/// What becomes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::message) enum Kept {
    /// It is kept; what is in it is asked about again.
    Value,
    /// It is kept with everything in it.
    All,
    /// It is kept; a text in it is SQL, or may hold some.
    Sql,
    /// Its elements are counted.
    Count,
    /// Nothing is kept.
    Skip,
}

/// Says what is wanted. The path has the names of objects, in lower case and without `_`, from the outermost
/// on; elements of an array are where the array is.
pub(in crate::message) type Keep = fn(path: &[&str]) -> Kept;

/// A string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::message) struct Text {
    /// Its bytes, cut at the bound.
    pub(in crate::message) captured: Captured,
    /// Credentials in it; only looked for in SQL.
    pub(in crate::message) redactions: Vec<Redaction>,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::message) enum Value {
    /// There is none, or it was skipped.
    Absent,
    /// A string.
    Text(Text),
    /// A number, `true`, `false` or `null`, as written.
    Word(Vec<u8>),
    /// An array: what is kept of its elements, and how many there are.
    List(Vec<Self>, u64),
    /// Names and values, in order, twice where they are there twice.
    Object(Vec<(Vec<u8>, Self)>),
}

static ABSENT: Value = Value::Absent;

impl Value {
    /// The value of a name, by its spelling in protocol buffers or in JSON; the last where there are several.
    pub(in crate::message) fn get(&self, name: &str) -> &Self {
        self.entries().filter(|(key, _)| same_name(key, name)).last().map_or(&ABSENT, |(_, value)| value)
    }

    /// All values of a name.
    pub(in crate::message) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.entries().filter(move |(key, _)| same_name(key, name)).map(|(_, value)| value)
    }

    /// Names and values of an object.
    pub(in crate::message) fn entries(&self) -> impl Iterator<Item = (&[u8], &Self)> {
        let entries: &[(Vec<u8>, Self)] = match self {
            Self::Object(entries) => entries,
            _ => &[],
        };
        entries.iter().map(|(key, value)| (key.as_slice(), value))
    }

    /// The elements of an array that are kept.
    pub(in crate::message) fn items(&self) -> &[Self] {
        match self {
            Self::List(items, _) => items,
            _ => &[],
        }
    }

    /// The first element.
    pub(in crate::message) fn first(&self) -> &Self {
        self.items().first().unwrap_or(&ABSENT)
    }

    /// How many elements an array has.
    pub(in crate::message) fn count(&self) -> Option<u64> {
        match self {
            Self::List(_, count) => Some(*count),
            _ => None,
        }
    }

    /// What a string or number says; `null` says nothing.
    pub(in crate::message) fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.captured.bytes.clone()),
            Self::Word(word) if word != b"null" => Some(word.clone()),
            _ => None,
        }
    }

    /// The same as text.
    pub(in crate::message) fn text(&self) -> Option<String> {
        self.bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A number, also in quotes, as BigQuery writes 64-bit ones.
    pub(in crate::message) fn number(&self) -> Option<u64> {
        self.text()?.parse().ok()
    }

    /// `true` or `false`, also in quotes.
    pub(in crate::message) fn flag(&self) -> Option<bool> {
        match self.text()?.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    pub(in crate::message) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// Whether a name of a text means a field: `useLegacySql`, `use_legacy_sql`.
fn same_name(key: &[u8], name: &str) -> bool {
    let plain = |bytes: &[u8]| normal(bytes).collect::<Vec<u8>>();
    key == name.as_bytes() || plain(key) == plain(name.as_bytes())
}

fn normal(name: &[u8]) -> impl Iterator<Item = u8> {
    name.iter().filter(|byte| **byte != b'_').map(u8::to_ascii_lowercase)
}

/// A whole text, or as much of it as was read.
#[derive(Clone, Debug)]
pub(in crate::message) struct Tree {
    root: Value,
    /// Why it was not read to its end; a text of nothing but white space is no fault.
    pub(in crate::message) fault: Option<Fault>,
    /// More was wanted than is kept.
    pub(in crate::message) cut: bool,
}

impl Tree {
    pub(in crate::message) fn root(&self) -> &Value {
        &self.root
    }
}

/// Reads a text.
pub(in crate::message) struct TreeBuilder {
    lexer: Lexer,
    nodes: Nodes,
}

impl TreeBuilder {
    /// Keeps at most so many bytes of texts, each and together.
    pub(in crate::message) fn new(keep: Keep, limit: usize) -> Self {
        Self { lexer: Lexer::new(), nodes: Nodes::new(keep, limit) }
    }

    pub(in crate::message) fn push(&mut self, bytes: &[u8]) {
        self.lexer.push(bytes, &mut self.nodes);
    }

    /// What was read so far.
    pub(in crate::message) fn so_far(&self) -> Tree {
        Tree { root: self.nodes.so_far(), fault: self.lexer.fault(), cut: self.nodes.cut }
    }

    pub(in crate::message) fn finish(mut self) -> Tree {
        let empty = self.lexer.is_empty();
        let fault = self.lexer.finish(&mut self.nodes).err().filter(|_| !empty);
        Tree { root: self.nodes.so_far(), fault, cut: self.nodes.cut }
    }
}

impl From<(Captured, Vec<Redaction>)> for Text {
    fn from((captured, redactions): (Captured, Vec<Redaction>)) -> Self {
        Self { captured, redactions }
    }
}

#[cfg(test)]
mod tests;
