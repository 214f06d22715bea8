//! A scripted conversation, run whole, byte by byte, and with each of its pieces cut everywhere: what is
//! seen and what goes out must be the same.

use super::bytes::{ready, startup};
use crate::{
    model::{Model, Policy, allow_all},
    postgres::PostgresDecoder,
    seam::{
        Command, CommandId, Decision, Decoder, Direction, Encryption, Event, Limits, OpaqueReason, Outcome,
        Refusal, RefusalKind, SessionFact, Status, Upgrade,
    },
};

use Direction::{ToClient, ToServer};

/// Pieces in the order in which they arrive.
#[derive(Clone, Default)]
pub(super) struct Conversation {
    pieces: Vec<(Direction, Vec<u8>)>,
    limits: Limits,
    encryption: Option<Encryption>,
    /// Statements with one of these words are refused.
    refused: Vec<(&'static str, RefusalKind)>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    pub(super) events: Vec<Event>,
    pub(super) to_server: Vec<u8>,
    pub(super) to_client: Vec<u8>,
    pub(super) closed: bool,
    pub(super) upgraded: Option<Upgrade>,
    /// What belongs to the next decoder, of the client and of the server.
    pub(super) left: [Vec<u8>; 2],
}

impl Conversation {
    /// Nothing was said yet.
    pub(super) fn raw() -> Self {
        Self::default()
    }

    /// A session that has started.
    pub(super) fn started() -> Self {
        Self::raw().client(startup(&[("user", "bob")])).server(b"R\0\0\0\x08\0\0\0\0").server(ready(b'I'))
    }

    pub(super) fn encryption(mut self, encryption: Encryption) -> Self {
        self.encryption = Some(encryption);
        self
    }

    pub(super) fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    pub(super) fn refuse(mut self, word: &'static str, kind: RefusalKind) -> Self {
        self.refused.push((word, kind));
        self
    }

    pub(super) fn client(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.pieces.push((ToServer, bytes.as_ref().to_vec()));
        self
    }

    pub(super) fn server(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.pieces.push((ToClient, bytes.as_ref().to_vec()));
        self
    }

    fn policy(&self) -> Policy {
        if self.refused.is_empty() {
            return allow_all();
        }
        let refused = self.refused.clone();
        Box::new(move |commands: &[Command]| {
            let kind = refused.iter().find_map(|(word, kind)| {
                let here = |command: &Command| {
                    word.is_empty()
                        || command.statement.bytes.windows(word.len()).any(|at| at == word.as_bytes())
                };
                commands.iter().any(here).then_some(*kind)
            });
            let refusal = |kind| Decision::Refuse(Refusal { kind, message: "refused for a test".into() });
            Some(kind.map_or(Decision::Allow, refusal))
        })
    }

    fn play(&self, cut: impl Fn(usize, &[u8]) -> Vec<usize>) -> Run {
        let mut decoder = PostgresDecoder::new(self.limits);
        if let Some(encryption) = &self.encryption {
            decoder.encryption(encryption.clone());
        }
        let mut relay = Model::new(decoder, self.policy());
        for (index, (direction, bytes)) in self.pieces.iter().enumerate() {
            let mut rest = bytes.as_slice();
            for length in cut(index, bytes) {
                let (piece, after) = rest.split_at(length.min(rest.len()));
                relay.feed(*direction, piece);
                rest = after;
            }
            relay.feed(*direction, rest);
        }
        relay.end();
        Run {
            events: relay.events.clone(),
            to_server: relay.output(ToServer).to_vec(),
            to_client: relay.output(ToClient).to_vec(),
            closed: relay.closed,
            upgraded: relay.upgraded,
            left: [relay.left(ToServer), relay.left(ToClient)],
        }
    }

    /// Plays it at every split.
    pub(super) fn run(&self) -> Run {
        let whole = self.play(|_, _| Vec::new());
        let bytewise = self.play(|_, bytes| vec![1; bytes.len()]);
        assert_eq!(bytewise, whole, "byte by byte");
        for (cut, (_, bytes)) in self.pieces.iter().enumerate() {
            for at in 1..bytes.len() {
                let split = self.play(|index, _| if index == cut { vec![at] } else { Vec::new() });
                assert_eq!(split, whole, "piece {cut} cut at {at}");
            }
        }
        whole
    }

    /// Everything of a direction, as it came in.
    pub(super) fn input(&self, direction: Direction) -> Vec<u8> {
        let pieces = self.pieces.iter().filter(|(to, _)| *to == direction);
        pieces.flat_map(|(_, bytes)| bytes.clone()).collect()
    }

    /// Plays it and asserts that every byte passed unchanged.
    pub(super) fn observed(&self) -> Run {
        let run = self.run();
        assert_eq!(run.to_server, self.input(ToServer));
        assert_eq!(run.to_client, self.input(ToClient));
        run
    }
}

impl Run {
    /// Commands as they were read whole, in order.
    pub(super) fn commands(&self) -> Vec<&Command> {
        let started = self.events.iter().filter_map(|event| match event {
            Event::Started { commands, .. } => Some(commands),
            _ => None,
        });
        started.flatten().collect()
    }

    pub(super) fn outcome(&self, id: CommandId) -> &Outcome {
        let mut ends = self.events.iter().filter_map(|event| match event {
            Event::Finished { command, outcome } if *command == id => Some(outcome),
            _ => None,
        });
        ends.next_back().expect("every command ends")
    }

    /// Text and end of each command.
    pub(super) fn ends(&self) -> Vec<(String, Status)> {
        let text = |command: &Command| String::from_utf8_lossy(&command.statement.bytes).into_owned();
        self.commands().into_iter().map(|c| (text(c), self.outcome(c.id).status)).collect()
    }

    pub(super) fn only(&self) -> (&Command, &Outcome) {
        let commands = self.commands();
        assert_eq!(commands.len(), 1, "{commands:?}");
        (commands[0], self.outcome(commands[0].id))
    }

    pub(super) fn opaque(&self) -> Option<OpaqueReason> {
        self.events.iter().find_map(|event| match event {
            Event::Opaque(reason) => Some(*reason),
            _ => None,
        })
    }

    pub(super) fn facts(&self) -> Vec<&SessionFact> {
        let facts = self.events.iter().filter_map(|event| match event {
            Event::Session(fact) => Some(fact),
            _ => None,
        });
        facts.collect()
    }
}
