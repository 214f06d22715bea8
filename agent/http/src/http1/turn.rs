//! Whose turn it is on an HTTP/1.1 connection, and how its answer goes on.

use std::{
    cell::{Cell, RefCell},
    task::{Context, Poll, Waker},
};

use super::head::Refusal;

/// What the gate and the service tell each other.
#[derive(Default)]
pub(super) struct Turn {
    /// Requests that were let in.
    entered: Cell<u64>,
    /// Those of them whose answer has gone on.
    answered: Cell<u64>,
    refusal: RefCell<Option<Refusal>>,
    waker: RefCell<Option<Waker>>,
    /// Something of an answer still waits for the client.
    blocked: Cell<bool>,
}

impl Turn {
    /// The answer to the request that is under way has gone on: the next may come in.
    pub(super) fn answered(&self) {
        self.answered.set(self.entered.get());
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// A request was let in.
    pub(super) fn entered(&self) {
        self.entered.set(self.entered.get() + 1);
    }

    /// Wakes this one when the answer has gone on.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.waker.replace(Some(cx.waker().clone()));
    }

    pub(super) fn refuse(&self, refusal: Refusal) {
        self.refusal.replace(Some(refusal));
    }

    /// Something was written to the client, or flushed, or was not: a flush is the last thing that the library does
    /// with all that it has.
    pub(super) fn wrote<T>(&self, wrote: Poll<T>) -> Poll<T> {
        self.blocked.set(wrote.is_pending());
        wrote
    }

    /// Whether something of an answer still waits for the client.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    pub(super) fn under_way(&self) -> bool {
        self.answered.get() < self.entered.get()
    }

    /// Why the last request that was let in is none, or why its body could not be read on.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal.borrow().clone()
    }
}
