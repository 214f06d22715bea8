//! What is kept of a connection of HTTP beside its commands: broken rules, dropped interim answers, and
//! exchanges that ended without saying so.

use std::{rc::Rc, sync::Arc};

use verbatim_api::v1;
use verbatim_wire::seam::{CommandId, Outcome, Status};

use super::{Journal, Open, Stall};
use crate::Records;

/// Broken rules that get a record each; more are counted.
const VIOLATIONS: u64 = 16;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The first broken rule.
    violation: Option<(v1::OpaqueReason, String)>,
    violations: u64,
    /// Interim answers that were dropped, by status: there are a hundred of them.
    interim: Vec<(u16, u64)>,
}

impl Seen {
    pub(super) fn violated(&self) -> Option<v1::OpaqueReason> {
        self.violation.as_ref().map(|(reason, _)| *reason)
    }

    /// What the closing record says, with the first broken rule.
    pub(super) fn note(&self, note: String) -> String {
        match &self.violation {
            None => note,
            Some((_, what)) if note.is_empty() => what.clone(),
            Some((_, what)) => format!("{note}; {what}"),
        }
    }

    pub(super) fn attributes(&self) -> Vec<v1::Attribute> {
        let attribute =
            |name: &str, value: String| v1::Attribute { name: name.to_owned(), value: value.into() };
        let mut attributes = Vec::new();
        if self.violations > 0 {
            attributes.push(attribute("http_violations", self.violations.to_string()));
        }
        if !self.interim.is_empty() {
            let counts: Vec<_> = self.interim.iter().map(|(status, n)| format!("{status}={n}")).collect();
            attributes.push(attribute("http_interim_dropped", counts.join(" ")));
        }
        attributes
    }
}

impl<R: Records> Journal<R> {
    /// Takes the journal out for a while. What stays knows of no command: whoever took it puts it back.
    pub(crate) fn take(&mut self) -> Self {
        let shell = Self::new(
            self.facts.shell(),
            Rc::clone(&self.spool),
            Arc::clone(&self.counters),
            Arc::clone(&self.policy),
            Arc::clone(&self.evidence),
            Arc::clone(&self.observer),
        );
        std::mem::replace(self, shell)
    }

    /// Records that a rule was broken.
    pub(crate) fn violated(&mut self, reason: v1::OpaqueReason, what: &str) -> Result<(), Stall> {
        if self.http.violations < VIOLATIONS {
            self.append(self.facts.violated(reason, what))?;
        }
        self.http.violations += 1;
        self.http.violation.get_or_insert_with(|| (reason, what.to_owned()));
        Ok(())
    }

    /// An interim answer was not passed on.
    pub(crate) fn interim_dropped(&mut self, status: u16) {
        let interim = &mut self.http.interim;
        match interim.iter_mut().find(|(known, _)| *known == status) {
            Some((_, count)) => *count += 1,
            None => interim.push((status, 1)),
        }
    }

    /// Records an end for every command in a range of ids that has none. When it cannot be now, those that
    /// are left stay open.
    pub(crate) fn cut_off(
        &mut self,
        ids: impl Fn(CommandId) -> bool,
        note: &'static str,
    ) -> Result<(), Stall> {
        while let Some(place) = self.open.iter().position(|open| ids(open.id))
            && let Some(mut open) = self.open.remove(place)
        {
            if let Err(stall) = self.end_without_answer(&mut open, note) {
                self.open.insert(place, open);
                return Err(stall);
            }
        }
        Ok(())
    }

    fn end_without_answer(&self, open: &mut Open, note: &'static str) -> Result<(), Stall> {
        open.note = note;
        if open.decision == v1::Decision::Held {
            self.abandoned(open, note)?;
            open.decision = v1::Decision::Abandoned;
        }
        let status = if open.released { Status::OutcomeUnknown } else { Status::NotForwarded };
        self.finish(open, &Outcome { status, ..Outcome::default() })
    }
}
