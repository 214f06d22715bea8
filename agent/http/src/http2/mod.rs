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
};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::{Reason, client, server};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Sleep, sleep},
};

use crate::{
    Ended, HttpConfig,
    guarded::EndedBy,
    seam::{Cut, Exchanges, Violation},
};

mod body;
mod errors;
mod frames;
pub(crate) mod head;
mod leg;
mod seen;
mod settings;
mod stream;

use errors::{broke_a_rule, reset_code};
use leg::Leg;
use seen::Seen;
use stream::Stream;

/// What the exchanges of a connection share.
struct Shared<X> {
    exchanges: Rc<X>,
    ended_by: EndedBy,
    /// The server's connection ended with requests under way.
    server_lost: Cell<bool>,
    held_bytes: usize,
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
        legs,
        client: server,
        upstream: Some(upstream),
        sender: Some(sender),
        streams: FuturesUnordered::new(),
        from_client,
        from_server,
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
    legs: (Leg<C>, Leg<S>),
    client: ClientSide<C>,
    /// `None` once it is closed.
    upstream: Option<ServerSide<S>>,
    /// `None` once the server takes no more requests.
    sender: Option<client::SendRequest<Bytes>>,
    streams: FuturesUnordered<Stream<X>>,
    from_client: Rc<Seen>,
    from_server: Rc<Seen>,
    ending: Option<Ending>,
    linger: std::time::Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

/// A pair that ends: the last frames leave.
struct Ending {
    client_closed: bool,
    ended: Outcome,
}

/// What the client is told at the end.
enum Goodbye {
    /// Its connection is closed already.
    None,
    /// GOAWAY, and the connection closes in order.
    Graceful,
    /// GOAWAY with this code, and the connection closes.
    Abrupt(Reason),
}

/// [`Ended`] without an upgrade, which HTTP/2 has not.
enum Outcome {
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
    fn poll<T>(
        &mut self,
        stop: Pin<&mut impl Future<Output = ()>>,
        cx: &mut Context<'_>,
    ) -> Poll<Ended<C, T>> {
        if self.ending.is_none() && stop.poll(cx).is_ready() {
            self.end(Outcome::Stopped, Cut::Ours, Goodbye::Abrupt(Reason::NO_ERROR));
        }
        loop {
            if self.ending.is_some() {
                let ended = self.poll_ending(cx);
                self.send(cx);
                return ended;
            }
            let mut moved = self.poll_client(cx);
            moved |= self.poll_streams(cx);
            moved |= self.poll_upstream(cx);
            // What the server's frames woke is carried on at once, and what came of it leaves at once.
            moved |= self.poll_streams(cx);
            moved |= self.poll_client(cx);
            self.report();
            if !moved && self.ending.is_none() {
                self.send(cx);
                return Poll::Pending;
            }
        }
    }

    /// Sends all that was written; what is not taken now wakes us when it is.
    fn send(&self, cx: &mut Context<'_>) {
        self.legs.0.send(cx);
        self.legs.1.send(cx);
    }

    fn poll_client(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while self.ending.is_none() {
            match self.client.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.accept(request, respond),
                Poll::Ready(Some(Err(error))) => {
                    if broke_a_rule(&error) {
                        self.shared.violation(true, error.to_string());
                    }
                    let cut = if error.is_library() { Cut::Ours } else { Cut::Client };
                    self.end(Outcome::Client(error.to_string()), cut, Goodbye::None);
                }
                Poll::Ready(None) => {
                    let ended = if self.streams.is_empty() {
                        Outcome::Closed
                    } else {
                        Outcome::Client("closed with requests under way".into())
                    };
                    self.end(ended, Cut::Client, Goodbye::None);
                }
                Poll::Pending => return moved,
            }
            moved = true;
        }
        moved
    }

    fn accept(&mut self, request: http::Request<h2::RecvStream>, mut respond: server::SendResponse<Bytes>) {
        self.from_client.accepted(respond.stream_id().as_u32());
        if !head::is_complete(&request) {
            return respond.send_reset(Reason::PROTOCOL_ERROR);
        }
        match &self.sender {
            Some(sender) => {
                self.streams.push(Stream::new(Rc::clone(&self.shared), request, respond, sender.clone()));
            }
            // Not looked at, and may be sent again elsewhere.
            None => respond.send_reset(Reason::REFUSED_STREAM),
        }
    }

    fn poll_streams(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Poll::Ready(Some(())) = self.streams.poll_next_unpin(cx) {
            moved = true;
        }
        moved
    }

    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> bool {
        if self.ending.is_some() {
            return false;
        }
        let Some(upstream) = &mut self.upstream else {
            // Its streams have seen its end by now, or read what had come before it.
            if self.streams.is_empty() {
                if self.shared.server_lost.get() {
                    let ended = Outcome::Server("closed with requests under way".into());
                    self.end(ended, Cut::Server, Goodbye::Abrupt(Reason::INTERNAL_ERROR));
                } else {
                    self.end(Outcome::Closed, Cut::Server, Goodbye::Graceful);
                }
            }
            return false;
        };
        if let Poll::Ready(closed) = Pin::new(upstream).poll(cx) {
            self.upstream = None;
            self.sender = None;
            match closed {
                Ok(()) => self.client.graceful_shutdown(),
                Err(error) => {
                    if broke_a_rule(&error) {
                        self.shared.violation(false, error.to_string());
                    }
                    // The exchanges learn it from their streams. Their client sees what it would have seen of
                    // the server: the end of the connection.
                    while self.poll_streams(cx) {}
                    let cut = if error.is_library() { Cut::Ours } else { Cut::Server };
                    self.end(
                        Outcome::Server(error.to_string()),
                        cut,
                        Goodbye::Abrupt(reset_code(error.reason())),
                    );
                }
            }
            return true;
        }
        // The server has said GOAWAY: what is under way goes on, and nothing new begins.
        if let Some(sender) = &mut self.sender
            && let Poll::Ready(Err(_)) = sender.poll_ready(cx)
        {
            self.sender = None;
            self.client.graceful_shutdown();
            return true;
        }
        false
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

    /// Begins to end: every exchange is cut, and the client told.
    fn end(&mut self, ended: Outcome, cut: Cut, goodbye: Goodbye) {
        self.shared.ended_by.set(cut);
        self.streams.clear();
        self.sender = None;
        match goodbye {
            Goodbye::None => {}
            Goodbye::Graceful => self.client.graceful_shutdown(),
            Goodbye::Abrupt(code) => self.client.abrupt_shutdown(code),
        }
        let client_closed = matches!(goodbye, Goodbye::None);
        self.ending = Some(Ending { client_closed, ended });
        self.deadline = Some(Box::pin(sleep(self.linger)));
    }

    /// Lets the last frames leave, for as long as that may take.
    fn poll_ending<T>(&mut self, cx: &mut Context<'_>) -> Poll<Ended<C, T>> {
        let late = self.deadline.as_mut().is_none_or(|deadline| deadline.as_mut().poll(cx).is_ready());
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
