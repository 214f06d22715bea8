//! What an answer of status 4xx or 5xx says went wrong, where it says so in JSON.

use http::{StatusCode, response};

use super::{
    coding::Coding,
    headers,
    json::{Kept, Tree, TreeBuilder},
};
use crate::seam::ServerMessage;

/// Bytes kept of an error, its parts together.
const MAX_BYTES: usize = 16 * 1024;

/// The body of a failure, while it comes.
pub(super) struct Failure {
    status: StatusCode,
    body: Option<(Coding, TreeBuilder)>,
}

impl Failure {
    /// `None`: the status is no failure.
    pub(super) fn of(head: &response::Parts) -> Option<Self> {
        let status = head.status;
        if !status.is_client_error() && !status.is_server_error() {
            return None;
        }
        let body = headers::is_json(&head.headers)
            .then(|| (Coding::of(&head.headers), TreeBuilder::new(keep, MAX_BYTES)));
        Some(Self { status, body })
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if let Some((coding, tree)) = &mut self.body {
            coding.push(bytes, &mut |bytes| tree.push(bytes));
        }
    }

    pub(super) fn finish(self) -> ServerMessage {
        let tree = self.body.map(|(mut coding, mut tree)| {
            coding.finish(&mut |bytes| tree.push(bytes));
            tree.finish()
        });
        message(self.status, tree.as_ref())
    }
}

/// `{"error": {"code", "message", "status", "errors": [{"reason", "location"}]}}`, as Google's APIs do, or
/// `{"error": "…", "error_description": "…"}` (RFC 6749, 5.2).
pub(super) fn keep(path: &[&str]) -> Kept {
    match path {
        [] | ["error"] => Kept::Value,
        ["error", "code" | "message" | "status" | "errors"] | ["errordescription"] => Kept::Value,
        ["error", "errors", "reason" | "location" | "message"] => Kept::Value,
        _ => Kept::Skip,
    }
}

/// The failure in the words of the answer.
pub(super) fn message(status: StatusCode, tree: Option<&Tree>) -> ServerMessage {
    let mut message = ServerMessage {
        severity: "ERROR".to_owned(),
        code: status.as_u16().to_string(),
        ..ServerMessage::default()
    };
    let Some(root) = tree.map(Tree::root) else { return message };
    let error = root.get("error");
    if let Some(code) = error.text() {
        message.code = code;
        message.message = root.get("errorDescription").bytes().unwrap_or_default();
        return message;
    }
    let first = error.get("errors").first();
    message.message =
        error.get("message").bytes().or_else(|| first.get("message").bytes()).unwrap_or_default();
    message.detail = first.get("location").bytes().unwrap_or_default();
    if let Some(code) = first.get("reason").text().or_else(|| error.get("status").text()) {
        message.code = code;
    }
    message
}
