//! From what was seen to what is kept: builds the drafts of every kind of record.
//!
//! Owns which field says what. Knows no socket and never appends.

use std::{cell::OnceCell, net::SocketAddr, sync::Arc};

use verbatim_api::v1;
use verbatim_spool::{Common, Draft};
use verbatim_wire::{seam, text_without_tokens, without_tokens};

use crate::{
    chains::Begun,
    guard,
    seam::{Evidence, Flow, Grounds, Identity, Proof, Session, Whom},
};

mod convert;

use convert::{attributes, finding, parameter, server_message, statement, transaction};
pub(crate) use convert::{opaque_reason, operation, status};

/// Session parameters kept for the connection's closing record.
const ATTRIBUTES: usize = 32;
/// Bytes of each.
const ATTRIBUTE_BYTES: usize = 512;

/// What is the same in all records of a connection.
pub(crate) struct Facts {
    pub(crate) flow: Flow,
    pub(crate) identity: Arc<Identity>,
    pub(crate) client: v1::Client,
    pub(crate) policy_mode: v1::PolicyMode,
    pub(crate) protocol: v1::Protocol,
    /// As in the target.
    pub(crate) service: &'static str,
    /// record_id of the opening record; empty where that was shed.
    pub(crate) flow_id: Vec<u8>,
    pub(crate) workload: v1::Workload,
    pub(crate) target: v1::Target,
    /// What was agreed on in TLS, where we end it.
    pub(crate) tls: Option<v1::Tls>,
    /// The server has let the client in.
    pub(crate) accepted: bool,
    attributes: Vec<v1::Attribute>,
    /// What the session's start proves; made when it is asked for.
    session: OnceCell<SessionProof>,
    /// What the starts of all commands say alike; made when the first one comes.
    common: OnceCell<Common>,
}

impl Facts {
    pub(crate) fn new(
        flow: Flow,
        identity: Arc<Identity>,
        client: v1::Client,
        policy_mode: v1::PolicyMode,
    ) -> Self {
        let mut workload = identity.workload.clone();
        workload.cgroup_id = flow.cgroup_id;
        let target = v1::Target {
            address: flow.destination.ip().to_string(),
            port: u32::from(flow.destination.port()),
            ..v1::Target::default()
        };
        Self {
            flow,
            identity,
            client,
            policy_mode,
            protocol: v1::Protocol::Unspecified,
            service: "",
            flow_id: Vec::new(),
            workload,
            target,
            tls: None,
            accepted: false,
            attributes: Vec::new(),
            session: OnceCell::new(),
            common: OnceCell::new(),
        }
    }

    /// As much as the records of the connection need to belong to it.
    pub(crate) fn shell(&self) -> Self {
        let flow_id = self.flow_id.clone();
        let identity = Arc::clone(&self.identity);
        Self { flow_id, ..Self::new(self.flow.clone(), identity, v1::Client::default(), self.policy_mode) }
    }

    /// Takes up what the first bytes told.
    pub(crate) fn detected(&mut self, protocol: v1::Protocol, service: &'static str, host: Option<String>) {
        self.protocol = protocol;
        self.service = service;
        self.target.service = service.to_owned();
        self.target.host = host.unwrap_or_default();
    }

    /// Takes up what became known about the session. Keys for cancelling are not for the record.
    pub(crate) fn learn(&mut self, fact: seam::SessionFact) {
        self.common.take();
        self.session.take();
        match fact {
            seam::SessionFact::User(user) => self.target.user = text_without_tokens(&text(&user)),
            seam::SessionFact::Database(database) => {
                self.target.database = text_without_tokens(&text(&database))
            }
            seam::SessionFact::Parameter(name, value) => {
                let mut value = without_tokens(&value).into_owned();
                value.truncate(ATTRIBUTE_BYTES);
                let name = text(name.get(..ATTRIBUTE_BYTES).unwrap_or(&name));
                let full = self.attributes.len() >= ATTRIBUTES;
                match self.attributes.iter_mut().find(|attribute| attribute.name == name) {
                    Some(attribute) => attribute.value = value,
                    None if full => {}
                    None => self.attributes.push(v1::Attribute { name, value }),
                }
            }
            seam::SessionFact::CancelKey { .. }
            | seam::SessionFact::CancelRequest { .. }
            | seam::SessionFact::BindsChannel => {}
        }
    }

    /// What the session's start proves.
    pub(crate) fn session(&self, evidence: &dyn Evidence) -> &SessionProof {
        self.session.get_or_init(|| {
            let name = self.attributes.iter().find(|attribute| attribute.name == "application_name");
            let session = Session {
                user: &self.target.user,
                application_name: name.map(|name| name.value.as_slice()).unwrap_or_default(),
                accepted: self.accepted,
            };
            let proof = guard::catch(|| evidence.of_session(self.whom(), session)).unwrap_or_default();
            let Proof { credentials, matches, findings, .. } = proof;
            let presented = Proof { credentials, matches, findings, ..Proof::default() };
            let behalf = Proof {
                on_behalf_of: proof.on_behalf_of,
                behalf: proof.behalf,
                trace: proof.trace,
                ..Proof::default()
            };
            SessionProof { presented, behalf }
        })
    }

    pub(crate) fn whom(&self) -> Whom<'_> {
        Whom { identity: &self.identity, flow: &self.flow }
    }

    /// As of a connection: with its place among those that the kernel counted.
    fn connection(&self) -> v1::Envelope {
        v1::Envelope {
            workload: Some(self.workload.clone()),
            connect_series: self.flow.connect_series,
            connect_number: self.flow.connect_number,
            ..self.envelope(v1::RecordKind::Connection)
        }
    }

    fn envelope(&self, kind: v1::RecordKind) -> v1::Envelope {
        v1::Envelope {
            kind: kind.into(),
            flow_id: self.flow_id.clone(),
            protocol: self.protocol.into(),
            ..v1::Envelope::default()
        }
    }

    /// A connection was accepted and is about to be dialled.
    pub(crate) fn opened(&self) -> Draft {
        let mut envelope = self.connection();
        envelope.status = v1::Status::Pending.into();
        let content = v1::Content {
            target: Some(self.target.clone()),
            client: Some(self.client.clone()),
            pod: self.pod(),
            ..v1::Content::default()
        };
        Draft { envelope, content: Some(content) }
    }

    fn pod(&self) -> Option<v1::Pod> {
        self.identity.pod.as_deref().cloned()
    }

    /// From here on the connection passes undecoded.
    pub(crate) fn undecoded(&self, capture: v1::Capture, reason: v1::OpaqueReason) -> Draft {
        let mut envelope = self.envelope(v1::RecordKind::Progress);
        envelope.command_id.clone_from(&self.flow_id);
        envelope.workload = Some(self.workload.clone());
        envelope.operation = v1::Operation::Connect.into();
        envelope.capture = capture.into();
        envelope.opaque_reason = reason.into();
        envelope.status = v1::Status::Pending.into();
        let content = v1::Content { target: Some(self.target.clone()), ..v1::Content::default() };
        Draft { envelope, content: Some(content) }
    }

    /// The connection has ended.
    pub(crate) fn closed(&self, closing: &Closing, presented: &Proof) -> Draft {
        let mut envelope = self.connection();
        envelope.credential_match = presented.matches.into();
        envelope.findings = presented.findings.iter().map(|finding| (*finding).into()).collect();
        if closing.reason.is_some() {
            envelope.operation = v1::Operation::Connect.into();
        }
        envelope.capture = closing.capture.into();
        envelope.opaque_reason = closing.reason.unwrap_or_default().into();
        envelope.status = closing.status.into();
        envelope.duration_nanos = closing.duration_nanos;
        envelope.bytes_sent = closing.bytes_sent;
        envelope.bytes_received = closing.bytes_received;
        let content = v1::Content {
            target: Some(self.target.clone()),
            client: Some(self.client.clone()),
            attributes: self.attributes.iter().chain(&closing.attributes).cloned().collect(),
            note: closing.note.clone(),
            tls: self.tls.clone(),
            credentials: presented.credentials.clone(),
            ..v1::Content::default()
        };
        Draft { envelope, content: Some(content) }
    }

    /// What [`Facts::started`] leaves out, because it is the same for every command of the connection.
    pub(crate) fn common(&self, evidence: &dyn Evidence) -> &Common {
        self.common.get_or_init(|| {
            let Proof { credentials, matches, findings, .. } = &self.session(evidence).presented;
            let workload = Some(self.workload.clone());
            let target = v1::Target {
                address: self.target.address.clone(),
                port: self.target.port,
                database: self.target.database.clone(),
                user: self.target.user.clone(),
                ..v1::Target::default()
            };
            let envelope = v1::Envelope {
                workload,
                credential_match: (*matches).into(),
                findings: findings.iter().map(|finding| (*finding).into()).collect(),
                ..v1::Envelope::default()
            };
            let (target, client) = (Some(target), Some(self.caller()));
            let (pod, credentials) = (self.pod(), credentials.clone());
            let content = v1::Content { target, client, pod, credentials, ..v1::Content::default() };
            Common::new(&envelope, &content)
        })
    }

    /// A command was read whole and has not gone upstream; without what [`Facts::common`] says.
    pub(crate) fn started(&self, start: &Start<'_>) -> Draft {
        let command = start.command;
        let (capture, reason) = captured(command);
        let mut envelope = self.envelope(v1::RecordKind::Started);
        envelope.operation = operation(command.operation).into();
        envelope.capture = capture.into();
        envelope.opaque_reason = reason.into();
        envelope.statement_index = command.statement_index;
        envelope.decision = start.decision.into();
        envelope.policy_mode = self.policy_mode.into();
        envelope.policy_version = start.policy_version.to_owned();
        envelope.status = v1::Status::Pending.into();
        envelope.parent_command_id = start.parent.to_vec();
        let proof = start.proof;
        let found =
            command.findings.iter().map(|found| finding(*found)).chain(proof.findings.iter().copied());
        envelope.findings = found.map(Into::into).collect();
        envelope.credential_match = proof.matches.into();
        envelope.on_behalf_of_kind = proof.behalf.into();
        let content = v1::Content {
            statement: Some(statement(command)),
            parameters: command.parameters.iter().map(parameter).collect(),
            target: Some(self.target_of(command, start.place)),
            attributes: attributes(&command.attributes),
            verdict: verdict(start.grounds),
            credentials: proof.credentials.clone(),
            on_behalf_of: proof.on_behalf_of.clone(),
            trace: proof.trace.clone(),
            ..v1::Content::default()
        };
        Draft { envelope, content: Some(content) }
    }

    fn target_of(&self, command: &seam::Command, place: Option<&Place>) -> v1::Target {
        let (service, host) = match place {
            Some(place) => (place.service, &place.host),
            None => (self.service, &self.target.host),
        };
        v1::Target {
            service: service.to_owned(),
            host: host.clone(),
            method: text_without_tokens(&command.method),
            resource: text_without_tokens(&command.resource),
            ..v1::Target::default()
        }
    }

    /// Who called, in short: a command's record names its workload by itself, also where the principal is
    /// local and so stands in the content. The rest is in the connection's record.
    fn caller(&self) -> v1::Client {
        let Self { client, .. } = self;
        v1::Client {
            pid: client.pid,
            uid: client.uid,
            gid: client.gid,
            comm: client.comm.clone(),
            local_user: client.local_user.clone(),
            ..v1::Client::default()
        }
    }

    /// The rest of a command that was recorded by its first part: its length and digest.
    pub(crate) fn rest(&self, command_id: &[u8], command: &seam::Command) -> Draft {
        let mut envelope = self.envelope(v1::RecordKind::Progress);
        envelope.command_id = command_id.to_vec();
        envelope.operation = operation(command.operation).into();
        envelope.status = v1::Status::Pending.into();
        let whole = v1::Statement { text: Vec::new(), redactions: Vec::new(), ..statement(command) };
        let content = v1::Content { statement: Some(whole), ..v1::Content::default() };
        Draft { envelope, content: Some(content) }
    }

    /// What a command began has ended, as the answer to a later one says.
    pub(crate) fn chain_ended(&self, begun: &Begun, outcome: &seam::Outcome, duration_nanos: u64) -> Draft {
        let mut envelope = self.envelope(v1::RecordKind::Progress);
        envelope.command_id.clone_from(&begun.command_id);
        envelope.operation = begun.operation.into();
        envelope.status = status(outcome.status).into();
        envelope.duration_nanos = duration_nanos;
        self.outcome(&mut envelope, outcome);
        Draft { envelope, content: Some(answer(outcome)) }
    }

    /// A rule was broken on the connection: what, in one line.
    pub(crate) fn violated(&self, reason: v1::OpaqueReason, note: &str) -> Draft {
        let mut envelope = self.envelope(v1::RecordKind::Progress);
        envelope.command_id.clone_from(&self.flow_id);
        envelope.workload = Some(self.workload.clone());
        envelope.opaque_reason = reason.into();
        envelope.status = v1::Status::Error.into();
        let content = v1::Content {
            target: Some(self.target.clone()),
            note: note.to_owned(),
            ..v1::Content::default()
        };
        Draft { envelope, content: Some(content) }
    }

    /// A hold has ended and its command has not gone upstream.
    pub(crate) fn decided(
        &self,
        command_id: &[u8],
        decision: v1::Decision,
        verdict: v1::Verdict,
        duration_nanos: u64,
    ) -> Draft {
        let mut envelope = self.envelope(v1::RecordKind::Decided);
        envelope.command_id = command_id.to_vec();
        envelope.decision = decision.into();
        envelope.policy_mode = self.policy_mode.into();
        envelope.duration_nanos = duration_nanos;
        let content = v1::Content { verdict: Some(verdict), ..v1::Content::default() };
        Draft { envelope, content: Some(content) }
    }

    /// Bytes of our own are about to go to one side.
    pub(crate) fn injected(&self, command_id: &[u8], direction: seam::Direction, bytes: u64) -> Draft {
        let toward = match direction {
            seam::Direction::ToServer => v1::Toward::Server,
            seam::Direction::ToClient => v1::Toward::Workload,
        };
        let mut envelope = self.envelope(v1::RecordKind::Injected);
        envelope.command_id = command_id.to_vec();
        envelope.detail = Some(v1::envelope::Detail::Injected(v1::Injected { toward: toward.into(), bytes }));
        Draft { envelope, content: None }
    }

    /// A command has ended, or will never be known to.
    pub(crate) fn finished(&self, end: &Finish<'_>) -> Draft {
        let outcome = end.outcome;
        let mut envelope = self.envelope(v1::RecordKind::Finished);
        envelope.command_id = end.command_id.to_vec();
        envelope.operation = end.operation.into();
        envelope.capture = end.capture.into();
        envelope.opaque_reason = end.reason.into();
        envelope.statement_index = end.statement_index;
        envelope.decision = end.decision.into();
        envelope.policy_mode = self.policy_mode.into();
        envelope.status = end.status.into();
        envelope.duration_nanos = end.duration_nanos;
        self.outcome(&mut envelope, outcome);
        let content = v1::Content { note: end.note.to_owned(), ..answer(outcome) };
        Draft { envelope, content: Some(content) }
    }

    fn outcome(&self, envelope: &mut v1::Envelope, outcome: &seam::Outcome) {
        envelope.rows = outcome.rows;
        envelope.bytes_sent = outcome.bytes_sent;
        envelope.bytes_received = outcome.bytes_received;
        envelope.transaction_state = transaction(outcome.transaction).into();
        envelope.http_status = outcome.http_status.map_or(0, u32::from);
        envelope.grpc_status = outcome.grpc_status;
        if let Some(error) = outcome.error.as_ref().filter(|_| self.protocol == v1::Protocol::Postgresql) {
            envelope.status_code = sqlstate(&error.code);
        }
    }
}

/// The deletable part of how something ended.
fn answer(outcome: &seam::Outcome) -> v1::Content {
    v1::Content {
        error: outcome.error.as_ref().map(server_message),
        notices: outcome.notices.iter().map(server_message).collect(),
        command_tag: text(&outcome.command_tag),
        attributes: attributes(&outcome.attributes),
        ..v1::Content::default()
    }
}

/// A command's start.
pub(crate) struct Start<'a> {
    pub(crate) command: &'a seam::Command,
    pub(crate) decision: v1::Decision,
    pub(crate) grounds: &'a Grounds,
    pub(crate) policy_version: &'a str,
    /// Where it goes, where that is not the same for the whole connection.
    pub(crate) place: Option<&'a Place>,
    /// record_id of the STARTED record of what it goes on with; empty where there is none.
    pub(crate) parent: &'a [u8],
    /// What it proves, beside what the session does.
    pub(crate) proof: &'a Proof,
}

/// What a session's start proves.
#[derive(Default)]
pub(crate) struct SessionProof {
    /// Of the client's credentials: the same for all of its commands.
    pub(crate) presented: Proof,
    /// On whose behalf: what commands add to.
    pub(crate) behalf: Proof,
}

/// Where a command goes, as its request says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) service: &'static str,
    pub(crate) host: String,
}

/// How a connection ended.
pub(crate) struct Closing {
    pub(crate) capture: v1::Capture,
    pub(crate) reason: Option<v1::OpaqueReason>,
    pub(crate) status: v1::Status,
    pub(crate) duration_nanos: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) note: String,
    /// Beside the session's own.
    pub(crate) attributes: Vec<v1::Attribute>,
}

/// How a command ended.
pub(crate) struct Finish<'a> {
    pub(crate) command_id: &'a [u8],
    pub(crate) operation: v1::Operation,
    pub(crate) capture: v1::Capture,
    pub(crate) reason: v1::OpaqueReason,
    pub(crate) statement_index: u32,
    pub(crate) decision: v1::Decision,
    pub(crate) status: v1::Status,
    pub(crate) duration_nanos: u64,
    pub(crate) outcome: &'a seam::Outcome,
    pub(crate) note: &'a str,
}

/// Accepted sockets that nobody steered; of one alone also where it came from.
pub(crate) fn no_flow(source: Option<SocketAddr>, count: u64, note: &str) -> Draft {
    let coverage = v1::Coverage { event: v1::CoverageEvent::NoFlow.into(), count, ..v1::Coverage::default() };
    let envelope = v1::Envelope {
        kind: v1::RecordKind::Coverage.into(),
        opaque_reason: v1::OpaqueReason::NoFlow.into(),
        detail: Some(v1::envelope::Detail::Coverage(coverage)),
        ..v1::Envelope::default()
    };
    let client = source.map(|source| v1::Client {
        source_address: source.ip().to_string(),
        source_port: u32::from(source.port()),
        ..v1::Client::default()
    });
    let content = v1::Content { client, note: note.to_owned(), ..v1::Content::default() };
    Draft { envelope, content: Some(content) }
}

/// How much of a command was understood, and why not all.
pub(crate) fn captured(command: &seam::Command) -> (v1::Capture, v1::OpaqueReason) {
    let cut = |captured: &seam::Captured| captured.full_length > captured.bytes.len() as u64;
    match command.partly {
        Some(reason) => (v1::Capture::Partly, opaque_reason(reason)),
        None if cut(&command.statement) => (v1::Capture::Partly, v1::OpaqueReason::Unspecified),
        None if command.parameters.iter().filter_map(|p| p.value.as_ref()).any(cut) => {
            (v1::Capture::Partly, v1::OpaqueReason::Unspecified)
        }
        None => (v1::Capture::Decoded, v1::OpaqueReason::Unspecified),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A SQLSTATE has five digits or upper-case letters. Whatever else a server sends stays out of the
/// envelope, which cannot be deleted.
fn sqlstate(code: &str) -> String {
    let valid = code.len() == 5 && code.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
    if valid { code.to_owned() } else { String::new() }
}

fn verdict(grounds: &Grounds) -> Option<v1::Verdict> {
    if grounds.policies.is_empty() && grounds.reason.is_empty() {
        return None;
    }
    Some(v1::Verdict {
        policies: grounds.policies.clone(),
        reason: grounds.reason.clone(),
        ..v1::Verdict::default()
    })
}
