//! Messages that are units of their own, through a hook of the test's: a message is a command whose
//! statement is its bytes; `skip…` is none; a message of the server's ends the oldest one.

use std::io::Write;

use http::{HeaderMap, HeaderValue, request};

use super::{super::*, message};
use crate::{
    message::{Abort, model::Model, talk::*},
    model::{Policy, allow_all},
    seam::{
        Captured, Command, CommandId, Decision, Direction, Event, Outcome, Refusal, RefusalKind, Status,
        UnitId,
    },
};

struct Lines {
    opening: Opening,
    open: Vec<CommandId>,
}

impl GrpcMessages for Lines {
    fn opening(&self) -> Opening {
        self.opening
    }

    fn wanted(&self, _: Direction) -> usize {
        16
    }

    fn message(&mut self, message: &Message<'_>) -> Found {
        if message.direction == Direction::ToClient {
            let ended = (!self.open.is_empty()).then(|| self.open.remove(0));
            let outcome = Outcome { status: Status::Ok, rows: Some(message.index), ..Outcome::default() };
            return Found { ended: ended.map(|id| (id, outcome)).into_iter().collect(), ..Found::default() };
        }
        if message.bytes.starts_with(b"skip") {
            return Found::default();
        }
        if !self.open.contains(&message.next_command) {
            self.open.push(message.next_command);
        }
        let bytes = message.bytes.to_vec();
        let statement = Captured {
            bytes,
            full_length: message.length.max(message.bytes.len() as u64),
            ..Captured::default()
        };
        let whole = if message.whole { "whole" } else { "part" };
        let attributes = vec![("came", whole.as_bytes().to_vec())];
        Found { commands: vec![Command { statement, attributes, ..Command::default() }], ..Found::default() }
    }

    fn outcome(&mut self, command: CommandId, outcome: &mut Outcome) {
        outcome.rows = Some(100 + command.0);
    }
}

fn head() -> request::Parts {
    let request =
        http::Request::post("https://pubsub.googleapis.com/google.pubsub.v1.Subscriber/StreamingPull")
            .header("content-type", "application/grpc");
    request.body(()).expect("a request").into_parts().0
}

fn model(opening: Opening, policy: Policy) -> Model {
    let hook = Lines { opening, open: Vec::new() };
    Model::new(exchange(&head(), "pubsub.googleapis.com", Vec::new(), Limits::default(), hook), policy)
}

fn statements(model: &Model) -> Vec<String> {
    model.commands().iter().map(|command| text(&command.statement.bytes).to_owned()).collect()
}

fn end(model: &mut Model) {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    model.response_head(&http::Response::new(()).into_parts().0);
    model.response_end(Some(&trailers));
}

/// Lets the first units pass and holds the one with this number, from 0.
fn hold(nth: usize) -> Policy {
    let mut seen = 0;
    Box::new(move |_| {
        seen += 1;
        (seen != nth + 1).then_some(Decision::Allow)
    })
}

#[test]
fn the_second_message_of_a_stream_is_held_while_the_first_is_there_already() {
    let (first, second, third) = (message(0, b"first"), message(0, b"second"), message(0, b"third"));
    let stream = [first.clone(), second.clone(), third.clone()].concat();
    for piece in 1..=stream.len() {
        // The head is the first unit, then come the messages.
        let mut model = model(Opening::Head, hold(2));
        for piece in stream.chunks(piece) {
            model.request(piece);
        }
        model.request_end();
        assert!(model.holds() && model.head && !model.rest);
        assert_eq!(model.output(), first, "by {piece}");
        model.release(&Decision::Allow);
        assert_eq!(model.output(), stream);
        assert!(model.rest, "the end");
        end(&mut model);
        assert_eq!(statements(&model)[1..], ["first", "second", "third"]);
        let rows: Vec<_> = model
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Finished { outcome, .. } => outcome.rows,
                _ => None,
            })
            .collect();
        assert_eq!(rows, [100, 101, 102, 103]);
    }
}

#[test]
fn a_refused_message_cuts_the_call_off_and_what_came_before_is_recorded() {
    let mut model = model(Opening::Head, hold(2));
    model.request(&[message(0, b"first"), message(0, b"second")].concat());
    model.release(&Decision::Refuse(Refusal { kind: RefusalKind::Denied, message: "no".to_owned() }));
    assert_eq!(model.output(), message(0, b"first"));
    assert!(model.answer.is_some());
    let ends: Vec<_> = model
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Finished { command, outcome } => Some((command.0, outcome.status)),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [(2, Status::NotForwarded), (0, Status::OutcomeUnknown), (1, Status::OutcomeUnknown)]);
    model.request(&message(0, b"more"));
    model.abort(Abort::Ours);
}

#[test]
fn a_call_may_be_opened_by_its_first_message() {
    let request = message(0, b"only");
    for piece in 1..=request.len() {
        let mut model = model(Opening::FirstMessage, hold(0));
        for piece in request.chunks(piece) {
            model.request(piece);
        }
        assert!(model.holds() && !model.head);
        model.release(&Decision::Allow);
        assert_eq!((model.head, model.output()), (true, request.as_slice()));
        model.request_end();
        assert!(model.rest);
        end(&mut model);
        assert_eq!(statements(&model), ["only"]);
        assert_eq!(model.outcome().bytes_sent, request.len() as u64);
    }
}

#[test]
fn a_call_without_a_message_that_is_a_command_is_a_command_itself() {
    for body in [
        Vec::new(),
        message(0, b"skip"),
        message(0, b"skip what is longer than wanted"),
        b"\x07garbage".to_vec(),
    ] {
        let mut model = model(Opening::FirstMessage, allow_all());
        model.request(&body);
        model.request_end();
        assert_eq!((model.head, model.rest, model.output()), (true, true, body.as_slice()));
        end(&mut model);
        assert!(text(&model.commands()[0].statement.bytes).starts_with("POST /google.pubsub"));
    }
}

#[test]
fn a_message_beyond_what_is_wanted_is_decided_by_its_first_part() {
    let long = message(0, b"longer than sixteen bytes");
    for piece in 1..=long.len() {
        let mut model = model(Opening::FirstMessage, allow_all());
        for piece in long.chunks(piece) {
            model.request(piece);
        }
        let kinds: Vec<_> = model
            .events
            .iter()
            .map(|event| match event {
                Event::Prefix { unit, commands } => {
                    (true, *unit, of(&commands[0].attributes, "came").to_owned())
                }
                Event::Started { unit, commands } => {
                    (false, *unit, of(&commands[0].attributes, "came").to_owned())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let unit = UnitId(0);
        assert_eq!(kinds, [(true, unit, "part".to_owned()), (false, unit, "whole".to_owned())], "by {piece}");
        assert_eq!(model.output(), long);
        model.request_end();
        end(&mut model);
        assert_eq!(statements(&model), ["longer than sixt"]);
    }
}

#[test]
fn the_last_byte_of_a_long_message_waits_until_it_is_whole() {
    let long = message(0, b"longer than sixteen bytes");
    let mut model = model(Opening::FirstMessage, hold(1));
    model.request(&long);
    assert!(model.holds());
    assert_eq!(model.output(), &long[..long.len() - 1]);
    model.abort(Abort::Client);
}

#[test]
fn a_message_of_the_server_may_end_a_command() {
    let mut model = model(Opening::FirstMessage, allow_all());
    model.request(&[message(0, b"a"), message(0, b"b")].concat());
    model.response_head(&http::Response::new(()).into_parts().0);
    model.response(&message(0, b"done"));
    assert_eq!(model.outcome().rows, Some(0));
    model.abort(Abort::Server);
    let last = model.events.iter().rev().find_map(|event| match event {
        Event::Finished { outcome, .. } => Some(outcome.status),
        _ => None,
    });
    assert_eq!(last, Some(Status::OutcomeUnknown));
}

#[test]
fn compressed_messages_are_read_and_bombs_are_not() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    };
    struct Wide(Lines);
    impl GrpcMessages for Wide {
        fn wanted(&self, _: Direction) -> usize {
            1000
        }
        fn message(&mut self, message: &Message<'_>) -> Found {
            assert!(message.bytes.len() <= 4000, "{}", message.bytes.len());
            self.0.message(message)
        }
    }
    let mut head = head();
    head.headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
    let hook = Wide(Lines { opening: Opening::Head, open: Vec::new() });
    let exchange = exchange(&head, "", Vec::new(), Limits::default(), hook);
    let mut model = Model::new(exchange, allow_all());
    model.request(&message(1, &gzip(b"hello")));
    model.request(&message(1, &gzip(&[b'x'; 500_000])));
    assert_eq!(statements(&model)[1], "hello");
    model.abort(Abort::Client);
}

#[test]
fn an_answer_that_ends_while_a_message_is_held_leaves_it_unsent() {
    let mut model = model(Opening::Head, hold(1));
    model.request(&message(0, b"late"));
    end(&mut model);
    assert!(model.holds());
    model.release(&Decision::Allow);
    let ends: Vec<_> = model
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Finished { outcome, .. } => Some(outcome.status),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [Status::Ok, Status::NotForwarded]);
    assert!(model.output().is_empty() || model.rest);
}
