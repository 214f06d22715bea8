//! The bytes that stand for a refused command.
//!
//! Toward the server goes something that it must refuse itself, in its place in the pipeline, so that a
//! transaction fails just as by an error of its own. Toward the client goes an error of ours in place of
//! the server's. Nothing of the refused command, nor of the reason, reaches the server.

use crate::seam::{Refusal, RefusalKind};

/// No SQL statement begins so: a syntax error in every state of a session.
const NO_STATEMENT: &[u8] = b"verbatim refused this statement\0";
/// Never exists, since the Parse that would define it fails.
const RESERVED_NAME: &[u8] = b"verbatim_refused\0";
/// SQLSTATE of a syntax error.
pub(super) const SYNTAX_ERROR: &str = "42601";
/// ReadyForQuery outside a transaction.
pub(super) const READY_IDLE: &[u8] = b"Z\0\0\0\x05I";

/// A message with its length.
pub(super) fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>().saturating_add(4);
    let mut bytes = Vec::with_capacity(length.saturating_add(1));
    bytes.push(kind);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}

/// Stands for a Query or a FunctionCall: one ErrorResponse and one ReadyForQuery come back.
pub(super) fn query() -> Vec<u8> {
    message(b'Q', &[NO_STATEMENT])
}

/// Stands for an Execute: one ErrorResponse comes back, then the server skips to the Sync.
pub(super) fn parse() -> Vec<u8> {
    message(b'P', &[RESERVED_NAME, NO_STATEMENT, &[0, 0]])
}

/// What helps where authentication cannot be passed on.
pub(super) const UNBIND: &str = "let the client authenticate without channel binding (PGCHANNELBINDING=disable), or have the \
     proxy pass this server's TLS on";
/// The server's salt or iterations are others than the verifier's.
pub(super) const OUTDATED: &str = "the verifier that the proxy has of this role is not the server's";
/// What helps then.
pub(super) const RENEW: &str = "the proxy's verifier is out of date: take it again from pg_authid.rolpassword; or the server does not let this \
     role log in by a password";

/// Ends a session before it began. The reason is ours: one line, without a NUL.
pub(super) fn start(why: &str) -> Vec<u8> {
    start_with(why, UNBIND)
}

/// As [`start`], with a hint of its own.
pub(super) fn start_with(why: &str, hint: &str) -> Vec<u8> {
    let text: Vec<u8> = why.bytes().filter(|byte| *byte != 0).take(8 * 1024).collect();
    let fixed = b"SFATAL\0VFATAL\0C28000\0Mverbatim: this session cannot start: ";
    message(b'E', &[fixed, &text, b"\0H", hint.as_bytes(), b"\0\0"])
}

/// The ErrorResponse for the client.
pub(super) fn error(refusal: &Refusal, severity: &str) -> Vec<u8> {
    let code = match refusal.kind {
        RefusalKind::Denied | RefusalKind::Misdirected => "42501",
        RefusalKind::Expired | RefusalKind::Cancelled => "57014",
    };
    let text: Vec<u8> = refusal.message.bytes().filter(|byte| *byte != 0).take(8 * 1024).collect();
    let severity = severity.as_bytes();
    let parts: [&[u8]; 10] =
        [b"S", severity, b"\0V", severity, b"\0C", code.as_bytes(), b"\0M", &text, b"\0", b"\0"];
    message(b'E', &parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::messages::{backend, frontend};

    #[test]
    fn an_error_is_well_formed_whatever_its_message() {
        let refusal = Refusal { kind: RefusalKind::Denied, message: "no\0 'way'".into() };
        let bytes = error(&refusal, "ERROR");
        let fields = backend::fields(&bytes[5..]);
        assert_eq!(fields.code, "42501");
        assert_eq!(fields.message, b"no 'way'");
        assert_eq!(bytes.len(), 1 + u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize);
    }

    #[test]
    fn substitutes_are_well_formed_messages() {
        assert!(frontend::text(&query()[5..]).is_ok());
        assert_eq!(frontend::parse(&parse()[5..]).map(|parse| parse.name), Ok(&b"verbatim_refused"[..]));
    }
}
