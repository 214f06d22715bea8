//! A request that no decoder knows more about: its head, its status, and how much went either way.
//!
//! Knows no API, but for the shape in which Google's and many others say in JSON what went wrong.

use http::{HeaderMap, StatusCode, request, response};

use super::{
    Answer,
    failure::Failure,
    headers, refuse,
    single::{Ending, Read, Reading},
};
use crate::seam::{Command, Finding, Limits, Operation, Outcome, Refusal, Status};

/// Longest name of a resource, bytes.
const MAX_RESOURCE: usize = 2048;

/// One request.
pub(super) struct Request {
    command: Command,
    status: Option<StatusCode>,
    failure: Option<Failure>,
}

impl Request {
    pub(super) fn new(head: &request::Parts, host: &str, findings: Vec<Finding>, limits: Limits) -> Self {
        Self { command: command(head, host, findings, limits), status: None, failure: None }
    }
}

/// What a head says by itself.
pub(super) fn command(head: &request::Parts, host: &str, findings: Vec<Finding>, limits: Limits) -> Command {
    let (statement, redactions) = super::target::request_line(head, limits.capture_bytes);
    let resource: String = [host, head.uri.path()].concat().chars().take(MAX_RESOURCE).collect();
    Command {
        operation: Operation::HttpRequest,
        statement,
        redactions,
        attributes: headers::attributes(head),
        method: head.method.as_str().chars().take(64).collect(),
        resource,
        findings,
        ..Command::default()
    }
}

/// The outcome that a status stands for.
pub(super) fn outcome(status: Option<StatusCode>) -> Outcome {
    let failed = status.is_some_and(|status| status.is_client_error() || status.is_server_error());
    Outcome {
        status: if failed { Status::Error } else { Status::Ok },
        http_status: status.map(|status| status.as_u16()),
        ..Outcome::default()
    }
}

impl Reading for Request {
    fn by_head(&self) -> bool {
        true
    }

    fn request(&mut self, _: &[u8]) -> Read {
        Read::More
    }

    fn request_end(&mut self) {}

    fn command(&mut self, _: bool) -> Command {
        // Asked for once.
        std::mem::take(&mut self.command)
    }

    fn response_head(&mut self, head: &response::Parts) {
        self.status = Some(head.status);
        self.failure = Failure::of(head);
    }

    fn response(&mut self, bytes: &[u8]) {
        if let Some(failure) = &mut self.failure {
            failure.push(bytes);
        }
    }

    fn ending(&mut self, _: Option<&HeaderMap>) -> Ending {
        let mut outcome = outcome(self.status);
        outcome.error = self.failure.take().map(Failure::finish);
        Ending { outcome, ..Ending::default() }
    }

    fn cut(&mut self) -> Outcome {
        Outcome { http_status: self.status.map(|status| status.as_u16()), ..Outcome::default() }
    }

    fn refusal(&self, refusal: &Refusal) -> Answer {
        refuse::rest(refusal)
    }
}
