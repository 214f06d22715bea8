//! Where tokens come from: the metadata server
//! (<https://cloud.google.com/compute/docs/metadata/overview>), STS (RFC 8693,
//! <https://cloud.google.com/iam/docs/reference/sts/rest>), IAM Credentials
//! (<https://cloud.google.com/iam/docs/reference/credentials/rest>) and OAuth 2.0 (RFC 6749).
//!
//! Owns what of such an exchange is a credential: it is handed on as a [`crate::Secret`], and nothing of it is in
//! the command or its outcome. Knows no table of tokens.

mod answer;
mod request;
mod route;
#[cfg(test)]
mod tests;

use ::http::{HeaderMap, StatusCode, request as head, response};

use self::{answer::AnswerReader, request::BodyReader, route::Route};
use super::{
    Answer, Peer,
    failure::Failure,
    http, refuse,
    single::{Ending, Read, Reading},
};
use crate::seam::{Command, Finding, Limits, Outcome, Refusal};

/// One exchange.
pub(super) struct Grant {
    route: Route,
    command: Command,
    body: Option<BodyReader>,
    /// Seconds that the request asks for.
    lifetime: Option<u64>,
    status: Option<StatusCode>,
    answer: Option<AnswerReader>,
    failure: Option<Failure>,
}

impl Grant {
    /// `None`: nothing that issues tokens.
    pub(super) fn new(
        head: &head::Parts,
        host: &str,
        peer: Peer<'_>,
        findings: &[Finding],
        limits: Limits,
    ) -> Option<Self> {
        let route = route::route(head, host, peer)?;
        let mut command = http::command(head, host, findings.to_vec(), limits);
        command.operation = route.operation;
        command.method = route.method.to_owned();
        if !route.account.is_empty() {
            command.resource = format!("projects/-/serviceAccounts/{}", route.account);
        }
        let body = route.has_body.then(|| BodyReader::new(head));
        Some(Self { route, command, body, lifetime: None, status: None, answer: None, failure: None })
    }

    /// As in the record's target.
    pub(super) fn service(&self) -> &'static str {
        self.route.service
    }
}

impl Reading for Grant {
    fn by_head(&self) -> bool {
        self.body.is_none()
    }

    fn request(&mut self, bytes: &[u8]) -> Read {
        self.body.as_mut().map_or(Read::More, |body| body.push(bytes))
    }

    fn request_end(&mut self) {
        if let Some(body) = &mut self.body {
            body.end();
        }
    }

    fn command(&mut self, whole: bool) -> Command {
        let mut command = self.command.clone();
        if let Some(body) = &self.body {
            let said = body.said(whole);
            command.attributes.extend(said.attributes);
            command.presented = said.presented;
            command.partly = said.partly;
            self.lifetime = said.lifetime_seconds;
        }
        command
    }

    fn response_head(&mut self, head: &response::Parts) {
        self.status = Some(head.status);
        self.failure = Failure::of(head);
        let wanted = head.status.is_success() && self.route.issues();
        self.answer = wanted.then(|| AnswerReader::new(&head.headers, self.route.answers_text));
    }

    fn response(&mut self, bytes: &[u8]) {
        if let Some(answer) = &mut self.answer {
            answer.push(bytes);
        }
        if let Some(failure) = &mut self.failure {
            failure.push(bytes);
        }
    }

    fn ending(&mut self, _: Option<&HeaderMap>) -> Ending {
        let mut outcome = http::outcome(self.status);
        outcome.error = self.failure.take().map(Failure::finish);
        if let Some(answer) = self.answer.take() {
            match answer.finish(&self.route, self.lifetime) {
                Ok(issued) => {
                    outcome.attributes.push(("tokens_issued", issued.len().to_string().into_bytes()));
                    outcome.issued = issued;
                }
                Err(why) => outcome.attributes.push(("answer_undecoded", why.as_bytes().to_vec())),
            }
        }
        Ending { outcome, ..Ending::default() }
    }

    fn cut(&mut self) -> Outcome {
        Outcome { http_status: self.status.map(|status| status.as_u16()), ..Outcome::default() }
    }

    fn refusal(&self, refusal: &Refusal) -> Answer {
        refuse::rest(refusal)
    }
}
