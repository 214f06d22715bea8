//! Fuzz targets that look inside: framing, messages, redaction.
#![allow(clippy::panic, clippy::expect_used, reason = "a fuzz target says by a panic what it found")]

use super::{
    end_point,
    framing::{Framer, Header},
    messages::{backend, frontend},
    redact::{self, MARK, RedactedCapture, Redactor},
    render, scram, split, startup,
};
use crate::seam::ParameterFormat;

/// Boundaries do not depend on how the input was cut.
pub fn framing(data: &[u8]) {
    let whole = boundaries(data, data.len().max(1));
    assert_eq!(boundaries(data, 1), whole);
    assert_eq!(boundaries(data, 3), whole);
}

fn boundaries(data: &[u8], step: usize) -> Vec<(u8, usize)> {
    let mut framer = Framer::default();
    let mut found = Vec::new();
    let mut skip = 0usize;
    for chunk in data.chunks(step) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let skipped = skip.min(rest.len());
            skip = skip.saturating_sub(skipped);
            rest = rest.get(skipped..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match framer.read(rest) {
                Header::NeedMore => break,
                Header::Bad => return found,
                Header::Message { kind, body, taken } => {
                    found.push((kind, body));
                    skip = body;
                    rest = rest.get(taken..).unwrap_or_default();
                }
            }
        }
    }
    found
}

/// No parser panics, whatever the body. The first byte is the type, or a type OID.
pub fn messages(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    let read = (
        frontend::text(body).is_ok(),
        frontend::parse(body).is_ok(),
        frontend::bind(body).and_then(|bind| bind.values(|_, _| {})).is_ok(),
        frontend::function_call(body).and_then(|call| call.values(|_, _| {})).is_ok(),
        frontend::target(body).is_ok(),
        frontend::execute(body).is_ok(),
        startup::parse(body).is_ok(),
        (backend::tag(body).is_ok(), backend::ready(body).is_ok(), backend::key_data(body).is_ok()),
    );
    // Bodies of Query and Execute that are read: the other reads them only where both formats fit.
    assert!(!(read.7.1 && read.0), "ReadyForQuery has no string");
    backend::fields(body);
    end_point::end_point(body);
    let mut client = scram::Client::new(b"password", &[*kind; 18], Some(body));
    // With our nonce in front, so that more than the first check is reached.
    let first = client.first();
    let nonce = first.iter().rposition(|byte| *byte == b'=').and_then(|at| first.get(at.saturating_add(1)..));
    // No more than a few iterations, or a run takes for ever.
    if body.len() < 64 && !body.windows(4).any(|part| part.iter().all(u8::is_ascii_digit)) {
        let answered = client.last(&[b"r=", nonce.unwrap_or_default(), body].concat()).is_ok();
        assert!(client.verify(body).is_err() || answered, "verified before it was asked");
    }
    for oid in [16, 17, 20, 21, 23, 25, 26, 700, 701, 1082, 1114, 1184, 1700, 2950, 3802, (*kind).into()] {
        for format in [ParameterFormat::Text, ParameterFormat::Binary] {
            render::render(oid, format, body);
        }
    }
    let parts = split::split(body, kind & 1 == 0, usize::from(kind >> 1).max(1));
    let joined: Vec<u8> =
        parts.iter().flat_map(|part| body.get(part.clone()).unwrap_or_default().to_vec()).collect();
    assert_eq!(joined, body, "joined the statements are the text");
}

/// The result does not depend on how the text was cut; what is not marked is unchanged in length.
pub fn redact(data: &[u8]) {
    let Some((split, text)) = data.split_first() else {
        return;
    };
    let whole = run(text, text.len());
    let split = usize::from(*split).min(text.len());
    assert_eq!(run(text, split), whole, "split at {split}");
    assert_eq!(run(text, text.len().min(1)), whole, "split after one byte");
    if let Some((captured, redactions)) = redact::redact(text, true) {
        let bytes = captured.bytes;
        assert_eq!((bytes, redactions), whole);
        return;
    }
    if !redact::is_suspect(text) && whole.1.is_empty() {
        assert_eq!(whole.0, text, "changed without a mark");
    }
    for redaction in &whole.1 {
        let start = usize::try_from(redaction.offset).expect("a short text");
        assert!(whole.0.get(start..).is_some_and(|rest| rest.starts_with(MARK)));
    }
}

fn run(text: &[u8], split: usize) -> (Vec<u8>, Vec<crate::seam::Redaction>) {
    let mut output = RedactedCapture::new(usize::MAX);
    let mut redactor = Redactor::new(true);
    let (head, tail) = text.split_at(split);
    redactor.push(head, &mut output);
    redactor.push(tail, &mut output);
    redactor.finish(&mut output);
    let (captured, redactions) = output.finish();
    (captured.bytes, redactions)
}
