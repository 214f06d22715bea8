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
use http::{HeaderName, HeaderValue, Request as Head, request, response};

use super::{
    Shared,
    errors::{broke_a_rule, cut_by, reset_code},
    head,
};
use crate::{
    guarded::Guarded,
    request::Request,
    response::Response,
    seam::{Cut, Exchanges},
};

mod answering;
mod lingering;
mod sending;

use lingering::Lingering;

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
    /// It was answered by us in the middle of its request.
    lingering: Option<Lingering>,
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
        if this.lingering.is_none() && this.client_reset(cx) {
            return Poll::Ready(());
        }
        loop {
            if let Some(lingering) = &mut this.lingering {
                return lingering.poll(&mut this.from_client, cx);
            }
            let request = this.poll_request(cx);
            let answer = match request {
                Half::Over if this.lingering.is_some() => continue,
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
            lingering: None,
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
        if cut == Cut::Client {
            self.show_answer(cx);
        }
        self.reset_upstream(reset.map_or(Reason::CANCEL, |code| reset_code(Some(code))));
        self.exchange.cut(cut);
        true
    }

    /// Ends it if nothing of it has gone on and it is not answered yet: its server has gone. Whether it has ended.
    pub(super) fn give_up_unsent(&mut self, code: Reason) -> bool {
        let waits = matches!(self.upstream, Upstream::Waiting { .. }) && self.lingering.is_none();
        if waits {
            self.over(code, Reason::CANCEL, Cut::Unsent);
        }
        waits
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
        // A reset with NO_ERROR behind the answer is the rule (RFC 9113 section 8.1), and there are clients that
        // lose the answer by it while they still send: the library resets only what is left after a while.
        if !self.from_client.is_end_stream() {
            self.lingering = Some(Lingering::new(self.shared.linger));
        }
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
        if error.is_io() {
            self.shared.server_lost.set(true);
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
