//! An exchange that is told its end whatever becomes of its future.

use std::{
    cell::Cell,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, response};

use crate::seam::{Cut, Exchange, Step};

/// Who ended the connection, for exchanges that are dropped with it.
pub(crate) type EndedBy = Rc<Cell<Cut>>;

/// Wraps an [`Exchange`] so that one of its ends is always told: cut on drop, unless both of its halves were
/// shown whole.
pub(crate) struct Guarded<E: Exchange> {
    exchange: E,
    request_ended: bool,
    response_ended: bool,
    cut: bool,
    ended_by: EndedBy,
}

impl<E: Exchange> Guarded<E> {
    pub(crate) fn new(exchange: E, ended_by: EndedBy) -> Self {
        Self { exchange, request_ended: false, response_ended: false, cut: false, ended_by }
    }

    pub(crate) fn request(&mut self, bytes: &Bytes) {
        self.exchange.request(bytes);
    }

    pub(crate) fn request_end(&mut self, trailers: Option<&HeaderMap>) {
        self.request_ended = true;
        self.exchange.request_end(trailers);
    }

    pub(crate) fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        self.exchange.poll_step(cx)
    }

    pub(crate) fn response_head(&mut self, head: &response::Parts) {
        self.exchange.response_head(head);
    }

    pub(crate) fn response(&mut self, bytes: &Bytes) {
        self.exchange.response(bytes);
    }

    pub(crate) fn response_end(&mut self, trailers: Option<&HeaderMap>) {
        self.response_ended = true;
        self.exchange.response_end(trailers);
    }

    pub(crate) fn poll_recorded(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.exchange.poll_recorded(cx)
    }

    /// Ends it here, if it has not ended.
    pub(crate) fn cut(&mut self, cut: Cut) {
        let over = self.cut || (self.request_ended && self.response_ended);
        if !over {
            self.cut = true;
            self.exchange.cut(cut);
        }
    }
}

impl<E: Exchange> Drop for Guarded<E> {
    fn drop(&mut self) {
        // A panic may have come from the exchange itself: it is not called again.
        if !std::thread::panicking() {
            self.cut(self.ended_by.get());
        }
    }
}
