//! The answer's half of an exchange: what is recorded goes to the client, as far as there is room.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::Reason;
use http::StatusCode;

use super::{Answer, Half, Stream, ToClient};
use crate::{
    http2::body::release,
    response::{Out, Response, Stopped, show_head},
    seam::{Cut, Exchanges},
};

impl<X: Exchanges> Stream<X> {
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Half {
        match &mut self.answer {
            Answer::None | Answer::Done => Half::Pending,
            Answer::Awaited(awaited) => {
                while let Poll::Ready(Some(Ok(interim))) = awaited.poll_informational(cx) {
                    let status = interim.status();
                    if status != StatusCode::CONTINUE {
                        self.shared.exchanges.interim_dropped(status.as_u16());
                    } else if std::mem::take(&mut self.expects)
                        && let ToClient::Unanswered(respond) = &mut self.to_client
                    {
                        drop(respond.send_informational(interim));
                    }
                }
                match Pin::new(awaited).poll(cx) {
                    Poll::Ready(Ok(response)) => {
                        let (head, body) = response.into_parts();
                        let ends = body.is_end_stream();
                        show_head(&head, ends, &mut self.exchange);
                        self.answer = Answer::Head { head: Box::new(head), body, ends };
                        Half::Progress
                    }
                    Poll::Ready(Err(error)) => self.server_failed(&error),
                    Poll::Pending => Half::Pending,
                }
            }
            Answer::Head { .. } => match self.exchange.poll_recorded(cx) {
                Poll::Ready(true) => self.send_head(),
                Poll::Ready(false) => self.over(Reason::INTERNAL_ERROR, Reason::CANCEL, Cut::Ours),
                Poll::Pending => Half::Pending,
            },
            Answer::Body { next: Some(_), .. } => self.send_answer(cx),
            Answer::Body { body, way, next } => match way.poll_out(body, &mut self.exchange, cx) {
                Poll::Ready(Ok(Out::Data(bytes, last))) => {
                    *next = Some((bytes, last));
                    self.send_answer(cx)
                }
                Poll::Ready(Ok(Out::End(trailers))) => {
                    let ToClient::Answering(stream) = &mut self.to_client else { return Half::Over };
                    let sent = match trailers {
                        Some(trailers) => stream.send_trailers(trailers),
                        None => stream.send_data(Bytes::new(), true),
                    };
                    self.answered(sent)
                }
                Poll::Ready(Err(Stopped::Unrecorded)) => {
                    self.over(Reason::INTERNAL_ERROR, Reason::CANCEL, Cut::Ours)
                }
                Poll::Ready(Err(Stopped::Broken(error))) => self.server_failed(&error),
                Poll::Pending => Half::Pending,
            },
        }
    }

    /// Shows what has come of an answer that nobody waits for any more.
    pub(super) fn show_answer(&mut self, cx: &mut Context<'_>) {
        if let Answer::Awaited(awaited) = &mut self.answer {
            let Poll::Ready(Ok(response)) = Pin::new(awaited).poll(cx) else { return };
            let (head, body) = response.into_parts();
            let ends = body.is_end_stream();
            show_head(&head, ends, &mut self.exchange);
            self.answer = Answer::Head { head: Box::new(head), body, ends };
        }
        let (body, mut way) = match std::mem::replace(&mut self.answer, Answer::Done) {
            Answer::Head { body, ends: false, .. } => (body, Response::default()),
            Answer::Body { body, way, next } if !next.as_ref().is_some_and(|(_, last)| *last) => (body, way),
            _ => return,
        };
        let mut body = body;
        while let Poll::Ready(Ok(Out::Data(_, false))) = way.poll_out(&mut body, &mut self.exchange, cx) {}
    }

    fn send_head(&mut self) -> Half {
        let Answer::Head { head, body, ends } = std::mem::replace(&mut self.answer, Answer::Done) else {
            return Half::Pending;
        };
        let ToClient::Unanswered(respond) = &mut self.to_client else { return Half::Over };
        match respond.send_response(http::Response::from_parts(*head, ()), ends) {
            Ok(stream) => {
                self.to_client = ToClient::Answering(stream);
                if !ends {
                    self.answer = Answer::Body { body, way: Response::default(), next: None };
                }
                Half::Progress
            }
            Err(error) => self.client_gone(&error),
        }
    }

    fn send_answer(&mut self, cx: &mut Context<'_>) -> Half {
        let (ToClient::Answering(stream), Answer::Body { body, next, .. }) =
            (&mut self.to_client, &mut self.answer)
        else {
            return Half::Over;
        };
        let Some((bytes, last)) = next.as_mut() else { return Half::Pending };
        if !bytes.is_empty() {
            stream.reserve_capacity(bytes.len());
            if stream.capacity() == 0 {
                match stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(error))) => return self.client_gone(&error),
                    Poll::Ready(None) => return self.client_gone(&Reason::CANCEL.into()),
                    Poll::Pending => return Half::Pending,
                }
            }
        }
        let part = bytes.split_to(bytes.len().min(stream.capacity()));
        let ends = *last && bytes.is_empty();
        let emptied = bytes.is_empty();
        let taken = part.len();
        let sent = stream.send_data(part, ends);
        release(body, taken);
        if emptied {
            *next = None;
        }
        if ends || sent.is_err() { self.answered(sent) } else { Half::Progress }
    }

    fn answered(&mut self, sent: Result<(), h2::Error>) -> Half {
        match sent {
            Ok(()) => {
                self.answer = Answer::Done;
                Half::Progress
            }
            Err(error) => self.client_gone(&error),
        }
    }
}
