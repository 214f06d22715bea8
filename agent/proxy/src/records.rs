//! What the proxy needs of a spool: a trait, so that its tests can block, fill and break one.

use std::future::Future;

use verbatim_spool::{AppendError, Appended, Common, Draft, Spool};

/// Takes the records of one shard. Lives on the shard's thread.
pub trait Records: Send + 'static {
    /// Appends a record without blocking.
    ///
    /// # Errors
    /// When there is no room; see [`AppendError`].
    fn append(&self, draft: Draft) -> Result<Appended, AppendError>;

    /// As [`Records::append`], of a record that has this in common with others.
    ///
    /// # Errors
    /// The same.
    fn append_with(&self, draft: Draft, common: &Common) -> Result<Appended, AppendError>;

    /// Returns when [`Records::append`] may succeed again.
    fn room(&self) -> impl Future<Output = ()>;

    /// Returns when everything up to [`Appended::position`] is as safe as the configuration asks for.
    fn durable(&self, position: u64) -> impl Future<Output = ()>;

    /// Ends the chain. Not called when a command was left without its end, so that the successor finds
    /// an unclosed chain and writes what is missing.
    fn close(self);
}

impl Records for Spool {
    fn append(&self, draft: Draft) -> Result<Appended, AppendError> {
        Self::append(self, draft)
    }

    fn append_with(&self, draft: Draft, common: &Common) -> Result<Appended, AppendError> {
        Self::append_with(self, draft, common)
    }

    fn room(&self) -> impl Future<Output = ()> {
        Self::room(self)
    }

    fn durable(&self, position: u64) -> impl Future<Output = ()> {
        Self::durable(self, position)
    }

    fn close(self) {
        Self::close(self);
    }
}
