//! Whose TLS ends here: where trust is evidenced, and nobody has objected.
//!
//! Owns evidence, what was learned from refusals, and what is then done. Knows no connection and no handshake;
//! who a workload is, it is told.

mod decision;
mod folder;
mod judge;
mod keeper;
mod material;
mod seen;

pub(crate) use decision::{Evidence, Standing};
pub(crate) use folder::{TrustError, TrustFolder};
pub(crate) use judge::{Judge, Names, OneCgroup, Standings};
pub(crate) use keeper::Keeper;
pub(crate) use material::{Material, MaterialError, authority_files};
pub(crate) use seen::Seen;
