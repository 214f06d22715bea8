//! What a leg of TLS leaves behind: how it went, for whoever asks at its end.

use std::{
    cell::{Cell, OnceCell},
    io,
    time::Instant,
};

/// What is to be known of a leg when somebody else has had it.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Why TLS broke: a rule that the peer did not keep, or its alert.
    pub(super) failure: OnceCell<rustls::Error>,
    /// The input ended without TLS's own end.
    pub(super) truncated: Cell<bool>,
    /// The input ended with TLS's own end.
    pub(super) ended: Cell<bool>,
    /// The peer has sent something within TLS.
    pub(super) spoke: Cell<bool>,
    /// The socket was reset.
    pub(super) reset: Cell<bool>,
    /// When the end of the input was noticed.
    pub(super) over: OnceCell<Instant>,
}

impl Watch {
    /// Why TLS broke, in the form in which an I/O error carries it.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        self.failure.get().map(broken)
    }

    /// Whether the input was cut off: it ended without TLS's own end.
    pub(crate) fn truncated(&self) -> bool {
        self.truncated.get()
    }

    /// Whether the peer has ended TLS in good order.
    pub(crate) fn ended(&self) -> bool {
        self.ended.get()
    }

    /// Whether the socket was reset.
    pub(crate) fn reset(&self) -> bool {
        self.reset.get()
    }

    /// Whether this peer's end was noticed before the other's.
    pub(crate) fn ended_before(&self, other: &Self) -> bool {
        match (self.over.get(), other.over.get()) {
            (Some(own), Some(other)) => own < other,
            (own, _) => own.is_some(),
        }
    }

    /// Whether the peer has sent anything within TLS.
    pub(crate) fn spoke(&self) -> bool {
        self.spoke.get()
    }
}

fn broken(error: &rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.clone())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn over(at: Option<Instant>) -> Watch {
        let watch = Watch::default();
        if let Some(at) = at {
            watch.over.set(at).expect("the first");
        }
        watch
    }

    #[test]
    fn who_ended_first_is_told_and_whoever_has_not_ended_is_not_first() {
        let now = Instant::now();
        let (never, early, late) = (over(None), over(Some(now)), over(Some(now + Duration::from_nanos(1))));
        assert!(early.ended_before(&late) && early.ended_before(&never));
        assert!(!late.ended_before(&early) && !never.ended_before(&early) && !never.ended_before(&never));
    }
}
