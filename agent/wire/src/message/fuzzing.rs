//! The body of the fuzz target over exchanges.
#![allow(clippy::panic, clippy::expect_used, reason = "a fuzz target says by a panic what it found")]

use ::http::{Request, Response, request};

use super::{
    Abort, Builtin, Exchange, Messages, Peer,
    grpc::{self, Found, GrpcMessages, Message, Opening},
    model::Model,
};
use crate::{
    model::{Policy, allow_all},
    seam::{
        Captured, Command, CommandId, Decision, Direction, Limits, Outcome, Refusal, RefusalKind, Status,
    },
};

/// Requests that the input can choose: method, target, content type, content-coding.
const REQUESTS: &[(&str, &str, &str, &str)] = &[
    ("POST", "https://bigquery.googleapis.com/bigquery/v2/projects/p/queries", "application/json", ""),
    ("POST", "https://bigquery.googleapis.com/bigquery/v2/projects/p/jobs", "application/json", "gzip"),
    (
        "POST",
        "https://bigquery.googleapis.com/upload/bigquery/v2/projects/p/jobs",
        "multipart/related; boundary='b'",
        "",
    ),
    (
        "POST",
        "https://bigquery.googleapis.com/upload/bigquery/v2/projects/p/jobs?uploadType=resumable",
        "",
        "deflate",
    ),
    ("GET", "https://bigquery.googleapis.com/bigquery/v2/projects/p/queries/j?location=EU", "", ""),
    (
        "POST",
        "https://bigquery.googleapis.com/bigquery/v2/projects/p/datasets/d/tables/t/insertAll",
        "application/json",
        "",
    ),
    ("POST", "https://spanner.googleapis.com/google.spanner.v1.Spanner/Commit", "application/grpc", ""),
    ("PUT", "https://example.com/a?token=s3cret", "", ""),
];

/// An exchange: the first byte chooses the request, the second limits, policy and status; then pieces, each
/// with a byte for the direction (0x80: of the server) and length (0x7f) before it. An empty piece ends its
/// direction. What was not ended is aborted.
pub fn exchange(data: &[u8]) {
    let [kind, options, pieces @ ..] = data else { return };
    let limits =
        Limits { capture_bytes: if options & 1 == 0 { 256 * 1024 } else { 24 }, ..Limits::default() };
    let head = request(usize::from(*kind));
    let exchange: Box<dyn Exchange> = if kind & 0x80 == 0 {
        Builtin { limits }
            .exchange(&head, Peer { tls_name: Some("bigquery.googleapis.com"), destination: None })
            .1
    } else {
        let opening = if kind & 0x40 == 0 { Opening::Head } else { Opening::FirstMessage };
        grpc::exchange(&head, "", Vec::new(), limits, Each { opening, open: Vec::new() })
    };
    let observed = options & 2 == 0;
    let mut model = Model::new(exchange, if observed { allow_all() } else { every_other() });
    let mut input: Vec<u8> = Vec::new();
    let (mut headed, mut requested, mut answered) = (false, false, false);
    let mut rest = pieces;
    while let Some((first, after)) = rest.split_first() {
        let (piece, next) = after.split_at(usize::from(first & 0x7f).min(after.len()));
        rest = next;
        let of_server = first & 0x80 != 0;
        if model.answer.is_some() || answered {
            break;
        }
        if !of_server && !requested {
            input.extend_from_slice(piece);
            model.request(piece);
            if piece.is_empty() {
                requested = true;
                model.request_end();
            }
        } else if of_server && model.head {
            if !std::mem::replace(&mut headed, true) {
                model.response_head(&answer(*options));
            }
            model.response(piece);
            if piece.is_empty() {
                answered = true;
                model.response_end(None);
            }
        }
    }
    if observed {
        assert!(input.starts_with(model.output()));
        assert!(!requested || model.output() == input, "something of a request that was allowed was kept");
    }
    model.abort(Abort::Client);
}

fn request(kind: usize) -> request::Parts {
    let (method, uri, content_type, coding) = *REQUESTS.iter().cycle().nth(kind).expect("one of them");
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in
        [("content-type", content_type), ("content-encoding", coding), ("grpc-encoding", "gzip")]
    {
        if !value.is_empty() {
            request = request.header(name, value);
        }
    }
    request.body(()).expect("a request").into_parts().0
}

fn answer(options: u8) -> ::http::response::Parts {
    let status = if options & 4 == 0 { 200 } else { 400 };
    let mut answer = Response::builder().status(status).header("content-type", "application/json");
    if options & 8 != 0 {
        answer = answer.header("content-encoding", "gzip").header("x-guploader-uploadid", "u");
    }
    answer.body(()).expect("an answer").into_parts().0
}

fn every_other() -> Policy {
    let mut turn = 0u32;
    Box::new(move |_| {
        turn = turn.wrapping_add(1);
        let refused = Refusal { kind: RefusalKind::Denied, message: "no".to_owned() };
        Some(if turn.is_multiple_of(2) { Decision::Refuse(refused) } else { Decision::Allow })
    })
}

/// Every message is a command, but those that begin with `s`; a message of the server's ends the oldest.
struct Each {
    opening: Opening,
    open: Vec<CommandId>,
}

impl GrpcMessages for Each {
    fn opening(&self) -> Opening {
        self.opening
    }

    fn wanted(&self, _: Direction) -> usize {
        12
    }

    fn message(&mut self, message: &Message<'_>) -> Found {
        if message.direction == Direction::ToClient {
            let ended = (!self.open.is_empty()).then(|| self.open.remove(0));
            let outcome = Outcome { status: Status::Ok, ..Outcome::default() };
            return Found { ended: ended.map(|id| (id, outcome)).into_iter().collect(), ..Found::default() };
        }
        if message.bytes.first() == Some(&b's') {
            return Found::default();
        }
        self.open.push(message.next_command);
        let bytes = message.bytes.to_vec();
        let full_length = bytes.len() as u64;
        let statement = Captured { bytes, full_length, full_sha256: None, tokens: Vec::new() };
        Found { commands: vec![Command { statement, ..Command::default() }], ..Found::default() }
    }
}
