//! What is wanted of a JSON text, as a tree; the rest is skipped or counted.
//!
//! Owns the bounds: bytes and values kept. Which values are wanted is the caller's to say.

use super::lexer::{Events, Fault, Lexer};
use crate::{
    capture::Capture,
    message::redact::RedactedCapture,
    seam::{Captured, Redaction},
};

/// Values kept of one text.
const MAX_VALUES: usize = 20_000;

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

/// An open object or array that is kept.
struct Open {
    value: Value,
    keep: Kept,
    /// The name that was read last, in both forms.
    name: (Vec<u8>, String),
}

/// The string that is read.
enum Reading {
    Plain(Capture),
    Sql(Box<RedactedCapture>),
    Skipped,
}

struct Nodes {
    keep: Keep,
    /// Bytes of texts that may still be kept, and of names.
    room: usize,
    name_room: usize,
    values: usize,
    cut: bool,
    open: Vec<Open>,
    /// Open objects and arrays within a value that is not kept.
    skipping: usize,
    string: Option<Reading>,
    root: Value,
}

impl Nodes {
    fn new(keep: Keep, limit: usize) -> Self {
        Self {
            keep,
            room: limit,
            name_room: limit,
            values: 0,
            cut: false,
            open: Vec::new(),
            skipping: 0,
            string: None,
            root: Value::Absent,
        }
    }

    /// What becomes of the value that comes next.
    fn next(&mut self) -> Kept {
        if self.skipping > 0 {
            return Kept::Skip;
        }
        let wanted = match self.open.last() {
            Some(Open { keep: keep @ (Kept::All | Kept::Sql), .. }) => *keep,
            Some(Open { keep: Kept::Count, .. }) => Kept::Skip,
            Some(_) | None => {
                let path: Vec<&str> = self
                    .open
                    .iter()
                    .filter(|open| matches!(open.value, Value::Object(_)))
                    .map(|open| open.name.1.as_str())
                    .collect();
                (self.keep)(&path)
            }
        };
        if wanted == Kept::Skip {
            return wanted;
        }
        self.values = self.values.saturating_add(1);
        if self.values > MAX_VALUES {
            self.cut = true;
            return Kept::Skip;
        }
        wanted
    }

    fn put(&mut self, value: Value) {
        match self.open.last_mut() {
            None => self.root = value,
            Some(open) => {
                let name = open.name.0.clone();
                insert(&mut open.value, name, value);
            }
        }
    }

    /// An element that is not kept counts all the same.
    fn pass_over(&mut self) {
        if self.skipping > 0 {
            return;
        }
        if let Some(Open { value: Value::List(_, count), .. }) = self.open.last_mut() {
            *count = count.saturating_add(1);
        }
    }

    fn so_far(&self) -> Value {
        let mut inner = self.string.as_ref().and_then(Reading::so_far).map(Value::Text);
        for open in self.open.iter().rev() {
            let mut value = open.value.clone();
            if let Some(inner) = inner {
                insert(&mut value, open.name.0.clone(), inner);
            }
            inner = Some(value);
        }
        inner.unwrap_or_else(|| self.root.clone())
    }
}

fn insert(into: &mut Value, name: Vec<u8>, value: Value) {
    match into {
        Value::List(items, count) => {
            *count = count.saturating_add(1);
            items.push(value);
        }
        Value::Object(entries) => entries.push((name, value)),
        Value::Absent | Value::Text(_) | Value::Word(_) => {}
    }
}

impl Reading {
    fn push(&mut self, piece: &[u8]) {
        match self {
            Self::Plain(capture) => capture.push(piece),
            Self::Sql(capture) => capture.push(piece),
            Self::Skipped => {}
        }
    }

    /// `None`: nothing is kept of it.
    fn so_far(&self) -> Option<Text> {
        match self {
            Self::Plain(capture) => Some(Text { captured: capture.so_far(), redactions: Vec::new() }),
            Self::Sql(capture) => Some(capture.so_far().into()),
            Self::Skipped => None,
        }
    }

    fn finish(self) -> Option<Text> {
        match self {
            Self::Plain(capture) => Some(Text { captured: capture.finish(), redactions: Vec::new() }),
            Self::Sql(capture) => Some(capture.finish().into()),
            Self::Skipped => None,
        }
    }
}

impl From<(Captured, Vec<Redaction>)> for Text {
    fn from((captured, redactions): (Captured, Vec<Redaction>)) -> Self {
        Self { captured, redactions }
    }
}

impl Events for Nodes {
    fn begin(&mut self, object: bool) {
        let kept = self.next();
        if kept == Kept::Skip || (kept == Kept::Count && object) {
            self.pass_over();
            self.skipping = self.skipping.saturating_add(1);
            return;
        }
        let value = if object { Value::Object(Vec::new()) } else { Value::List(Vec::new(), 0) };
        self.open.push(Open { value, keep: kept, name: Default::default() });
    }

    fn end(&mut self) {
        if self.skipping > 0 {
            self.skipping = self.skipping.saturating_sub(1);
        } else if let Some(open) = self.open.pop() {
            self.put(open.value);
        }
    }

    fn name(&mut self, name: &[u8]) {
        if self.skipping == 0
            && let Some(open) = self.open.last_mut()
        {
            let plain = String::from_utf8_lossy(&normal(name).collect::<Vec<u8>>()).into_owned();
            let kept = name.get(..self.name_room).unwrap_or(name).to_vec();
            self.cut |= kept.len() < name.len();
            self.name_room = self.name_room.saturating_sub(name.len());
            open.name = (kept, plain);
        }
    }

    fn text(&mut self, piece: &[u8]) {
        if self.skipping > 0 {
            return;
        }
        if self.string.is_none() {
            self.string = Some(match self.next() {
                Kept::Value | Kept::All => Reading::Plain(Capture::new(self.room)),
                Kept::Sql => Reading::Sql(Box::new(RedactedCapture::new(self.room))),
                Kept::Count | Kept::Skip => Reading::Skipped,
            });
        }
        if let Some(string) = &mut self.string {
            string.push(piece);
        }
    }

    fn text_end(&mut self) {
        // Where the string is empty no piece of it came.
        self.text(b"");
        let Some(string) = self.string.take() else { return };
        match string.finish() {
            None => self.pass_over(),
            Some(text) => {
                self.room = self.room.saturating_sub(text.captured.bytes.len());
                self.cut |= text.captured.full_length > text.captured.bytes.len() as u64;
                self.put(Value::Text(text));
            }
        }
    }

    fn word(&mut self, word: &[u8]) {
        match self.next() {
            Kept::Count | Kept::Skip => self.pass_over(),
            Kept::Value | Kept::All | Kept::Sql if word.len() > self.room => {
                self.cut = true;
                self.pass_over();
            }
            Kept::Value | Kept::All | Kept::Sql => {
                self.room = self.room.saturating_sub(word.len());
                self.put(Value::Word(word.to_vec()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
