//! A decoder of lines, to test the relay with: it has units, refusals that wait for earlier answers,
//! prefixes, keys and an opaque mode, and fits on a page.
//!
//! The client sends lines, each a unit of commands divided by `;`. The server answers each command by a
//! line; lines that begin with `+` are data before the answer, `err` an error, `key P S` a cancel key,
//! `chaos` ends decoding. `cancel P S` of a client is a cancel request, `opaque` ends decoding.

use std::{collections::VecDeque, sync::Arc};

use verbatim_api::v1;
use verbatim_proxy::{Detected, Protocols};
use verbatim_wire::{message::Messages, seam::*};

use super::words::Words;

pub(crate) fn limits() -> Limits {
    Limits { capture_bytes: 64 * 1024, ..Limits::default() }
}

pub(crate) struct LineProtocol {
    pub limits: Limits,
}

impl Protocols for LineProtocol {
    fn detect(&self, first: &[u8]) -> Detected {
        if first.starts_with(b"\x16") {
            let (protocol, reason) = (v1::Protocol::Tls, v1::OpaqueReason::Tls);
            return Detected::Pass { protocol, reason, service: "tls", host: Some("db.example".to_owned()) };
        }
        for (start, protocol) in [(&b"POST "[..], v1::Protocol::Http1), (b"PRI ", v1::Protocol::Http2)] {
            if first.starts_with(start) {
                let reason = v1::OpaqueReason::UnknownProtocol;
                return Detected::Pass { protocol, reason, service: "http", host: None };
            }
        }
        if first.starts_with(b"?") {
            return match first.len() {
                0..4 => Detected::NeedMore,
                _ => Detected::Pass {
                    protocol: v1::Protocol::Unknown,
                    reason: v1::OpaqueReason::UnknownProtocol,
                    service: "",
                    host: None,
                },
            };
        }
        let decoder = Box::new(LineDecoder { limits: self.limits, ..LineDecoder::default() });
        Detected::Decode { protocol: v1::Protocol::Postgresql, service: "lines", decoder }
    }

    fn messages(&self) -> Option<Arc<dyn Messages>> {
        Some(Arc::new(Words))
    }
}

#[derive(Default)]
pub(crate) struct LineDecoder {
    limits: Limits,
    ids: u64,
    line: Vec<u8>,
    /// Length of the line so far; more than is kept of a long one.
    length: u64,
    waiting: Option<(UnitId, Vec<CommandId>)>,
    /// The unit whose first part was let through.
    passing: Option<(UnitId, CommandId)>,
    expected: VecDeque<Expected>,
    answer: Vec<u8>,
    in_data: bool,
    opaque: bool,
    ended: [bool; 2],
}

enum Expected {
    Answer(CommandId),
    /// Of a refusal: goes out when its turn has come.
    Ours(Vec<u8>),
}

impl LineDecoder {
    fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn commands(&mut self, text: &[u8], whole: bool) -> Vec<Command> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let cancel = text.starts_with(b"cancel ");
        let parts: Vec<_> = text.split(|&b| b == b';').map(<[u8]>::to_vec).collect();
        let command = |(index, part): (usize, Vec<u8>)| Command {
            id: CommandId(self.id()),
            operation: if cancel { Operation::Cancel } else { Operation::Query },
            statement: Captured {
                full_length: if whole { part.len() as u64 } else { self.length },
                bytes: part,
                ..Captured::default()
            },
            statement_index: index as u32,
            ..Command::default()
        };
        parts.into_iter().enumerate().map(command).collect()
    }

    fn turn(&mut self, sink: &mut dyn Sink) {
        while let Some(Expected::Ours(bytes)) = self.expected.front_mut() {
            sink.edit(Direction::ToClient, Edit::Insert(std::mem::take(bytes)));
            self.expected.pop_front();
        }
    }

    fn go_opaque(&mut self, sink: &mut dyn Sink) {
        for expected in std::mem::take(&mut self.expected) {
            if let Expected::Answer(command) = expected {
                sink.event(Event::Finished { command, outcome: outcome(Status::OutcomeUnknown) });
            }
        }
        sink.event(Event::Opaque(OpaqueReason::Desynchronised));
        sink.edit(Direction::ToServer, Edit::Forward(u64::MAX));
        sink.edit(Direction::ToClient, Edit::Forward(u64::MAX));
        self.opaque = true;
    }

    fn client_sent(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> usize {
        for (at, &byte) in bytes.iter().enumerate() {
            self.line.push(byte);
            self.length += 1;
            if byte == b'\n' {
                if let Some((unit, command)) = self.passing {
                    // All but the last byte have gone.
                    let mut commands = self.commands(&self.line.clone(), false);
                    commands.truncate(1);
                    commands[0].id = command;
                    self.waiting = Some((unit, vec![command]));
                    sink.event(Event::Started { unit, commands });
                    return at + 1;
                }
                if self.line == b"opaque\n" {
                    self.go_opaque(sink);
                    return at + 1;
                }
                if let Some(rest) = self.line.strip_prefix(b"cancel ") {
                    let (process_id, secret) = key(rest);
                    sink.event(Event::Session(SessionFact::CancelRequest { process_id, secret }));
                }
                let commands = self.commands(&self.line.clone(), true);
                let unit = UnitId(self.id());
                self.waiting = Some((unit, commands.iter().map(|c| c.id).collect()));
                sink.event(Event::Started { unit, commands });
                return at + 1;
            }
            if self.passing.is_some() {
                sink.edit(Direction::ToServer, Edit::Forward(1));
                self.line.truncate(self.limits.capture_bytes);
            } else if self.line.len() == self.limits.capture_bytes {
                let mut commands = self.commands(&self.line.clone(), false);
                commands.truncate(1);
                let unit = UnitId(self.id());
                self.waiting = Some((unit, vec![commands[0].id]));
                sink.event(Event::Prefix { unit, commands });
                return at + 1;
            }
        }
        bytes.len()
    }

    fn server_sent(&mut self, mut bytes: &[u8], sink: &mut dyn Sink) -> usize {
        let all = bytes.len();
        while let Some((&byte, rest)) = bytes.split_first() {
            self.in_data |= self.answer.is_empty() && byte == b'+';
            if self.in_data {
                let line = bytes.iter().position(|&b| b == b'\n').map(|end| end + 1);
                self.in_data = line.is_none();
                let (data, rest) = bytes.split_at(line.unwrap_or(bytes.len()));
                sink.edit(Direction::ToClient, Edit::Forward(data.len() as u64));
                bytes = rest;
                continue;
            }
            bytes = rest;
            self.answer.push(byte);
            if byte != b'\n' {
                continue;
            }
            let line = std::mem::take(&mut self.answer);
            if let Some(rest) = line.strip_prefix(b"key ") {
                let (process_id, secret) = key(rest);
                sink.event(Event::Session(SessionFact::CancelKey { process_id, secret }));
            } else if line == b"chaos\n" {
                self.go_opaque(sink);
                return all;
            } else if let Some(Expected::Answer(command)) = self.expected.pop_front() {
                let status = if line.starts_with(b"err") { Status::Error } else { Status::Ok };
                sink.event(Event::Finished { command, outcome: outcome(status) });
            }
            sink.edit(Direction::ToClient, Edit::Forward(line.len() as u64));
            self.turn(sink);
        }
        all
    }
}

impl Decoder for LineDecoder {
    fn feed(&mut self, direction: Direction, bytes: &[u8], sink: &mut dyn Sink) -> usize {
        assert!(!bytes.starts_with(b"bug"), "decoder was told to panic");
        match direction {
            _ if self.opaque => bytes.len(),
            Direction::ToServer if self.waiting.is_some() => 0,
            Direction::ToServer => self.client_sent(bytes, sink),
            Direction::ToClient => self.server_sent(bytes, sink),
        }
    }

    fn decide(&mut self, unit: UnitId, decision: &Decision, sink: &mut dyn Sink) {
        let Some((_, commands)) = self.waiting.take_if(|(waiting, _)| *waiting == unit) else { return };
        let whole = self.line.ends_with(b"\n");
        match decision {
            Decision::Allow if !whole => {
                sink.edit(Direction::ToServer, Edit::Forward(self.length));
                self.passing = Some((unit, commands[0]));
                return;
            }
            Decision::Allow => {
                let passed = if self.passing.take().is_some() { 1 } else { self.length };
                sink.edit(Direction::ToServer, Edit::Forward(passed));
                self.expected.extend(commands.into_iter().map(Expected::Answer));
            }
            Decision::Refuse(refusal) => {
                sink.edit(Direction::ToServer, Edit::Drop(self.length));
                for command in commands {
                    sink.event(Event::Finished { command, outcome: outcome(Status::NotForwarded) });
                }
                self.expected
                    .push_back(Expected::Ours(format!("refused {}\n", refusal.message).into_bytes()));
                self.turn(sink);
                if !whole {
                    sink.edit(Direction::ToServer, Edit::Close);
                }
            }
        }
        self.line.clear();
        self.length = 0;
    }

    fn finish(&mut self, direction: Direction, sink: &mut dyn Sink) {
        self.ended[usize::from(direction == Direction::ToClient)] = true;
        if self.ended == [true, true] {
            for expected in std::mem::take(&mut self.expected) {
                if let Expected::Answer(command) = expected {
                    sink.event(Event::Finished { command, outcome: outcome(Status::OutcomeUnknown) });
                }
            }
        }
    }

    fn outstanding(&self) -> bool {
        self.expected.iter().any(|expected| matches!(expected, Expected::Answer(_)))
    }

    fn opaque(&self) -> bool {
        self.opaque
    }
}

fn key(text: &[u8]) -> (u32, Vec<u8>) {
    let text = String::from_utf8_lossy(text);
    let mut words = text.split_whitespace();
    (words.next().unwrap().parse().unwrap(), words.next().unwrap().as_bytes().to_vec())
}

fn outcome(status: Status) -> Outcome {
    Outcome { status, ..Outcome::default() }
}
