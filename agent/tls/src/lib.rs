//! The certificate authority that the workload trusts, the trust that it is given, and the TLS configurations
//! of both legs.
//!
//! Owns names, keys, certificates and sessions. Knows no socket, no record and no protocol inside TLS.

mod authority;
mod downstream;
mod name;
mod provider;
mod refusals;
mod root_id;
mod roots;
mod trust;
mod upstream;

#[cfg(test)]
mod testing;

pub use authority::{
    Authority, AuthorityError, AuthorityMaterial, Identity, IssueError, Issued, IssuingRoot, LeafError,
    NameClass, PlainAuthority, Request, now,
};
pub use downstream::Downstream;
pub use name::{LeafName, NameError};
pub use refusals::{Insistence, Moment, RefusalFile, RefusalFileError, Refusals, Refused, refusal};
pub use root_id::RootId;
pub use roots::{Roots, RootsError, system_bundle};
pub use trust::{
    Bundle, Change, EnvironmentPlan, JavaStore, Prepared, Problem, Source, StoreError, TrustFile, TrustPaths,
    TrustStore, pem_bundle, pkcs12_trust_store, plan, prepare, trust_files, variables,
};
pub use upstream::{
    Offer, Requested, Upstream, UpstreamError, UpstreamFailure, UpstreamRoots, noticing, noticing_sync,
};

// Whoever drives the handshakes uses the same version.
pub use rustls;
