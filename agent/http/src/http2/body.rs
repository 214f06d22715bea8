//! A received body as a source of pieces.

use std::task::{Context, Poll, ready};

use h2::RecvStream;

use crate::request::{Piece, Source};

impl Source for RecvStream {
    type Broken = h2::Error;

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Piece<h2::Error>> {
        Poll::Ready(match ready!(self.poll_data(cx)) {
            Some(Ok(bytes)) => Piece::Data(bytes),
            Some(Err(error)) => Piece::Broken(error),
            None => match ready!(self.poll_trailers(cx)) {
                Ok(trailers) => Piece::End(trailers),
                Err(error) => Piece::Broken(error),
            },
        })
    }

    fn is_end(&self) -> bool {
        self.is_end_stream()
    }
}

/// Gives the peer credit for bytes that have gone on (RFC 9113 section 6.9).
pub(super) fn release(body: &mut RecvStream, bytes: usize) {
    // It fails where the stream is gone, and then there is nobody to give it to.
    drop(body.flow_control().release_capacity(bytes));
}
