//! What is done with one request: asked, sent, answered.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
};
use hyper::{body::Incoming, client::conn::http1::SendRequest, service::Service};

use super::{
    exchange::{Core, Shared, ToClient, ToServer, UNRECORDED, Verdict},
    head::Refusal,
    trailers::{Announced, takes_trailers},
    turn::Turn,
};
use crate::{
    UpgradeReason,
    guarded::{EndedBy, Guarded},
    http2::head::replace,
    response::show_head,
    seam::{Cut, Exchanges, Violation},
};

/// Interim answers that are told of one exchange.
const MOST_INTERIM: usize = 64;

/// What the exchanges of a connection share.
pub(super) struct Connection<X: Exchanges> {
    pub(super) exchanges: Rc<X>,
    pub(super) ended_by: EndedBy,
    pub(super) held_bytes: usize,
    pub(super) turn: Rc<Turn>,
    pub(super) sender: RefCell<SendRequest<ToServer<X>>>,
    /// The connection to the server must not be used any more.
    pub(super) abandon: Cell<bool>,
    /// The refusal has been told.
    pub(super) told: Cell<bool>,
    /// How the server's endpoint has ended, if it has.
    pub(super) server_ended: RefCell<Option<Result<(), String>>>,
    pub(super) upgrade: Cell<Option<UpgradeReason>>,
    /// Why the client's connection is closed without an answer.
    pub(super) failed: RefCell<Option<(Cut, String)>>,
}

/// The client's connection is to be closed; why is in [`Connection::failed`].
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed without an answer")]
pub(super) struct Closed;

/// What of a request matters to its answer.
#[derive(Clone, Copy)]
struct Asked {
    connect: bool,
    head_only: bool,
    takes_trailers: bool,
}

type Answered<X> = Result<http::Response<ToClient<X>>, Closed>;

/// Gives each request its exchange.
pub(super) struct Pairing<X: Exchanges>(pub(super) Rc<Connection<X>>);

impl<X: Exchanges> Service<Request<Incoming>> for Pairing<X> {
    type Response = http::Response<ToClient<X>>;
    type Error = Closed;
    type Future = Pin<Box<dyn Future<Output = Answered<X>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let connection = Rc::clone(&self.0);
        match connection.tell_refusal() {
            Some(refusal) => Box::pin(async move { Ok(connection.refuse(&refusal)) }),
            None => Box::pin(connection.carry(request)),
        }
    }
}

impl<X: Exchanges> Connection<X> {
    fn violation(&self, by_client: bool, what: impl Into<String>, ambiguous: bool) {
        self.exchanges.violation(Violation { by_client, what: what.into(), ambiguous });
    }

    /// Says why the client's connection is going to be closed; the first reason counts.
    pub(super) fn failed(&self, cut: Cut, why: impl ToString) {
        self.failed.borrow_mut().get_or_insert_with(|| (cut, why.to_string()));
    }

    fn fail<T>(&self, cut: Cut, why: impl ToString) -> Result<T, Closed> {
        self.failed(cut, why);
        Err(Closed)
    }

    /// Tells, once, which rule the client has broken, where it has broken one.
    pub(super) fn tell_refusal(&self) -> Option<Refusal> {
        let refusal = self.turn.refusal()?;
        if !self.told.replace(true) {
            self.violation(true, refusal.what, refusal.ambiguous);
        }
        Some(refusal)
    }

    /// Tells trailers that the library does not pass on.
    pub(super) fn tell_trailers(&self, by_client: bool, trailers: Option<&HeaderMap>, announced: &Announced) {
        if trailers.is_some_and(|trailers| !announced.covers(trailers)) {
            self.violation(by_client, "trailers that were not announced were dropped", false);
        }
    }

    fn ours(self: &Rc<Self>, mut answer: http::Response<Bytes>) -> http::Response<ToClient<X>> {
        // What was not read of the request is not read; and the server's leg may be gone.
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        answer.map(|bytes| ToClient::ours(bytes, Rc::clone(self)))
    }

    fn refuse(self: &Rc<Self>, refusal: &Refusal) -> http::Response<ToClient<X>> {
        let mut answer = http::Response::new(Bytes::from(format!("{}\n", refusal.what)));
        *answer.status_mut() = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        self.ours(answer)
    }

    async fn carry(self: Rc<Self>, request: Request<Incoming>) -> Answered<X> {
        let (mut head, body) = request.into_parts();
        let exchange = Guarded::new(self.exchanges.exchange(&head), Rc::clone(&self.ended_by));
        let core =
            Rc::new(RefCell::new(Core::new(Rc::clone(&self), exchange, body, Announced::by(&head.headers))));
        let Some(headers) = poll_fn(|cx| core.borrow_mut().poll_leave(cx)).await else {
            return self.end(&core, false);
        };
        replace(&mut head.headers, headers);
        let asked = Asked {
            connect: head.method == Method::CONNECT,
            head_only: head.method == Method::HEAD,
            takes_trailers: takes_trailers(&head.headers),
        };

        let mut request = Request::from_parts(head, ToServer::new(Rc::clone(&core)));
        let interim = Arc::new(Mutex::new(Vec::new()));
        hyper::ext::on_informational(&mut request, {
            let interim = Arc::clone(&interim);
            move |answer| {
                let mut interim = interim.lock().unwrap_or_else(PoisonError::into_inner);
                if interim.len() < MOST_INTERIM {
                    interim.push(answer.status().as_u16());
                }
            }
        });
        // The request before may not have passed whole although its answer has.
        let ready = poll_fn(|cx| match self.server_gone() {
            Some(why) => Poll::Ready(Err(why)),
            None => self.sender.borrow_mut().poll_ready(cx).map_err(|error| error.to_string()),
        });
        if let Err(why) = ready.await {
            return self.unsent(&core, why);
        }
        let sent = self.sender.borrow_mut().send_request(request);
        let mut sent = std::pin::pin!(sent);
        let answer = poll_fn(|cx| {
            loop {
                if core.borrow().verdict.is_some() {
                    return Poll::Ready(Ok(None));
                }
                if let Poll::Ready(answer) = sent.as_mut().poll(cx) {
                    return Poll::Ready(Ok(Some(answer)));
                }
                // Whoever is given up is told why: the library has not begun with this one, and never will.
                if let Some(why) = self.server_gone() {
                    return Poll::Ready(Err(why));
                }
                // Also while the server takes nothing: it may be refused meanwhile.
                if !core.borrow_mut().poll_more(cx) {
                    return Poll::Pending;
                }
            }
        })
        .await;
        for status in interim.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if status != StatusCode::CONTINUE.as_u16() {
                self.exchanges.interim_dropped(status);
            }
        }
        match answer {
            Ok(None) => self.end(&core, true),
            Ok(Some(Err(error))) => self.server_failed(&core, &error),
            Ok(Some(Ok(answer))) => self.answered(&core, answer, asked).await,
            Err(why) => self.unsent(&core, why),
        }
    }

    /// Ends an exchange by its verdict; `begun`: something of it has gone to the server.
    fn end(self: &Rc<Self>, core: &Shared<X>, begun: bool) -> Answered<X> {
        self.abandon.set(begun);
        let mut core = core.borrow_mut();
        match core.verdict.take() {
            Some(Verdict::Answer(answer)) => {
                core.exchange.cut(Cut::Ours);
                Ok(self.ours(answer))
            }
            Some(Verdict::Broken(error)) => match self.turn.refusal() {
                Some(refusal) => Ok(self.refuse(&refusal)),
                None => self.fail(Cut::Client, error),
            },
            Some(Verdict::Reset) | None => {
                core.exchange.cut(Cut::Ours);
                self.fail(Cut::Ours, UNRECORDED)
            }
        }
    }

    /// Why the server's connection has ended, if it has.
    fn server_gone(&self) -> Option<String> {
        self.server_ended.borrow().as_ref().map(|ended| match ended {
            Ok(()) => "closed before the request was sent".to_owned(),
            Err(why) => why.clone(),
        })
    }

    fn unsent(&self, core: &Shared<X>, why: String) -> Answered<X> {
        core.borrow_mut().exchange.cut(Cut::Unsent);
        self.fail(Cut::Server, why)
    }

    fn server_failed(&self, core: &Shared<X>, error: &hyper::Error) -> Answered<X> {
        let cut = if error.is_parse() {
            self.violation(false, format!("server's answer: {error}"), false);
            Cut::Ours
        } else {
            Cut::Server
        };
        // The library says so of a request that it has not begun to write.
        core.borrow_mut().exchange.cut(if error.is_canceled() { Cut::Unsent } else { cut });
        self.fail(cut, error)
    }

    async fn answered(
        &self,
        core: &Shared<X>,
        answer: http::Response<Incoming>,
        asked: Asked,
    ) -> Answered<X> {
        let (mut head, body) = answer.into_parts();
        if head.headers.contains_key(TRANSFER_ENCODING) && head.headers.remove(CONTENT_LENGTH).is_some() {
            // Read as chunked, and passed on as nothing else (RFC 9112 section 6.3).
            self.violation(false, "server's answer: both Transfer-Encoding and Content-Length", true);
        }
        let upgrade = match head.status {
            StatusCode::SWITCHING_PROTOCOLS => Some(UpgradeReason::Upgrade),
            status if asked.connect && status.is_success() => Some(UpgradeReason::Connect),
            _ => None,
        };
        let ends = upgrade.is_some() || asked.head_only || http_body::Body::is_end_stream(&body);
        show_head(&head, ends, &mut core.borrow_mut().exchange);
        if !poll_fn(|cx| core.borrow_mut().exchange.poll_recorded(cx)).await {
            core.borrow_mut().exchange.cut(Cut::Ours);
            self.abandon.set(true);
            return self.fail(Cut::Ours, UNRECORDED);
        }
        self.upgrade.set(upgrade);
        let announced =
            if asked.takes_trailers { Announced::by(&head.headers) } else { Announced::default() };
        let says_nothing =
            head.status == StatusCode::NOT_MODIFIED && head.headers.contains_key(CONTENT_LENGTH);
        let body = ToClient::of_server(Rc::clone(core), body, announced, ends, says_nothing);
        Ok(http::Response::from_parts(head, body))
    }
}
