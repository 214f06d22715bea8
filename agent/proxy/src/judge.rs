//! From what a policy or a person says about a unit to what is recorded and done.
//!
//! Shared by the relay of byte protocols and by HTTP. Knows no connection, no decoder and no spool.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep},
};
use verbatim_api::v1;
use verbatim_wire::seam::{Command, CommandId, Operation, Refusal, RefusalKind, UnitId};

use crate::seam::{Grounds, HoldAnswer, Policy, Question, Verdict};

/// Longest time that a person is waited for: a year.
const LONGEST_HOLD: Duration = Duration::from_secs(365 * 24 * 3600);

/// Headers that take the place of the workload's own.
pub(crate) type Replaced = Vec<(HeaderName, HeaderValue)>;

/// What happens to a unit when its records are safe.
#[derive(Debug)]
pub(crate) enum Next {
    Allow,
    Refuse(Refusal),
    Hold { deadline: Duration, answer: oneshot::Receiver<HoldAnswer> },
}

/// What was decided at once.
pub(crate) struct Judgement {
    pub(crate) decision: v1::Decision,
    pub(crate) grounds: Grounds,
    pub(crate) next: Next,
    /// Values are credentials: they are never shown.
    pub(crate) replaced: Replaced,
}

/// What is decided about at once.
pub(crate) struct Unit {
    pub(crate) id: UnitId,
    pub(crate) commands: Vec<CommandId>,
    pub(crate) grounds: Grounds,
    pub(crate) next: Next,
    pub(crate) replaced: Replaced,
    /// Of its last record, where one was written.
    pub(crate) position: Option<u64>,
    /// It is a request to cancel another command.
    pub(crate) cancels: bool,
    /// Only its first part was read.
    pub(crate) prefix: bool,
}

/// A unit that was let through by its first part.
#[derive(Debug)]
pub(crate) struct Prefix {
    pub(crate) unit: UnitId,
    /// What was read of it; empty where it was recorded because it was held.
    pub(crate) commands: Vec<Command>,
    pub(crate) grounds: Grounds,
}

impl Unit {
    pub(crate) fn new(id: UnitId, commands: &[Command], judgement: Judgement) -> Self {
        let Judgement { grounds, next, replaced, .. } = judgement;
        let cancels = commands.iter().any(|command| command.operation == Operation::Cancel);
        let commands = commands.iter().map(|command| command.id).collect();
        Self { id, commands, grounds, next, replaced, position: None, cancels, prefix: false }
    }

    pub(crate) fn recorded(&mut self, position: Option<u64>) {
        self.position = position.or(self.position);
    }

    /// What must be safe before the unit goes on. What is refused goes nowhere, and so waits for no disk.
    pub(crate) fn must_be_safe(&self) -> Option<u64> {
        self.position.filter(|_| !matches!(self.next, Next::Refuse(_)))
    }
}

impl Judgement {
    /// The request is for another host than TLS was made for.
    pub(crate) fn misdirected() -> Self {
        let reason = "misdirected: the request names another host than TLS was made for, or two".to_owned();
        let refusal = Refusal { kind: RefusalKind::Misdirected, message: reason.clone() };
        let grounds = Grounds { policies: Vec::new(), reason };
        Self { decision: v1::Decision::Denied, next: Next::Refuse(refusal), ..Self::allowed(grounds) }
    }

    /// Let through by what was said before.
    pub(crate) fn allowed(grounds: Grounds) -> Self {
        Self { decision: v1::Decision::Allowed, grounds, next: Next::Allow, replaced: Vec::new() }
    }
}

/// Asks the policy. Where it only observes, everything passes and the record says what would have been.
pub(crate) fn ask(policy: &dyn Policy, question: &Question<'_>, observe: bool) -> Judgement {
    if question.commands.iter().all(rejected) {
        return Judgement::allowed(Grounds::default());
    }
    match policy.decide(question) {
        Verdict::Allow(grounds) => Judgement::allowed(grounds),
        Verdict::Replace { grounds, .. } if observe => {
            Judgement::allowed(would_be("allowed with other headers", grounds))
        }
        Verdict::Replace { grounds, headers } => {
            Judgement { replaced: headers, ..Judgement::allowed(grounds) }
        }
        Verdict::Deny(grounds) if observe => Judgement::allowed(would_be("denied", grounds)),
        Verdict::Hold { grounds, .. } if observe => Judgement::allowed(would_be("held", grounds)),
        Verdict::Deny(grounds) => {
            let refusal = Refusal { kind: RefusalKind::Denied, message: grounds.reason.clone() };
            let next = Next::Refuse(refusal);
            Judgement { decision: v1::Decision::Denied, next, ..Judgement::allowed(grounds) }
        }
        Verdict::Hold { grounds, deadline, answer } => {
            let next = Next::Hold { deadline, answer };
            Judgement { decision: v1::Decision::Held, next, ..Judgement::allowed(grounds) }
        }
    }
}

/// The server has refused it already: there is nothing to decide about.
pub(crate) fn rejected(command: &Command) -> bool {
    command.attributes.iter().any(|(name, _)| *name == "rejected")
}

fn would_be(what: &str, grounds: Grounds) -> Grounds {
    let reason = format!("observed only; would be {what}: {}", grounds.reason);
    Grounds { reason, ..grounds }
}

/// A person is asked.
pub(crate) struct Held {
    deadline: Pin<Box<Sleep>>,
    answer: oneshot::Receiver<HoldAnswer>,
}

/// How a hold ended.
pub(crate) struct HoldEnd {
    pub(crate) decision: v1::Decision,
    pub(crate) verdict: v1::Verdict,
    pub(crate) next: Next,
}

impl Held {
    pub(crate) fn new(deadline: Duration, answer: oneshot::Receiver<HoldAnswer>) -> Self {
        Self { deadline: Box::pin(sleep(deadline.min(LONGEST_HOLD))), answer }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<HoldEnd> {
        if let Poll::Ready(answered) = Pin::new(&mut self.answer).poll(cx) {
            return Poll::Ready(by_person(answered.ok()));
        }
        self.deadline.as_mut().poll(cx).map(|()| {
            let reason = "nobody decided in time";
            HoldEnd::refused(v1::Decision::Expired, RefusalKind::Expired, reason)
        })
    }
}

impl HoldEnd {
    fn refused(decision: v1::Decision, kind: RefusalKind, reason: &str) -> Self {
        let verdict = v1::Verdict { reason: reason.to_owned(), ..v1::Verdict::default() };
        Self { decision, verdict, next: Next::Refuse(Refusal { kind, message: reason.to_owned() }) }
    }

    /// Nobody waits for the command any more.
    pub(crate) fn abandoned(why: &str) -> Self {
        Self::refused(v1::Decision::Abandoned, RefusalKind::Cancelled, why)
    }
}

fn by_person(answer: Option<HoldAnswer>) -> HoldEnd {
    let Some(answer) = answer else {
        let reason = "nobody can be asked any more";
        return HoldEnd::refused(v1::Decision::Denied, RefusalKind::Denied, reason);
    };
    let verdict = v1::Verdict {
        policies: Vec::new(),
        reason: answer.reason.clone(),
        approval_id: answer.approval_id,
        approver: answer.approver,
    };
    if answer.allowed {
        return HoldEnd { decision: v1::Decision::Allowed, verdict, next: Next::Allow };
    }
    let refusal = Refusal { kind: RefusalKind::Denied, message: answer.reason };
    HoldEnd { decision: v1::Decision::Denied, verdict, next: Next::Refuse(refusal) }
}
