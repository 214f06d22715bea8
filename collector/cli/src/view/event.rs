//! What agents tell of themselves, as rows.

use serde::Serialize;
use verbatim_api::v1;

use super::time;
use crate::names::{self, Named};

/// See [`v1::CoverageEvent`].
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventView {
    pub(crate) id: String,
    pub(crate) time: String,
    pub(crate) node: String,
    pub(crate) event: String,
    pub(crate) count: u64,
    pub(crate) principal: String,
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) pod: String,
    pub(crate) pod_uid: String,
    pub(crate) container: String,
    /// Only of a workload that nobody could name.
    pub(crate) cgroup_id: Option<u64>,
    pub(crate) cgroup: String,
    /// Process id of the caller, where it is known.
    pub(crate) pid: Option<u32>,
    /// Where to.
    pub(crate) address: String,
    pub(crate) port: u32,
    /// IP protocol number.
    pub(crate) protocol: Option<u32>,
    /// Of a connection to our listener that nobody steered.
    pub(crate) source_address: String,
    pub(crate) source_port: u32,
    /// Of a bypass.
    pub(crate) reason: String,
    pub(crate) by: String,
    pub(crate) until: String,
    pub(crate) ended: String,
    pub(crate) note: String,
    pub(crate) chain_id: String,
    pub(crate) sequence: u64,
    pub(crate) content_deleted: bool,
}

impl EventView {
    pub(crate) fn new(event: &v1::Event) -> Self {
        let envelope = event.envelope.clone().unwrap_or_default();
        let content = event.content.clone().unwrap_or_default();
        let coverage = match envelope.detail {
            Some(v1::envelope::Detail::Coverage(coverage)) => coverage,
            _ => v1::Coverage::default(),
        };
        let workload = envelope.workload.unwrap_or_default();
        let unresolved = workload.principal_kind() == v1::PrincipalKind::Unresolved;
        let (client, target) = (content.client.unwrap_or_default(), content.target.unwrap_or_default());
        let bypass = content.bypass.unwrap_or_default();
        let by = match bypass.login.as_str() {
            "" => bypass.user,
            login => format!("{login} as {}", bypass.user),
        };
        Self {
            id: names::id(&envelope.record_id),
            time: time(envelope.wall_nanos),
            node: event.node.clone(),
            event: coverage.event().short(),
            count: coverage.count,
            principal: event.principal.clone(),
            namespace: workload.namespace,
            service_account: workload.service_account,
            pod: workload.pod_name,
            pod_uid: workload.pod_uid,
            container: workload.container,
            cgroup_id: Some(workload.cgroup_id).filter(|_| unresolved),
            cgroup: client.cgroup,
            pid: Some(client.pid).filter(|pid| *pid != 0),
            address: target.address,
            port: target.port,
            protocol: Some(coverage.protocol_number).filter(|number| *number != 0),
            source_address: client.source_address,
            source_port: client.source_port,
            reason: bypass.reason,
            by,
            until: time(coverage.until_wall_nanos),
            ended: bypass.end,
            note: content.note,
            chain_id: names::id(&envelope.chain_id),
            sequence: envelope.sequence,
            content_deleted: event.content_deleted,
        }
    }

    /// For a person; a number that nobody needs a name of stays one.
    pub(crate) fn protocol_name(&self) -> String {
        match self.protocol {
            None => String::new(),
            Some(1) => "icmp".to_owned(),
            Some(6) => "tcp".to_owned(),
            Some(17) => "udp".to_owned(),
            Some(132) => "sctp".to_owned(),
            Some(255) => "raw".to_owned(),
            Some(256) => "smc".to_owned(),
            Some(number) => number.to_string(),
        }
    }

    pub(crate) fn destination(&self) -> String {
        place(&self.address, self.port)
    }

    /// What there is to say beyond the columns.
    pub(crate) fn detail(&self) -> String {
        let mut parts = Vec::new();
        if self.content_deleted {
            parts.push("(content deleted)".to_owned());
        }
        if !self.reason.is_empty() {
            parts.push(format!("by {} until {}: {}", self.by, self.until, self.reason));
        }
        if !self.ended.is_empty() {
            parts.push(format!("ended {}", self.ended));
        }
        if !self.source_address.is_empty() {
            parts.push(format!("from {}", place(&self.source_address, self.source_port)));
        }
        if let Some(pid) = self.pid {
            parts.push(format!("process {pid}"));
        }
        parts.extend(Some(self.note.clone()).filter(|note| !note.is_empty()));
        parts.join("; ")
    }
}

fn place(address: &str, port: u32) -> String {
    match address {
        "" => String::new(),
        address if address.contains(':') => format!("[{address}]:{port}"),
        address => format!("{address}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bypass_says_who_why_until_when_and_how_it_ended() {
        let bypass = v1::Bypass {
            reason: "the database is down".into(),
            user: "root".into(),
            login: "ada".into(),
            end: "by itself".into(),
            ..v1::Bypass::default()
        };
        let event = v1::Event {
            envelope: Some(v1::Envelope {
                detail: Some(v1::envelope::Detail::Coverage(v1::Coverage {
                    event: v1::CoverageEvent::BypassEnded.into(),
                    count: 3,
                    until_wall_nanos: 1_790_000_000_000_000_000,
                    ..v1::Coverage::default()
                })),
                ..v1::Envelope::default()
            }),
            content: Some(v1::Content { bypass: Some(bypass), ..v1::Content::default() }),
            ..v1::Event::default()
        };
        let view = EventView::new(&event);
        assert_eq!((view.event.as_str(), view.count), ("bypass-ended", 3));
        let said = view.detail();
        assert!(said.starts_with("by ada as root until 2026-"), "{said}");
        assert!(said.ends_with("the database is down; ended by itself"), "{said}");
    }

    #[test]
    fn a_refusal_says_whose_it_was_and_where_it_went() {
        let event = v1::Event {
            envelope: Some(v1::Envelope {
                workload: Some(v1::Workload {
                    principal_kind: v1::PrincipalKind::Unresolved.into(),
                    cgroup_id: 9,
                    ..v1::Workload::default()
                }),
                detail: Some(v1::envelope::Detail::Coverage(v1::Coverage {
                    event: v1::CoverageEvent::QuicDenied.into(),
                    count: 2,
                    protocol_number: 17,
                    ..v1::Coverage::default()
                })),
                ..v1::Envelope::default()
            }),
            content: Some(v1::Content {
                target: Some(v1::Target { address: "fd00::1".into(), port: 443, ..v1::Target::default() }),
                client: Some(v1::Client { pid: 7, ..v1::Client::default() }),
                ..v1::Content::default()
            }),
            principal: "unresolved".into(),
            ..v1::Event::default()
        };
        let view = EventView::new(&event);
        assert_eq!((view.cgroup_id, view.protocol_name().as_str()), (Some(9), "udp"));
        assert_eq!((view.destination().as_str(), view.detail().as_str()), ("[fd00::1]:443", "process 7"));
    }
}
