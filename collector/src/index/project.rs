//! What a record says to an index. A pure function over the record's bytes.

use prost::Message as _;
use verbatim_api::v1::{
    self, Capture, FindingKind, Operation, PrincipalKind, RecordKind, Status, envelope::Detail,
};

use super::{
    Change, Id, Names, Part, Role, SessionPart,
    counts::{ChainPart, ChainStep, Reading, SeriesKey},
    events::EventRow,
    row::finding_bits,
};
use crate::log::Raw;

/// A record's part of what can be searched. Records that do not parse say nothing: that they do not is a
/// finding beside their batch.
#[must_use]
pub fn project(raw: &Raw) -> Vec<Change> {
    let Ok(envelope) = v1::Envelope::decode(raw.envelope.clone()) else { return Vec::new() };
    let Ok(id) = Id::try_from(envelope.record_id.as_slice()) else { return Vec::new() };
    let content = if raw.content.is_empty() { None } else { v1::Content::decode(raw.content.clone()).ok() };
    let record = Record { raw, id, envelope, content };
    match RecordKind::try_from(record.envelope.kind).unwrap_or(RecordKind::Unspecified) {
        RecordKind::Started => vec![record.command(id, Role::Started)],
        RecordKind::Decided => record.of_command(|r, id| vec![r.command(id, Role::Decided), r.extra(id)]),
        RecordKind::Finished => record.of_command(|r, id| vec![r.command(id, Role::Finished)]),
        RecordKind::Connection => record.connection(),
        RecordKind::Progress if record.ends_a_chain() => {
            record.of_command(|r, id| vec![r.command(id, Role::Ended)])
        }
        RecordKind::Gap => vec![record.not_recorded()],
        RecordKind::Coverage => record.coverage(),
        RecordKind::ChainOpened | RecordKind::Heartbeat | RecordKind::ChainClosed => record.chain(),
        RecordKind::Unspecified | RecordKind::Progress | RecordKind::Injected | RecordKind::Key => {
            record.beside()
        }
    }
}

struct Record<'a> {
    raw: &'a Raw,
    id: Id,
    envelope: v1::Envelope,
    content: Option<v1::Content>,
}

impl Record<'_> {
    fn content_gone(&self) -> bool {
        !self.envelope.content_sha256.is_empty() && self.raw.content.is_empty()
    }

    fn names(&self) -> Names {
        let workload = self.envelope.workload.clone().unwrap_or_default();
        let client = self.content.as_ref().and_then(|c| c.client.as_ref());
        let target = self.content.as_ref().and_then(|c| c.target.as_ref());
        let owner = self.content.as_ref().and_then(|c| c.pod.as_ref()).and_then(|pod| pod.owners.last());
        let principal = match client {
            _ if !workload.principal.is_empty() => workload.principal,
            Some(client) if !client.local_user.is_empty() => client.local_user.clone(),
            _ if workload.principal_kind == i32::from(PrincipalKind::Unresolved) => "unresolved".to_owned(),
            _ => String::new(),
        };
        Names {
            principal,
            namespace: workload.namespace,
            service_account: workload.service_account,
            pod_name: workload.pod_name,
            pod_uid: workload.pod_uid,
            service: target.map(|t| t.service.clone()).unwrap_or_default(),
            database: target.map(|t| t.database.clone()).unwrap_or_default(),
            cluster: workload.cluster,
            owner: owner.map(|owner| format!("{}/{}", owner.kind, owner.name)).unwrap_or_default(),
        }
    }

    fn of_command(&self, changes: impl Fn(&Self, Id) -> Vec<Change>) -> Vec<Change> {
        match Id::try_from(self.envelope.command_id.as_slice()) {
            Ok(id) => changes(self, id),
            // It says of no command how it went on: still not silent, it stands by itself.
            Err(_) => changes(self, self.id),
        }
    }

    /// Whether it says how what its command began has ended. What is said of a connection names that itself.
    fn ends_a_chain(&self) -> bool {
        let e = &self.envelope;
        let ended = e.status != i32::from(Status::Unspecified) && e.status != i32::from(Status::Pending);
        ended && !e.command_id.is_empty() && e.command_id != e.flow_id
    }

    fn extra(&self, owner: Id) -> Change {
        Change::Extra(owner, self.raw.location)
    }

    /// A record that is shown with the command or connection it names.
    fn beside(&self) -> Vec<Change> {
        let owner = [&self.envelope.command_id, &self.envelope.flow_id];
        owner
            .into_iter()
            .find_map(|o| Id::try_from(o.as_slice()).ok())
            .map(|o| self.extra(o))
            .into_iter()
            .collect()
    }

    fn command(&self, id: Id, role: Role) -> Change {
        let e = &self.envelope;
        let statement = self.content.as_ref().and_then(|c| c.statement.as_ref());
        let target = self.content.as_ref().and_then(|c| c.target.as_ref());
        let first = self.content.as_ref().and_then(|c| c.on_behalf_of.first());
        let resource = target.map(|t| t.resource.clone()).unwrap_or_default();
        let text = statement.map(|s| String::from_utf8_lossy(&s.text).into_owned());
        let text = text.filter(|text| !text.is_empty()).or_else(|| Some(resource.clone()));
        Change::Command(Box::new(Part {
            id,
            role,
            location: self.raw.location,
            flow: e.flow_id.clone(),
            names: self.names(),
            operation: e.operation,
            capture: e.capture,
            decision: e.decision,
            status: e.status,
            wall: match role {
                Role::Started => e.wall_nanos,
                Role::Decided | Role::Finished | Role::Ended => e.wall_nanos.saturating_sub(e.duration_nanos),
            },
            duration: e.duration_nanos,
            method: target.map(|t| t.method.clone()).unwrap_or_default(),
            resource,
            parent: e.parent_command_id.clone(),
            http_status: e.http_status,
            grpc_status: e.grpc_status,
            findings: finding_bits(&e.findings),
            resolution: e.workload.as_ref().map_or(0, |workload| workload.resolution),
            credential_match: e.credential_match,
            behalf: e.on_behalf_of_kind,
            on_behalf_of: first.map(|person| person.subject.clone()).unwrap_or_default(),
            text: text.filter(|text| role == Role::Started && !text.is_empty()),
            content_gone: self.content_gone(),
        }))
    }

    /// A connection's record. Where nothing was decoded, the connection is a command of its own, so that
    /// nothing is invisible among the commands.
    fn connection(&self) -> Vec<Change> {
        let e = &self.envelope;
        let flow = Id::try_from(e.flow_id.as_slice()).unwrap_or(self.id);
        let end = e.status != i32::from(Status::Pending);
        let mut changes = vec![Change::Session(Box::new(SessionPart {
            flow,
            end,
            location: self.raw.location,
            names: self.names(),
            wall: e.wall_nanos,
            protocol: e.protocol,
            capture: e.capture,
            reason: e.opaque_reason,
            node: e.workload.as_ref().map(|w| w.node.clone()).unwrap_or_default(),
            cgroup: e.workload.as_ref().map(|w| w.cgroup_id).unwrap_or_default(),
            series: e.connect_series,
            number: e.connect_number,
            boottime: e.boottime_nanos,
            bytes_sent: e.bytes_sent,
            bytes_received: e.bytes_received,
        }))];
        if e.capture == i32::from(Capture::SeenNotDecoded) {
            let role = if end { Role::Finished } else { Role::Started };
            if let Change::Command(mut part) = self.command(flow, role) {
                part.flow = flow.to_vec();
                part.operation = Operation::Connect.into();
                changes.push(Change::Command(part));
            }
        }
        changes
    }

    /// How far the chain has told; also what it begins and ends with.
    fn chain(&self) -> Vec<Change> {
        let e = &self.envelope;
        let Ok(chain) = Id::try_from(e.chain_id.as_slice()) else { return Vec::new() };
        let step = match &e.detail {
            Some(Detail::ChainOpened(opened)) => ChainStep::Opened {
                node: opened.node.clone(),
                boot: opened.boot_id.clone(),
                shard: opened.shard,
                predecessor: Id::try_from(opened.predecessor_chain_id.as_slice()).ok(),
            },
            Some(Detail::ChainClosed(_)) => ChainStep::Drained,
            _ => ChainStep::Alive,
        };
        let (sequence, position) = (e.sequence, self.raw.location.position);
        let part = ChainPart { chain, boottime: e.boottime_nanos, sequence, position, step };
        vec![Change::Chain(Box::new(part))]
    }

    fn coverage(&self) -> Vec<Change> {
        let e = &self.envelope;
        let (Some(Detail::Coverage(coverage)), Ok(chain)) = (&e.detail, Id::try_from(e.chain_id.as_slice()))
        else {
            return self.beside();
        };
        let workload = e.workload.clone().unwrap_or_default();
        if coverage.event() != v1::CoverageEvent::Connects {
            let names = self.names();
            return vec![Change::Event(Box::new(EventRow {
                key: 0,
                id: self.id,
                chain,
                event: coverage.event,
                principal: names.principal,
                namespace: names.namespace,
                service_account: names.service_account,
                pod_name: names.pod_name,
                pod_uid: names.pod_uid,
                cgroup: workload.cgroup_id,
                wall: e.wall_nanos,
                location: self.raw.location,
            }))];
        }
        vec![Change::Reading(Box::new(Reading {
            key: SeriesKey { node: workload.node, cgroup: workload.cgroup_id, series: e.connect_series },
            outcome: coverage.outcome,
            chain,
            sequence: e.sequence,
            location: self.raw.location,
            wall: e.wall_nanos,
            boottime: e.boottime_nanos,
            age: coverage.interval_nanos,
            connects: coverage.count,
            connected: coverage.connected,
        }))]
    }

    /// The node says itself that something went unrecorded.
    fn not_recorded(&self) -> Change {
        let e = &self.envelope;
        let gap = match &e.detail {
            Some(Detail::Gap(gap)) => *gap,
            _ => v1::Gap::default(),
        };
        Change::Finding {
            position: self.raw.location.position,
            finding: v1::Finding {
                kind: FindingKind::NotRecorded.into(),
                chain_id: e.chain_id.clone(),
                first_sequence: e.sequence,
                last_sequence: e.sequence,
                found_wall_nanos: e.wall_nanos,
                detail: format!(
                    "{}: {} records between {} and {} (nanoseconds since 1970)",
                    gap.reason().as_str_name(),
                    gap.count,
                    gap.from_wall_nanos,
                    gap.to_wall_nanos
                ),
            },
        }
    }
}
