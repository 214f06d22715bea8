//! From a decoder's types to the record's: closed lists to closed lists, bytes to bytes.

use verbatim_api::v1;
use verbatim_wire::{seam, text_without_tokens, without_tokens};

fn digest(captured: &seam::Captured) -> Vec<u8> {
    captured.full_sha256.map(|hash| hash.to_vec()).unwrap_or_default()
}

pub(crate) fn statement(command: &seam::Command) -> v1::Statement {
    v1::Statement {
        text: command.statement.bytes.clone(),
        full_length: command.statement.full_length,
        full_sha256: digest(&command.statement),
        redactions: command.redactions.iter().map(redaction).collect(),
        statement_name: command.statement_name.clone(),
        portal_name: command.portal_name.clone(),
    }
}

fn redaction(redaction: &seam::Redaction) -> v1::Redaction {
    let reason = match redaction.reason {
        seam::RedactionReason::Password => v1::RedactionReason::Password,
        seam::RedactionReason::ConnectionString => v1::RedactionReason::ConnectionString,
        seam::RedactionReason::Token => v1::RedactionReason::Token,
        seam::RedactionReason::Signature => v1::RedactionReason::Signature,
    };
    v1::Redaction { offset: redaction.offset, length: redaction.length, reason: reason.into() }
}

pub(crate) fn parameter(parameter: &seam::Parameter) -> v1::Parameter {
    let format = match parameter.format {
        seam::ParameterFormat::Text => v1::ParameterFormat::Text,
        seam::ParameterFormat::Binary => v1::ParameterFormat::Binary,
    };
    let mut converted = v1::Parameter {
        type_oid: parameter.type_oid,
        format: format.into(),
        rendered: text_without_tokens(parameter.rendered.as_deref().unwrap_or_default()),
        name: parameter.name.clone(),
        type_name: parameter.type_name.clone(),
        ..v1::Parameter::default()
    };
    let Some(value) = &parameter.value else { return converted };
    let plain = without_tokens(&value.bytes).into_owned();
    converted.full_length = value.full_length;
    if plain == value.bytes {
        converted.full_sha256 = digest(value);
    } else if value.full_length == value.bytes.len() as u64 {
        converted.full_length = plain.len() as u64;
    }
    converted.value = Some(plain);
    converted
}

pub(crate) fn attributes(attributes: &[(&'static str, Vec<u8>)]) -> Vec<v1::Attribute> {
    let attribute = |(name, value): &(&'static str, Vec<u8>)| v1::Attribute {
        name: (*name).to_owned(),
        value: without_tokens(value).into_owned(),
    };
    attributes.iter().map(attribute).collect()
}

pub(crate) fn finding(finding: seam::Finding) -> v1::CommandFinding {
    match finding {
        seam::Finding::HostMismatch => v1::CommandFinding::HostMismatch,
    }
}

pub(crate) fn server_message(message: &seam::ServerMessage) -> v1::ServerMessage {
    v1::ServerMessage {
        severity: message.severity.clone(),
        code: message.code.clone(),
        message: without_tokens(&message.message).into_owned(),
        detail: without_tokens(&message.detail).into_owned(),
        hint: without_tokens(&message.hint).into_owned(),
    }
}

pub(crate) fn operation(operation: seam::Operation) -> v1::Operation {
    match operation {
        seam::Operation::Query => v1::Operation::Query,
        seam::Operation::Execute => v1::Operation::Execute,
        seam::Operation::Fetch => v1::Operation::Fetch,
        seam::Operation::FunctionCall => v1::Operation::FunctionCall,
        seam::Operation::Cancel => v1::Operation::Cancel,
        seam::Operation::HttpRequest => v1::Operation::HttpRequest,
        seam::Operation::GrpcCall => v1::Operation::GrpcCall,
        seam::Operation::Load => v1::Operation::Load,
        seam::Operation::Extract => v1::Operation::Extract,
        seam::Operation::Copy => v1::Operation::Copy,
        seam::Operation::ReadRows => v1::Operation::ReadRows,
        seam::Operation::InsertRows => v1::Operation::InsertRows,
        seam::Operation::Get => v1::Operation::Get,
        seam::Operation::List => v1::Operation::List,
        seam::Operation::Create => v1::Operation::Create,
        seam::Operation::Update => v1::Operation::Update,
        seam::Operation::Delete => v1::Operation::Delete,
        seam::Operation::Upload => v1::Operation::Upload,
    }
}

pub(crate) fn status(status: seam::Status) -> v1::Status {
    match status {
        seam::Status::Ok => v1::Status::Ok,
        seam::Status::Error => v1::Status::Error,
        seam::Status::NotExecuted => v1::Status::NotExecuted,
        seam::Status::NotForwarded => v1::Status::NotForwarded,
        seam::Status::OutcomeUnknown => v1::Status::OutcomeUnknown,
        seam::Status::Suspended => v1::Status::Suspended,
        seam::Status::Accepted => v1::Status::Accepted,
    }
}

pub(crate) fn opaque_reason(reason: seam::OpaqueReason) -> v1::OpaqueReason {
    match reason {
        seam::OpaqueReason::Tls => v1::OpaqueReason::Tls,
        seam::OpaqueReason::GssEncryption => v1::OpaqueReason::GssEncryption,
        seam::OpaqueReason::Replication => v1::OpaqueReason::Replication,
        seam::OpaqueReason::Malformed => v1::OpaqueReason::Malformed,
        seam::OpaqueReason::Desynchronised => v1::OpaqueReason::Desynchronised,
        seam::OpaqueReason::UnsupportedVersion => v1::OpaqueReason::UnsupportedVersion,
        seam::OpaqueReason::Limit => v1::OpaqueReason::Limit,
    }
}

pub(crate) fn transaction(state: Option<seam::TransactionState>) -> v1::TransactionState {
    match state {
        None => v1::TransactionState::Unspecified,
        Some(seam::TransactionState::Idle) => v1::TransactionState::Idle,
        Some(seam::TransactionState::InTransaction) => v1::TransactionState::InTransaction,
        Some(seam::TransactionState::Failed) => v1::TransactionState::Failed,
    }
}
