//! Enum values and ids as a person writes them: `DECISION_NOT_FORWARDED` is `not-forwarded`.

use uuid::Uuid;
use verbatim_api::v1;

use crate::failure::Failure;

/// An enum of the API whose values have short names.
pub(crate) trait Named: Copy + 'static {
    /// What all value names start with.
    const PREFIX: &'static str;
    /// What the values are, for an error message.
    const WHAT: &'static str;
    fn proto_name(self) -> &'static str;
    fn from_proto_name(name: &str) -> Option<Self>;

    /// `not-forwarded`; empty for the unspecified value.
    fn short(self) -> String {
        match self.proto_name().strip_prefix(Self::PREFIX).unwrap_or_default() {
            "UNSPECIFIED" => String::new(),
            name => name.to_ascii_lowercase().replace('_', "-"),
        }
    }

    fn parse(short: &str) -> Result<Self, Failure> {
        let name = format!("{}{}", Self::PREFIX, short.trim().to_ascii_uppercase().replace('-', "_"));
        Self::from_proto_name(&name).ok_or_else(|| {
            Failure::Usage(format!("`{short}` is no {}: see --help for the names", Self::WHAT))
        })
    }
}

macro_rules! named {
    ($($type:ident, $prefix:literal, $what:literal;)*) => { $(
        impl Named for v1::$type {
            const PREFIX: &'static str = $prefix;
            const WHAT: &'static str = $what;
            fn proto_name(self) -> &'static str { self.as_str_name() }
            fn from_proto_name(name: &str) -> Option<Self> { Self::from_str_name(name) }
        }
    )* };
}

named! {
    Operation, "OPERATION_", "operation";
    Decision, "DECISION_", "decision";
    Status, "STATUS_", "status";
    Capture, "CAPTURE_", "capture";
    OpaqueReason, "OPAQUE_REASON_", "reason";
    Protocol, "PROTOCOL_", "protocol";
    PrincipalKind, "PRINCIPAL_KIND_", "principal kind";
    Resolution, "RESOLUTION_", "resolution";
    ContainerKind, "CONTAINER_KIND_", "kind of container";
    PolicyMode, "POLICY_MODE_", "policy mode";
    RecordKind, "RECORD_KIND_", "record kind";
    FindingKind, "FINDING_KIND_", "finding";
    CommandFinding, "COMMAND_FINDING_", "finding";
    CredentialMatch, "CREDENTIAL_MATCH_", "credential match";
    CredentialKind, "CREDENTIAL_KIND_", "credential kind";
    CredentialSource, "CREDENTIAL_SOURCE_", "credential source";
    TokenIssuer, "TOKEN_ISSUER_", "token issuer";
    BehalfKind, "BEHALF_KIND_", "kind of behalf";
    ConnectOutcome, "CONNECT_OUTCOME_", "outcome";
    CoverageEvent, "COVERAGE_EVENT_", "event";
    TransactionState, "TRANSACTION_STATE_", "transaction state";
    RedactionReason, "REDACTION_REASON_", "redaction";
    ParameterFormat, "PARAMETER_FORMAT_", "format";
}

/// An id as a UUID's text; empty where there is none.
pub(crate) fn id(bytes: &[u8]) -> String {
    Uuid::from_slice(bytes).map(|id| id.to_string()).unwrap_or_default()
}

pub(crate) fn parse_id(text: &str) -> Result<Vec<u8>, Failure> {
    Uuid::try_parse(text.trim())
        .map(|id| id.as_bytes().to_vec())
        .map_err(|error| Failure::Usage(format!("`{text}` is no record id: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_found_again_by_its_short_name() {
        for status in [v1::Status::Ok, v1::Status::NotForwarded, v1::Status::OutcomeUnknown] {
            assert_eq!(v1::Status::parse(&status.short()).unwrap(), status);
        }
        assert_eq!(v1::Operation::FunctionCall.short(), "function-call");
        assert_eq!(v1::Decision::Unspecified.short(), "");
    }

    #[test]
    fn an_unknown_name_is_a_usage_error_that_repeats_it() {
        let error = v1::Decision::parse("maybe").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("maybe"));
    }

    #[test]
    fn ids_survive_being_shown_and_parsed() {
        let bytes = [7u8; 16];
        assert_eq!(parse_id(&id(&bytes)).unwrap(), bytes);
        assert!(parse_id("not-an-id").is_err());
    }
}
