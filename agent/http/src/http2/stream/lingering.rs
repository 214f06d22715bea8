//! The rest of a request that has had its answer: read and thrown away, for a while, so that its client gets to
//! see that answer.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use h2::RecvStream;
use tokio::time::{Sleep, sleep};

use crate::http2::body::release;

/// What of it is read at most.
const LINGER_BYTES: usize = 8 << 20;

/// How much longer.
pub(super) struct Lingering {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl Lingering {
    pub(super) fn new(time: Duration) -> Self {
        Self { until: Box::pin(sleep(time)), left: LINGER_BYTES }
    }

    /// Ready when the client has said all, has gone, or has had its time.
    pub(super) fn poll(&mut self, from_client: &mut RecvStream, cx: &mut Context<'_>) -> Poll<()> {
        while self.left > 0 {
            match from_client.poll_data(cx) {
                Poll::Ready(Some(Ok(bytes))) => {
                    self.left = self.left.saturating_sub(bytes.len().max(1));
                    release(from_client, bytes.len());
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.until.as_mut().poll(cx),
            }
        }
        Poll::Ready(())
    }
}
