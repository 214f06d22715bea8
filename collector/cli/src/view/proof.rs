//! What speaks for a command: credentials, on whose behalf, trace.
//!
//! Owns that *verified* and *asserted* cannot be confused: the word comes first and from a closed list, what a
//! workload wrote comes behind it and in quotes, and holds none itself.

use serde::Serialize;
use verbatim_api::v1;

use super::{hex, time};
use crate::names::{self, Named};

/// Characters of a name in a table.
const SHOWN: usize = 40;

/// What was presented; never the credential itself.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CredentialView {
    pub(crate) matches: String,
    pub(crate) kind: String,
    pub(crate) place: String,
    pub(crate) subject: String,
    pub(crate) reason: String,
    pub(crate) source: String,
    pub(crate) issuer: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) expires: String,
    pub(crate) key_id: String,
    pub(crate) fingerprint: String,
    pub(crate) fingerprint_key_id: String,
    pub(crate) issuance: Option<IssuanceView>,
}

/// Whom a token was issued to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IssuanceView {
    pub(crate) issuer: String,
    pub(crate) time: String,
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) pod: String,
    pub(crate) pod_uid: String,
    pub(crate) container: String,
    pub(crate) account: String,
    pub(crate) command: String,
}

/// Somebody on whose behalf it was.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BehalfView {
    /// `verified`, `asserted`, `delegated`.
    pub(crate) kind: String,
    pub(crate) subject: String,
    pub(crate) evidence: String,
    pub(crate) rejection: String,
    pub(crate) issuer: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) expires: String,
    pub(crate) key_id: String,
    pub(crate) token_id: String,
}

/// Where it belongs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TraceView {
    pub(crate) traceparent: String,
    pub(crate) tracestate: String,
    pub(crate) session_id: String,
    pub(crate) task_id: String,
    pub(crate) tool_id: String,
    pub(crate) places: Vec<String>,
}

/// A name that somebody outside chose, for a person's eyes.
fn quoted(name: &str, most: usize) -> String {
    let plain: String = name.chars().map(|c| if c == '"' { '\'' } else { c }).take(most).collect();
    let more = if name.chars().count() > most { "…" } else { "" };
    format!("\"{plain}{more}\"")
}

impl CredentialView {
    pub(crate) fn new(credential: &v1::Credential) -> Self {
        Self {
            matches: credential.matches_principal().short(),
            kind: credential.kind().short(),
            place: credential.place.clone(),
            subject: credential.subject.clone(),
            reason: credential.reason.clone(),
            source: credential.source().short(),
            issuer: credential.issuer.clone(),
            audiences: credential.audiences.clone(),
            expires: time(credential.expires_wall_nanos),
            key_id: credential.key_id.clone(),
            fingerprint: hex(&credential.fingerprint),
            fingerprint_key_id: credential.fingerprint_key_id.clone(),
            issuance: credential.issuance.as_ref().map(IssuanceView::new),
        }
    }

    /// For a person.
    pub(crate) fn line(&self) -> String {
        let mut line = format!("{} {} in {}", self.matches, self.kind, self.place);
        if !self.subject.is_empty() {
            line.push_str(&format!(" {}", quoted(&self.subject, 200)));
        }
        line.push_str(&format!(": {}", self.reason));
        if !self.source.is_empty() {
            line.push_str(&format!(" ({})", self.source));
        }
        if let Some(issuance) = &self.issuance {
            line.push_str(&format!(", issued by {} at {}", issuance.issuer, issuance.time));
        }
        if !self.fingerprint.is_empty() {
            let short: String = self.fingerprint.chars().take(16).collect();
            line.push_str(&format!(", fingerprint {short} under key {}", self.fingerprint_key_id));
        }
        line
    }
}

impl IssuanceView {
    fn new(issuance: &v1::Issuance) -> Self {
        Self {
            issuer: issuance.issuer().short(),
            time: time(issuance.issued_wall_nanos),
            namespace: issuance.namespace.clone(),
            service_account: issuance.service_account.clone(),
            pod: issuance.pod_name.clone(),
            pod_uid: issuance.pod_uid.clone(),
            container: issuance.container.clone(),
            account: issuance.account.clone(),
            command: names::id(&issuance.command_id),
        }
    }
}

impl BehalfView {
    pub(crate) fn new(person: &v1::OnBehalfOf) -> Self {
        Self {
            kind: person.kind().short(),
            subject: person.subject.clone(),
            evidence: person.evidence.clone(),
            rejection: person.rejection.clone(),
            issuer: person.issuer.clone(),
            audiences: person.audiences.clone(),
            expires: time(person.expires_wall_nanos),
            key_id: person.key_id.clone(),
            token_id: person.token_id.clone(),
        }
    }

    /// For a person.
    pub(crate) fn line(&self) -> String {
        let mut line = format!("{} {} by {}", self.kind, quoted(&self.subject, 200), self.evidence);
        if !self.issuer.is_empty() {
            line.push_str(&format!(", token of {}", quoted(&self.issuer, 200)));
        }
        if !self.rejection.is_empty() {
            line.push_str(&format!(", REJECTED: {}", self.rejection));
        }
        line
    }

    /// For a table.
    pub(crate) fn cell(&self) -> String {
        format!("{} {}", self.kind, quoted(&self.subject, SHOWN))
    }
}

impl TraceView {
    pub(crate) fn new(trace: &v1::Trace) -> Self {
        Self {
            traceparent: trace.traceparent.clone(),
            tracestate: trace.tracestate.clone(),
            session_id: trace.session_id.clone(),
            task_id: trace.task_id.clone(),
            tool_id: trace.tool_id.clone(),
            places: trace.places.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asserted_name_cannot_pass_for_a_verified_one() {
        let person = |kind: v1::BehalfKind, subject: &str| {
            BehalfView::new(&v1::OnBehalfOf {
                kind: kind.into(),
                subject: subject.into(),
                evidence: "baggage".into(),
                ..v1::OnBehalfOf::default()
            })
        };
        let verified = person(v1::BehalfKind::Verified, "ada");
        assert_eq!(verified.cell(), "verified \"ada\"");
        for lie in ["ada\" by baggage, verified \"ada", "verified \"ada\"", "\" verified ada"] {
            let asserted = person(v1::BehalfKind::Asserted, lie);
            assert!(asserted.cell().starts_with("asserted \"") && asserted.line().starts_with("asserted \""));
            assert_eq!(asserted.cell().matches('"').count(), 2, "{}", asserted.cell());
            assert!(!asserted.cell().contains("verified \""), "{}", asserted.cell());
        }
        let long = person(v1::BehalfKind::Asserted, &"a".repeat(100)).cell();
        assert_eq!(long.chars().count(), "asserted ".len() + SHOWN + 3);
    }
}
