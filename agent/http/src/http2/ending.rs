//! How a pair ends: everything is cut, and the last frames leave.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use h2::Reason;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::sleep,
};

use super::Pair;
use crate::{
    Ended,
    seam::{Cut, Exchanges},
};

/// A pair that ends: the last frames leave.
pub(super) struct Ending {
    client_closed: bool,
    ended: Outcome,
}

/// What the client is told at the end.
pub(super) enum Goodbye {
    /// Its connection is closed already.
    None,
    /// GOAWAY, and the connection closes in order. For what it is owed the client may take its time.
    Graceful,
    /// GOAWAY with this code, and the connection closes.
    Abrupt(Reason),
}

/// [`Ended`] without an upgrade, which HTTP/2 has not.
pub(super) enum Outcome {
    Closed,
    Client(String),
    Server(String),
    Stopped,
}

impl<C, S, X> Pair<C, S, X>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
    X: Exchanges,
{
    /// Ends at once, or sees to it that what is ending already does not take long.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        if self.ending.is_none() {
            self.end(Outcome::Stopped, Cut::Ours, Goodbye::Abrupt(Reason::NO_ERROR));
        } else if self.deadline.is_none() {
            self.deadline = Some(Box::pin(sleep(self.linger)));
        }
    }

    /// Begins to end: every exchange is cut, and the client told.
    pub(super) fn end(&mut self, ended: Outcome, cut: Cut, goodbye: Goodbye) {
        // What ended first is why.
        let lost = self.lost.take().filter(|_| !self.stopped);
        let ended = lost.unwrap_or(ended);
        self.shared.ended_by.set(cut);
        self.streams.clear();
        self.sender = None;
        let client_closed = matches!(goodbye, Goodbye::None);
        self.ending = Some(Ending { client_closed, ended });
        match goodbye {
            Goodbye::None => {}
            // There is a deadline as soon as nothing waits for the client any more.
            Goodbye::Graceful => return self.client.graceful_shutdown(),
            Goodbye::Abrupt(code) => self.client.abrupt_shutdown(code),
        }
        self.deadline = Some(Box::pin(sleep(self.linger)));
    }

    /// A client that is owed nothing, or sends what nobody reads, is not waited for: it need not answer the PING that
    /// the library asks it with, nor close. To be asked when everything that could be sent was.
    pub(super) fn poll_hurry(&mut self, cx: &mut Context<'_>) {
        let owed = self.from_client.owes() || self.legs.0.has_unsent();
        if self.deadline.is_none() && (!owed || self.from_client.flood().is_some()) {
            let deadline = self.deadline.insert(Box::pin(sleep(self.linger)));
            if deadline.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
    }

    /// Lets the last frames leave, for as long as that may take.
    pub(super) fn poll_ending<T>(&mut self, cx: &mut Context<'_>) -> Poll<Ended<C, T>> {
        let late = self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
        let Some(ending) = &mut self.ending else { return Poll::Pending };
        while !ending.client_closed {
            match self.client.poll_accept(cx) {
                Poll::Ready(Some(Ok((_, mut respond)))) => respond.send_reset(Reason::REFUSED_STREAM),
                Poll::Ready(Some(Err(_)) | None) => ending.client_closed = true,
                Poll::Pending => break,
            }
        }
        if let Some(upstream) = &mut self.upstream
            && Pin::new(upstream).poll(cx).is_ready()
        {
            self.upstream = None;
        }
        let closed = ending.client_closed && self.upstream.is_none();
        if !closed && !late {
            return Poll::Pending;
        }
        self.report();
        Poll::Ready(match self.ending.take().map(|ending| ending.ended) {
            Some(Outcome::Client(why)) => Ended::Client(why),
            Some(Outcome::Server(why)) => Ended::Server(why),
            Some(Outcome::Stopped) => Ended::Stopped,
            Some(Outcome::Closed) | None => Ended::Closed,
        })
    }
}
