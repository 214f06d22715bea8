//! What the collector answers: the second of the three sets.

use anyhow::{Context as _, Result, bail};
use prost::Message as _;
use verbatim_api::v1::{self, Capture, Decision, OpaqueReason, Operation, ParameterFormat, Protocol, Status};

use crate::did;

/// One command as the collector returns it, in the terms of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// record_id of its start.
    pub record: Vec<u8>,
    /// Id of its connection.
    pub flow: Vec<u8>,
    /// When it started; wall clock, nanoseconds.
    pub wall_nanos: u64,
    /// Ids within the statement.
    pub ids: Vec<String>,
    /// Who.
    pub principal: String,
    /// Which protocol.
    pub protocol: Protocol,
    /// By which message.
    pub operation: Operation,
    /// The bytes that were kept.
    pub statement: Vec<u8>,
    /// How many there were.
    pub full_length: u64,
    /// Digest of all, where it was cut.
    pub full_sha256: Vec<u8>,
    /// How it ended.
    pub status: Status,
    /// Rows.
    pub rows: Option<u64>,
    /// SQLSTATE.
    pub sqlstate: String,
    /// Bound parameters, as a person would write them where that is known.
    pub parameters: Vec<Option<String>>,
    /// What was decided.
    pub decision: Decision,
    /// How much was understood.
    pub capture: Capture,
    /// Why not all.
    pub opaque_reason: OpaqueReason,
    /// Bytes from workload to server.
    pub bytes_sent: u64,
    /// Bytes from server to workload.
    pub bytes_received: u64,
    /// Namespace of the workload.
    pub namespace: String,
    /// Service account of the workload.
    pub service_account: String,
    /// Where it went, as dialled.
    pub target: v1::Target,
    /// Names and values that the protocol carried.
    pub attributes: Vec<v1::Attribute>,
    /// Codes of the server's notices.
    pub notices: Vec<String>,
    /// What Verbatim says about it.
    pub note: String,
    /// How it was left: the server's transaction state.
    pub transaction: v1::TransactionState,
    /// The API's method, e.g. `bigquery.jobs.query`; empty for SQL.
    pub method: String,
    /// What it acts on, by its name in the API.
    pub resource: String,
    /// HTTP status of the answer; 0 where there was none.
    pub http_status: u16,
    /// gRPC status of the answer.
    pub grpc_status: Option<u32>,
    /// record_id of the command that began what this one goes on with.
    pub parent: Vec<u8>,
    /// What is remarkable about it.
    pub findings: Vec<v1::CommandFinding>,
    /// Both legs of the connection, on records of connections.
    pub tls: Option<v1::Tls>,
}

impl Seen {
    /// From the Audit service's form. A command without a start is an error: nothing is to be guessed.
    pub fn from_command(command: &v1::Command) -> Result<Self> {
        let started = command.started.as_ref().context("a command without its STARTED envelope")?;
        let content = command.started_content.clone().context("a command without its STARTED content")?;
        let finished = command.finished.clone().unwrap_or_default();
        let after = command.finished_content.clone().unwrap_or_default();
        let statement = content.statement.unwrap_or_default();
        let workload = started.workload.clone().unwrap_or_default();
        let target = after.target.or(content.target).unwrap_or_default();
        if !command.started.iter().all(|envelope| envelope.record_id == command.id) {
            bail!("a command's id is not its STARTED record's");
        }
        let capture = match finished.capture() {
            Capture::Unspecified => started.capture(),
            capture => capture,
        };
        let opaque_reason = match finished.opaque_reason() {
            OpaqueReason::Unspecified => started.opaque_reason(),
            reason => reason,
        };
        Ok(Self {
            record: command.id.clone(),
            flow: started.flow_id.clone(),
            wall_nanos: started.wall_nanos,
            ids: ids(&statement.text, &target.resource, &content.attributes),
            principal: command.principal.clone(),
            // What a connection speaks, and to whom, is known when it has spoken: at its end.
            protocol: match finished.protocol() {
                Protocol::Unspecified => started.protocol(),
                protocol => protocol,
            },
            operation: started.operation(),
            full_length: statement.full_length,
            full_sha256: statement.full_sha256,
            statement: statement.text,
            status: command.status(),
            rows: command.ended.as_ref().and_then(|ended| ended.rows).or(finished.rows),
            sqlstate: finished.status_code.clone(),
            parameters: content.parameters.iter().map(parameter).collect(),
            decision: command.decision(),
            capture,
            opaque_reason,
            bytes_sent: finished.bytes_sent,
            bytes_received: finished.bytes_received,
            namespace: workload.namespace,
            service_account: workload.service_account,
            attributes: content.attributes.into_iter().chain(after.attributes).collect(),
            notices: after.notices.iter().map(|notice| notice.code.clone()).collect(),
            note: after.note,
            transaction: finished.transaction_state(),
            method: target.method.clone(),
            resource: target.resource.clone(),
            http_status: u16::try_from(finished.http_status).unwrap_or(u16::MAX),
            grpc_status: finished.grpc_status,
            parent: match finished.parent_command_id.is_empty() {
                true => started.parent_command_id.clone(),
                false => finished.parent_command_id.clone(),
            },
            findings: started.findings().chain(finished.findings()).collect(),
            tls: after.tls.or(content.tls),
            target,
        })
    }

    /// Verb and path of an HTTP request that no decoder knows more about.
    #[must_use]
    pub fn request(&self) -> String {
        let line = String::from_utf8_lossy(&self.statement);
        line.split('?').next().unwrap_or_default().to_owned()
    }

    /// Value of an attribute, as text.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<String> {
        self.attributes
            .iter()
            .find(|attribute| attribute.name == name)
            .map(|attribute| String::from_utf8_lossy(&attribute.value).into_owned())
    }
}

/// The lasting part of an entry.
pub fn envelope(entry: &v1::Entry) -> Result<v1::Envelope> {
    v1::Envelope::decode(entry.envelope.as_ref()).context("an entry whose envelope is none")
}

/// The other part of an entry.
pub fn content(entry: &v1::Entry) -> Result<v1::Content> {
    v1::Content::decode(entry.content.as_ref()).context("an entry whose content is none")
}

/// Ids within the statement; where there is none in it, within what a request says otherwise.
fn ids(statement: &[u8], resource: &str, attributes: &[v1::Attribute]) -> Vec<String> {
    let said = did::ids(statement);
    if !said.is_empty() {
        return said;
    }
    let values = attributes.iter().map(|attribute| attribute.value.as_ref());
    let mut found: Vec<String> =
        std::iter::once(resource.as_bytes()).chain(values).flat_map(did::ids).collect();
    found.sort();
    found.dedup();
    found
}

fn parameter(parameter: &v1::Parameter) -> Option<String> {
    let value = parameter.value.as_ref()?;
    if !parameter.rendered.is_empty() {
        return Some(parameter.rendered.clone());
    }
    if parameter.format() == ParameterFormat::Text {
        return Some(String::from_utf8_lossy(value).into_owned());
    }
    Some(value.iter().map(|byte| format!("{byte:02x}")).collect())
}
