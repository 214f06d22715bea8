//! Prepared statements and portals of one connection.
//!
//! Owns what is kept of each and how much of them together. The names are in [`super::names`].

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::{names::Meanings, render};
use crate::seam::{Captured, OpaqueReason, Parameter, ParameterFormat, Redaction};

/// Kept of a text that the cache has no room for, bytes.
const REMAINDER: usize = 256;
/// What a parameter costs apart from its bytes, roughly.
const PARAMETER_OVERHEAD: usize = 64;

/// Bytes that may be kept; given back when what they were kept for is dropped.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    used: Arc<AtomicUsize>,
    limit: usize,
}

#[derive(Debug)]
pub(super) struct Charge {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self { used: Arc::new(AtomicUsize::new(0)), limit }
    }

    pub(super) fn left(&self) -> usize {
        self.limit.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    pub(super) fn charge(&self, bytes: usize) -> Charge {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Charge { used: Arc::clone(&self.used), bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What a Parse defined.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) name: Vec<u8>,
    pub(super) text: Captured,
    pub(super) redactions: Vec<Redaction>,
    /// OIDs that the client gave; 0 where it left them to the server.
    declared: Vec<u32>,
    /// OIDs that the server told; `None` where there was no room for them.
    described: OnceLock<Option<(Vec<u32>, Charge)>>,
    partly: Option<OpaqueReason>,
    _charge: Charge,
}

impl Statement {
    pub(super) fn new(
        name: Vec<u8>,
        (mut text, mut redactions): (Captured, Vec<Redaction>),
        mut declared: Vec<u32>,
        budget: &Budget,
    ) -> Self {
        let mut partly = None;
        if size(&text, &redactions) > budget.left() {
            text = cut(text);
            redactions.retain(|redaction| {
                redaction.offset.saturating_add(redaction.length) <= text.bytes.len() as u64
            });
            partly = Some(OpaqueReason::Limit);
        }
        let kept = size(&text, &redactions).saturating_add(name.len());
        if kept.saturating_add(size_of_val(declared.as_slice())) > budget.left() {
            if !declared.is_empty() {
                partly = Some(OpaqueReason::Limit);
            }
            declared = Vec::new();
        }
        let charge = budget.charge(kept.saturating_add(size_of_val(declared.as_slice())));
        Self { name, text, redactions, declared, described: OnceLock::new(), partly, _charge: charge }
    }

    /// The server's ParameterDescription. A second one says the same.
    pub(super) fn describe(&self, oids: Vec<u32>, budget: &Budget) {
        self.described.get_or_init(|| {
            let bytes = size_of_val(oids.as_slice());
            (bytes <= budget.left()).then(|| (oids, budget.charge(bytes)))
        });
    }

    /// What is not kept of it.
    pub(super) fn partly(&self) -> Option<OpaqueReason> {
        let undescribed = matches!(self.described.get(), Some(None));
        self.partly.or(undescribed.then_some(OpaqueReason::Limit))
    }

    fn type_of(&self, index: usize) -> u32 {
        let declared = self.declared.get(index).copied().unwrap_or(0);
        if declared != 0 {
            return declared;
        }
        let described = self.described.get().and_then(Option::as_ref);
        described.and_then(|(oids, _)| oids.get(index)).copied().unwrap_or(0)
    }
}

/// Bytes that a text and what belongs to it take.
fn size(text: &Captured, redactions: &[Redaction]) -> usize {
    let tokens = text.tokens.iter().map(|token| token.secret.bytes().len()).sum::<usize>();
    text.bytes.len().saturating_add(tokens).saturating_add(size_of_val(redactions))
}

/// Keeps a beginning, the length and the digest.
fn cut(text: Captured) -> Captured {
    if text.full_sha256.is_none() {
        return crate::capture::capture(&text.bytes, REMAINDER);
    }
    let bytes = text.bytes.get(..REMAINDER).unwrap_or(&text.bytes).to_vec();
    Captured { bytes, tokens: Vec::new(), ..text }
}

/// A value as it was bound.
#[derive(Clone, Debug)]
pub(super) struct Argument {
    pub(super) format: ParameterFormat,
    pub(super) value: Option<Captured>,
}

/// What a Bind defined.
#[derive(Debug)]
pub(super) struct Portal {
    pub(super) name: Vec<u8>,
    pub(super) statement_name: Vec<u8>,
    pub(super) statement: Option<Arc<Statement>>,
    /// What the statement's name may have meant instead.
    pub(super) alternatives: Vec<Arc<Statement>>,
    pub(super) arguments: Vec<Argument>,
    partly: Option<OpaqueReason>,
    /// A further Execute goes on where the last one stopped.
    executed: AtomicBool,
    _charge: Charge,
}

impl Portal {
    pub(super) fn new(
        name: Vec<u8>,
        statement_name: Vec<u8>,
        bound: Meanings<Statement>,
        arguments: Arguments,
        partly: Option<OpaqueReason>,
    ) -> Self {
        let Meanings { likeliest: statement, others: alternatives, .. } = bound;
        let partly = partly.or(arguments.partly);
        Self {
            name,
            statement_name,
            statement,
            alternatives,
            arguments: arguments.list,
            partly,
            executed: AtomicBool::new(false),
            _charge: arguments.charge,
        }
    }

    /// Marks it executed; says whether it had been.
    pub(super) fn execute(&self) -> bool {
        self.executed.swap(true, Ordering::Relaxed)
    }

    /// What is not known or not kept of it and its statement.
    pub(super) fn partly(&self) -> Option<OpaqueReason> {
        self.partly.or_else(|| self.statement.as_ref().and_then(|statement| statement.partly()))
    }

    pub(super) fn parameters(&self) -> Vec<Parameter> {
        let mut parameters = Vec::with_capacity(self.arguments.len());
        for (index, argument) in self.arguments.iter().enumerate() {
            let type_oid = self.statement.as_ref().map_or(0, |statement| statement.type_of(index));
            parameters.push(parameter(type_oid, argument));
        }
        parameters
    }
}

fn parameter(type_oid: u32, argument: &Argument) -> Parameter {
    let rendered = argument
        .value
        .as_ref()
        .filter(|value| value.full_length == value.bytes.len() as u64)
        .and_then(|value| render::render(type_oid, argument.format, &value.bytes));
    Parameter {
        type_oid,
        format: argument.format,
        value: argument.value.clone(),
        rendered,
        ..Parameter::default()
    }
}

/// Parameters that belong to no portal: those of a FunctionCall.
pub(super) fn untyped(arguments: &[Argument]) -> Vec<Parameter> {
    arguments.iter().map(|argument| parameter(0, argument)).collect()
}

/// Bound values that are gathered within a limit on all of them together.
#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) list: Vec<Argument>,
    /// Where values are cut or left out because others are kept.
    pub(super) partly: Option<OpaqueReason>,
    room: usize,
    /// A value was left out, and so are all behind it: a value is known by its position.
    full: bool,
    budget: Budget,
    charge: Charge,
}

impl Arguments {
    pub(super) fn new(capture_bytes: usize, budget: &Budget) -> Self {
        Self {
            list: Vec::new(),
            partly: None,
            room: capture_bytes,
            full: false,
            budget: budget.clone(),
            charge: budget.charge(0),
        }
    }

    /// Bytes that may be kept of the next value.
    pub(super) fn room(&self) -> usize {
        self.room.min(self.budget.left().saturating_sub(PARAMETER_OVERHEAD))
    }

    /// The next value, cut at [`Arguments::room`].
    pub(super) fn push(&mut self, format: ParameterFormat, value: Option<Captured>) {
        let bytes = value.as_ref().map_or(0, |value| value.bytes.len());
        let cut = value.as_ref().is_some_and(|value| value.full_length > bytes as u64);
        let for_others = cut && bytes < self.room;
        self.room = self.room.saturating_sub(bytes);
        let cost = bytes.saturating_add(PARAMETER_OVERHEAD);
        self.full |= self.budget.left() < cost;
        if self.full || for_others {
            self.partly = Some(OpaqueReason::Limit);
        }
        if self.full {
            return;
        }
        self.budget.used.fetch_add(cost, Ordering::Relaxed);
        self.charge.bytes = self.charge.bytes.saturating_add(cost);
        self.list.push(Argument { format, value });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::capture;

    #[test]
    fn what_the_cache_has_no_room_for_is_kept_by_its_beginning_and_digest() {
        let budget = Budget::new(1000);
        let text = vec![b'a'; 900];
        let first = Statement::new(b"a".to_vec(), (capture(&text, 10_000), Vec::new()), Vec::new(), &budget);
        assert_eq!((first.text.bytes.len(), first.partly()), (900, None));
        let second = Statement::new(b"b".to_vec(), (capture(&text, 10_000), Vec::new()), Vec::new(), &budget);
        assert_eq!((second.text.bytes.len(), second.text.full_length), (REMAINDER, 900));
        assert!(second.text.full_sha256.is_some());
        assert_eq!(second.partly(), Some(OpaqueReason::Limit));
        drop((first, second));
        assert_eq!(budget.left(), 1000);
    }

    #[test]
    fn behind_a_value_that_there_is_no_room_for_none_takes_its_position() {
        let budget = Budget::new(300);
        let mut arguments = Arguments::new(1000, &budget);
        let push = |arguments: &mut Arguments, value: Option<&[u8]>| {
            let value = value.map(|value| capture(value, arguments.room()));
            arguments.push(ParameterFormat::Text, value);
            (arguments.list.len(), arguments.partly)
        };
        assert_eq!(push(&mut arguments, Some(b"first")), (1, None));
        let others = budget.charge(200);
        assert_eq!(push(&mut arguments, Some(b"second")), (1, Some(OpaqueReason::Limit)));
        drop(others);
        assert_eq!(push(&mut arguments, None), (1, Some(OpaqueReason::Limit)));
        assert_eq!(push(&mut arguments, Some(b"fourth")), (1, Some(OpaqueReason::Limit)));
        drop(arguments);
        assert_eq!(budget.left(), 300);
    }

    #[test]
    fn a_value_is_said_to_be_cut_where_others_take_its_room() {
        // What others left, of 1000; what the command may have; what there is of it then.
        for (left, capture_bytes, kept, partly) in [
            (1000, 1000, 500, None),
            (600, 1000, 500, None),
            (1000, 100, 100, None),
            (200, 1000, 136, Some(OpaqueReason::Limit)),
            (64, 1000, 0, Some(OpaqueReason::Limit)),
        ] {
            let budget = Budget::new(1000);
            let _others = budget.charge(1000 - left);
            let mut arguments = Arguments::new(capture_bytes, &budget);
            arguments.push(ParameterFormat::Text, Some(capture(&[b'x'; 500], arguments.room())));
            let value = arguments.list[0].value.as_ref().expect("not NULL");
            assert_eq!((value.bytes.len(), value.full_length, arguments.partly), (kept, 500, partly));
        }
    }

    #[test]
    fn types_that_the_cache_has_no_room_for_are_not_kept() {
        let budget = Budget::new(1000);
        let new = |types| Statement::new(b"name".to_vec(), (capture(b"x", 10), Vec::new()), types, &budget);
        let declared = new(vec![23; 200]);
        assert_eq!((declared.type_of(199), declared.partly(), budget.left()), (23, None, 195));
        let other = new(vec![23; 200]);
        assert_eq!((other.type_of(0), other.partly()), (0, Some(OpaqueReason::Limit)));
        let described = new(Vec::new());
        assert_eq!(described.partly(), None);
        described.describe(vec![25; 300], &budget);
        assert_eq!((described.type_of(0), described.partly()), (0, Some(OpaqueReason::Limit)));
        let fits = new(Vec::new());
        fits.describe(vec![25; 20], &budget);
        assert_eq!((fits.type_of(19), fits.partly(), budget.left()), (25, None, 100));
        drop((declared, other, described, fits));
        assert_eq!(budget.left(), 1000);
    }
}
