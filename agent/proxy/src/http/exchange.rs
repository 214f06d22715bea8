//! One exchange: shows the decoder what passes, and lets go on what was recorded and decided.
//!
//! Called by the pair of endpoints, on the shard's thread. Nothing here waits for another exchange.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, response};
use verbatim_http::seam::{self, Cut, Step};
use verbatim_wire::{
    message::{self, Abort, MessageSink},
    seam::{CommandId, Decision, Status, UnitId},
};

use super::{
    connection::{Connection, Late},
    entries::{Collect, Entry},
    gate::Gate,
};
use crate::{
    Records,
    guard::catch,
    journal::Stall,
    judge::{Prefix, Replaced, Unit},
    record::Place,
    seam::Proof,
    stats::add,
};

pub(super) type Wait = Pin<Box<dyn Future<Output = ()>>>;

/// Who asks how far recording is: the request's way, or the answer's. They may be different tasks.
const REQUEST: usize = 0;
const ANSWER: usize = 1;

/// See the module.
pub(super) struct Exchange<R: Records> {
    pub(super) connection: Rc<Connection<R>>,
    number: u32,
    pub(super) place: Place,
    /// What its head proves.
    pub(super) proof: Arc<Proof>,
    decoder: Box<dyn message::Exchange>,
    /// Said and not recorded yet.
    pub(super) entries: VecDeque<Entry>,
    /// What the pair may do, in order.
    pub(super) steps: VecDeque<Step>,
    /// What the decoder has not seen of the request. The pair keeps the same bytes, and bounds them.
    pub(super) unfed: VecDeque<Bytes>,
    /// The request's end, when the decoder has not seen it.
    end: Option<Option<HeaderMap>>,
    pub(super) unit: Option<Unit>,
    pub(super) gate: Gate,
    pub(super) prefix: Option<Prefix>,
    pub(super) replaced: Replaced,
    /// Whose verdict replaces headers.
    pub(super) replacer: Option<CommandId>,
    pub(super) head_passed: bool,
    pub(super) last_refused: Option<CommandId>,
    /// The decoder holds nothing more of the request.
    rest: bool,
    pub(super) refused: bool,
    /// It cannot be recorded, or a decoder panicked: both legs are reset.
    broken: bool,
    /// The decoder was told that the exchange is over.
    over: bool,
    /// Commands that began and have not ended.
    pub(super) open: u32,
    /// Waits for room in the spool.
    room: [Option<Wait>; 2],
    wakers: [Option<Waker>; 2],
}

impl<R: Records> Exchange<R> {
    pub(super) fn begin(
        connection: Rc<Connection<R>>,
        number: u32,
        (place, proof): (Place, Arc<Proof>),
        decoder: Box<dyn message::Exchange>,
    ) -> Self {
        let mut exchange = Self {
            connection,
            number,
            place,
            proof,
            decoder,
            entries: VecDeque::new(),
            steps: VecDeque::new(),
            unfed: VecDeque::new(),
            end: None,
            unit: None,
            gate: Gate::Open,
            prefix: None,
            replaced: Vec::new(),
            replacer: None,
            head_passed: false,
            last_refused: None,
            rest: false,
            refused: false,
            broken: false,
            over: false,
            open: 0,
            room: [None, None],
            wakers: [None, None],
        };
        exchange.tell(|decoder, sink| decoder.begin(sink));
        exchange
    }

    /// Calls the decoder. Its panic ends this exchange and no other.
    fn tell<T>(
        &mut self,
        call: impl FnOnce(&mut dyn message::Exchange, &mut dyn MessageSink) -> T,
    ) -> Option<T> {
        let Self { decoder, entries, rest, number, .. } = self;
        let mut sink = Collect { exchange: *number, entries, rest };
        match catch(|| call(&mut **decoder, &mut sink)) {
            Ok(told) => Some(told),
            Err(panicked) => {
                self.panicked(&panicked.0);
                None
            }
        }
    }

    pub(super) fn tell_decoder(&mut self, unit: UnitId, decision: &Decision) {
        self.tell(|decoder, sink| decoder.decide(unit, decision, sink));
    }

    pub(super) fn panicked(&mut self, message: &str) {
        add(&self.connection.shard.counters.panics, 1);
        tracing::error!(message, "exchange reset after a panic");
        self.break_off("reset because of an error in the node agent");
    }

    /// Nothing of the exchange goes on any more; what it began is given an end.
    fn break_off(&mut self, note: &'static str) {
        self.broken = true;
        self.over = true;
        self.entries.clear();
        self.unfed.clear();
        self.steps.clear();
        self.unit = None;
        self.gate = Gate::Open;
        if self.open == 0 {
            // There is no command to say it of.
            let reason = verbatim_api::v1::OpaqueReason::Desynchronised;
            self.connection.record_late(Late::Violation { reason, what: format!("an exchange was {note}") });
        }
        self.leave(note);
        self.wake(REQUEST);
        self.wake(ANSWER);
    }

    /// Hands over to the connection what cannot be recorded now.
    fn leave(&mut self, note: &'static str) {
        for entry in self.entries.drain(..) {
            if let Entry::Late(late) = entry {
                self.open = self.open.saturating_sub(u32::from(matches!(late, Late::Finished { .. })));
                self.connection.record_late(late);
            }
        }
        if std::mem::take(&mut self.open) > 0 {
            self.connection.record_late(Late::CutOff { exchange: self.number, note });
        }
    }

    /// The exchange is over for everybody but the record.
    fn ended(&mut self, cut: Cut) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        // What was said until now stands, as far as there is room: also a command that nobody waits for.
        if !self.recorded_or_full() {
            return;
        }
        let (why, note) = match cut {
            Cut::Client => (Abort::Client, "the client has reset the request"),
            Cut::Server | Cut::Unsent => (Abort::Server, "the server has ended the request"),
            Cut::Ours => (Abort::Ours, "the connection ended while the command was held"),
        };
        if let Some(end) = self.abandon(note) {
            for &command in self.unit.iter().flat_map(|unit| &unit.commands) {
                let verdict = end.verdict.clone();
                self.entries.push_back(Entry::Late(Late::Decided {
                    command,
                    decision: end.decision,
                    verdict,
                }));
            }
        }
        self.gate = Gate::Open;
        self.unit = None;
        if !self.refused {
            self.tell(|decoder, sink| decoder.abort(why, sink));
        }
        if cut == Cut::Unsent {
            self.nothing_was_sent();
        }
        if self.recorded_or_full() {
            self.leave("");
        }
    }

    /// A decoder takes for sent what it let go; the pair knows better.
    fn nothing_was_sent(&mut self) {
        self.entries.retain(|entry| !matches!(entry, Entry::Late(Late::Begun { .. })));
        for entry in &mut self.entries {
            if let Entry::Late(Late::Finished { outcome, .. }) = entry
                && outcome.status == Status::OutcomeUnknown
            {
                outcome.status = Status::NotForwarded;
                outcome.bytes_sent = 0;
            }
        }
    }

    /// Records what can be recorded at once. `false`: never, and the exchange is broken.
    fn recorded_or_full(&mut self) -> bool {
        match self.record_now() {
            Ok(()) | Err(Stall::Full) => !self.broken,
            Err(Stall::Refused(why)) => {
                self.unrecordable(&why);
                false
            }
        }
    }

    fn unrecordable(&mut self, why: &str) {
        tracing::error!(why, "exchange reset: it cannot be recorded");
        self.break_off("reset: it could not be recorded");
    }

    /// Records everything that was said. Pending only when the spool is full: that is the back-pressure.
    fn poll_record(&mut self, who: usize, cx: &mut Context<'_>) -> Poll<()> {
        let mut tried = false;
        loop {
            if let Some(room) = self.room.get_mut(who).and_then(Option::as_mut) {
                if room.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.room[who] = None;
                tried = true;
            }
            match self.record_now() {
                Ok(()) => return Poll::Ready(()),
                Err(Stall::Full) if tried => {
                    // Room for others, not for this one: they go first.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Err(Stall::Full) => {
                    let spool = Rc::clone(&self.connection.shard.spool);
                    self.room[who] = Some(Box::pin(async move { spool.room().await }));
                }
                Err(Stall::Refused(why)) => {
                    self.unrecordable(&why);
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Shows the decoder what it has not seen of the request. `true`: it said something, or saw something.
    fn feed(&mut self) -> bool {
        if !matches!(self.gate, Gate::Open) || self.refused || self.broken {
            return false;
        }
        while let Some(bytes) = self.unfed.front_mut() {
            let bytes = bytes.clone();
            let Some(consumed) = self.tell(|decoder, sink| decoder.request(&bytes, sink)) else {
                return true;
            };
            match self.unfed.front_mut() {
                Some(front) if consumed < front.len() => drop(front.split_to(consumed)),
                _ => drop(self.unfed.pop_front()),
            }
            if !self.entries.is_empty() || consumed < bytes.len() {
                return consumed > 0 || !self.entries.is_empty();
            }
        }
        if let Some(trailers) = self.end.take() {
            self.tell(|decoder, sink| decoder.request_end(trailers.as_ref(), sink));
            return true;
        }
        false
    }

    /// From here on nobody asks for steps: what came while something was decided is shown now, so that what
    /// comes later is shown at once and nothing is kept.
    fn feed_rest(&mut self) {
        for _ in 0..self.unfed.len().saturating_add(2) {
            if !self.feed() {
                break;
            }
        }
    }

    fn wake(&mut self, who: usize) {
        if let Some(waker) = self.wakers.get_mut(who).and_then(Option::take) {
            waker.wake();
        }
    }

    fn wait(&mut self, who: usize, cx: &Context<'_>) {
        if let Some(waker) = self.wakers.get_mut(who) {
            *waker = Some(cx.waker().clone());
        }
    }
}

impl<R: Records> seam::Exchange for Exchange<R> {
    fn request(&mut self, bytes: &Bytes) {
        if self.refused || self.over || bytes.is_empty() {
            return;
        }
        if self.rest && self.unfed.is_empty() {
            // Nobody asks for steps any more, and nothing is held.
            self.tell(|decoder, sink| decoder.request(bytes, sink));
            return;
        }
        self.unfed.push_back(bytes.clone());
        self.wake(REQUEST);
    }

    fn request_end(&mut self, trailers: Option<&HeaderMap>) {
        if self.refused || self.over {
            return;
        }
        if self.rest && self.unfed.is_empty() {
            self.tell(|decoder, sink| decoder.request_end(trailers, sink));
            return;
        }
        self.end = Some(trailers.cloned());
        self.wake(REQUEST);
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            if self.broken {
                return Poll::Ready(Step::Reset);
            }
            if let Some(step) = self.steps.pop_front() {
                if matches!(step, Step::Rest) {
                    self.feed_rest();
                }
                return Poll::Ready(step);
            }
            if self.poll_record(REQUEST, cx).is_pending() {
                self.wait(REQUEST, cx);
                return Poll::Pending;
            }
            self.wake(ANSWER);
            if self.broken || !self.steps.is_empty() {
                continue;
            }
            if !self.poll_gate(cx) && !self.feed() {
                self.wait(REQUEST, cx);
                return Poll::Pending;
            }
        }
    }

    fn response_head(&mut self, head: &response::Parts) {
        if !self.over {
            self.tell(|decoder, sink| decoder.response_head(head, sink));
        }
    }

    fn response(&mut self, bytes: &Bytes) {
        if !self.over {
            self.tell(|decoder, sink| decoder.response(bytes, sink));
        }
    }

    fn response_end(&mut self, trailers: Option<&HeaderMap>) {
        if !self.over {
            self.tell(|decoder, sink| decoder.response_end(trailers, sink));
        }
    }

    fn poll_recorded(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.broken {
            return Poll::Ready(false);
        }
        if self.entries.is_empty() {
            return Poll::Ready(true);
        }
        if self.poll_record(ANSWER, cx).is_pending() {
            self.wait(ANSWER, cx);
            return Poll::Pending;
        }
        self.wake(REQUEST);
        Poll::Ready(!self.broken)
    }

    fn cut(&mut self, cut: Cut) {
        self.ended(cut);
    }
}

impl<R: Records> Drop for Exchange<R> {
    fn drop(&mut self) {
        // Nothing is left of one that was answered; of all others what is left gets its end here.
        if self.open > 0 || !self.entries.is_empty() {
            self.ended(Cut::Ours);
        }
        if self.open > 0 || !self.entries.is_empty() {
            self.leave("the connection ended before the command did");
        }
    }
}
