//! One exchange over HTTP/1.1, shared by what polls its parts: the service, the body toward the server, and
//! the body toward the client.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use http_body::{Body, Frame};
use hyper::body::Incoming;

use crate::{
    guarded::Guarded,
    request::{More, Piece, Request, Source},
    response::{Out, Response, Stopped},
    seam::{Cut, Exchanges},
};

use super::{service::Connection, trailers::Announced};

impl Source for Incoming {
    type Broken = hyper::Error;

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Piece<hyper::Error>> {
        loop {
            return Poll::Ready(match std::task::ready!(Pin::new(&mut *self).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => Piece::Data(bytes),
                    Err(frame) => match frame.into_trailers() {
                        Ok(trailers) => Piece::End(Some(trailers)),
                        Err(_) => continue,
                    },
                },
                Some(Err(error)) => Piece::Broken(error),
                None => Piece::End(None),
            });
        }
    }

    fn is_end(&self) -> bool {
        self.is_end_stream()
    }
}

/// Why a connection ends when an exchange cannot be recorded.
pub(super) const UNRECORDED: &str = "the exchange cannot be recorded";

/// Why the request goes no further.
pub(super) enum Verdict {
    Answer(http::Response<Bytes>),
    Reset,
    /// The client's body ended before its end.
    Broken(hyper::Error),
}

/// The request's half, and the exchange itself.
pub(super) struct Core<X: Exchanges> {
    connection: Rc<Connection<X>>,
    pub(super) exchange: Guarded<X::Exchange>,
    pub(super) request: Request,
    pub(super) from_client: Incoming,
    /// Set once; nothing more is sent then.
    pub(super) verdict: Option<Verdict>,
    leave: Option<Vec<(HeaderName, HeaderValue)>>,
    /// What the request's head says of its trailers.
    announced: Announced,
}

pub(super) type Shared<X> = Rc<RefCell<Core<X>>>;

impl<X: Exchanges> Core<X> {
    pub(super) fn new(
        connection: Rc<Connection<X>>,
        exchange: Guarded<X::Exchange>,
        from_client: Incoming,
        announced: Announced,
    ) -> Self {
        let request = Request::new(connection.held_bytes);
        Self { connection, exchange, request, from_client, verdict: None, leave: None, announced }
    }

    /// Reads and asks once more; whether anything came of it.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> bool {
        if self.verdict.is_some() {
            return false;
        }
        match self.request.poll_more(&mut self.from_client, &mut self.exchange, cx) {
            Poll::Pending => return false,
            Poll::Ready(More::Progress) => {}
            Poll::Ready(More::Head(headers)) => self.leave = Some(headers),
            Poll::Ready(More::Answer(answer)) => self.verdict = Some(Verdict::Answer(answer)),
            Poll::Ready(More::Reset) => self.verdict = Some(Verdict::Reset),
            Poll::Ready(More::Broken(error)) => {
                let broken = self.connection.tell_refusal();
                self.exchange.cut(if broken.is_some() { Cut::Ours } else { Cut::Client });
                self.verdict = Some(Verdict::Broken(error));
            }
        }
        true
    }

    /// Leave for the head, once it is known whether the request has a body; `None` where there is a verdict.
    pub(super) fn poll_leave(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Vec<(HeaderName, HeaderValue)>>> {
        loop {
            if self.verdict.is_some() {
                return Poll::Ready(None);
            }
            let whole = self.request.end_is_due();
            if (whole || self.request.has_body() || !self.from_client.is_end_stream())
                && let Some(headers) = self.leave.take()
            {
                return Poll::Ready(Some(headers));
            }
            if !self.poll_more(cx) {
                return Poll::Pending;
            }
        }
    }
}

/// The exchange goes no further on this leg; why is known elsewhere.
#[derive(Debug, thiserror::Error)]
#[error("the exchange was ended")]
pub(super) struct Cancelled;

/// The request's body as the server gets it.
pub(super) struct ToServer<X: Exchanges> {
    core: Shared<X>,
    ended: bool,
}

impl<X: Exchanges> ToServer<X> {
    pub(super) fn new(core: Shared<X>) -> Self {
        let ended = {
            let core = core.borrow();
            core.request.end_is_due() && !core.request.has_trailers()
        };
        Self { core, ended }
    }
}

impl<X: Exchanges> Body for ToServer<X> {
    type Data = Bytes;
    type Error = Cancelled;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cancelled>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let mut core = this.core.borrow_mut();
        loop {
            if core.verdict.is_some() {
                return Poll::Ready(Some(Err(Cancelled)));
            }
            if core.request.sendable() > 0 {
                let bytes = core.request.take(usize::MAX);
                this.ended = core.request.end_is_due() && !core.request.has_trailers();
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if core.request.end_is_due() {
                this.ended = true;
                let trailers = core.request.take_trailers();
                core.connection.tell_trailers(true, trailers.as_ref(), &core.announced);
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
            if !core.poll_more(cx) {
                return Poll::Pending;
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// Where an answer's body comes from.
pub(super) enum From {
    /// The server.
    Server(Incoming),
    /// Us.
    Ours(Bytes),
}

/// An answer's body as the client gets it.
pub(super) struct ToClient<X: Exchanges> {
    core: Option<Shared<X>>,
    from: From,
    way: Response,
    connection: Rc<Connection<X>>,
    announced: Announced,
    ended: bool,
    /// It has no body and yet must not say so, or the library drops its Content-Length.
    says_nothing: bool,
}

impl<X: Exchanges> ToClient<X> {
    pub(super) fn of_server(
        core: Shared<X>,
        body: Incoming,
        announced: Announced,
        ended: bool,
        says_nothing: bool,
    ) -> Self {
        let connection = Rc::clone(&core.borrow().connection);
        let this = Self {
            core: Some(core),
            from: From::Server(body),
            way: Response::default(),
            connection,
            announced,
            ended,
            says_nothing,
        };
        this.done();
        this
    }

    pub(super) fn ours(bytes: Bytes, connection: Rc<Connection<X>>) -> Self {
        let ended = bytes.is_empty();
        let this = Self {
            core: None,
            from: From::Ours(bytes),
            way: Response::default(),
            connection,
            announced: Announced::default(),
            ended,
            says_nothing: false,
        };
        this.done();
        this
    }

    fn done(&self) {
        if self.ended {
            self.connection.turn.answered();
        }
    }
}

impl<X: Exchanges> Body for ToClient<X> {
    type Data = Bytes;
    type Error = Cancelled;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cancelled>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let frame = match (&mut this.from, &this.core) {
            (From::Server(body), Some(core)) => {
                let mut core = core.borrow_mut();
                match std::task::ready!(this.way.poll_out(body, &mut core.exchange, cx)) {
                    Ok(Out::Data(bytes, last)) => {
                        this.ended = last;
                        Some(Ok(Frame::data(bytes)))
                    }
                    Ok(Out::End(trailers)) => {
                        this.ended = true;
                        this.connection.tell_trailers(false, trailers.as_ref(), &this.announced);
                        trailers.map(|trailers| Ok(Frame::trailers(trailers)))
                    }
                    Err(Stopped::Unrecorded) => {
                        core.exchange.cut(Cut::Ours);
                        this.connection.failed(Cut::Ours, UNRECORDED);
                        Some(Err(Cancelled))
                    }
                    Err(Stopped::Broken(error)) => {
                        core.exchange.cut(Cut::Server);
                        this.connection.failed(Cut::Server, &error);
                        Some(Err(Cancelled))
                    }
                }
            }
            (From::Ours(bytes), _) => {
                this.ended = true;
                Some(Ok(Frame::data(std::mem::take(bytes))))
            }
            (From::Server(_), None) => None,
        };
        this.done();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ended && !self.says_nothing
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match &self.from {
            From::Ours(bytes) => http_body::SizeHint::with_exact(bytes.len() as u64),
            From::Server(_) => http_body::SizeHint::default(),
        }
    }
}
