//! A server in memory that follows the protocol's rules, and random clients against it: what the decoder
//! says must be what the server did.

use std::collections::{HashMap, VecDeque};

use proptest::{collection::vec, prelude::*};

use super::bytes::*;
use crate::{
    model::Model,
    postgres::{
        PostgresDecoder,
        framing::{Framer, Header},
        messages::{
            backend,
            frontend::{self, Target},
        },
    },
    seam::{Command, Decision, Decoder, Direction, Event, Limits, Refusal, RefusalKind, Status},
};

/// What the server did with a text.
type Did = (String, Status);

#[derive(Default)]
struct Server {
    input: Vec<u8>,
    output: VecDeque<Vec<u8>>,
    statements: HashMap<Vec<u8>, String>,
    portals: HashMap<Vec<u8>, String>,
    skipping: bool,
    did: Vec<Did>,
}

impl Server {
    fn take(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        loop {
            let input = self.input.clone();
            let Header::Message { kind, body, taken } = Framer::default().read(&input) else { return };
            let Some(content) = input.get(taken..taken + body) else { return };
            self.input.drain(..taken + body);
            self.message(kind, content);
        }
    }

    fn fail(&mut self, code: &str, extended: bool) {
        self.output.push_back(error(code, "failed"));
        self.skipping = extended;
    }

    fn did(&mut self, text: &str, status: Status) {
        if !text.starts_with("verbatim") {
            self.did.push((text.to_owned(), status));
        }
    }

    fn message(&mut self, kind: u8, body: &[u8]) {
        if self.skipping && kind != b'S' {
            return;
        }
        match kind {
            b'S' => {
                self.skipping = false;
                self.portals.clear();
                self.output.push_back(ready(b'I'));
            }
            b'Q' => self.query(frontend::text(body).expect("well-formed")),
            b'P' => {
                let parse = frontend::parse(body).expect("well-formed");
                let text = String::from_utf8(parse.text.to_vec()).expect("test texts are UTF-8");
                if text.starts_with("bad") || text.starts_with("verbatim") {
                    self.did(&text, Status::Error);
                    self.fail("42601", true);
                } else if !parse.name.is_empty() && self.statements.contains_key(parse.name) {
                    self.did(&text, Status::Error);
                    self.fail("42P05", true);
                } else {
                    self.statements.insert(parse.name.to_vec(), text);
                    self.output.push_back(PARSED.to_vec());
                }
            }
            b'B' => {
                let bind = frontend::bind(body).expect("well-formed");
                match self.statements.get(bind.statement).cloned() {
                    None => {
                        self.did("", Status::Error);
                        self.fail("26000", true);
                    }
                    Some(text) => {
                        self.portals.insert(bind.portal.to_vec(), text);
                        self.output.push_back(BOUND.to_vec());
                    }
                }
            }
            b'E' => {
                let (portal, _) = frontend::execute(body).expect("well-formed");
                match self.portals.get(portal).cloned() {
                    None => {
                        self.did("", Status::Error);
                        self.fail("34000", true);
                    }
                    Some(text) if text.starts_with("err") => {
                        self.did(&text, Status::Error);
                        self.fail("22012", true);
                    }
                    Some(text) => {
                        self.did(&text, Status::Ok);
                        self.output.push_back(row("1"));
                        self.output.push_back(complete("SELECT 1"));
                    }
                }
            }
            b'C' => {
                match frontend::target(body).expect("well-formed") {
                    Target::Statement(name) => self.statements.remove(name),
                    Target::Portal(name) => self.portals.remove(name),
                };
                self.output.push_back(CLOSED.to_vec());
            }
            other => panic!("the client never sends {other}"),
        }
    }

    fn query(&mut self, text: &[u8]) {
        self.statements.remove(&b""[..]);
        self.portals.clear();
        let text = std::str::from_utf8(text).expect("test texts are UTF-8");
        // A syntax error anywhere is one of the whole message.
        if text.contains("bad") || text.starts_with("verbatim") {
            self.did(text.split_inclusive(';').next().unwrap_or_default(), Status::Error);
            self.fail("42601", false);
        } else {
            for statement in text.split_inclusive(';') {
                if statement.starts_with("err") {
                    self.did(statement, Status::Error);
                    self.fail("22012", false);
                    break;
                }
                self.did(statement, Status::Ok);
                self.output.push_back(complete("SELECT 1"));
            }
        }
        self.output.push_back(ready(b'I'));
    }
}

#[derive(Clone)]
enum Step {
    Send(Vec<u8>),
    /// The server's next messages arrive.
    Receive(usize),
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Send(bytes) => write!(f, "Send({})", bytes.escape_ascii()),
            Self::Receive(count) => write!(f, "Receive({count})"),
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    let kind = prop_oneof![6 => Just("ok"), 1 => Just("err"), 1 => Just("bad"), 2 => Just("refuse")];
    (kind, 0u32..1000).prop_map(|(kind, id)| format!("{kind}{id}"))
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![2 => Just(String::new()), 1 => Just("a".to_owned()), 1 => Just("b".to_owned())]
}

fn step() -> impl Strategy<Value = Step> {
    let whole = |text: String| [parse("", &text, &[]), bind("", "", &[], &[]), execute("", 0)].concat();
    prop_oneof![
        3 => vec(text(), 1..4).prop_map(|texts| Step::Send(query(&texts.join(";")))),
        4 => text().prop_map(move |text| Step::Send(whole(text))),
        2 => (name(), text()).prop_map(|(name, text)| Step::Send(parse(&name, &text, &[]))),
        2 => (name(), name()).prop_map(|(portal, name)| Step::Send(bind(&portal, &name, &[], &[]))),
        2 => name().prop_map(|portal| Step::Send(execute(&portal, 0))),
        1 => name().prop_map(|name| Step::Send(close(b'S', &name))),
        1 => name().prop_map(|name| Step::Send(close(b'P', &name))),
        4 => Just(Step::Send(sync())),
        6 => (1usize..6).prop_map(Step::Receive),
    ]
}

fn policy(commands: &[Command]) -> Option<Decision> {
    let is_refused = |text: &[u8]| text.windows(6).any(|at| at == b"refuse");
    let refused = commands.iter().any(|command| {
        is_refused(&command.statement.bytes) || command.attributes.iter().any(|(_, text)| is_refused(text))
    });
    let refusal = Refusal { kind: RefusalKind::Denied, message: "no".to_owned() };
    Some(if refused { Decision::Refuse(refusal) } else { Decision::Allow })
}

fn deliver(relay: &mut Model<PostgresDecoder>, server: &mut Server, seen: &mut usize, count: usize) {
    for _ in 0..count {
        server.take(&relay.output(Direction::ToServer)[*seen..]);
        *seen = relay.output(Direction::ToServer).len();
        let Some(message) = server.output.pop_front() else { return };
        relay.feed(Direction::ToClient, &message);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn what_is_recorded_is_what_the_server_did(steps in vec(step(), 1..60)) {
        let mut relay = Model::new(PostgresDecoder::new(Limits::default()), Box::new(policy));
        relay.feed(Direction::ToServer, &startup(&[("user", "u")]));
        relay.feed(Direction::ToClient, &ready(b'I'));
        let mut seen = relay.output(Direction::ToServer).len();
        let mut server = Server::default();
        for step in steps.iter().chain([&Step::Send(sync()), &Step::Receive(usize::MAX)]) {
            match step {
                Step::Send(bytes) => relay.feed(Direction::ToServer, bytes),
                Step::Receive(count) => deliver(&mut relay, &mut server, &mut seen, *count),
            }
        }
        prop_assert!(!relay.decoder().outstanding());
        relay.end();

        let mut texts = HashMap::new();
        let mut alternatives: HashMap<_, Vec<Vec<u8>>> = HashMap::new();
        let mut ids = Vec::new();
        let mut recorded: Vec<Did> = Vec::new();
        for event in &relay.events {
            match event {
                Event::Opaque(reason) => prop_assert!(false, "lost: {reason:?}"),
                Event::Started { commands, .. } => {
                    for command in commands {
                        let text = String::from_utf8(command.statement.bytes.clone()).expect("UTF-8");
                        texts.insert(command.id, text);
                        let others = command.attributes.iter().filter(|(name, _)| *name == "alternative_statement");
                        let others: Vec<Vec<u8>> = others.map(|(_, text)| text.clone()).collect();
                        alternatives.insert(command.id, others);
                    }
                }
                Event::Finished { command, outcome } => {
                    prop_assert_ne!(outcome.status, Status::OutcomeUnknown);
                    if matches!(outcome.status, Status::Ok | Status::Error) {
                        recorded.push((texts[command].clone(), outcome.status));
                        ids.push(*command);
                    }
                }
                _ => {}
            }
        }
        // Of a name that it does not have, the server knows no text; the client may still mean one, e.g. a
        // portal that ended with its transaction.
        for ((ours, theirs), id) in recorded.iter_mut().zip(&server.did).zip(&ids) {
            let meant = alternatives[id].iter().any(|text| text == theirs.0.as_bytes());
            if theirs.0.is_empty() || meant {
                ours.0.clone_from(&theirs.0);
            }
        }
        // A rejected Parse of such a text is no execution.
        let ran = |(text, status): &Did| text.contains("refuse") && *status == Status::Ok;
        prop_assert!(!server.did.iter().any(ran), "a refused text was executed");
        prop_assert_eq!(&recorded, &server.did);
        // The client sees one error for each that the server gave, and for each that we gave in its place
        // or by ourselves; nothing of a substitute reaches it.
        let to_client = relay.output(Direction::ToClient);
        prop_assert!(!to_client.windows(8).any(|at| at == b"verbatim"));
        prop_assert!(!relay.output(Direction::ToServer).windows(8).any(|at| at == b"Qrefuse"));
    }
}

#[test]
fn the_server_in_memory_answers_as_the_protocol_says() {
    let mut server = Server::default();
    server.take(&[parse("", "bad1", &[]), sync(), query("ok1;err2;ok3")].concat());
    let kinds: Vec<u8> = server.output.iter().map(|message| message[0]).collect();
    assert_eq!(kinds, b"EZCEZ");
    assert_eq!(backend::fields(&server.output[0][5..]).code, "42601");
}

#[test]
fn a_refused_text_does_not_slip_through_a_name_that_is_not_settled() {
    // The refusal makes the server skip the second Parse, and so the name still stands for the first.
    let refused = [parse("s", "refuse", &[]), bind("", "s", &[], &[]), execute("", 0)].concat();
    let renamed = [close(b'S', "s"), parse("s", "ok", &[]), sync()].concat();
    let used = [bind("", "s", &[], &[]), execute("", 0), sync()].concat();
    let mut relay = Model::new(PostgresDecoder::new(Limits::default()), Box::new(policy));
    relay.feed(Direction::ToServer, &startup(&[("user", "u")]));
    relay.feed(Direction::ToClient, &ready(b'I'));
    let mut seen = relay.output(Direction::ToServer).len();
    let mut server = Server::default();
    relay.feed(Direction::ToServer, &[refused, renamed, used].concat());
    deliver(&mut relay, &mut server, &mut seen, usize::MAX);
    relay.end();
    assert_eq!(server.did, []);
}
