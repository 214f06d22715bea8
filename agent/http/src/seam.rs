//! What the pair asks about each exchange. Implemented by whoever records and decides.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, request, response};

/// How many bytes of a request's body are kept at most while none of them may go on, unless configured
/// otherwise. More than any decoder wants to see before it decides.
pub const HELD_BYTES: usize = 320 << 10;

/// What is to be done next with a request.
#[derive(Debug)]
pub enum Step {
    /// Send the head upstream, these headers put in the place of those of the same name.
    Head(Vec<(HeaderName, HeaderValue)>),
    /// Send the next `n` bytes of the body.
    Body(u64),
    /// Send whatever comes of the body, and the end: nothing more is asked, the pieces are still shown.
    Rest,
    /// Send the end, with its trailers.
    End,
    /// Send nothing more upstream (reset what is there) and give this answer.
    Answer(Response<Bytes>),
    /// Reset the exchange on both legs: it cannot be recorded.
    Reset,
}

/// How an exchange ended before its answer was whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The client reset the stream or closed the connection.
    Client,
    /// The server did, or could not be reached.
    Server,
    /// The server's connection was at its end before anything of the request went to it.
    Unsent,
    /// The pair ends it: drain, or a rule of HTTP was broken.
    Ours,
}

/// One exchange. All methods are called on one thread, in the order of the wire; dropping it without
/// [`Exchange::response_end`] or [`Exchange::cut`] never happens.
///
/// A server may answer before the request is complete: pieces of the request may follow the end of the answer,
/// and where not all of it comes a [`Exchange::cut`] does.
pub trait Exchange: 'static {
    /// The next bytes of the request's body were read. The pair keeps them until [`Exchange::poll_step`]
    /// lets them go, and reads no more while it keeps `HELD_BYTES` or more.
    fn request(&mut self, bytes: &Bytes);
    /// The request has ended.
    fn request_end(&mut self, trailers: Option<&HeaderMap>);
    /// What may be done now; pending while something is recorded, decided or not there yet. Also polled when
    /// nothing new has come.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step>;
    /// The head of the answer.
    fn response_head(&mut self, head: &response::Parts);
    /// The next bytes of its body, before they go on.
    fn response(&mut self, bytes: &Bytes);
    /// The answer has ended; called before its last bytes go on where that is known.
    fn response_end(&mut self, trailers: Option<&HeaderMap>);
    /// Whether everything shown so far of the answer is recorded, so that it may go on. `Ready(false)`: it
    /// cannot be recorded; the exchange is reset.
    fn poll_recorded(&mut self, cx: &mut Context<'_>) -> Poll<bool>;
    /// The exchange ends here, before both of its halves were shown whole; also after [`Step::Answer`]. At
    /// most once, and nothing is called afterwards.
    fn cut(&mut self, cut: Cut);
}

/// Makes exchanges: one per connection.
pub trait Exchanges: 'static {
    /// Its exchanges.
    type Exchange: Exchange;
    /// A request's head was read.
    fn exchange(&self, head: &request::Parts) -> Self::Exchange;
    /// Something on the connection broke a rule (a flood, a request that can be read in two ways, a malformed
    /// frame); the pair answers with HTTP's own error or closes. To be recorded.
    fn violation(&self, violation: Violation);
    /// Interim answers (1xx but 100) that were dropped.
    fn interim_dropped(&self, status: u16);
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Whether the client broke it, or the server.
    pub by_client: bool,
    /// Which; one line.
    pub what: String,
    /// The request can be read in two ways (RFC 9112 section 6.1, 6.3).
    pub ambiguous: bool,
}
