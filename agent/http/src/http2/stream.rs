//! One exchange over HTTP/2: a stream of the client's, and one toward the server once something may go on.
//!
//! Both ways are carried by one future, by hand: no task, no channel, no allocation per piece.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client, server};
use http::{HeaderName, HeaderValue, Request as Head, StatusCode, request, response};

use super::{
    Shared,
    body::release,
    errors::{broke_a_rule, cut_by, reset_code},
    head,
};
use crate::{
    guarded::Guarded,
    request::{More, Request},
    response::{Out, Response, Stopped, show_head},
    seam::{Cut, Exchanges},
};

/// What a body may reserve at once of a leg's windows.
const RESERVE_BYTES: usize = 64 << 10;

/// Toward the client.
enum ToClient {
    Unanswered(server::SendResponse<Bytes>),
    Answering(SendStream<Bytes>),
}

/// Toward the server.
enum Upstream {
    /// Nothing has gone on. The head waits for leave, and then for what says whether it is the whole request.
    Waiting {
        head: Box<request::Parts>,
        leave: Option<Vec<(HeaderName, HeaderValue)>>,
    },
    Sending(SendStream<Bytes>),
    /// All of the request has gone on, or the server wants no more of it.
    Done,
}

/// From the server.
enum Answer {
    None,
    Awaited(client::ResponseFuture),
    Head { head: Box<response::Parts>, body: RecvStream, ends: bool },
    Body { body: RecvStream, way: Response, next: Option<(Bytes, bool)> },
    Done,
}

/// One exchange. Ends when both halves have passed, or one of them cannot.
pub(super) struct Stream<X: Exchanges> {
    exchange: Guarded<X::Exchange>,
    shared: Rc<Shared<X>>,
    request: Request,
    from_client: RecvStream,
    to_client: ToClient,
    upstream: Upstream,
    answer: Answer,
    sender: client::SendRequest<Bytes>,
    /// The client waits for a 100 before it sends its body, and has had none.
    expects: bool,
}

// Nothing in it is ever pinned.
impl<X: Exchanges> Unpin for Stream<X> {}

/// What one half came to.
enum Half {
    Pending,
    Progress,
    /// The exchange is over.
    Over,
}

impl<X: Exchanges> Future for Stream<X> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.client_reset(cx) {
            return Poll::Ready(());
        }
        loop {
            let request = this.poll_request(cx);
            let answer = match request {
                Half::Over => return Poll::Ready(()),
                _ => this.poll_answer(cx),
            };
            match (request, answer) {
                (_, Half::Over) => return Poll::Ready(()),
                (Half::Pending, Half::Pending) => return Poll::Pending,
                _ if matches!((&this.upstream, &this.answer), (Upstream::Done, Answer::Done)) => {
                    // Unless all has passed, the server did not want the rest.
                    this.exchange.cut(Cut::Server);
                    return Poll::Ready(());
                }
                _ => {}
            }
        }
    }
}

impl<X: Exchanges> Stream<X> {
    pub(super) fn new(
        shared: Rc<Shared<X>>,
        request: Head<RecvStream>,
        respond: server::SendResponse<Bytes>,
        sender: client::SendRequest<Bytes>,
    ) -> Self {
        let (head, from_client) = request.into_parts();
        let exchange = Guarded::new(shared.exchanges.exchange(&head), Rc::clone(&shared.ended_by));
        Self {
            exchange,
            request: Request::new(shared.held_bytes),
            expects: !from_client.is_end_stream() && head::expects_continue(&head),
            from_client,
            to_client: ToClient::Unanswered(respond),
            upstream: Upstream::Waiting { head: Box::new(head), leave: None },
            answer: Answer::None,
            sender,
            shared,
        }
    }

    /// Ends it where the client has reset its stream, or its connection is gone.
    fn client_reset(&mut self, cx: &mut Context<'_>) -> bool {
        let reset = match &mut self.to_client {
            ToClient::Unanswered(respond) => respond.poll_reset(cx),
            ToClient::Answering(stream) => stream.poll_reset(cx),
        };
        let Poll::Ready(reset) = reset else { return false };
        // What was received before says whether it was the client or a rule that it broke.
        let broken = loop {
            match self.from_client.poll_data(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => break Some(error),
                Poll::Ready(None) | Poll::Pending => break None,
            }
        };
        let cut = broken.as_ref().map_or(Cut::Client, |error| cut_by(error, Cut::Client));
        self.reset_upstream(reset.map_or(Reason::CANCEL, |code| reset_code(Some(code))));
        self.exchange.cut(cut);
        true
    }

    fn poll_request(&mut self, cx: &mut Context<'_>) -> Half {
        match &mut self.upstream {
            Upstream::Done => return Half::Pending,
            Upstream::Waiting { leave, .. } => {
                // A request without a body waits for its end, so that both go on in one frame.
                let whole = self.request.end_is_due();
                if leave.is_some() && (whole || self.request.has_body() || !self.from_client.is_end_stream())
                {
                    return self.begin(whole);
                }
            }
            Upstream::Sending(stream) => match stream.poll_reset(cx) {
                // Why is said where the answer is read, if there is still one to come.
                Poll::Ready(_) => return self.server_wants_no_more(),
                Poll::Pending => {
                    if let Some(half) = self.send(cx) {
                        return half;
                    }
                }
            },
        }
        match self.request.poll_more(&mut self.from_client, &mut self.exchange, cx) {
            Poll::Ready(More::Progress) => Half::Progress,
            Poll::Ready(More::Head(headers)) => {
                if let Upstream::Waiting { leave, .. } = &mut self.upstream {
                    *leave = Some(headers);
                }
                Half::Progress
            }
            Poll::Ready(More::Answer(answer)) => self.answer(answer),
            Poll::Ready(More::Reset) => self.over(Reason::INTERNAL_ERROR, Reason::CANCEL, Cut::Ours),
            Poll::Ready(More::Broken(error)) => {
                let code = reset_code(error.reason());
                self.over(code, code, cut_by(&error, Cut::Client))
            }
            Poll::Pending => {
                self.say_continue();
                Half::Pending
            }
        }
    }

    /// Says 100 to a client that waits for it, while nothing has gone on: what is asked about its request may
    /// need its body. Otherwise the server says so.
    fn say_continue(&mut self) {
        if self.expects && matches!(self.upstream, Upstream::Waiting { .. }) && self.request.awaits_body() {
            self.send_continue();
        }
    }

    fn send_continue(&mut self) {
        if std::mem::take(&mut self.expects)
            && let ToClient::Unanswered(respond) = &mut self.to_client
        {
            let mut answer = http::Response::new(());
            *answer.status_mut() = StatusCode::CONTINUE;
            // Where it fails the stream is gone, which shows elsewhere.
            drop(respond.send_informational(answer));
        }
    }

    /// Sends the head, and the end with it where that is all.
    fn begin(&mut self, whole: bool) -> Half {
        let Upstream::Waiting { head, leave } = std::mem::replace(&mut self.upstream, Upstream::Done) else {
            return Half::Pending;
        };
        let trailers = if whole { self.request.take_trailers() } else { None };
        let ends = whole && trailers.is_none();
        let request = head::onward(*head, leave.unwrap_or_default(), self.shared.encrypted);
        match self.sender.send_request(request, ends) {
            Ok((answer, mut stream)) => {
                self.answer = Answer::Awaited(answer);
                if let Some(trailers) = trailers {
                    if stream.send_trailers(trailers).is_err() {
                        return Half::Progress;
                    }
                } else if !ends {
                    self.upstream = Upstream::Sending(stream);
                }
                Half::Progress
            }
            Err(error) => self.server_failed(&error),
        }
    }

    /// Sends what may be sent and has room. `None`: nothing moved.
    fn send(&mut self, cx: &mut Context<'_>) -> Option<Half> {
        let Upstream::Sending(stream) = &mut self.upstream else { return None };
        let sendable = self.request.sendable();
        if sendable > 0 {
            stream.reserve_capacity(sendable.min(RESERVE_BYTES));
            if stream.capacity() == 0 {
                match stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(_) => return Some(self.server_wants_no_more()),
                    Poll::Pending => return None,
                }
            }
            let bytes = self.request.take(stream.capacity());
            let taken = bytes.len();
            let ends = self.request.end_is_due() && !self.request.has_trailers();
            if stream.send_data(bytes, ends).is_err() {
                return Some(self.server_wants_no_more());
            }
            if ends {
                self.upstream = Upstream::Done;
            }
            release(&mut self.from_client, taken);
            return Some(Half::Progress);
        }
        if !self.request.end_is_due() {
            return None;
        }
        let sent = match self.request.take_trailers() {
            Some(trailers) => stream.send_trailers(trailers),
            None => stream.send_data(Bytes::new(), true),
        };
        if sent.is_err() {
            return Some(self.server_wants_no_more());
        }
        self.upstream = Upstream::Done;
        Some(Half::Progress)
    }

    /// The server has reset its stream. It may have answered before (RFC 9113 section 8.1).
    fn server_wants_no_more(&mut self) -> Half {
        self.upstream = Upstream::Done;
        Half::Progress
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Half {
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

    /// Gives an answer of our own.
    fn answer(&mut self, answer: http::Response<Bytes>) -> Half {
        self.reset_upstream(Reason::CANCEL);
        let ToClient::Unanswered(respond) = &mut self.to_client else {
            return self.over(Reason::INTERNAL_ERROR, Reason::CANCEL, Cut::Ours);
        };
        let (head, body) = answer.into_parts();
        let ends = body.is_empty();
        if let Ok(mut stream) = respond.send_response(http::Response::from_parts(head, ()), ends)
            && !ends
        {
            drop(stream.send_data(body, true));
        }
        // The rest of the request is not read: the library resets with NO_ERROR behind the answer.
        self.exchange.cut(Cut::Ours);
        Half::Over
    }

    fn client_gone(&mut self, error: &h2::Error) -> Half {
        self.reset_upstream(reset_code(error.reason()));
        self.exchange.cut(cut_by(error, Cut::Client));
        Half::Over
    }

    /// The server's stream, or its connection, has failed before its answer was whole.
    fn server_failed(&mut self, error: &h2::Error) -> Half {
        if broke_a_rule(error) && error.is_reset() {
            self.shared.violation(false, format!("server's stream: {error}"));
        }
        self.over(head::code_for_client(error), Reason::CANCEL, cut_by(error, Cut::Server))
    }

    /// Ends it on both legs.
    fn over(&mut self, to_client: Reason, to_server: Reason, cut: Cut) -> Half {
        match &mut self.to_client {
            ToClient::Unanswered(respond) => respond.send_reset(to_client),
            ToClient::Answering(stream) => stream.send_reset(to_client),
        }
        self.reset_upstream(to_server);
        self.exchange.cut(cut);
        Half::Over
    }

    fn reset_upstream(&mut self, code: Reason) {
        if let Upstream::Sending(stream) = &mut self.upstream {
            stream.send_reset(code);
        }
        // Where all of the request has gone on, dropping what awaits the answer resets with CANCEL.
        self.upstream = Upstream::Done;
        self.answer = Answer::Done;
    }
}
