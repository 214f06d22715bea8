//! A connection that speaks HTTP: every exchange's commands are recorded and decided before they go on.
//!
//! Glue between the pair of endpoints, the message decoders, the journal and the policy. Knows no frame and
//! no API.

use std::{cell::Cell, future::poll_fn, pin::pin, rc::Rc, task::Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use verbatim_api::v1;
use verbatim_http::{Ended, HttpConfig, UpgradeReason, Version};

use self::{
    connection::{Connection, Late, OfConnection},
    counted::Counted,
};
use crate::{
    ProxyConfig, Records,
    control::Control,
    journal::Journal,
    legs::{End, Side},
    shard::Shard,
};

mod connection;
mod counted;
mod entries;
mod exchange;
mod gate;

/// What is held beyond the capture limit: one read.
const BESIDE_CAPTURE: usize = 64 << 10;
/// RFC 9113 section 6.9.1.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// How a connection of HTTP ended.
pub(crate) enum HttpEnd<C, S> {
    /// It is over, and the pair has let go of both legs.
    Over(End),
    /// Both sides agreed to speak something else, which is recorded: what follows passes undecoded, and what
    /// was read of it already comes first.
    Upgraded {
        /// Toward the workload.
        client: C,
        /// Read from there and not passed on.
        from_client: Bytes,
        /// Toward the server.
        server: S,
        /// Read from there and not passed on.
        from_server: Bytes,
    },
}

/// Carries a connection of HTTP until it has ended. Every command that began has its end in the journal
/// afterwards, or is still open there for the connection's last records. `tls_name`: the name that TLS was
/// made for.
pub(crate) async fn serve<R, C, S>(
    shard: &Rc<Shard<R>>,
    client: C,
    server: S,
    version: Version,
    tls_name: Option<String>,
    journal: &mut Journal<R>,
    control: &Control,
) -> HttpEnd<C, S>
where
    R: Records,
    C: AsyncRead + AsyncWrite + Unpin + 'static,
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Some(messages) = shard.decoders.clone() else {
        return HttpEnd::Over(End::Stuck("nobody decodes messages of HTTP"));
    };
    let protocol = match version {
        Version::Http1 => v1::Protocol::Http1,
        Version::Http2 => v1::Protocol::Http2,
    };
    journal.facts.detected(protocol, "http", tls_name.clone());
    let bytes = [(); 2].map(|()| Rc::new(Cell::new(0)));
    let connection = Connection::new(Rc::clone(shard), journal.take(), messages, tls_name);
    let lent = Lent { connection: Rc::new(connection), journal, bytes: bytes.clone() };
    let connection = Rc::clone(&lent.connection);
    let [to_server, to_client] = &bytes;
    let legs = (Counted::new(client, to_client), Counted::new(server, to_server));
    let ended = pair(&connection, legs, version, &limits(&shard.config), control).await;
    connection.settle(control).await;
    let end = match ended {
        Ended::Closed => End::Closed,
        Ended::Client(why) => End::Broken(Side::Client, why),
        Ended::Server(why) => End::Broken(Side::Server, why),
        Ended::Stopped => End::Killed,
        Ended::Failed(why) => End::Panicked(why),
        Ended::Upgraded(upgraded) => {
            let reason = match upgraded.reason {
                UpgradeReason::Upgrade => v1::OpaqueReason::HttpUpgrade,
                UpgradeReason::Connect => v1::OpaqueReason::HttpConnect,
            };
            connection.record_late(Late::Undecoded { reason });
            connection.settle(control).await;
            return HttpEnd::Upgraded {
                client: upgraded.client.leg,
                from_client: upgraded.from_client,
                server: upgraded.server.leg,
                from_server: upgraded.from_server,
            };
        }
    };
    HttpEnd::Over(end)
}

/// What a decoder wants to see of a request before anything of it is decided must fit into what is held.
fn limits(config: &ProxyConfig) -> HttpConfig {
    let mut http = config.http.clone();
    http.held_bytes = http.held_bytes.max(config.limits.capture_bytes.saturating_add(BESIDE_CAPTURE));
    let held = u32::try_from(http.held_bytes).unwrap_or(u32::MAX);
    http.stream_window = http.stream_window.max(held.saturating_add(held / 2)).min(LARGEST_WINDOW);
    http.connection_window = http.connection_window.max(http.stream_window);
    http
}

/// Runs the pair of endpoints, and records beside it what came too late for its exchange.
async fn pair<R, C, S>(
    connection: &Rc<Connection<R>>,
    (client, server): (C, S),
    version: Version,
    config: &HttpConfig,
    control: &Control,
) -> Ended<C, S>
where
    R: Records,
    C: AsyncRead + AsyncWrite + Unpin + 'static,
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let exchanges = Rc::new(OfConnection(Rc::clone(connection)));
    let stop = poll_fn(|cx| control.poll_killed(cx));
    let mut pair = pin!(verbatim_http::serve(client, server, version, config, exchanges, stop));
    let mut late = pin!(connection.keep_up());
    poll_fn(|cx| {
        if let Poll::Ready(ended) = pair.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        late.as_mut().poll(cx).map(|never| match never {})
    })
    .await
}

/// The journal, in the hands of the exchanges; put back however this ends.
struct Lent<'a, R: Records> {
    connection: Rc<Connection<R>>,
    journal: &'a mut Journal<R>,
    bytes: [Rc<Cell<u64>>; 2],
}

impl<R: Records> Drop for Lent<'_, R> {
    fn drop(&mut self) {
        if let Some(journal) = self.connection.give_back() {
            *self.journal = journal;
        }
        for (sum, bytes) in self.journal.bytes.iter_mut().zip(&self.bytes) {
            *sum = sum.wrapping_add(bytes.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use verbatim_wire::seam::Limits;

    use super::*;

    #[test]
    fn as_much_is_held_as_a_decoder_wants_to_see_and_a_stream_may_send_more() {
        let usual = limits(&ProxyConfig::default());
        assert_eq!(usual.stream_window, HttpConfig::default().stream_window);
        let large = Limits { capture_bytes: 8 << 20, ..Limits::default() };
        let http = limits(&ProxyConfig { limits: large, ..ProxyConfig::default() });
        assert!(http.held_bytes > 8 << 20 && http.stream_window as usize > http.held_bytes);
        assert!(http.connection_window >= http.stream_window);
        let huge = Limits { capture_bytes: usize::MAX, ..Limits::default() };
        assert_eq!(
            limits(&ProxyConfig { limits: huge, ..ProxyConfig::default() }).stream_window,
            LARGEST_WINDOW
        );
    }
}
