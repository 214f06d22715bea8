//! BigQuery's REST API v2 (<https://cloud.google.com/bigquery/docs/reference/rest>).
//!
//! Owns what an exchange of a known method means: which command, when it is decided, how it ended, and which
//! job or upload goes on. Knows no connection and no other API of the host.

mod answer;
mod body;
mod command;
mod names;
mod parameters;
mod route;
#[cfg(test)]
mod tests;

use ::http::{HeaderMap, Method, StatusCode, header, request, response};

use self::{
    answer::{Answer, AnswerReader},
    body::BodyReader,
    names::Job,
    route::{Body, Route},
};
use super::{
    headers, http, refuse,
    single::{Ending, Read, Reading},
    target,
};
use crate::seam::{
    ChainKey, Command, Finding, Limits, OpaqueReason, Outcome, Refusal, ServerMessage, Status,
};

pub(super) use route::is_below;

/// One call.
pub(super) struct Call {
    route: Route,
    host: String,
    command: Command,
    body: BodyReader,
    limit: usize,
    /// The request takes away what it names.
    deletes: bool,
    answer: Option<AnswerReader>,
    /// The upload that the answer begins.
    upload: Option<ChainKey>,
    /// The job that the request names.
    named: Option<ChainKey>,
}

impl Call {
    /// `None`: no method that is known.
    pub(super) fn new(
        head: &request::Parts,
        host: &str,
        findings: &[Finding],
        limits: Limits,
    ) -> Option<Self> {
        let route = route::route(head)?;
        let limit = limits.capture_bytes;
        let mut command = http::command(head, host, findings.to_vec(), limits);
        command.operation = route.operation;
        command.method = route.method.to_owned();
        command.resource.clone_from(&route.resource);
        if !route.project.is_empty() {
            command.attributes.push(("project", route.project.clone().into_bytes()));
        }
        if let Some(id) = &route.job {
            command.attributes.push(("job_id", id.clone().into_bytes()));
            let location = target::parameter(head, "location").unwrap_or_default();
            let job = Job { project: route.project.clone(), location, id: id.clone() };
            command.continues = Some(job.key());
        }
        if route.body == Body::None && head.headers.contains_key("x-http-method-override") {
            // A long GET comes as a POST with its parameters as a form.
            command.partly = Some(OpaqueReason::UnsupportedVersion);
            command.attributes.push(("body_undecoded", b"a form".to_vec()));
        }
        if route.body == Body::Continued {
            let id = target::parameter(head, "upload_id").unwrap_or_default();
            command.continues = Some(names::upload(host, &id));
            let range = headers::value(&head.headers, "content-range");
            command.attributes.extend(range.map(|range| ("content_range", range)));
        }
        for (header, attribute) in [
            ("x-upload-content-type", "upload_content_type"),
            ("x-upload-content-length", "upload_content_length"),
        ] {
            let value = headers::value(&head.headers, header);
            command.attributes.extend(value.map(|value| (attribute, value)));
        }
        let body = BodyReader::new(head, route.body, command::keep, limit);
        let deletes = head.method == Method::DELETE;
        let host = host.to_owned();
        let (answer, upload, named) = (None, None, None);
        Some(Self { route, host, command, body, limit, deletes, answer, upload, named })
    }

    /// What a job's request makes of the answer: the job goes on, or has ended.
    fn job_inserted(&self, answer: &Answer, ending: &mut Ending) {
        if let Some(job) = answer.job(&self.route.project) {
            ending.begun.push(job.key());
        }
        match answer.complete() {
            Some(false) => ending.outcome.status = Status::Accepted,
            Some(true) => ending.outcome = answer.job_outcome(),
            None => {}
        }
    }

    /// What a later request about a job says of its end.
    fn job_seen(&self, answer: &Answer, ending: &mut Ending) {
        if answer.complete() == Some(true)
            && let Some(key) =
                answer.job(&self.route.project).map(|job| job.key()).or(self.command.continues.clone())
        {
            ending.ended.push((key, answer.job_outcome()));
        }
    }

    fn succeeded(&self, answer: &Answer, ending: &mut Ending) {
        match self.route.method {
            "bigquery.jobs.insert" if self.route.body == Body::Resumable => {
                if let Some(upload) = &self.upload {
                    ending.begun.push(upload.clone());
                    ending.outcome.status = Status::Accepted;
                }
            }
            // 308: so much is there, more is to come.
            "bigquery.jobs.insert"
                if self.route.body == Body::Continued && answer.status == StatusCode::PERMANENT_REDIRECT => {}
            "bigquery.jobs.insert" | "bigquery.jobs.query" => {
                self.job_inserted(answer, ending);
                if self.route.body == Body::Continued
                    && let Some(upload) = &self.command.continues
                {
                    let outcome = Outcome { notices: Vec::new(), ..ending.outcome.clone() };
                    ending.ended.push((upload.clone(), outcome));
                }
            }
            "bigquery.jobs.getQueryResults" => {
                ending.outcome.rows = answer.listed();
                self.job_seen(answer, ending);
            }
            "bigquery.jobs.get" | "bigquery.jobs.cancel" => self.job_seen(answer, ending),
            "bigquery.tabledata.insertAll" => match answer.insert_errors() {
                Some(error) => {
                    ending.outcome.status = Status::Error;
                    ending.outcome.error = Some(error);
                }
                None => {
                    let sent = self.command.attributes.iter().find(|(name, _)| *name == "rows");
                    let sent = sent.and_then(|(_, count)| std::str::from_utf8(count).ok()?.parse().ok());
                    ending.outcome.rows = sent;
                }
            },
            _ => ending.outcome.rows = answer.listed(),
        }
    }

    /// The upload is no more: it was taken away, or the server does not know it any longer.
    fn upload_over(&self, answer: &Answer) -> bool {
        let cancelled = self.deletes && (answer.status.as_u16() == 499 || answer.status.is_success());
        let gone = matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE);
        self.route.body == Body::Continued && (cancelled || gone)
    }

    /// The results of a job that failed are an answer of status 400 with the job's error.
    fn job_failed(&self, ending: &mut Ending) {
        const FINAL: [&str; 3] = ["invalidQuery", "resourcesExceeded", "stopped"];
        let error = ending.outcome.error.as_ref();
        if self.route.method == "bigquery.jobs.getQueryResults"
            && let Some(error) = error.filter(|error| FINAL.contains(&error.code.as_str()))
            && let Some(key) = self.command.continues.clone()
        {
            let outcome = Outcome {
                status: Status::Error,
                error: Some(error.clone()),
                http_status: ending.outcome.http_status,
                ..Outcome::default()
            };
            ending.ended.push((key, outcome));
        }
    }
}

impl Reading for Call {
    fn by_head(&self) -> bool {
        matches!(self.route.body, Body::None | Body::Continued)
    }

    fn request(&mut self, bytes: &[u8]) -> Read {
        self.body.push(bytes)
    }

    fn request_end(&mut self) {
        self.body.end();
    }

    fn command(&mut self, whole: bool) -> Command {
        if self.by_head() {
            return self.command.clone();
        }
        let mut command = self.command.clone();
        let line = std::mem::take(&mut command.statement);
        let redactions = std::mem::take(&mut command.redactions);
        let job = command::complete(&mut command, &self.route, self.body.said(whole), self.limit);
        if command.statement.full_length == 0 {
            (command.statement, command.redactions) = (line, redactions);
        } else {
            command.attributes.push(("request", headers::cut(&line.bytes, 4096)));
        }
        if whole {
            // An upload's job begins when that is whole.
            self.named = job.filter(|_| self.route.body != Body::Resumable).map(|job| job.key());
            // For the answer.
            self.command.attributes.clone_from(&command.attributes);
        }
        command
    }

    fn response_head(&mut self, head: &response::Parts) {
        self.answer = Some(AnswerReader::new(head));
        if self.route.body == Body::Resumable {
            self.upload = upload_of(head, &self.host);
        }
    }

    fn response(&mut self, bytes: &[u8]) {
        if let Some(answer) = &mut self.answer {
            answer.push(bytes);
        }
    }

    fn ending(&mut self, _: Option<&HeaderMap>) -> Ending {
        let Some(answer) = self.answer.take().map(AnswerReader::finish) else { return Ending::default() };
        let mut ending = Ending { outcome: answer.outcome(), ..Ending::default() };
        if self.upload_over(&answer) {
            let error = ending.outcome.error.clone().unwrap_or_else(cancelled);
            let outcome = Outcome { status: Status::Error, error: Some(error), ..Outcome::default() };
            ending.ended.extend(self.command.continues.clone().map(|upload| (upload, outcome)));
        } else if answer.failed() {
            self.job_failed(&mut ending);
        } else {
            self.succeeded(&answer, &mut ending);
        }
        ending
    }

    fn cut(&mut self) -> Outcome {
        let answer = self.answer.take().map(AnswerReader::finish);
        answer.map(|answer| answer.outcome()).unwrap_or_default()
    }

    fn named(&self) -> Option<ChainKey> {
        self.named.clone()
    }

    fn refusal(&self, refusal: &Refusal) -> super::Answer {
        refuse::rest(refusal)
    }
}

fn cancelled() -> ServerMessage {
    let message = b"the upload was cancelled".to_vec();
    ServerMessage {
        severity: "ERROR".to_owned(),
        code: "CANCELLED".to_owned(),
        message,
        ..ServerMessage::default()
    }
}

/// Where the upload goes on: the host and id in `Location`, or the id that the server names by itself.
fn upload_of(head: &response::Parts, host: &str) -> Option<ChainKey> {
    let text = |name: &str| Some(String::from_utf8_lossy(head.headers.get(name)?.as_bytes()).into_owned());
    let location = text(header::LOCATION.as_str()).or_else(|| text("x-goog-upload-url"));
    let uri = location.and_then(|location| location.parse::<::http::Uri>().ok());
    if let Some(uri) = uri {
        let request = ::http::Request::get(uri).body(()).ok()?.into_parts().0;
        if let Some(id) = target::parameter(&request, "upload_id") {
            let named = super::host::host(&request);
            return Some(names::upload(if named.is_empty() { host } else { &named }, &id));
        }
    }
    text("x-guploader-uploadid").map(|id| names::upload(host, &id))
}
