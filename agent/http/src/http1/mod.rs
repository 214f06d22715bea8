//! A pair of HTTP/1.1 endpoints (hyper's), with a gate before the one toward the client.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hyper::{client, server};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use crate::{
    Ended, HttpConfig, Upgraded,
    heard_out::HeardOut,
    seam::{Cut, Exchanges, Violation},
};

mod exchange;
mod gate;
mod head;
mod service;
mod trailers;
mod turn;

use exchange::ToServer;
use gate::Gate;
use service::{Connection, Pairing};
use turn::Turn;

/// What of a client that has had its last answer is still read, so that it gets to see it.
const LINGER_BYTES: usize = 8 << 20;

type ClientSide<C, X> = server::conn::http1::Connection<Gate<C>, Pairing<X>>;
type ServerSide<S, X> = client::conn::http1::Connection<TokioIo<HeardOut<S>>, ToServer<X>>;

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
    let upstream = client::conn::http1::Builder::new()
        .preserve_header_case(true)
        .max_headers(config.header_count)
        .max_header_size(config.header_bytes as usize)
        .handshake(TokioIo::new(HeardOut::new(server)));
    let (sender, upstream) = match upstream.await {
        Ok(upstream) => upstream,
        Err(error) => return Ended::Server(error.to_string()),
    };
    let turn = Rc::new(Turn::default());
    let connection = Rc::new(Connection {
        exchanges,
        ended_by: Rc::new(Cell::new(Cut::Ours)),
        held_bytes: config.held_bytes,
        turn: Rc::clone(&turn),
        sender: RefCell::new(sender),
        abandon: Cell::new(false),
        upgrade: Cell::new(None),
        told: Cell::new(false),
        server_ended: RefCell::new(None),
        failed: RefCell::new(None),
    });
    let gate = Gate::new(client, config, turn);
    let client = server::conn::http1::Builder::new()
        .preserve_header_case(true)
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_headers(config.header_count)
        .serve_connection(gate, Pairing(Rc::clone(&connection)));
    let mut pair = Pair { connection, client, upstream: Some(upstream), closing: false };
    let mut stop = pin!(stop);
    let driven = poll_fn(|cx| pair.poll(stop.as_mut(), cx)).await;
    pair.end(driven, config.linger).await
}

/// A pair while it lives.
struct Pair<C, S: AsyncRead + AsyncWrite + Unpin, X: Exchanges> {
    connection: Rc<Connection<X>>,
    client: ClientSide<C, X>,
    /// `None` once it is of no more use.
    upstream: Option<ServerSide<S, X>>,
    /// The client's connection was told to end after what is under way.
    closing: bool,
}

/// What ended it.
enum Driven {
    Stopped,
    Client(hyper::Result<()>),
}

impl<C, S, X> Pair<C, S, X>
where
    C: AsyncRead + AsyncWrite + Unpin + 'static,
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    X: Exchanges,
{
    fn poll(&mut self, stop: Pin<&mut impl Future<Output = ()>>, cx: &mut Context<'_>) -> Poll<Driven> {
        if stop.poll(cx).is_ready() {
            return Poll::Ready(Driven::Stopped);
        }
        loop {
            let client = self.client.poll_without_shutdown(cx);
            if self.connection.abandon.get() {
                self.upstream = None;
            }
            if let Poll::Ready(ended) = client {
                // The library says so also while what it has written still waits for the client.
                if ended.is_ok() && self.connection.turn.is_blocked() {
                    return Poll::Pending;
                }
                return Poll::Ready(Driven::Client(ended));
            }
            let moved = self.poll_server(cx);
            // What is under way ends by itself; then the client's connection ends too. An upgrade ends the
            // server's endpoint as well, and is known only when its answer has been read.
            let over = self.connection.server_ended.borrow().is_some() && !self.connection.turn.under_way();
            if over && !self.closing && self.connection.upgrade.get().is_none() {
                self.closing = true;
                Pin::new(&mut self.client).graceful_shutdown();
            } else if !moved {
                return Poll::Pending;
            }
        }
    }

    /// Drives the server's endpoint; whether it has just ended.
    fn poll_server(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(upstream) = &mut self.upstream else { return false };
        if self.connection.server_ended.borrow().is_some() {
            return false;
        }
        let Poll::Ready(ended) = upstream.poll_without_shutdown(cx) else { return false };
        if let Err(error) = &ended
            && error.is_parse()
        {
            self.violation(false, format!("server's answer: {error}"));
        }
        self.connection.server_ended.replace(Some(ended.map_err(|error| error.to_string())));
        true
    }

    fn violation(&self, by_client: bool, what: String) {
        self.connection.exchanges.violation(Violation { by_client, what, ambiguous: false });
    }

    async fn end(self, driven: Driven, linger: Duration) -> Ended<C, S> {
        let Self { connection, client, upstream, .. } = self;
        let server_ended = connection.server_ended.take();
        let failed = connection.failed.take();
        let cut = match (&driven, &failed) {
            (Driven::Client(Err(_)), None) => Cut::Client,
            (_, Some((cut, _))) => *cut,
            _ => Cut::Ours,
        };
        connection.ended_by.set(cut);
        // What is still under way is dropped with these, and so cut.
        let parts = client.into_parts();
        drop(parts.service);
        let ended_in_head = parts.io.ended_in_head();
        let (mut client, ahead) = parts.io.into_parts();
        let mut server = upstream.map(|upstream| upstream.into_parts());
        if let (Some(reason), Driven::Client(Ok(()))) = (connection.upgrade.get(), &driven)
            && let Some(server) = server.take()
        {
            let mut from_client = BytesMut::from(&*parts.read_buf);
            from_client.extend_from_slice(&ahead);
            let from_server: Bytes = server.read_buf;
            let server = server.io.into_inner().into_inner();
            let from_client = from_client.freeze();
            return Ended::Upgraded(Box::new(Upgraded { client, from_client, server, from_server, reason }));
        }
        if let Driven::Client(Err(error)) = &driven
            && error.is_parse()
        {
            // Let in by the gate, and not understood all the same.
            let what = format!("request: {error}");
            connection.exchanges.violation(Violation { by_client: true, what, ambiguous: false });
        }
        if ended_in_head {
            let what = "the connection ended in the middle of a request's head".into();
            connection.exchanges.violation(Violation { by_client: true, what, ambiguous: false });
        }
        let refused = connection.tell_refusal();
        // Where one fails there is nobody to say it to.
        let goodbyes = async {
            tokio::join!(
                async { drop(say_goodbye(&mut client, !matches!(driven, Driven::Stopped)).await) },
                async {
                    if let Some(server) = server {
                        drop(server.io.into_inner().shutdown().await);
                    }
                }
            )
        };
        // Where it takes longer it is of no use.
        drop(timeout(linger, goodbyes).await);
        match (driven, failed) {
            (Driven::Stopped, _) => Ended::Stopped,
            (_, Some((Cut::Client, why))) => Ended::Client(why),
            (_, Some((Cut::Server | Cut::Unsent, why))) => Ended::Server(why),
            (_, Some((Cut::Ours, why))) => Ended::Failed(why),
            (Driven::Client(Err(error)), None) => Ended::Client(error.to_string()),
            (Driven::Client(Ok(())), None) => match (refused, server_ended) {
                (Some(refusal), _) => Ended::Client(refusal.what.into()),
                (None, Some(Err(why))) => Ended::Server(why),
                (None, _) => Ended::Closed,
            },
        }
    }
}

/// Closes in order; a client that was refused or denied in the middle of what it sends would lose the answer by a
/// reset.
async fn say_goodbye<C: AsyncRead + AsyncWrite + Unpin>(client: &mut C, linger: bool) -> std::io::Result<()> {
    client.shutdown().await?;
    let mut left = if linger { LINGER_BYTES } else { 0 };
    let mut bytes = [0_u8; 4096];
    while left > 0 {
        match client.read(&mut bytes).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}
