//! Configuration files as every part of the product reads them: YAML in, or an error that says where and
//! what is known there; sizes and times with their units.
//!
//! Knows no key of any file.

mod quantity;
mod read;

pub use quantity::{ByteSize, Quantity, QuantityError, Span, positive};
pub use read::{ConfigError, load, parse};
