//! Carries a decoded connection: feeds the decoder, has what it sees recorded and decided, and carries
//! out its edit script.
//!
//! Knows no protocol. Both directions run in one task, by hand: nothing waits for anything but its own
//! socket, the spool, or a decision.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::time::Sleep;
use verbatim_wire::seam::{CommandId, Decoder, Direction, Edit, Event, Sink, Upgrade};

use crate::{
    Records,
    cancel::{Address, CancelKey, Registration},
    control::Control,
    journal::Journal,
    judge::{Prefix, Unit},
    legs::{BOTH, End, Legs, at},
    shard::Shard,
    sniff::First,
    splicing::Input,
};

mod entries;
mod gate;
mod script;
mod way;

use entries::Entry;
use gate::Gate;
use script::Script;
use way::Way;

type Wait = Pin<Box<dyn Future<Output = ()>>>;

/// How a relay ends.
pub(crate) enum Relayed {
    Ended(End),
    /// Nothing is decoded any more: what was read and not written yet, for the splice.
    Opaque([Input; 2]),
    /// Legs become TLS: what was read and belongs to whoever goes on.
    Upgraded(Upgrade, [Input; 2]),
}

/// One decoded connection.
pub(crate) struct Relay<'a, R> {
    shard: &'a Shard<R>,
    control: &'a Control,
    decoder: Box<dyn Decoder>,
    ways: [Way; 2],
    scripts: [Script; 2],
    /// Seen and not recorded yet. While there are any, no byte moves.
    entries: VecDeque<Entry>,
    /// What is under decision.
    unit: Option<Unit>,
    gate: Gate,
    /// A command longer than the capture limit, let through by its first part.
    prefix: Option<Prefix>,
    /// Waits for room in the spool.
    room: Option<Wait>,
    cancel_request: Option<CancelKey>,
    /// Whose refusal the injected bytes belong to.
    last_refused: Option<CommandId>,
    /// The decoder has said its last word.
    upgrade: Option<Upgrade>,
    cancel_key: Registration,
    /// We have closed the server's leg; until when the client is still read.
    lingering: Option<Pin<Box<Sleep>>>,
}

/// Takes what the decoder says.
struct Collect<'a> {
    entries: &'a mut VecDeque<Entry>,
    scripts: &'a mut [Script; 2],
}

impl Sink for Collect<'_> {
    fn event(&mut self, event: Event) {
        self.entries.push_back(Entry::Event(event));
    }

    fn edit(&mut self, direction: Direction, edit: Edit) {
        if let Edit::Insert(bytes) = &edit
            && !bytes.is_empty()
        {
            self.entries.push_back(Entry::Injected { direction, bytes: bytes.len() as u64 });
        }
        self.scripts[at(direction)].push(edit);
    }
}

impl<'a, R: Records> Relay<'a, R> {
    pub(crate) fn new(
        shard: &'a Shard<R>,
        control: &'a Control,
        connection: Address,
        decoder: Box<dyn Decoder>,
        first: First,
    ) -> Self {
        Self {
            shard,
            control,
            decoder,
            ways: [Way::begin(first.buffer, first.ended), Way::default()],
            scripts: Default::default(),
            entries: VecDeque::new(),
            unit: None,
            gate: Gate::Open,
            prefix: None,
            room: None,
            cancel_request: None,
            last_refused: None,
            upgrade: None,
            cancel_key: Registration::new(Arc::clone(&shard.registry), connection),
            lingering: None,
        }
    }

    /// Carries both directions until one of the ends of a connection, or until nothing is decoded.
    pub(crate) async fn run(mut self, legs: &mut Legs, journal: &mut Journal<R>) -> Relayed {
        for (way, before) in self.ways.iter_mut().zip(journal.bytes) {
            way.bytes = before;
        }
        let end = poll_fn(|cx| self.poll(legs, journal, cx)).await;
        journal.bytes = [self.ways[0].bytes, self.ways[1].bytes];
        let Some(end) = end else {
            let inputs = self.ways.map(|way| Input { buffer: way.buffer, ended: way.ended });
            return match self.upgrade {
                Some(upgrade) => Relayed::Upgraded(upgrade, inputs),
                None => Relayed::Opaque(inputs),
            };
        };
        // Best effort: what the decoder still knows of the commands in flight is better than "unknown".
        for direction in BOTH {
            self.finish(direction);
        }
        let mut resting = pin!(self.rest(journal));
        if poll_fn(|cx| Poll::Ready(resting.as_mut().poll(cx).is_pending())).await {
            // The spool is full: nobody waits for the end meanwhile.
            Legs { client: legs.client.take(), server: legs.server.take() }.close(&end);
            resting.await;
        }
        Relayed::Ended(end)
    }

    /// Records what is left. Waits for room.
    async fn rest(&mut self, journal: &mut Journal<R>) {
        self.record_rest(journal).await;
        if self.unit.is_none()
            && let Some(prefix) = self.prefix.take()
        {
            prefix.cut_off(journal, self.control).await;
        }
    }

    /// `None`: nothing is decoded any more.
    fn poll(&mut self, legs: &mut Legs, journal: &mut Journal<R>, cx: &mut Context<'_>) -> Poll<Option<End>> {
        if self.control.poll_killed(cx).is_ready() {
            return Poll::Ready(Some(End::Killed));
        }
        loop {
            if let Err(end) = ready!(self.poll_record(journal, cx)) {
                return Poll::Ready(Some(end));
            }
            if self.upgrade.is_some() {
                return self.poll_written(legs, cx).map(|()| None);
            }
            if self.poll_gate(journal, cx) || self.feed() {
                continue;
            }
            if self.may_splice() {
                return Poll::Ready(None);
            }
            let mut moved = false;
            for direction in BOTH {
                moved |= self.poll_write(direction, legs, cx);
            }
            if let Some(end) = self.over(cx) {
                return Poll::Ready(Some(end));
            }
            for direction in BOTH {
                match self.poll_read(direction, legs, cx) {
                    Ok(progress) => moved |= progress,
                    Err(end) => return Poll::Ready(Some(end)),
                }
            }
            if !moved {
                journal.bytes = [self.ways[0].bytes, self.ways[1].bytes];
                return Poll::Pending;
            }
        }
    }

    /// Whether everything that the decoder has disposed of is gone.
    fn poll_written(&mut self, legs: &mut Legs, cx: &mut Context<'_>) -> Poll<()> {
        for direction in BOTH {
            self.poll_write(direction, legs, cx);
            let blocked = self.scripts[at(direction)].step().is_some();
            if blocked || legs.to(direction).is_some_and(|to| to.poll_flushed(cx).is_pending()) {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    fn may_splice(&self) -> bool {
        self.decoder.opaque()
            && self.lingering.is_none()
            && matches!(self.gate, Gate::Open)
            && self.scripts.iter().all(Script::is_endless)
    }

    fn finish(&mut self, direction: Direction) {
        let way = &mut self.ways[at(direction)];
        if !std::mem::replace(&mut way.finished, true) {
            let mut sink = Collect { entries: &mut self.entries, scripts: &mut self.scripts };
            self.decoder.finish(direction, &mut sink);
        }
    }

    /// Whether the connection has ended.
    fn over(&mut self, cx: &mut Context<'_>) -> Option<End> {
        if let Some(linger) = &mut self.lingering {
            // The server's leg is closed: the client gets what is for it, then time to close.
            let [from_client, to_client] = &self.ways;
            let done = to_client.dead
                || to_client.shut && (from_client.ended.is_some() || linger.as_mut().poll(cx).is_ready());
            return done.then_some(End::Refused);
        }
        way::over(&self.ways)
    }

    /// Whether the client has closed or reset: nobody waits for an answer.
    fn client_has_gone(&self) -> bool {
        self.ways[at(Direction::ToServer)].ended.is_some()
    }

    fn server_has_gone(&self) -> bool {
        self.ways[at(Direction::ToClient)].ended.is_some() || self.ways[at(Direction::ToServer)].dead
    }
}
