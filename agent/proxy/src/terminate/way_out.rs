//! How a connection goes on, or ends, that cannot end its TLS here.

use std::{future::poll_fn, io, task::Poll, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    time::{sleep, timeout},
};
use verbatim_api::v1;

use super::{Request, shake};
use crate::{
    Records,
    control::Control,
    dial::dial,
    journal::Journal,
    legs::{End, Leg, Legs},
    shard::Shard,
};

/// Alerts in plaintext records (RFC 8446 sections 5.1 and 6): fatal, of the version that all clients read.
const fn alert(description: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, description]
}

pub(super) const HANDSHAKE_FAILURE: [u8; 7] = alert(40);
pub(super) const ACCESS_DENIED: [u8; 7] = alert(49);
pub(super) const DECODE_ERROR: [u8; 7] = alert(50);
/// A client that takes no answer does not get it.
const SAYING: Duration = Duration::from_secs(2);

/// Why it cannot end here.
pub(super) enum Way {
    /// The server has not been spoken to yet.
    Untouched(v1::OpaqueReason, String),
    /// The server's leg is used up: it is dialled again.
    Undo(v1::OpaqueReason, String),
}

impl Way {
    pub(super) fn open(self) -> (bool, v1::OpaqueReason, String) {
        match self {
            Self::Untouched(reason, why) => (false, reason, why),
            Self::Undo(reason, why) => (true, reason, why),
        }
    }
}

/// Dials again and says what was said before TLS, so that the kept ClientHello can follow.
pub(super) async fn redial<R: Records>(
    request: &Request<'_, R>,
    legs: &mut Legs,
    journal: &Journal<R>,
) -> Result<(), End> {
    let Request { shard, control, start, .. } = request;
    legs.abort_server();
    let server = dial(shard, &journal.facts.flow, control).await?;
    legs.server = Some(Leg::Plain(server));
    let Some(start) = *start else { return Ok(()) };
    match shake::ask::<()>(start, legs, shard.config.handshake_timeout, control).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(End::Tls(format!("TLS was agreed on and is no more: {error}"))),
        Err(_killed) => Err(End::Killed),
    }
}

/// Says a last word to the client, if it takes it.
pub(super) async fn say(legs: &mut Legs, words: &[u8], control: &Control) {
    let Some(client) = &mut legs.client else { return };
    let saying = async {
        client.write_all(words).await?;
        client.flush().await
    };
    let killed = poll_fn(|cx| control.poll_killed(cx));
    tokio::select! {
        said = timeout(SAYING, saying) => {
            if !matches!(said, Ok(Ok(()))) {
                tracing::debug!("a client did not take its last word");
            }
        }
        () = killed => {}
    }
}

/// Ends both legs so that the client gets what was said before it gets a reset: it is read until it closes, for
/// a while.
pub(crate) async fn part<R: Records>(shard: &Shard<R>, legs: &mut Legs, control: &Control) {
    if let Some(mut server) = legs.server.take() {
        // A server that takes nothing does not get TLS's end.
        poll_fn(|cx| Poll::Ready(server.poll_shut(true, cx).is_ready())).await;
    }
    let Some(client) = &mut legs.client else { return };
    let mut scrap = [0; 512];
    let reading = async {
        poll_fn(|cx| client.poll_shut(false, cx)).await;
        let socket = client.socket();
        while socket.readable().await.is_ok() {
            match socket.try_read(&mut scrap) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => break,
            }
        }
    };
    let killed = poll_fn(|cx| control.poll_killed(cx));
    tokio::select! {
        () = reading => {}
        () = sleep(shard.config.linger) => {}
        () = killed => {}
    }
}
