//! A leg that does as it is told, so that what is ready when does not depend on a kernel's timing.

use std::{
    cell::RefCell,
    io::{self, ErrorKind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Its clones are the same leg: one is served, another tells it what to do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scripted(Rc<RefCell<Script>>);

#[derive(Debug, Default)]
struct Script {
    /// Said by the peer and not read.
    said: BytesMut,
    /// How reading ends behind that; `None`: in order.
    end: Option<Option<ErrorKind>>,
    /// What there is to read once a write has failed: until then nobody has looked.
    last_words: Option<(Vec<u8>, Option<ErrorKind>)>,
    /// The next write fails so.
    fails: Option<ErrorKind>,
    written: Vec<u8>,
    reader: Option<Waker>,
    /// Nothing is taken.
    stalled: bool,
    writer: Option<Waker>,
}

impl Scripted {
    /// The peer says this.
    pub(crate) fn say(&self, bytes: &[u8]) {
        let script = &mut *self.0.borrow_mut();
        script.said.extend_from_slice(bytes);
        script.wake();
    }

    /// The peer ends in order.
    pub(crate) fn end(&self) {
        self.ends(None);
    }

    /// The peer ends, with this error or in order.
    pub(crate) fn ends(&self, end: Option<ErrorKind>) {
        let script = &mut *self.0.borrow_mut();
        script.end = Some(end);
        script.wake();
    }

    /// The peer has said this and is gone, which shows by the next write to it; `end`: how reading ends then.
    pub(crate) fn go(&self, fails: ErrorKind, last_words: &[u8], end: Option<ErrorKind>) {
        let script = &mut *self.0.borrow_mut();
        script.fails = Some(fails);
        script.last_words = Some((last_words.to_vec(), end));
    }

    /// Writes fail, and nothing else happens.
    pub(crate) fn fail(&self, fails: ErrorKind) {
        self.0.borrow_mut().fails = Some(fails);
    }

    /// The peer takes nothing, or takes all again.
    pub(crate) fn stall(&self, stalled: bool) {
        let script = &mut *self.0.borrow_mut();
        script.stalled = stalled;
        if let Some(writer) = script.writer.take() {
            writer.wake();
        }
    }

    /// What was written to the peer.
    pub(crate) fn written(&self) -> Vec<u8> {
        self.0.borrow().written.clone()
    }
}

impl Script {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn fail(&mut self) -> io::Result<()> {
        let Some(fails) = self.fails else { return Ok(()) };
        // As the kernel does: the error is told once.
        if let Some((words, end)) = self.last_words.take() {
            self.fails = Some(ErrorKind::BrokenPipe);
            self.said.extend_from_slice(&words);
            self.end = Some(end);
            self.wake();
        }
        Err(fails.into())
    }
}

impl AsyncRead for Scripted {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let script = &mut *self.0.borrow_mut();
        if !script.said.is_empty() {
            let bytes = script.said.len().min(space.remaining());
            space.put_slice(script.said.get(..bytes).expect("bytes"));
            script.said.advance(bytes);
            return Poll::Ready(Ok(()));
        }
        match script.end {
            Some(Some(error)) => Poll::Ready(Err(error.into())),
            Some(None) => Poll::Ready(Ok(())),
            None => {
                script.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let script = &mut *self.0.borrow_mut();
        if script.stalled {
            script.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        script.fail()?;
        script.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
