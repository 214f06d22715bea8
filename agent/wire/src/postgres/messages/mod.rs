//! What is inside the messages: parsed into borrowed parts, nothing is kept.
//!
//! Every parser reads its message to the end and fails on what is left over.

pub(super) mod backend;
pub(super) mod frontend;
