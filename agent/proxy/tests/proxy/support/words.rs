//! A decoder of requests, to test the way of HTTP with: a body is a statement, or, in a call, a line is one.
//!
//! An answer whose body has the line `begun NAME` began a job, and one with `ended NAME` says that it has
//! ended. A request with the header `x-goes-on-with: NAME` goes on with it.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request, response};
use verbatim_wire::{
    message::{Abort, Answer, Exchange, MessageSink, Messages, Pass, Peer},
    seam::*,
};

/// Bytes of a statement that are read before it is decided.
pub(crate) const CAPTURE: usize = 64 * 1024;

pub(crate) struct Words;

impl Messages for Words {
    fn exchange(&self, head: &request::Parts, _: Peer<'_>) -> (&'static str, Box<dyn Exchange>) {
        let goes_on = head.headers.get("x-goes-on-with").map(|name| job(name.as_bytes()));
        let call = head.headers.get("content-type").is_some_and(|t| t == "application/grpc");
        let method = head.method.to_string();
        let resource = head.uri.path().to_owned();
        let words = Word { call, method, resource, goes_on, ..Word::default() };
        ("words", Box::new(words))
    }
}

fn job(name: &[u8]) -> ChainKey {
    ChainKey { kind: ChainKind::BigQueryJob, id: name.to_vec() }
}

#[derive(Default)]
struct Word {
    call: bool,
    method: String,
    resource: String,
    goes_on: Option<ChainKey>,
    ids: u64,
    /// Of the statement so far.
    text: Vec<u8>,
    length: u64,
    waiting: Option<(UnitId, CommandId, u64)>,
    prefix: Option<(UnitId, CommandId)>,
    open: Vec<CommandId>,
    status: u16,
    answer: Vec<u8>,
}

impl Word {
    fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn command(&mut self, id: CommandId) -> Command {
        let bytes = std::mem::take(&mut self.text);
        Command {
            id,
            operation: Operation::HttpRequest,
            statement: Captured {
                full_length: bytes.len() as u64,
                bytes,
                full_sha256: None,
                tokens: Vec::new(),
            },
            method: self.method.clone(),
            resource: self.resource.clone(),
            continues: self.goes_on.clone(),
            ..Command::default()
        }
    }

    fn finish(&mut self, id: CommandId, status: Status, sink: &mut dyn MessageSink) {
        self.open.retain(|open| *open != id);
        let http_status = (self.status != 0).then_some(self.status);
        let outcome = Outcome { status, http_status, bytes_sent: self.length, ..Outcome::default() };
        sink.event(Event::Finished { command: id, outcome });
    }
}

impl Exchange for Word {
    fn begin(&mut self, sink: &mut dyn MessageSink) {
        if self.call {
            sink.pass(Pass::Head);
        }
    }

    fn request(&mut self, bytes: &[u8], sink: &mut dyn MessageSink) -> usize {
        assert!(!bytes.starts_with(b"bug"), "decoder was told to panic");
        if self.waiting.is_some() {
            return 0;
        }
        let line = bytes.iter().position(|&b| b == b'\n').filter(|_| self.call).map(|end| end + 1);
        let taken = &bytes[..line.unwrap_or(bytes.len())];
        self.length += taken.len() as u64;
        if self.prefix.is_some() {
            sink.pass(Pass::Body(taken.len() as u64));
            return taken.len();
        }
        self.text.extend_from_slice(taken);
        if line.is_some() {
            let (unit, id) = (UnitId(self.id()), CommandId(self.id()));
            self.waiting = Some((unit, id, self.text.len() as u64));
            self.text.pop();
            let command = self.command(id);
            sink.event(Event::Started { unit, commands: vec![command] });
        } else if self.text.len() >= CAPTURE {
            let (unit, id) = (UnitId(self.id()), CommandId(self.id()));
            let text = self.text.clone();
            self.waiting = Some((unit, id, self.length));
            let command = self.command(id);
            self.text = text;
            sink.event(Event::Prefix { unit, commands: vec![command] });
        }
        taken.len()
    }

    fn request_end(&mut self, _: Option<&HeaderMap>, sink: &mut dyn MessageSink) {
        if self.call {
            return sink.pass(Pass::End);
        }
        let (unit, id) = match self.prefix {
            Some(passing) => passing,
            None => (UnitId(self.id()), CommandId(self.id())),
        };
        self.waiting = Some((unit, id, self.length));
        let mut command = self.command(id);
        command.statement.full_length = self.length;
        sink.event(Event::Started { unit, commands: vec![command] });
    }

    fn response_head(&mut self, head: &response::Parts, _: &mut dyn MessageSink) {
        self.status = head.status.as_u16();
    }

    fn response(&mut self, bytes: &[u8], _: &mut dyn MessageSink) {
        if self.answer.len() < 1000 {
            self.answer.extend_from_slice(bytes);
        }
    }

    fn response_end(&mut self, _: Option<&HeaderMap>, sink: &mut dyn MessageSink) {
        let mut status = if self.status >= 400 { Status::Error } else { Status::Ok };
        for line in std::mem::take(&mut self.answer).split(|&b| b == b'\n') {
            if let Some(name) = line.strip_prefix(b"begun ") {
                status = Status::Accepted;
                for &command in &self.open {
                    sink.event(Event::ChainBegun { command, chain: job(name) });
                }
            } else if let Some(name) = line.strip_prefix(b"ended ") {
                let attributes = vec![("bytes_billed", b"10".to_vec())];
                let outcome = Outcome { status: Status::Ok, rows: Some(3), attributes, ..Outcome::default() };
                sink.event(Event::ChainEnded { chain: job(name), outcome });
            }
        }
        for id in self.open.clone() {
            self.finish(id, status, sink);
        }
    }

    fn abort(&mut self, _: Abort, sink: &mut dyn MessageSink) {
        let prefix = self.prefix.map(|(_, id)| id);
        let waiting = self.waiting.map(|(_, id, _)| id);
        for id in self.open.clone() {
            self.finish(id, Status::OutcomeUnknown, sink);
        }
        for id in waiting.into_iter().chain(prefix.filter(|id| waiting != Some(*id))) {
            self.finish(id, Status::NotForwarded, sink);
        }
    }

    fn decide(&mut self, unit: UnitId, decision: &Decision, sink: &mut dyn MessageSink) {
        let Some((_, id, bytes)) = self.waiting.take_if(|(waiting, ..)| *waiting == unit) else { return };
        match decision {
            Decision::Allow if self.call => {
                self.open.push(id);
                sink.pass(Pass::Body(bytes));
            }
            Decision::Allow if self.text.is_empty() => {
                // Whole: by its first part, all but the end has gone.
                self.open.push(id);
                if self.prefix.take().is_none() {
                    sink.pass(Pass::Head);
                    sink.pass(Pass::Body(bytes));
                }
                sink.pass(Pass::End);
            }
            Decision::Allow => {
                self.prefix = Some((unit, id));
                sink.pass(Pass::Head);
                sink.pass(Pass::Body(bytes));
            }
            Decision::Refuse(refusal) => {
                self.finish(id, Status::NotForwarded, sink);
                sink.answer(self.refusal(&refusal.message));
            }
        }
    }
}

impl Word {
    fn refusal(&self, message: &str) -> Answer {
        let mut headers = HeaderMap::new();
        if self.call {
            let message = HeaderValue::from_str(message).expect("a line");
            headers.insert("content-type", HeaderValue::from_static("application/grpc"));
            headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("7"));
            headers.insert(HeaderName::from_static("grpc-message"), message);
            return Answer { status: StatusCode::OK, headers, body: Vec::new() };
        }
        let body = format!("refused {message}").into_bytes();
        Answer { status: StatusCode::FORBIDDEN, headers, body }
    }
}
