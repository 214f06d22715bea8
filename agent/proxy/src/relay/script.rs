//! The edit script of one direction: what is to become of its input, in order.

use std::collections::VecDeque;

use verbatim_wire::seam::Edit;

/// Edits not carried out yet. Neighbours of one kind are one edit, so that several messages go out in
/// one write.
#[derive(Debug, Default)]
pub(super) struct Script {
    edits: VecDeque<Edit>,
    /// Bytes of the first edit, an insertion, that are written already.
    inserted: usize,
}

/// The next thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// Write so many bytes of the input, at most.
    Forward(u64),
    /// Drop so many bytes of the input, at most.
    Drop(u64),
    /// Write these bytes.
    Insert(&'a [u8]),
    /// Close the leg toward the server.
    Close,
}

impl Script {
    pub(super) fn push(&mut self, edit: Edit) {
        match (self.edits.back_mut(), edit) {
            (_, Edit::Forward(0) | Edit::Drop(0)) => {}
            (Some(Edit::Forward(n)), Edit::Forward(more)) => *n = n.saturating_add(more),
            (Some(Edit::Drop(n)), Edit::Drop(more)) => *n = n.saturating_add(more),
            (Some(Edit::Insert(bytes)), Edit::Insert(more)) => bytes.extend_from_slice(&more),
            (_, Edit::Insert(bytes)) if bytes.is_empty() => {}
            (_, edit) => self.edits.push_back(edit),
        }
    }

    pub(super) fn step(&self) -> Option<Step<'_>> {
        Some(match self.edits.front()? {
            Edit::Forward(n) => Step::Forward(*n),
            Edit::Drop(n) => Step::Drop(*n),
            Edit::Insert(bytes) => Step::Insert(bytes.get(self.inserted..).unwrap_or_default()),
            Edit::Close => Step::Close,
        })
    }

    /// So many bytes of the step are done; a close counts as one.
    pub(super) fn done(&mut self, bytes: usize) {
        let finished = match self.edits.front_mut() {
            // Without end: never used up.
            Some(Edit::Forward(u64::MAX)) | None => false,
            Some(Edit::Forward(n) | Edit::Drop(n)) => {
                *n = n.saturating_sub(bytes as u64);
                *n == 0
            }
            Some(Edit::Insert(whole)) => {
                self.inserted += bytes;
                self.inserted >= whole.len()
            }
            Some(Edit::Close) => true,
        };
        if finished {
            self.edits.pop_front();
            self.inserted = 0;
        }
    }

    /// Nothing but forwarding without end is left.
    pub(super) fn is_endless(&self) -> bool {
        self.edits.len() == 1 && self.edits.front() == Some(&Edit::Forward(u64::MAX))
    }

    /// There is no destination any more.
    pub(super) fn clear(&mut self) {
        let close = self.edits.contains(&Edit::Close);
        self.edits.clear();
        self.inserted = 0;
        if close {
            self.edits.push_back(Edit::Close);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_kind_are_one_step_and_empty_edits_none() {
        let mut script = Script::default();
        for edit in [
            Edit::Forward(3),
            Edit::Forward(0),
            Edit::Forward(4),
            Edit::Insert(b"ab".to_vec()),
            Edit::Insert(Vec::new()),
            Edit::Insert(b"c".to_vec()),
            Edit::Drop(1),
            Edit::Drop(1),
            Edit::Close,
        ] {
            script.push(edit);
        }
        assert_eq!(script.step(), Some(Step::Forward(7)));
        script.done(7);
        script.done(1);
        assert_eq!(script.step(), Some(Step::Insert(b"bc")));
        script.done(2);
        script.done(1);
        assert_eq!(script.step(), Some(Step::Drop(1)));
        script.done(1);
        assert_eq!(script.step(), Some(Step::Close));
        script.done(1);
        assert_eq!(script.step(), None);
    }

    #[test]
    fn forwarding_without_end_swallows_what_it_follows_and_is_never_used_up() {
        let mut script = Script::default();
        script.push(Edit::Forward(5));
        script.push(Edit::Forward(u64::MAX));
        script.done(1_000_000);
        assert!(script.is_endless());
    }
}
