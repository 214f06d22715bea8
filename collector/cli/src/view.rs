//! Commands, sessions and findings as rows: the field names of JSON and CSV, and the table's cells.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use serde::Serialize;
use verbatim_api::v1;

pub(crate) mod coverage;
pub(crate) mod event;
mod place;
mod proof;
mod tls;

pub(crate) use self::{
    place::PlaceView,
    proof::{BehalfView, CredentialView, TraceView},
    tls::TlsView,
};
use crate::names::{self, Named};

/// A command as one JSON object. Bytes that are not UTF-8 come in a second field, `…Base64`, and nothing
/// is replaced silently.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CommandView {
    pub(crate) id: String,
    pub(crate) time: String,
    pub(crate) principal: String,
    pub(crate) principal_kind: String,
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) pod: String,
    pub(crate) pod_uid: String,
    pub(crate) container: String,
    pub(crate) node: String,
    #[serde(flatten)]
    pub(crate) place: PlaceView,
    pub(crate) service: String,
    pub(crate) address: String,
    pub(crate) port: u32,
    pub(crate) host: String,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) protocol: String,
    pub(crate) operation: String,
    pub(crate) method: String,
    pub(crate) resource: String,
    pub(crate) statement: Option<String>,
    pub(crate) statement_base64: Option<String>,
    pub(crate) statement_index: u32,
    pub(crate) statement_length: u64,
    pub(crate) statement_sha256: String,
    pub(crate) redactions: Vec<String>,
    pub(crate) statement_name: String,
    pub(crate) portal: String,
    pub(crate) parameters: Vec<ParameterView>,
    /// As the request carried them.
    pub(crate) attributes: Vec<AttributeView>,
    pub(crate) findings: Vec<String>,
    /// Whether what was presented is the workload's own.
    pub(crate) credential_match: String,
    pub(crate) credentials: Vec<CredentialView>,
    /// How well it is known on whose behalf.
    pub(crate) on_behalf_of_kind: String,
    /// Who is proven best comes first.
    pub(crate) on_behalf_of: Vec<BehalfView>,
    pub(crate) trace: Option<TraceView>,
    /// The command that began what this one goes on with.
    pub(crate) parent: String,
    pub(crate) decision: String,
    pub(crate) policy_mode: String,
    pub(crate) policy_version: String,
    pub(crate) policies: Vec<String>,
    pub(crate) reason: String,
    pub(crate) approver: String,
    pub(crate) approval_id: String,
    pub(crate) status: String,
    pub(crate) status_code: String,
    pub(crate) http_status: Option<u32>,
    pub(crate) grpc_status: Option<u32>,
    pub(crate) error: Option<MessageView>,
    pub(crate) notices: Vec<MessageView>,
    pub(crate) command_tag: String,
    pub(crate) rows: Option<u64>,
    /// As the answer carried them; of a job, also those of its end.
    pub(crate) outcome: Vec<AttributeView>,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) duration_nanos: u64,
    pub(crate) transaction_state: String,
    pub(crate) capture: String,
    pub(crate) opaque_reason: String,
    pub(crate) note: String,
    pub(crate) session: String,
    pub(crate) chain_id: String,
    pub(crate) sequence: u64,
    pub(crate) content_deleted: bool,
}

/// A name and its value.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttributeView {
    pub(crate) name: String,
    pub(crate) text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base64: Option<String>,
}

/// A bound parameter.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParameterView {
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    pub(crate) type_name: String,
    pub(crate) format: String,
    pub(crate) null: bool,
    pub(crate) text: Option<String>,
    pub(crate) base64: Option<String>,
    pub(crate) rendered: String,
    pub(crate) length: u64,
}

/// A server's error or notice.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageView {
    pub(crate) severity: String,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) detail: String,
    pub(crate) hint: String,
}

impl CommandView {
    pub(crate) fn new(command: &v1::Command) -> Self {
        let started = command.started.clone().unwrap_or_default();
        let finished = command.finished.clone().unwrap_or_default();
        let content = command.started_content.clone().unwrap_or_default();
        let end = command.finished_content.clone().unwrap_or_default();
        // Where the command began a job, what counts is how that ended.
        let last = command.ended.as_ref().unwrap_or(&finished);
        let last_content = command.ended_content.as_ref().unwrap_or(&end);
        let workload = started.workload.clone().unwrap_or_default();
        // What an undecoded connection speaks, and to whom, is known when it has spoken: at its end.
        let target = end.target.clone().or(content.target).unwrap_or_default();
        let protocol = match finished.protocol() {
            v1::Protocol::Unspecified => started.protocol(),
            protocol => protocol,
        };
        let statement = content.statement.unwrap_or_default();
        let verdict = content.verdict.unwrap_or_default();
        let (text, base64) = text_or_base64(&statement.text);
        Self {
            id: names::id(&command.id),
            time: time(started.wall_nanos),
            principal: command.principal.clone(),
            principal_kind: workload.principal_kind().short(),
            place: PlaceView::new(&workload, content.pod.as_ref()),
            namespace: workload.namespace,
            service_account: workload.service_account,
            pod: workload.pod_name,
            pod_uid: workload.pod_uid,
            container: workload.container,
            node: workload.node,
            service: target.service,
            address: target.address,
            port: target.port,
            host: target.host,
            database: target.database,
            user: target.user,
            protocol: protocol.short(),
            operation: started.operation().short(),
            method: target.method,
            resource: target.resource,
            statement: text,
            statement_base64: base64,
            statement_index: started.statement_index,
            statement_length: statement.full_length,
            statement_sha256: hex(&statement.full_sha256),
            redactions: statement.redactions.iter().map(|r| r.reason().short()).collect(),
            statement_name: lossy(&statement.statement_name),
            portal: lossy(&statement.portal_name),
            parameters: content.parameters.iter().map(ParameterView::new).collect(),
            attributes: content.attributes.iter().map(AttributeView::new).collect(),
            findings: started.findings().map(Named::short).collect(),
            credential_match: started.credential_match().short(),
            credentials: content.credentials.iter().map(CredentialView::new).collect(),
            on_behalf_of_kind: started.on_behalf_of_kind().short(),
            on_behalf_of: content.on_behalf_of.iter().map(BehalfView::new).collect(),
            trace: content.trace.as_ref().map(TraceView::new),
            parent: names::id(&started.parent_command_id),
            decision: command.decision().short(),
            policy_mode: started.policy_mode().short(),
            policy_version: started.policy_version.clone(),
            policies: verdict.policies,
            reason: verdict.reason,
            approver: verdict.approver,
            approval_id: verdict.approval_id,
            status: command.status().short(),
            status_code: last.status_code.clone(),
            http_status: Some(finished.http_status).filter(|status| *status != 0),
            grpc_status: finished.grpc_status,
            error: last_content.error.as_ref().map(MessageView::new),
            notices: end.notices.iter().map(MessageView::new).collect(),
            command_tag: end.command_tag.clone(),
            rows: last.rows.or(finished.rows),
            outcome: outcome(&end, command.ended_content.as_ref()),
            bytes_sent: finished.bytes_sent,
            bytes_received: finished.bytes_received,
            duration_nanos: command.duration_nanos,
            transaction_state: finished.transaction_state().short(),
            capture: match finished.capture() {
                v1::Capture::Unspecified => started.capture(),
                capture => capture,
            }
            .short(),
            opaque_reason: [started.opaque_reason(), finished.opaque_reason()]
                .iter()
                .map(|reason| reason.short())
                .find(|name| !name.is_empty())
                .unwrap_or_default(),
            note: [content.note, end.note.clone()]
                .into_iter()
                .filter(|n| !n.is_empty())
                .collect::<Vec<_>>()
                .join("; "),
            session: names::id(&started.flow_id),
            chain_id: names::id(&started.chain_id),
            sequence: started.sequence,
            content_deleted: command.content_deleted,
        }
    }

    /// Whether what was presented is the workload's own, in a word that stands out where it is not.
    pub(crate) fn own(&self) -> String {
        match self.credential_match.as_str() {
            "yes" => "own",
            "no" => "NOT-OWN",
            other => other,
        }
        .to_owned()
    }

    /// What a person reads in the last column.
    pub(crate) fn what(&self) -> String {
        if self.content_deleted {
            return "(content deleted)".to_owned();
        }
        let text = match (&self.statement, &self.statement_base64) {
            (Some(text), _) if !text.is_empty() => text.clone(),
            (_, Some(base64)) => format!("base64:{base64}"),
            _ if !self.resource.is_empty() => format!("{} {}", self.method, self.resource),
            _ if !self.method.is_empty() => format!("{} {}", self.method, self.host),
            _ if self.operation == "connect" => {
                let name = if self.host.is_empty() { &self.address } else { &self.host };
                format!("{name}:{} {}", self.port, self.opaque_reason)
            }
            _ => String::new(),
        };
        let mut what = text;
        if !self.parameters.is_empty() {
            let values: Vec<String> = self.parameters.iter().map(ParameterView::short).collect();
            what.push_str(&format!("  [{}]", values.join(", ")));
        }
        let failed = self.http_status.filter(|status| *status >= 400);
        if let Some(error) = &self.error {
            what.push_str(&format!("  -- {}: {}", error.code, error.message));
        } else if let Some(status) = failed {
            what.push_str(&format!("  -- HTTP {status}"));
        }
        what
    }
}

/// What the answer said, and after it what was said of the end of a job; the later of one name holds.
fn outcome(end: &v1::Content, ended: Option<&v1::Content>) -> Vec<AttributeView> {
    let later = ended.map(|content| content.attributes.as_slice()).unwrap_or_default();
    let earlier = end.attributes.iter().filter(|a| !later.iter().any(|l| l.name == a.name));
    earlier.chain(later).map(AttributeView::new).collect()
}

impl AttributeView {
    pub(crate) fn new(attribute: &v1::Attribute) -> Self {
        let (text, base64) = text_or_base64(&attribute.value);
        Self { name: attribute.name.clone(), text, base64 }
    }

    /// For a person.
    pub(crate) fn line(&self) -> String {
        match (&self.text, &self.base64) {
            (Some(text), _) => format!("{} = {text}", self.name),
            (None, base64) => format!("{} = base64:{}", self.name, base64.as_deref().unwrap_or_default()),
        }
    }
}

impl ParameterView {
    fn new(parameter: &v1::Parameter) -> Self {
        let (text, base64) = match &parameter.value {
            None => (None, None),
            Some(value) if parameter.format() == v1::ParameterFormat::Binary => {
                (None, Some(BASE64.encode(value)))
            }
            Some(value) => text_or_base64(value),
        };
        Self {
            name: parameter.name.clone(),
            type_oid: parameter.type_oid,
            type_name: parameter.type_name.clone(),
            format: parameter.format().short(),
            null: parameter.value.is_none(),
            text,
            base64,
            rendered: parameter.rendered.clone(),
            length: parameter.full_length,
        }
    }

    fn short(&self) -> String {
        let value = match (&self.text, &self.base64) {
            _ if self.null => "NULL".to_owned(),
            _ if !self.rendered.is_empty() => self.rendered.clone(),
            (Some(text), _) => text.clone(),
            (None, base64) => format!("base64:{}", base64.as_deref().unwrap_or_default()),
        };
        if self.name.is_empty() { value } else { format!("{}={value}", self.name) }
    }
}

impl MessageView {
    fn new(message: &v1::ServerMessage) -> Self {
        Self {
            severity: message.severity.clone(),
            code: message.code.clone(),
            message: lossy(&message.message),
            detail: lossy(&message.detail),
            hint: lossy(&message.hint),
        }
    }
}

/// A connection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionView {
    pub(crate) id: String,
    pub(crate) opened: String,
    pub(crate) closed: String,
    pub(crate) principal: String,
    pub(crate) address: String,
    pub(crate) port: u32,
    pub(crate) host: String,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) protocol: String,
    pub(crate) capture: String,
    pub(crate) opaque_reason: String,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) comm: String,
    pub(crate) executable: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) commands: u64,
    pub(crate) errors: u64,
    pub(crate) denied: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) tls: Option<TlsView>,
}

impl SessionView {
    pub(crate) fn new(session: &v1::Session) -> Self {
        let target = session.target.clone().unwrap_or_default();
        let client = session.client.clone().unwrap_or_default();
        Self {
            id: names::id(&session.flow_id),
            opened: time(session.opened_wall_nanos),
            closed: time(session.closed_wall_nanos),
            principal: session.principal.clone(),
            address: target.address,
            port: target.port,
            host: target.host,
            database: target.database,
            user: target.user,
            protocol: session.protocol().short(),
            capture: session.capture().short(),
            opaque_reason: session.opaque_reason().short(),
            pid: client.pid,
            uid: client.uid,
            comm: client.comm,
            executable: client.executable,
            arguments: client.arguments,
            commands: session.commands,
            errors: session.errors,
            denied: session.denied,
            bytes_sent: session.bytes_sent,
            bytes_received: session.bytes_received,
            tls: session.tls.as_ref().map(TlsView::new),
        }
    }
}

/// Something wrong with a chain.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FindingView {
    pub(crate) kind: String,
    pub(crate) chain_id: String,
    pub(crate) first_sequence: u64,
    pub(crate) last_sequence: u64,
    pub(crate) found: String,
    pub(crate) detail: String,
}

impl FindingView {
    pub(crate) fn new(finding: &v1::Finding) -> Self {
        Self {
            kind: finding.kind().short(),
            chain_id: names::id(&finding.chain_id),
            first_sequence: finding.first_sequence,
            last_sequence: finding.last_sequence,
            found: time(finding.found_wall_nanos),
            detail: finding.detail.clone(),
        }
    }
}

/// RFC 3339 in UTC with microseconds; empty for 0.
pub(crate) fn time(wall_nanos: u64) -> String {
    if wall_nanos == 0 {
        return String::new();
    }
    Timestamp::from_nanosecond(i128::from(wall_nanos)).map(|t| format!("{t:.6}")).unwrap_or_default()
}

/// A duration in the unit that fits: `412µs`, `3.1ms`, `2.50s`.
pub(crate) fn duration(nanos: u64) -> String {
    let value = nanos as f64;
    match nanos {
        0 => String::new(),
        1..1_000_000 => format!("{:.0}µs", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}ms", value / 1e6),
        _ => format!("{:.2}s", value / 1e9),
    }
}

fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &[u8]) -> v1::Command {
        v1::Command {
            started_content: Some(v1::Content {
                statement: Some(v1::Statement { text: text.to_vec(), ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_statement_that_is_not_utf8_is_given_as_base64_and_not_mangled() {
        let view = CommandView::new(&command(b"select '\xff'"));
        assert_eq!(view.statement, None);
        assert_eq!(BASE64.decode(view.statement_base64.unwrap()).unwrap(), b"select '\xff'");
    }

    #[test]
    fn an_error_and_parameters_stand_behind_the_statement() {
        let mut command = command(b"select $1");
        if let Some(content) = &mut command.started_content {
            content.parameters = vec![
                v1::Parameter { value: None, ..Default::default() },
                v1::Parameter { value: Some(b"x".to_vec()), ..Default::default() },
            ];
        }
        command.finished_content = Some(v1::Content {
            error: Some(v1::ServerMessage {
                code: "42P01".into(),
                message: b"gone".to_vec(),
                ..Default::default()
            }),
            ..Default::default()
        });
        assert_eq!(CommandView::new(&command).what(), "select $1  [NULL, x]  -- 42P01: gone");
    }

    #[test]
    fn a_job_is_shown_with_its_own_end_and_not_with_the_answer_that_began_it() {
        let attribute = |name: &str, value: &str| v1::Attribute { name: name.into(), value: value.into() };
        let content = |attributes| Some(v1::Content { attributes, ..Default::default() });
        let view = CommandView::new(&v1::Command {
            finished: Some(v1::Envelope { http_status: 200, rows: None, ..Default::default() }),
            finished_content: content(vec![attribute("job", "j"), attribute("state", "RUNNING")]),
            ended: Some(v1::Envelope { rows: Some(7), ..Default::default() }),
            ended_content: content(vec![attribute("state", "DONE")]),
            ..command(b"select 1")
        });
        let outcome: Vec<_> = view.outcome.iter().map(|a| (a.name.as_str(), a.text.as_deref())).collect();
        assert_eq!(outcome, [("job", Some("j")), ("state", Some("DONE"))]);
        assert_eq!((view.rows, view.http_status), (Some(7), Some(200)));
    }

    #[test]
    fn a_request_without_a_statement_is_shown_by_its_method_resource_and_failure() {
        let mut request = command(b"");
        if let Some(content) = &mut request.started_content {
            content.target = Some(v1::Target {
                method: "bigquery.tables.get".into(),
                resource: "projects/p/datasets/d/tables/t".into(),
                ..Default::default()
            });
        }
        request.finished = Some(v1::Envelope { http_status: 404, ..Default::default() });
        let what = CommandView::new(&request).what();
        assert_eq!(what, "bigquery.tables.get projects/p/datasets/d/tables/t  -- HTTP 404");
    }

    #[test]
    fn durations_are_written_in_the_unit_that_fits() {
        assert_eq!(duration(412_000), "412µs");
        assert_eq!(duration(3_100_000), "3.1ms");
        assert_eq!(duration(2_500_000_000), "2.50s");
        assert_eq!(duration(0), "");
    }
}
