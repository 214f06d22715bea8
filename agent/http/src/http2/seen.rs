//! What is seen of the frames on an HTTP/2 leg: what the library deals with in silence must show.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::{Context, Waker},
};

use super::frames::{
    Budget, CONTINUATION, DATA, END_STREAM, Frame, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS,
};

/// Resets of the library's that are kept until somebody looks.
const MOST_RESETS: usize = 16;
/// Streams whose acceptance is remembered.
const MOST_ACCEPTED: usize = 1024;

/// What was seen on a leg.
pub(super) struct Seen {
    budget: RefCell<Budget>,
    /// PINGs that messages account for, up to `most_pings`: who measures its connection's delay and bandwidth sends
    /// one with each message that it gets (gRPC's estimate of the bandwidth-delay product).
    pings: Cell<u32>,
    most_pings: u32,
    flood: Cell<Option<&'static str>>,
    resets: RefCell<VecDeque<(u32, u32)>>,
    /// The peer has reset a stream since that was asked last.
    peer_reset: Cell<bool>,
    /// Streams that came to us, in order.
    accepted: RefCell<VecDeque<u32>>,
    /// Of these, in order: those whose answer has not gone out whole, and which neither side has reset.
    owed: RefCell<VecDeque<u32>>,
    /// Streams that the library answered by itself.
    answered: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Seen {
    pub(super) fn new(control_frames: u32) -> Rc<Self> {
        Rc::new(Self {
            budget: RefCell::new(Budget::new(control_frames)),
            pings: Cell::new(0),
            most_pings: control_frames,
            flood: Cell::new(None),
            resets: RefCell::default(),
            peer_reset: Cell::new(false),
            accepted: RefCell::default(),
            owed: RefCell::default(),
            answered: Cell::new(0),
            waker: RefCell::default(),
        })
    }

    /// The kind of frame that the peer sent too many of. Nothing is read from then on.
    pub(super) fn flood(&self) -> Option<&'static str> {
        self.flood.get()
    }

    /// A stream that was reset with an error code for which only a broken rule is a reason, with that code.
    pub(super) fn take_reset(&self) -> Option<(u32, u32)> {
        self.resets.borrow_mut().pop_front()
    }

    /// Whether the peer has reset a stream since this was asked last.
    pub(super) fn take_peer_reset(&self) -> bool {
        self.peer_reset.take()
    }

    /// How many requests were answered before anybody saw them, since last asked.
    pub(super) fn take_answered(&self) -> u64 {
        self.answered.take()
    }

    /// A request came to us, so that an answer to it is none of the library's own.
    pub(super) fn accepted(&self, stream: u32) {
        let mut accepted = self.accepted.borrow_mut();
        if accepted.len() == MOST_ACCEPTED {
            accepted.pop_front();
        }
        accepted.push_back(stream);
        self.owed.borrow_mut().push_back(stream);
    }

    /// Whether the peer is owed an answer, or the rest of one.
    pub(super) fn owes(&self) -> bool {
        !self.owed.borrow().is_empty()
    }

    fn settle(&self, stream: u32) {
        let mut owed = self.owed.borrow_mut();
        if let Ok(place) = owed.binary_search(&stream) {
            owed.remove(place);
        }
    }

    fn was_accepted(&self, stream: u32) -> bool {
        let accepted = self.accepted.borrow();
        match accepted.front() {
            // Streams come in the order of their numbers. What is older than what is remembered was accepted:
            // one that was not is answered at once.
            Some(&oldest) => stream < oldest || accepted.binary_search(&stream).is_ok(),
            None => false,
        }
    }

    /// A frame's header was read.
    pub(super) fn read(&self, frame: Frame) {
        let what = match frame.kind {
            DATA if frame.length == 0 && frame.flags & END_STREAM == 0 => "empty DATA",
            PRIORITY => "PRIORITY",
            RST_STREAM => {
                self.peer_reset.set(true);
                self.settle(frame.stream);
                "RST_STREAM"
            }
            SETTINGS => "SETTINGS",
            PING => match self.pings.get().checked_sub(1) {
                Some(left) => return self.pings.set(left),
                None => "PING",
            },
            DATA | HEADERS => return self.earn_ping(),
            DATA..=CONTINUATION => return,
            _ => "unknown",
        };
        if !self.budget.borrow_mut().spend() && self.flood.replace(Some(what)).is_none() {
            self.wake();
        }
    }

    fn earn_ping(&self) {
        self.pings.set(self.pings.get().saturating_add(1).min(self.most_pings));
    }

    /// A frame's header was written.
    pub(super) fn written(&self, frame: Frame) {
        if matches!(frame.kind, DATA | HEADERS) {
            self.earn_ping();
            if frame.flags & END_STREAM != 0 {
                self.settle(frame.stream);
            }
        }
        if frame.kind == HEADERS && !self.was_accepted(frame.stream) {
            self.answered.set(self.answered.get() + 1);
            self.wake();
        }
    }

    /// A RST_STREAM was written.
    pub(super) fn reset(&self, stream: u32, code: u32) {
        self.settle(stream);
        // PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR: never ours.
        if matches!(code, 1 | 3 | 5 | 6) {
            let mut resets = self.resets.borrow_mut();
            if resets.len() < MOST_RESETS {
                resets.push_back((stream, code));
                drop(resets);
                self.wake();
            }
        }
    }

    /// Wakes this one when there is something to look at.
    pub(super) fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match waker.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }

    /// Wakes whoever reads.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}
