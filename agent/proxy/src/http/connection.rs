//! What the exchanges of one connection share: its journal, and what could not be recorded when an exchange
//! ended.
//!
//! Makes exchanges. Knows nothing of how one goes on.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use http::request;
use verbatim_api::v1;
use verbatim_http::seam::{Exchanges, Violation};
use verbatim_wire::{
    message::{Messages, Peer},
    seam::{ChainKey, CommandId, Outcome},
};

use super::{entries::belongs, exchange::Exchange};
use crate::{
    Records,
    chains::{Begun, Owner},
    control::Control,
    guard::catch,
    journal::{Journal, Stall, room_in_time},
    record::Place,
    seam::{Proof, Remembered},
    shard::Shard,
    stats::add,
};

/// Broken rules that wait to be recorded; more are one too many to tell apart.
const LATE_VIOLATIONS: usize = 16;

/// A record that needs no exchange.
pub(super) enum Late {
    /// A command has ended.
    Finished { command: CommandId, outcome: Box<Outcome> },
    /// A hold has ended without a decision.
    Decided { command: CommandId, decision: v1::Decision, verdict: v1::Verdict },
    /// A command has begun what others go on with.
    Begun {
        command: CommandId,
        chain: ChainKey,
        /// It is over already.
        over: bool,
    },
    /// That has ended.
    Ended { chain: ChainKey, outcome: Box<Outcome> },
    /// As [`Late::Ended`], when it is known where it began.
    Chained { begun: Arc<Begun>, outcome: Box<Outcome> },
    /// A rule was broken.
    Violation { reason: v1::OpaqueReason, what: String },
    /// From here on the connection is not HTTP any more.
    Undecoded { reason: v1::OpaqueReason },
    /// Whatever an exchange left open has ended.
    CutOff { exchange: u32, note: &'static str },
}

/// One connection.
pub(super) struct Connection<R> {
    pub(super) shard: Rc<Shard<R>>,
    /// `None` once the connection has ended.
    journal: RefCell<Option<Journal<R>>>,
    messages: Arc<dyn Messages>,
    tls_name: Option<String>,
    owner: Owner,
    destination: SocketAddr,
    /// The credentials of the last request.
    last_shown: RefCell<Option<Remembered>>,
    exchanges: Cell<u32>,
    late: RefCell<VecDeque<Late>>,
    /// Of the connection's task, which records what is late.
    waker: RefCell<Option<Waker>>,
}

impl<R: Records> Connection<R> {
    pub(super) fn new(
        shard: Rc<Shard<R>>,
        journal: Journal<R>,
        messages: Arc<dyn Messages>,
        tls_name: Option<String>,
    ) -> Self {
        Self {
            shard,
            messages,
            owner: Owner::of(&journal.facts.flow, &journal.facts.identity),
            destination: journal.facts.flow.destination,
            last_shown: RefCell::default(),
            journal: RefCell::new(Some(journal)),
            tls_name,
            exchanges: Cell::new(0),
            late: RefCell::default(),
            waker: RefCell::default(),
        }
    }

    /// What a request's head proves.
    fn proof(&self, head: &request::Parts, host: &str) -> Arc<Proof> {
        let evidence = &self.shard.deps.evidence;
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let last = &mut *self.last_shown.borrow_mut();
        let proof =
            self.with(|journal| Ok(catch(|| evidence.of_request(journal.facts.whom(), head, &host, last))));
        match proof {
            Ok(Ok(proof)) => proof,
            Ok(Err(panicked)) => {
                add(&self.shard.counters.panics, 1);
                tracing::error!(message = panicked.0, "looking at a request's credentials panicked");
                Arc::default()
            }
            Err(_ended) => Arc::default(),
        }
    }

    /// Whether it is within TLS that ends here.
    pub(super) fn ends_tls(&self) -> bool {
        self.tls_name.is_some()
    }

    /// Ends the lending.
    pub(super) fn give_back(&self) -> Option<Journal<R>> {
        self.journal.borrow_mut().take()
    }

    /// Works with the journal. Never while it is being worked with.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Journal<R>) -> Result<T, Stall>) -> Result<T, Stall> {
        match &mut *self.journal.borrow_mut() {
            Some(journal) => work(journal),
            None => Err(Stall::Refused("the connection has ended".to_owned())),
        }
    }

    /// The command that began what another goes on with, where that is known.
    pub(super) fn begun(&self, chain: Option<&ChainKey>) -> Option<Arc<Begun>> {
        self.shard.chains.find(&self.owner, chain?)
    }

    /// Records something. When it cannot be now, what is left of it is what is to be tried again.
    pub(super) fn record(&self, late: &mut Late) -> Result<(), Stall> {
        if let Late::Ended { chain, outcome } = late {
            // What is not remembered has begun elsewhere, or too long ago.
            let Some(begun) = self.shard.chains.end(&self.owner, chain) else { return Ok(()) };
            *late = Late::Chained { begun, outcome: std::mem::take(outcome) };
        }
        self.with(|journal| match late {
            Late::Finished { command, outcome } => journal.finished(*command, outcome),
            Late::Decided { command, decision, verdict } => {
                journal.decided(*command, *decision, verdict).map(drop)
            }
            Late::Begun { command, chain, over } => {
                if let Some(begun) = journal.begun(*command) {
                    self.shard.chains.begin(&self.owner, chain, begun);
                    if *over {
                        drop(self.shard.chains.end(&self.owner, chain));
                    }
                }
                Ok(())
            }
            Late::Ended { .. } => Ok(()),
            Late::Chained { begun, outcome } => journal.chain_ended(begun, outcome),
            Late::Violation { reason, what } => journal.violated(*reason, what),
            Late::Undecoded { reason } => journal.undecoded(*reason),
            Late::CutOff { exchange, note } => journal.cut_off(|id| belongs(id, *exchange), note),
        })
    }

    /// Records something now, or as soon as there is room, in order.
    pub(super) fn record_late(&self, mut late: Late) {
        let first = self.late.borrow().is_empty();
        match first.then(|| self.record(&mut late)) {
            Some(Ok(())) => return,
            Some(Err(Stall::Refused(why))) => {
                return tracing::error!(why, "record of an exchange cannot be written");
            }
            Some(Err(Stall::Full)) | None => {}
        }
        let mut waiting = self.late.borrow_mut();
        let violations = waiting.iter().filter(|late| matches!(late, Late::Violation { .. })).count();
        if violations < LATE_VIOLATIONS || !matches!(late, Late::Violation { .. }) {
            waiting.push_back(late);
        }
        drop(waiting);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn record_waiting(&self) -> Result<(), Stall> {
        loop {
            let Some(mut late) = self.late.borrow_mut().pop_front() else { return Ok(()) };
            match self.record(&mut late) {
                Ok(()) => {}
                Err(Stall::Full) => {
                    self.late.borrow_mut().push_front(late);
                    return Err(Stall::Full);
                }
                Err(Stall::Refused(why)) => tracing::error!(why, "record of an exchange cannot be written"),
            }
        }
    }

    /// Records what is late, for ever. To be polled by the connection's task.
    pub(super) async fn keep_up(&self) -> Infallible {
        loop {
            std::future::poll_fn(|cx: &mut Context<'_>| {
                if !self.late.borrow().is_empty() {
                    return Poll::Ready(());
                }
                self.waker.borrow_mut().get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
                Poll::Pending
            })
            .await;
            if self.record_waiting().is_err() {
                self.shard.spool.room().await;
                // Room for others, not for this one: they go first.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Records what is late, at the connection's end; once it is killed, only for a moment.
    pub(super) async fn settle(&self, control: &Control) {
        while self.record_waiting().is_err() && room_in_time(&*self.shard.spool, control).await {}
    }
}

/// Makes exchanges.
pub(super) struct OfConnection<R>(pub(super) Rc<Connection<R>>);

impl<R: Records> Exchanges for OfConnection<R> {
    type Exchange = Exchange<R>;

    fn exchange(&self, head: &request::Parts) -> Exchange<R> {
        let connection = &self.0;
        let number = connection.exchanges.get();
        connection.exchanges.set(number.wrapping_add(1));
        let destination = Some(connection.destination);
        let peer = Peer { tls_name: connection.tls_name.as_deref(), destination };
        let (service, decoder) = connection.messages.exchange(head, peer);
        let host = host(head).or_else(|| connection.tls_name.clone()).unwrap_or_default();
        let proof = connection.proof(head, &host);
        let place = Place { service, host };
        Exchange::begin(Rc::clone(connection), number, (place, proof), decoder)
    }

    fn violation(&self, violation: Violation) {
        let reason = match violation.ambiguous {
            true => v1::OpaqueReason::AmbiguousRequest,
            false => v1::OpaqueReason::Malformed,
        };
        let by = if violation.by_client { "the workload" } else { "the server" };
        let what = format!("{by}: {}", violation.what);
        tracing::debug!(what, "rule of HTTP broken");
        self.0.record_late(Late::Violation { reason, what });
    }

    fn interim_dropped(&self, status: u16) {
        let counted = self.0.with(|journal| {
            journal.interim_dropped(status);
            Ok(())
        });
        drop(counted);
    }
}

/// Longest name of a host, bytes (RFC 1035 section 2.3.4).
const HOST_BYTES: usize = 255;

/// The request's host without its port.
fn host(head: &request::Parts) -> Option<String> {
    let of_header = || {
        let value = head.headers.get(http::header::HOST)?;
        http::uri::Authority::try_from(value.as_bytes()).ok()
    };
    let authority = head.uri.authority().cloned().or_else(of_header)?;
    let host = authority.host();
    Some(host.get(..HOST_BYTES).unwrap_or(host).to_owned())
}
