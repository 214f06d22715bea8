//! The end of a connection's records: an end for every command that is still open, then its own.

use std::time::Duration;

use verbatim_api::v1;
use verbatim_sys::clock;
use verbatim_wire::seam::{Command, Outcome, Status};

use super::{Journal, LAST_PATIENCE, Open, Stall};
use crate::{
    Records,
    control::Control,
    legs::{End, Side},
    record::Closing,
    seam::{Grounds, Summary},
    stats::add,
};

impl<R: Records> Journal<R> {
    /// Records the end of everything. Waits for room; a killed connection only for a moment, then its
    /// open commands are left to the chain's successor.
    pub(crate) async fn closed(mut self, end: End, control: &Control) {
        let mut open = std::mem::take(&mut self.open);
        for command in &mut open {
            if command.decision == v1::Decision::Held {
                let why = "the connection ended while the command was held";
                self.insist(control, |journal| journal.abandoned(command, why)).await;
                command.decision = v1::Decision::Abandoned;
            }
            let outcome = unknown(command, self.facts.protocol, &end);
            self.insist(control, |journal| journal.finish(command, &outcome)).await;
        }
        let closing = self.closing(&end);
        add(&self.counters.bytes_sent, closing.bytes_sent);
        add(&self.counters.bytes_received, closing.bytes_received);
        self.insist(control, |journal| {
            let presented = &journal.facts.session(&*journal.evidence).presented;
            journal.append(journal.facts.closed(&closing, presented)).map(drop)
        })
        .await;
        self.counters.ended_by.count(closing.capture, closing.status);
        self.show(&closing);
    }

    /// Records the start of a command at the cost of waiting. `false`: it is not recorded.
    pub(crate) async fn insist_on_start(
        &mut self,
        command: &Command,
        grounds: &Grounds,
        control: &Control,
    ) -> bool {
        let start = |journal: &mut Self| journal.started(command, v1::Decision::Allowed, grounds).map(drop);
        let written = self.insist_on(control, start).await;
        add(&self.counters.unwritten, u64::from(!written));
        written
    }

    /// Records something at the cost of waiting, as [`Journal::closed`] does. `false`: it is not recorded.
    pub(crate) async fn insist_on(
        &mut self,
        control: &Control,
        mut record: impl FnMut(&mut Self) -> Result<(), Stall>,
    ) -> bool {
        while let Err(stall) = record(self) {
            if !self.is_worth_another_try(stall, control).await {
                return false;
            }
        }
        true
    }

    /// Appends at the cost of waiting.
    async fn insist(&self, control: &Control, append: impl Fn(&Self) -> Result<(), Stall>) {
        while let Err(stall) = append(self) {
            if !self.is_worth_another_try(stall, control).await {
                return add(&self.counters.unwritten, 1);
            }
        }
    }

    /// Waits until there may be room. `false`: the record stays unwritten.
    async fn is_worth_another_try(&self, stall: Stall, control: &Control) -> bool {
        match stall {
            Stall::Full if self.hopeless.get() => false,
            Stall::Full => {
                let room = room_in_time(&*self.spool, control).await;
                self.hopeless.set(!room);
                room
            }
            Stall::Refused(error) => {
                tracing::error!(error, "record cannot be written");
                false
            }
        }
    }

    pub(super) fn abandoned(&self, command: &Open, why: &str) -> Result<(), Stall> {
        if !command.recorded() {
            return Ok(());
        }
        let duration = clock::boottime_nanos().saturating_sub(command.started_boottime);
        let verdict = v1::Verdict { reason: why.to_owned(), ..v1::Verdict::default() };
        let decision = v1::Decision::Abandoned;
        self.append(self.facts.decided(&command.command_id, decision, verdict, duration)).map(drop)
    }

    fn closing(&self, end: &End) -> Closing {
        let (status, note) = match end {
            End::Closed => (v1::Status::Ok, String::new()),
            End::Reset(Side::Client) => (v1::Status::Error, "reset by the workload".to_owned()),
            End::Reset(Side::Server) => (v1::Status::Error, "reset by the server".to_owned()),
            End::Broken(Side::Client, what) => (v1::Status::Error, format!("the workload: {what}")),
            End::Broken(Side::Server, what) => (v1::Status::Error, format!("the server: {what}")),
            End::Refused => (v1::Status::Ok, "closed because a command under way was refused".to_owned()),
            End::Killed => (
                v1::Status::OutcomeUnknown,
                "still open when the node agent's time to drain was over: reset".to_owned(),
            ),
            End::DialFailed(error) => (v1::Status::Error, error.clone()),
            End::Panicked(message) => {
                (v1::Status::Error, format!("reset because of an error in the node agent: {message}"))
            }
            End::Tls(why) => (v1::Status::Error, why.clone()),
            End::Stuck(why) => (v1::Status::Error, format!("reset: {why}")),
            End::Unrecordable(why) => (v1::Status::Error, format!("reset, not recordable: {why}")),
        };
        let reason = match end {
            End::DialFailed(_) => Some(v1::OpaqueReason::DialFailed),
            _ if self.undecoded.is_none() && self.facts.protocol == v1::Protocol::Unspecified => {
                Some(v1::OpaqueReason::Silent)
            }
            _ => self.undecoded.or(self.http.violated()),
        };
        let [bytes_sent, bytes_received] = self.bytes;
        Closing {
            capture: self.capture_with(reason),
            reason,
            status,
            duration_nanos: clock::boottime_nanos().saturating_sub(self.opened_boottime),
            bytes_sent,
            bytes_received,
            note: self.remarked(self.http.note(note)),
            attributes: self.http.attributes(),
        }
    }

    fn remarked(&self, note: String) -> String {
        let notes = [note].into_iter().chain(self.remarks.iter().cloned());
        notes.filter(|note| !note.is_empty()).collect::<Vec<_>>().join("; ")
    }

    /// A line of the live view for what was not decoded.
    fn show(&self, closing: &Closing) {
        let Some(reason) = closing.reason.filter(|_| self.observer.enabled()) else { return };
        let host = &self.facts.target.host;
        let name = if host.is_empty() { &self.facts.target.address } else { host };
        let why = reason.as_str_name().trim_start_matches("OPAQUE_REASON_").to_ascii_lowercase();
        let port = self.facts.target.port;
        self.observer.finished(Summary {
            wall_nanos: self.opened_wall,
            principal: self.facts.identity.display().to_owned(),
            service: self.facts.service,
            operation: v1::Operation::Connect,
            decision: v1::Decision::Allowed,
            status: closing.status,
            duration: Duration::from_nanos(closing.duration_nanos),
            statement: format!("{name}:{port} ({why})").into_bytes(),
            error: (!closing.note.is_empty()).then(|| closing.note.clone()),
            ..Summary::default()
        });
    }
}

/// Waits for room, or until the connection is killed. `false`: it was killed before, and for a moment there was none.
pub(crate) async fn room_in_time<R: Records>(spool: &R, control: &Control) -> bool {
    if control.killed() {
        return tokio::time::timeout(LAST_PATIENCE, spool.room()).await.is_ok();
    }
    let killed = std::future::poll_fn(|cx| control.poll_killed(cx));
    tokio::select! { () = spool.room() => {} () = killed => {} }
    true
}

/// What is known of a command whose answer was not seen.
fn unknown(command: &Open, protocol: v1::Protocol, end: &End) -> Outcome {
    // A server of PostgreSQL answers a cancel request by closing the connection.
    let answered =
        protocol == v1::Protocol::Postgresql && matches!(end, End::Closed | End::Reset(Side::Server));
    let status = match (command.released, command.operation) {
        (false, _) => Status::NotForwarded,
        (true, v1::Operation::Cancel) if answered => Status::Ok,
        (true, _) => Status::OutcomeUnknown,
    };
    Outcome { status, ..Outcome::default() }
}
