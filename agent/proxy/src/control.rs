//! What a shard can tell one of its connections: end now, or give up the command that you hold.

use std::{
    cell::{Cell, RefCell},
    task::{Context, Poll, Waker},
};

use tokio::sync::oneshot;

/// Shared by a connection's task and its shard, on one thread.
#[derive(Debug, Default)]
pub(crate) struct Control {
    killed: Cell<bool>,
    cancel: RefCell<Option<oneshot::Sender<bool>>>,
    waker: RefCell<Option<Waker>>,
}

impl Control {
    /// Asks the connection to end now.
    pub(crate) fn kill(&self) {
        self.killed.set(true);
        self.wake();
    }

    pub(crate) fn killed(&self) -> bool {
        self.killed.get()
    }

    /// Asks the connection to abandon the command that it holds. The answer says whether it did; a later
    /// request takes the place of one that was not looked at.
    pub(crate) fn cancel(&self, answer: oneshot::Sender<bool>) {
        self.cancel.replace(Some(answer));
        self.wake();
    }

    pub(crate) fn take_cancel(&self) -> Option<oneshot::Sender<bool>> {
        self.cancel.take()
    }

    /// Called by the connection's task before it waits.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match waker.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }

    pub(crate) fn poll_killed(&self, cx: &Context<'_>) -> Poll<()> {
        if self.killed() {
            return Poll::Ready(());
        }
        self.register(cx);
        Poll::Pending
    }

    fn wake(&self) {
        let waker = self.waker.borrow().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
