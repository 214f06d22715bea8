//! Credentials that clients present: whose they are, as far as it can be read, and never what they are; and on
//! whose behalf a command says it is sent.
//!
//! Pure functions over what the decoders hand on, and tables of what was issued here. Knows no socket, and does
//! no I/O.

pub mod behalf;
mod fingerprint;
pub mod fuzzing;
mod issuances;
mod judge;
mod jwt;
mod shown;
mod text;

pub use fingerprint::{Fingerprint, FingerprintKey, Fingerprints, KeyError};
pub use issuances::{Binding, Issuances, Owner};
pub use judge::{Judged, Told, Workload, judge, together};
pub use jwt::Jwt;
pub use shown::{Shown, of_head, of_secret, of_session};
