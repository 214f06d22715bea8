//! Puts a tree together from what is read, within its bounds.

use super::{Keep, Kept, Text, Value, normal};
use crate::{
    capture::Capture,
    message::{json::lexer::Events, redact::RedactedCapture},
};

/// Values kept of one text.
const MAX_VALUES: usize = 20_000;

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

/// What was read and kept.
pub(super) struct Nodes {
    keep: Keep,
    /// Bytes of texts that may still be kept, and of names.
    room: usize,
    name_room: usize,
    values: usize,
    /// More was wanted than is kept.
    pub(super) cut: bool,
    open: Vec<Open>,
    /// Open objects and arrays within a value that is not kept.
    skipping: usize,
    string: Option<Reading>,
    root: Value,
}

impl Nodes {
    pub(super) fn new(keep: Keep, limit: usize) -> Self {
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

    /// The whole, or as much of it as there is.
    pub(super) fn so_far(&self) -> Value {
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
