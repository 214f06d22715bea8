//! Sans-IO protocol decoders: from bytes to commands, and from decisions to edits.
//!
//! Owns what the bytes of a protocol mean. Knows no socket, no clock, no file, no policy and no record:
//! a decoder is a pure function over the bytes of both directions, driven through the types of [`seam`].

#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::panic,
        reason = "test data is small, and a panic is how a test says no"
    )
)]

mod capture;
pub mod detect;
#[doc(hidden)]
pub mod fuzzing;
pub mod message;
#[doc(hidden)]
pub mod model;
pub mod postgres;
mod reader;
pub mod seam;
mod secret;
mod tokens;

pub use secret::Secret;
pub use tokens::{text_without_tokens, without_tokens};
