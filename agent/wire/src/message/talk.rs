//! What tests say to a decoder and what they ask of it.

use ::http::{Request, Response, request, response};

use super::{Builtin, Messages, Peer, model::Model};
use crate::{
    model::{Policy, allow_all},
    seam::{Command, Decision, Event, Limits, Outcome, Refusal, RefusalKind},
};

/// A request and its answer.
#[derive(Clone)]
pub(super) struct Talk {
    pub(super) head: request::Parts,
    pub(super) body: Vec<u8>,
    pub(super) answer: response::Parts,
    pub(super) answer_body: Vec<u8>,
    pub(super) trailers: Option<::http::HeaderMap>,
    pub(super) limits: Limits,
    tls_name: Option<&'static str>,
    destination: Option<std::net::SocketAddr>,
    /// Whether request and answer are given in pieces.
    piece: usize,
}

/// A request to BigQuery that is answered with 200 and `{}`.
pub(super) fn bigquery(method: &str, path: &str) -> Talk {
    request(method, &format!("https://bigquery.googleapis.com{path}")).answered(200, "{}")
}

pub(super) fn request(method: &str, uri: &str) -> Talk {
    Talk {
        head: Request::builder().method(method).uri(uri).body(()).expect("a request").into_parts().0,
        body: Vec::new(),
        answer: Response::new(()).into_parts().0,
        answer_body: Vec::new(),
        trailers: None,
        limits: Limits::default(),
        tls_name: None,
        destination: None,
        piece: usize::MAX,
    }
}

impl Talk {
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.head.headers.insert(name, value.parse().expect("a value"));
        self
    }

    pub(super) fn json(self, body: &str) -> Self {
        self.header("content-type", "application/json").body(body.as_bytes())
    }

    pub(super) fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    pub(super) fn answered(mut self, status: u16, body: &str) -> Self {
        self.answer_body = body.as_bytes().to_vec();
        self.answer.status = status.try_into().expect("a status");
        self.answer_header("content-type", "application/json; charset=UTF-8")
    }

    pub(super) fn answer_header(mut self, name: &'static str, value: &str) -> Self {
        self.answer.headers.insert(name, value.parse().expect("a value"));
        self
    }

    /// The name that TLS was made for.
    pub(super) fn tls(self, name: &'static str) -> Self {
        Self { tls_name: Some(name), ..self }
    }

    pub(super) fn to(self, address: &str) -> Self {
        Self { destination: Some(address.parse().expect("an address")), ..self }
    }

    fn peer(&self) -> Peer<'_> {
        Peer { tls_name: self.tls_name, destination: self.destination }
    }

    pub(super) fn limit(mut self, capture_bytes: usize) -> Self {
        self.limits.capture_bytes = capture_bytes;
        self
    }

    pub(super) fn by(mut self, piece: usize) -> Self {
        self.piece = piece;
        self
    }

    /// The endpoints, having seen the head.
    pub(super) fn begin(&self, policy: Policy) -> Model {
        let (_, exchange) = Builtin { limits: self.limits }.exchange(&self.head, self.peer());
        Model::new(exchange, policy)
    }

    pub(super) fn service(&self) -> &'static str {
        Builtin { limits: self.limits }.exchange(&self.head, self.peer()).0
    }

    pub(super) fn run_with(&self, policy: Policy) -> Model {
        let mut model = self.begin(policy);
        for piece in self.body.chunks(self.piece) {
            model.request(piece);
        }
        model.request_end();
        if model.answer.is_none() && !model.holds() {
            self.answer(&mut model);
        }
        model
    }

    pub(super) fn answer(&self, model: &mut Model) {
        model.response_head(&self.answer);
        for piece in self.answer_body.chunks(self.piece) {
            model.response(piece);
        }
        model.response_end(self.trailers.as_ref());
    }

    /// Everything is allowed; the same comes out at every split.
    pub(super) fn run(&self) -> Model {
        let whole = self.run_with(allow_all());
        let longest = self.body.len().max(self.answer_body.len()).max(1);
        for piece in (1..=longest).filter(|piece| *piece < 40 || piece % 37 == 0) {
            let model = self.clone().by(piece).run_with(allow_all());
            assert_eq!(without_prefixes(&model), without_prefixes(&whole), "in pieces of {piece} bytes");
            assert_eq!(model.output(), whole.output());
        }
        assert_eq!(whole.output(), self.body);
        whole
    }

    /// The only command and how it ended.
    pub(super) fn record(&self) -> (Command, Outcome) {
        let model = self.run();
        let mut commands = model.commands();
        assert_eq!(commands.len(), 1);
        (commands.remove(0), model.outcome())
    }
}

fn without_prefixes(model: &Model) -> Vec<Event> {
    model.events.iter().filter(|event| !matches!(event, Event::Prefix { .. })).cloned().collect()
}

/// Refuses everything.
pub(super) fn refuse_all(kind: RefusalKind) -> Policy {
    Box::new(move |_| Some(Decision::Refuse(Refusal { kind, message: "not today".to_owned() })))
}

pub(super) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// The value of an attribute; empty where there is none.
pub(super) fn of<'a>(attributes: &'a [(&'static str, Vec<u8>)], name: &str) -> &'a str {
    attributes.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| text(value))
}
