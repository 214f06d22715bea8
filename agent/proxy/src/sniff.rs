//! The time before anything is known: who speaks first, and in which protocol.
//!
//! A connection that says nothing is left in peace for as long as it likes.

use std::{future::poll_fn, task::Poll};

use verbatim_api::v1;

use crate::{
    Protocols,
    buffer::{Buffer, Pool},
    control::Control,
    guard::catch,
    legs::{End, Ended, Legs},
    protocols::Detected,
};

/// What the client has sent until it was clear what it is.
#[derive(Default)]
pub(crate) struct First {
    pub(crate) buffer: Buffer,
    pub(crate) ended: Option<Ended>,
}

/// Reads until the protocol is known, or the server speaks, or either ends. Bytes that are there already
/// count.
pub(crate) async fn sniff(
    legs: &mut Legs,
    first: &mut First,
    pool: &Pool,
    protocols: &dyn Protocols,
    control: &Control,
) -> Result<Detected, End> {
    if !first.buffer.is_empty() {
        match protocols.detect(first.buffer.all()) {
            Detected::NeedMore => {}
            detected => return Ok(detected),
        }
    }
    poll_fn(|cx| {
        if control.poll_killed(cx).is_ready() {
            return Poll::Ready(Err(End::Killed));
        }
        // The client first: where both have spoken, the client's bytes say what it is.
        while first.ended.is_none() {
            let Some(space) = first.buffer.space(pool) else {
                return Poll::Ready(Ok(unknown(v1::OpaqueReason::UnknownProtocol)));
            };
            let Some(client) = legs.client.as_mut() else { break };
            match client.poll_take(space, cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => first.ended = Some(Ended::Fin),
                Poll::Ready(Ok(n)) => {
                    first.buffer.filled(n);
                    match catch(|| protocols.detect(first.buffer.all())) {
                        Ok(Detected::NeedMore) => {}
                        Ok(detected) => return Poll::Ready(Ok(detected)),
                        Err(panicked) => return Poll::Ready(Err(End::Panicked(panicked.0))),
                    }
                }
                Poll::Ready(Err(error)) => first.ended = Some(Ended::by(&error)),
            }
        }
        let silent = first.buffer.is_empty();
        first.buffer.release(pool);
        if first.ended.is_some() {
            let reason = if silent { v1::OpaqueReason::Silent } else { v1::OpaqueReason::UnknownProtocol };
            return Poll::Ready(Ok(unknown(reason)));
        }
        let Some(server) = legs.server.as_mut() else { return Poll::Pending };
        match server.poll_peek(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(true) => Poll::Ready(Ok(unknown(v1::OpaqueReason::ServerFirst))),
            Poll::Ready(false) if silent => Poll::Ready(Ok(unknown(v1::OpaqueReason::Silent))),
            Poll::Ready(false) => Poll::Ready(Ok(unknown(v1::OpaqueReason::UnknownProtocol))),
        }
    })
    .await
}

fn unknown(reason: v1::OpaqueReason) -> Detected {
    Detected::Pass { protocol: v1::Protocol::Unknown, reason, service: "", host: None }
}
