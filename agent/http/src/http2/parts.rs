//! Which parts of a connection have something to do: each has a waker of its own, so that one pass over the
//! connection polls those that were woken and no others.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
};

/// The task that drives the connection.
#[derive(Default)]
struct Task {
    waker: Mutex<Option<Waker>>,
    /// It is at work, and looks at what was woken before it rests.
    working: AtomicBool,
}

/// What is woken for one part. Wakers go to other threads.
struct Flag {
    woken: AtomicBool,
    task: Arc<Task>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In this order: either we see that the task rests, or it sees before it rests that we were here.
        self.woken.store(true, SeqCst);
        if !self.task.working.load(SeqCst) {
            let waker = self.task.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// One part: what is polled with its waker is polled again when that was woken.
pub(super) struct Part {
    flag: Arc<Flag>,
    waker: Waker,
}

impl Part {
    fn new(task: &Arc<Task>) -> Self {
        let flag = Arc::new(Flag { woken: AtomicBool::new(true), task: Arc::clone(task) });
        let waker = Waker::from(Arc::clone(&flag));
        Self { flag, waker }
    }

    /// Whether it was woken since this was asked last.
    pub(super) fn take_woken(&self) -> bool {
        self.flag.woken.load(SeqCst) && self.flag.woken.swap(false, SeqCst)
    }

    /// It has something to do.
    pub(super) fn wake(&self) {
        self.flag.woken.store(true, SeqCst);
    }

    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

/// The parts of a connection.
pub(super) struct Parts {
    pub(super) client: Part,
    pub(super) streams: Part,
    pub(super) upstream: Part,
    task: Arc<Task>,
}

impl Parts {
    /// All of them have something to do.
    pub(super) fn new() -> Self {
        let task = Arc::default();
        Self { client: Part::new(&task), streams: Part::new(&task), upstream: Part::new(&task), task }
    }

    /// Whether one of them was woken.
    pub(super) fn any(&self) -> bool {
        [&self.client, &self.streams, &self.upstream].iter().any(|part| part.flag.woken.load(SeqCst))
    }

    /// The task begins to work. When nobody says for which part it was woken, it is for all of them.
    pub(super) fn begin(&self, cx: &Context<'_>) {
        self.task.working.store(true, SeqCst);
        let mut waker = self.task.waker.lock().unwrap_or_else(PoisonError::into_inner);
        match waker.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        drop(waker);
        if !self.any() {
            self.client.wake();
            self.streams.wake();
            self.upstream.wake();
        }
    }

    /// The task gives way, whatever was woken.
    pub(super) fn pause(&self) {
        self.task.working.store(false, SeqCst);
    }

    /// The task is about to rest. `false`: not yet, something was woken.
    pub(super) fn rest(&self) -> bool {
        if self.any() {
            return false;
        }
        self.task.working.store(false, SeqCst);
        if self.any() {
            self.task.working.store(true, SeqCst);
            return false;
        }
        true
    }
}
