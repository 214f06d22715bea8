//! What has begun and not ended, by the envelopes read so far; and the ends that a successor gives it.

use std::collections::{BTreeMap, HashSet};

use prost::Message;
use verbatim_api::v1;

use crate::{Draft, glance::Glance};

type Id = [u8; 16];

/// Commands and connections without an end. Chains may be read in any order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    /// By record id, which is about the order in which they began.
    open: BTreeMap<Id, Begun>,
    /// Decisions whose beginning was not read yet.
    decided: BTreeMap<Id, Vec<u8>>,
    /// Ends whose beginning was not read yet.
    ended: HashSet<Id>,
}

#[derive(Clone, Debug)]
struct Begun {
    envelope: Vec<u8>,
    /// Envelope of the decided record, where there is one.
    decided: Option<Vec<u8>>,
}

impl Pending {
    /// Takes one envelope into account. What cannot be read has neither begun nor ended anything.
    pub(crate) fn read(&mut self, envelope: &[u8]) {
        use v1::RecordKind as Kind;
        let Some(glance) = Glance::parse(envelope) else { return };
        match glance.kind() {
            Kind::Started => self.begin(glance.record_id, envelope),
            Kind::Connection if glance.status() == v1::Status::Pending => {
                self.begin(glance.record_id, envelope);
            }
            Kind::Finished => self.end(glance.command_id),
            Kind::Connection => self.end(glance.flow_id),
            Kind::Decided => self.decide(glance.command_id, envelope),
            _ => {}
        }
    }

    fn begin(&mut self, id: &[u8], envelope: &[u8]) {
        let Ok(id) = Id::try_from(id) else { return };
        let decided = self.decided.remove(&id);
        if !self.ended.remove(&id) {
            self.open.insert(id, Begun { envelope: envelope.to_vec(), decided });
        }
    }

    fn decide(&mut self, id: &[u8], envelope: &[u8]) {
        let Ok(id) = Id::try_from(id) else { return };
        match self.open.get_mut(&id) {
            Some(begun) => begun.decided = Some(envelope.to_vec()),
            None => drop(self.decided.insert(id, envelope.to_vec())),
        }
    }

    fn end(&mut self, id: &[u8]) {
        let Ok(id) = Id::try_from(id) else { return };
        self.decided.remove(&id);
        if self.open.remove(&id).is_none() {
            self.ended.insert(id);
        }
    }

    /// Nothing earlier will be read any more.
    pub(crate) fn forget_unmatched(&mut self) {
        self.ended.clear();
        self.decided.clear();
    }

    /// Envelopes of what is open, so that [`read`](Self::read) of them leads here again.
    pub(crate) fn envelopes(&self) -> impl Iterator<Item = &[u8]> {
        self.open
            .values()
            .flat_map(|begun| [Some(&begun.envelope), begun.decided.as_ref()])
            .flatten()
            .map(Vec::as_slice)
    }

    /// The records that end what is open, in the order in which it began.
    pub(crate) fn ends(self) -> impl Iterator<Item = Draft> {
        self.open.into_values().filter_map(|begun| begun.end())
    }
}

impl Begun {
    fn end(self) -> Option<Draft> {
        let begun = v1::Envelope::decode(&*self.envelope).ok()?;
        let decided = self.decided.as_deref().and_then(Glance::parse).map(|glance| glance.decision());
        let (decision, status, note) = outcome(begun.decision(), decided);
        let connection = begun.kind() == v1::RecordKind::Connection;
        let (kind, flow_id, command_id) = match connection {
            true => (v1::RecordKind::Connection, begun.record_id, Vec::new()),
            false => (v1::RecordKind::Finished, begun.flow_id, begun.record_id),
        };
        let envelope = v1::Envelope {
            kind: kind.into(),
            flow_id,
            command_id,
            workload: begun.workload,
            protocol: begun.protocol,
            operation: begun.operation,
            capture: begun.capture,
            opaque_reason: begun.opaque_reason,
            statement_index: begun.statement_index,
            decision: decision.into(),
            policy_mode: begun.policy_mode,
            policy_version: begun.policy_version,
            status: status.into(),
            ..Default::default()
        };
        let content = v1::Content { note: note.into(), ..Default::default() };
        Some(Draft { envelope, content: Some(content) })
    }
}

/// What can be said of something whose node agent died: decision, status, and a note for a person.
fn outcome(began: v1::Decision, decided: Option<v1::Decision>) -> (v1::Decision, v1::Status, &'static str) {
    use v1::{Decision as D, Status as S};
    const HELD: &str = "the node agent died while this command was held: it was not forwarded";
    const REFUSED: &str = "the node agent died after this command was refused: it was not forwarded";
    const UNKNOWN: &str = "the node agent died before the end of this: whether it was carried out is unknown";
    match (decided, began) {
        // A decision is spooled before the command is released: without one it was not.
        (None, D::Held) => (D::Abandoned, S::NotForwarded, HELD),
        (Some(refused @ (D::Denied | D::Expired | D::Abandoned)), _)
        | (None, refused @ (D::Denied | D::Expired | D::Abandoned)) => (refused, S::NotForwarded, REFUSED),
        (Some(decision), _) | (None, decision) => (decision, S::OutcomeUnknown, UNKNOWN),
    }
}
