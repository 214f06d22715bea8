//! What a request, a session and a statement tell, put together for the record.
//!
//! Owns the one way in which anybody becomes *verified*: by [`Verifier::verify`]. Everything else is *asserted*.

use http::HeaderMap;
use serde_json::Value;
use verbatim_api::v1::{BehalfKind, CommandFinding, OnBehalfOf, Trace};
use verbatim_wire::{
    Secret,
    seam::{Captured, Redaction, RedactionReason},
};

use super::{MOST_VALUE, Meaning, Names, Verifier, baggage, comment, trace};
use crate::{
    judge::Workload,
    jwt::Jwt,
    text::{cut, lossy},
};

/// People named by one command.
const MOST_NAMED: usize = 8;
/// Places of one trace.
const MOST_PLACES: usize = 16;

/// Somebody who was named, and where.
#[derive(Clone, Debug)]
struct Named {
    place: String,
    by: By,
}

#[derive(Clone, Debug)]
enum By {
    /// A signed token.
    Token(Secret),
    /// A token whose signature was taken out and is not at hand: it was too long, or one of too many.
    Unchecked(String),
    Text(String),
}

/// What was told, not checked yet. Of a request's head it is the same for all of its commands.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    named: Vec<Named>,
    trace: Trace,
}

/// What goes into a record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Behalf {
    /// Everyone who was named, the best proven first.
    pub on_behalf_of: Vec<OnBehalfOf>,
    /// The best of them.
    pub kind: BehalfKind,
    /// A token that was there does not hold.
    pub finding: Option<CommandFinding>,
    /// `None`: nothing tells.
    pub trace: Option<Trace>,
}

impl Carried {
    /// Whether nothing was told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && !self.has_trace()
    }

    /// Asked for each command. Whatever is told of a trace, its first place is kept.
    fn has_trace(&self) -> bool {
        !self.trace.places.is_empty()
    }

    /// What a request's headers tell; gRPC's metadata are headers.
    #[must_use]
    pub fn of_headers(headers: &HeaderMap, names: &Names) -> Self {
        let mut carried = Self::default();
        for (name, value) in headers {
            match name.as_str() {
                "baggage" => {
                    for (member, value) in baggage::members(value.as_bytes()) {
                        carried.tell("baggage", &member, &value, names);
                    }
                }
                "x-goog-request-reason" => carried.reason(value.as_bytes(), names),
                other => carried.tell("header", other, value.as_bytes(), names),
            }
        }
        carried
    }

    /// A reason for a request (<https://cloud.google.com/apis/docs/system-parameters>) that is a token, or has
    /// `on-behalf-of=…` among its words.
    fn reason(&mut self, value: &[u8], names: &Names) {
        const PLACE: &str = "header x-goog-request-reason";
        let words = value.split(|byte| byte.is_ascii_whitespace() || matches!(byte, b';' | b','));
        for word in words.filter(|word| !word.is_empty()).take(MOST_NAMED) {
            match word.iter().position(|byte| *byte == b'=') {
                None if Jwt::read(word).is_some() => self.name(PLACE, word),
                None => {}
                Some(equals) => {
                    let (name, value) = word.split_at(equals);
                    self.assert(PLACE, &lossy(name, MOST_VALUE), value.get(1..).unwrap_or_default(), names);
                }
            }
        }
    }

    /// What a session's `application_name` tells: words of the form `on-behalf-of=…`. It can only assert.
    pub fn application_name(&mut self, value: &[u8], names: &Names) {
        for word in value.split(|byte| byte.is_ascii_whitespace() || matches!(byte, b';' | b',' | b'|')) {
            if let Some(equals) = word.iter().position(|byte| *byte == b'=') {
                let (name, value) = word.split_at(equals);
                self.assert(
                    "application_name",
                    &lossy(name, MOST_VALUE),
                    value.get(1..).unwrap_or_default(),
                    names,
                );
            }
        }
    }

    /// What a command's labels tell, a JSON object of texts. They can only assert: a label has 63 characters.
    pub fn labels(&mut self, json: &[u8], names: &Names) {
        let Ok(Value::Object(labels)) = serde_json::from_slice(json) else { return };
        for (name, value) in labels.iter().filter_map(|(name, value)| Some((name, value.as_str()?))) {
            self.assert(&format!("label {}", cut(name, MOST_VALUE)), name, value.as_bytes(), names);
        }
    }

    /// What a statement's comments tell.
    pub fn statement(&mut self, statement: &Captured, redactions: &[Redaction], names: &Names) {
        for pair in comment::pairs(&statement.bytes) {
            let inside = |offset: u64| pair.at.contains(&offset);
            let token = statement.tokens.iter().find(|token| inside(token.mark));
            let mut signed = redactions
                .iter()
                .filter(|cut| cut.reason == RedactionReason::Signature && inside(cut.offset));
            match (names.meaning(&pair.key), token) {
                (Some(Meaning::OnBehalfOf), Some(token)) => self.name("sqlcommenter", token.secret.bytes()),
                (Some(Meaning::OnBehalfOf), None) if signed.next().is_some() => {
                    let by = By::Unchecked(lossy(&pair.value, MOST_VALUE));
                    self.push(Named { place: "sqlcommenter".to_owned(), by });
                }
                _ => self.tell("sqlcommenter", &pair.key, &pair.value, names),
            }
        }
    }

    fn tell(&mut self, place: &str, name: &str, value: &[u8], names: &Names) {
        match names.meaning(name) {
            Some(Meaning::OnBehalfOf) if place == "header" => self.name(&format!("header {name}"), value),
            Some(Meaning::OnBehalfOf) => self.name(place, value),
            _ => self.assert(place, name, value, names),
        }
    }

    /// A value that proves nothing, whatever it is.
    fn assert(&mut self, place: &str, name: &str, value: &[u8], names: &Names) {
        let Some(meaning) = names.meaning(name) else { return };
        let value = lossy(&verbatim_wire::without_tokens(value), MOST_VALUE);
        if value.is_empty() {
            return;
        }
        let place = if place == "header" { format!("header {name}") } else { place.to_owned() };
        let slot = match meaning {
            Meaning::OnBehalfOf => return self.push(Named { place, by: By::Text(value) }),
            Meaning::Session => &mut self.trace.session_id,
            Meaning::Task => &mut self.trace.task_id,
            Meaning::Tool => &mut self.trace.tool_id,
            Meaning::Traceparent if trace::is_parent(&value) => &mut self.trace.traceparent,
            Meaning::Tracestate if trace::is_state(&value) => &mut self.trace.tracestate,
            Meaning::Traceparent | Meaning::Tracestate => return,
        };
        // The first that says so; a header comes before a comment.
        if slot.is_empty() {
            *slot = value;
            if self.trace.places.len() < MOST_PLACES {
                self.trace.places.push(place);
            }
        }
    }

    /// A value that may prove something.
    fn name(&mut self, place: &str, value: &[u8]) {
        let value = value.trim_ascii();
        let by = match value {
            [] => return,
            _ if Jwt::read(value).is_some() => By::Token(Secret::new(value.to_vec())),
            _ => By::Text(lossy(&verbatim_wire::without_tokens(value), MOST_VALUE)),
        };
        self.push(Named { place: place.to_owned(), by });
    }

    fn push(&mut self, named: Named) {
        if self.named.len() < MOST_NAMED {
            self.named.push(named);
        }
    }

    /// Checks what can be checked. `now`: seconds since 1970.
    #[must_use]
    pub fn check(&self, verifier: &Verifier, workload: &Workload<'_>, now: u64) -> Behalf {
        let mut behalf = Behalf::default();
        for named in &self.named {
            let person = named.check(verifier, workload, now);
            if !person.rejection.is_empty() {
                behalf.finding = Some(CommandFinding::OnBehalfOfRejected);
            }
            behalf.on_behalf_of.push(person);
        }
        behalf.on_behalf_of.sort_by_key(|person| person.kind() != BehalfKind::Verified);
        behalf.kind = behalf.on_behalf_of.first().map(OnBehalfOf::kind).unwrap_or_default();
        behalf.trace = self.has_trace().then(|| self.trace.clone());
        behalf
    }
}

impl Named {
    fn check(&self, verifier: &Verifier, workload: &Workload<'_>, now: u64) -> OnBehalfOf {
        let asserted = |subject: &str| OnBehalfOf {
            subject: subject.to_owned(),
            evidence: self.place.clone(),
            kind: BehalfKind::Asserted.into(),
            ..OnBehalfOf::default()
        };
        let token = match &self.by {
            By::Text(subject) => return asserted(subject),
            By::Unchecked(said) => {
                let rejection = "not checkable: the token is too long, or one of too many".to_owned();
                let read = unsigned(said.as_bytes()).unwrap_or_default();
                return OnBehalfOf { rejection, ..asserted(&cut(&read.subject, MOST_VALUE)) };
            }
            By::Token(token) => token,
        };
        let jwt = Jwt::read(token.bytes()).unwrap_or_default();
        let read = OnBehalfOf {
            issuer: jwt.issuer.clone(),
            audiences: jwt.audiences.clone(),
            expires_wall_nanos: jwt.expires_wall_nanos,
            key_id: jwt.key_id.clone(),
            token_id: jwt.id.clone(),
            ..asserted(&jwt.subject)
        };
        match verifier.verify(token.bytes(), workload, now) {
            Ok(_) => OnBehalfOf { kind: BehalfKind::Verified.into(), ..read },
            Err(rejection) => OnBehalfOf { rejection: rejection.to_string(), ..read },
        }
    }
}

/// What a token says whose signature is not there.
fn unsigned(text: &[u8]) -> Option<Jwt> {
    let dot = text.iter().rposition(|byte| *byte == b'.')?;
    Jwt::read(&[text.get(..=dot)?, b"x"].concat())
}

#[cfg(test)]
#[path = "told_tests.rs"]
mod tests;
