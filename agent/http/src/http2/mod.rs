//! A pair of HTTP/2 endpoints: one future drives both connections and every exchange between them.
//!
//! Written against `h2`, the HTTP/2 half of hyper: hyper's own layer over it hides error codes, and spends a
//! task or two more on each exchange.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::{Reason, client, server};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Sleep,
};

use crate::{
    Ended, HttpConfig,
    guarded::EndedBy,
    seam::{Cut, Exchanges, Violation},
};

mod body;
mod ending;
mod errors;
mod frames;
pub(crate) mod head;
mod leg;
mod parts;
mod seen;
mod settings;
mod stream;

use ending::{Ending, Goodbye, Outcome};
use errors::broke_a_rule;
use leg::Leg;
use parts::Parts;
use seen::Seen;
use stream::Stream;

/// Passes over a connection before others have their turn. The runtime may have none of it go on before that.
const MOST_PASSES: u32 = 16;

/// What the exchanges of a connection share.
struct Shared<X> {
    exchanges: Rc<X>,
    ended_by: EndedBy,
    /// The server's connection ended with requests under way.
    server_lost: Cell<bool>,
    held_bytes: usize,
    /// How long the rest of a request is still read that was answered by us.
    linger: Duration,
    encrypted: bool,
}

impl<X: Exchanges> Shared<X> {
    fn violation(&self, by_client: bool, what: String) {
        self.exchanges.violation(Violation { by_client, what, ambiguous: false });
    }
}

pub(crate) async fn serve<C, S, X>(
    client: C,
    server: S,
    config: &HttpConfig,
    exchanges: Rc<X>,
    stop: impl Future<Output = ()>,
) -> Ended<C, S>
where
    C: AsyncRead + AsyncWrite + Unpin + 'static,
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    X: Exchanges,
{
    let shared = Rc::new(Shared {
        exchanges,
        ended_by: Rc::new(Cell::new(Cut::Ours)),
        server_lost: Cell::new(false),
        held_bytes: config.held_bytes,
        linger: config.linger,
        encrypted: config.encrypted,
    });
    let [from_client, from_server] = [Seen::new(config.control_frames), Seen::new(config.control_frames)];
    let mut stop = pin!(stop);

    let legs = (Leg::client(client, Rc::clone(&from_client)), Leg::server(server, Rc::clone(&from_server)));
    let upstream = settings::upstream(config).handshake(legs.1.clone());
    let (sender, mut upstream) = match upstream.await {
        Ok(upstream) => upstream,
        Err(error) => return Ended::Server(error.to_string()),
    };
    let mut accepting = pin!(settings::client(config).handshake::<_, Bytes>(legs.0.clone()));
    let accepted = poll_fn(|cx| {
        if stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Ended::Stopped));
        }
        if let Poll::Ready(accepted) = accepting.as_mut().poll(cx) {
            return Poll::Ready(accepted.map_err(|error| {
                if broke_a_rule(&error) {
                    shared.violation(true, format!("connection preface: {error}"));
                }
                Ended::Client(error.to_string())
            }));
        }
        // The server's settings are taken meanwhile, and its end noticed.
        match Pin::new(&mut upstream).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(Ended::Closed)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(Ended::Server(error.to_string()))),
            Poll::Pending => {
                legs.0.send(cx);
                legs.1.send(cx);
                Poll::Pending
            }
        }
    });
    let server = match accepted.await {
        Ok(server) => server,
        Err(ended) => return ended,
    };
    let mut pair = Pair {
        shared,
        parts: Parts::new(),
        legs,
        client: server,
        upstream: Some(upstream),
        sender: Some(sender),
        streams: FuturesUnordered::new(),
        from_client,
        from_server,
        lost: None,
        stopped: false,
        ending: None,
        linger: config.linger,
        deadline: None,
    };
    poll_fn(|cx| pair.poll(stop.as_mut(), cx)).await
}

type ClientSide<C> = server::Connection<Leg<C>, Bytes>;
type ServerSide<S> = client::Connection<Leg<S>, Bytes>;

/// A pair while it lives.
struct Pair<C, S, X: Exchanges> {
    shared: Rc<Shared<X>>,
    parts: Parts,
    legs: (Leg<C>, Leg<S>),
    client: ClientSide<C>,
    /// `None` once it is closed.
    upstream: Option<ServerSide<S>>,
    /// `None` once the server takes no more requests.
    sender: Option<client::SendRequest<Bytes>>,
    streams: FuturesUnordered<Stream<X>>,
    from_client: Rc<Seen>,
    from_server: Rc<Seen>,
    /// How the server's connection has ended, if not in order. What had come of it before still goes on.
    lost: Option<Outcome>,
    /// We were told to stop.
    stopped: bool,
    ending: Option<Ending>,
    linger: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<C, S, X> Pair<C, S, X>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
    X: Exchanges,
{
    fn poll<T>(
        &mut self,
        stop: Pin<&mut impl Future<Output = ()>>,
        cx: &mut Context<'_>,
    ) -> Poll<Ended<C, T>> {
        if !self.stopped && stop.poll(cx).is_ready() {
            self.stop();
        }
        self.parts.begin(cx);
        for _ in 0..MOST_PASSES {
            if self.ending.is_some() {
                let ended = self.poll_ending(cx);
                self.send(cx);
                if ended.is_pending() {
                    self.poll_hurry(cx);
                }
                return ended;
            }
            self.pass();
            self.report();
            if self.ending.is_some() || self.parts.any() {
                continue;
            }
            self.send(cx);
            if self.parts.rest() {
                return Poll::Pending;
            }
        }
        // Others have their turn.
        self.send(cx);
        self.parts.pause();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Polls what was woken, in the order in which a request wakes one after the other.
    fn pass(&mut self) {
        if self.parts.client.take_woken() {
            let waker = self.parts.client.waker();
            self.poll_client(&mut Context::from_waker(&waker));
        }
        if self.from_client.take_peer_reset() {
            self.look_at_server();
        }
        if self.parts.streams.take_woken() {
            let waker = self.parts.streams.waker();
            self.poll_streams(&mut Context::from_waker(&waker));
        }
        if self.parts.upstream.take_woken() {
            let waker = self.parts.upstream.waker();
            self.poll_upstream(&mut Context::from_waker(&waker));
        }
        if self.upstream.is_none() && self.streams.is_empty() && self.ending.is_none() {
            // Its streams have seen its end, or read what had come before it. Those that were cut are reset; what
            // the client is owed of others still waits for it.
            let ended = if self.shared.server_lost.get() {
                Outcome::Server("closed with requests under way".into())
            } else {
                Outcome::Closed
            };
            self.end(ended, Cut::Server, Goodbye::Graceful);
        }
    }

    /// Sends all that was written; what is not taken now wakes us when it is.
    fn send(&self, cx: &mut Context<'_>) {
        self.legs.0.send(cx);
        self.legs.1.send(cx);
    }

    fn poll_client(&mut self, cx: &mut Context<'_>) {
        while self.ending.is_none() {
            match self.client.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.accept(request, respond),
                Poll::Ready(Some(Err(error))) => {
                    if broke_a_rule(&error) {
                        self.shared.violation(true, error.to_string());
                    }
                    let cut = if error.is_library() { Cut::Ours } else { Cut::Client };
                    self.hear_server_out();
                    self.end(Outcome::Client(error.to_string()), cut, Goodbye::None);
                }
                Poll::Ready(None) => {
                    let ended = if self.streams.is_empty() {
                        Outcome::Closed
                    } else {
                        Outcome::Client("closed with requests under way".into())
                    };
                    self.hear_server_out();
                    self.end(ended, Cut::Client, Goodbye::None);
                }
                Poll::Pending => return,
            }
        }
    }

    fn accept(&mut self, request: http::Request<h2::RecvStream>, mut respond: server::SendResponse<Bytes>) {
        self.from_client.accepted(respond.stream_id().as_u32());
        if !head::is_complete(&request) {
            return respond.send_reset(Reason::PROTOCOL_ERROR);
        }
        match &self.sender {
            Some(sender) => {
                self.streams.push(Stream::new(Rc::clone(&self.shared), request, respond, sender.clone()));
                self.parts.streams.wake();
            }
            // Not looked at, and may be sent again elsewhere.
            None => respond.send_reset(Reason::REFUSED_STREAM),
        }
    }

    fn poll_streams(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(())) = self.streams.poll_next_unpin(cx) {}
    }

    /// Reads what the server has said, before somebody goes who waits for it: what was done there is known then.
    fn look_at_server(&mut self) {
        let waker = self.parts.upstream.waker();
        self.poll_upstream(&mut Context::from_waker(&waker));
    }

    /// The client is gone: what the server has said until now is shown all the same.
    fn hear_server_out(&mut self) {
        if !self.streams.is_empty() {
            self.look_at_server();
            let waker = self.parts.streams.waker();
            self.poll_streams(&mut Context::from_waker(&waker));
        }
    }

    fn poll_upstream(&mut self, cx: &mut Context<'_>) {
        let Some(upstream) = self.upstream.as_mut().filter(|_| self.ending.is_none()) else { return };
        if let Poll::Ready(closed) = Pin::new(upstream).poll(cx) {
            self.upstream = None;
            // The exchanges learn it from their streams.
            let waker = self.parts.streams.waker();
            self.poll_streams(&mut Context::from_waker(&waker));
            let code = closed.as_ref().map_or_else(head::code_for_unsent, |()| Reason::REFUSED_STREAM);
            if let Err(error) = closed {
                if broke_a_rule(&error) {
                    self.shared.violation(false, error.to_string());
                }
                self.lost = Some(Outcome::Server(error.to_string()));
            }
            self.give_up_unsent(code);
            self.take_no_more();
            return;
        }
        // The server has said GOAWAY: what is under way goes on, and nothing new begins.
        if let Some(sender) = &mut self.sender
            && let Poll::Ready(Err(_)) = sender.poll_ready(cx)
        {
            self.take_no_more();
        }
    }

    /// Nothing goes on any more: whoever still waits for leave is not to be asked about in vain.
    fn give_up_unsent(&mut self, code: Reason) {
        for mut stream in std::mem::take(&mut self.streams) {
            if !stream.give_up_unsent(code) {
                self.streams.push(stream);
            }
        }
        self.parts.streams.wake();
    }

    fn take_no_more(&mut self) {
        self.sender = None;
        self.client.graceful_shutdown();
        self.parts.client.wake();
    }

    /// Tells what the library dealt with by itself, and ends a connection that floods.
    fn report(&mut self) {
        while let Some((stream, code)) = self.from_client.take_reset() {
            let reason = Reason::from(code);
            self.shared.violation(true, format!("stream {stream} was reset: {reason}"));
        }
        for _ in 0..self.from_client.take_answered().min(16) {
            self.shared.violation(true, "a header list above the limit was answered with 431".into());
        }
        if self.ending.is_some() {
            return;
        }
        if let Some(kind) = self.from_client.flood() {
            self.shared.violation(true, format!("flood of {kind} frames"));
            let ended = Outcome::Client(format!("flood of {kind} frames"));
            self.end(ended, Cut::Ours, Goodbye::Abrupt(Reason::ENHANCE_YOUR_CALM));
        } else if let Some(kind) = self.from_server.flood() {
            self.shared.violation(false, format!("flood of {kind} frames"));
            let ended = Outcome::Server(format!("flood of {kind} frames"));
            self.end(ended, Cut::Ours, Goodbye::Abrupt(Reason::INTERNAL_ERROR));
        }
    }
}
