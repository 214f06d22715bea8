//! Bodies of the fuzz targets, so that the corpus runs as an ordinary test too.
#![allow(clippy::panic, clippy::expect_used, reason = "a fuzz target says by a panic what it found")]

use std::sync::Arc;

use crate::{
    detect::{self, Detection},
    model::{Model, allow_all},
    postgres::{PostgresDecoder, Verifier, fuzzing as postgres},
    seam::{Decision, Decoder, Direction, Encryption, Limits, Refusal, RefusalKind, ServerTls, Verifiers},
};

pub use crate::message::fuzzing::exchange;
pub use postgres::{framing, messages, redact};

/// The body of a target.
pub type Target = fn(&[u8]);

/// Name and body of every target.
pub const TARGETS: &[(&str, Target)] = &[
    ("decoder", decoder),
    ("detect", detect),
    ("exchange", exchange),
    ("framing", framing),
    ("messages", messages),
    ("redact", redact),
];

/// Detection: an answer that is not "need more" stays the same kind with more bytes, and there is one
/// within the bound.
pub fn detect(data: &[u8]) {
    let mut answer = None;
    for length in 0..=data.len().min(4096) {
        let found = detect::detect(data.get(..length).unwrap_or_default());
        if let Some(before) = &answer {
            assert_eq!(core::mem::discriminant(&found), *before, "another answer with more bytes");
        } else if found != Detection::NeedMore {
            answer = Some(core::mem::discriminant(&found));
        }
    }
    if data.len() >= detect::MAX_BYTES {
        assert_ne!(detect::detect(data), Detection::NeedMore);
    }
}

/// Limits that the input reaches.
const TIGHT: Limits = Limits {
    capture_bytes: 24,
    named_objects: 2,
    statement_cache_bytes: 256,
    commands_in_flight: 6,
    notices: 1,
};

/// TLS around a decoder, by the first byte of its input; `None`: it is told nothing.
fn encryption(options: u8) -> Option<Encryption> {
    // What it is does not matter, as long as it has a hash: a signature by ECDSA and SHA-256.
    let certificate = b"\x30\x12\x30\0\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02\x03\0".to_vec();
    let ours = Encryption {
        server: Some(ServerTls { certificate: certificate.clone() }),
        certificate,
        ..Encryption::default()
    };
    match (options >> 2) & 7 {
        1 => Some(Encryption { ends_here: true, declines_others: true, ..Encryption::default() }),
        2 => Some(Encryption { ends_here: true, server_required: true, ..Encryption::default() }),
        3 => Some(Encryption { client: true, ..ours }),
        4 => Some(Encryption { client: true, ask_password: true, ..ours }),
        5 => Some(ours),
        6 => Some(Encryption { client: true, ask_password: true, verifiers: verifiers(), ..ours }),
        _ => None,
    }
}

/// Everybody's, with a salt that is short enough to be found.
fn verifiers() -> Option<Verifiers> {
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let verifier = Verifier::parse(&format!("SCRAM-SHA-256$1:AAAA${key}:{key}")).map(Arc::new).ok()?;
    Some(Verifiers(Arc::new(move |_| Some(Arc::clone(&verifier)))))
}

/// A conversation: the first byte chooses limits, policy and encryption; then pieces, each with a byte for the
/// direction (0x80) and length (0x7f) before it.
pub fn decoder(data: &[u8]) {
    let Some((options, pieces)) = data.split_first() else {
        return;
    };
    let limits = if options & 1 == 0 { Limits::default() } else { TIGHT };
    let encryption = encryption(*options);
    let observed = options & 2 == 0 && encryption.is_none();
    let policy = if options & 2 == 0 {
        allow_all()
    } else {
        let mut turn = 0u32;
        Box::new(move |_: &[_]| {
            turn = turn.wrapping_add(1);
            let kind = RefusalKind::Denied;
            let refused = Decision::Refuse(Refusal { kind, message: "no".to_owned() });
            Some(if turn.is_multiple_of(2) { refused } else { Decision::Allow })
        }) as crate::model::Policy
    };
    let mut decoder = PostgresDecoder::new(limits);
    if let Some(encryption) = encryption {
        decoder.encryption(encryption);
    }
    let mut relay = Model::new(decoder, policy);
    let mut inputs = [Vec::new(), Vec::new()];
    let mut rest = pieces;
    while let Some((head, after)) = rest.split_first() {
        let length = usize::from(head & 0x7f).min(after.len());
        let (piece, next) = after.split_at(length);
        let [to_server, to_client] = &mut inputs;
        if head & 0x80 == 0 {
            to_server.extend_from_slice(piece);
            relay.feed(Direction::ToServer, piece);
        } else {
            to_client.extend_from_slice(piece);
            relay.feed(Direction::ToClient, piece);
        }
        rest = next;
    }
    relay.end();
    if observed {
        let [to_server, to_client] = &inputs;
        assert_eq!(relay.output(Direction::ToServer), to_server.as_slice());
        assert_eq!(relay.output(Direction::ToClient), to_client.as_slice());
    }
}
