//! The certificate authority that the workload trusts, the trust that it is given, and the TLS configurations
//! of both legs.
//!
//! Owns names, keys, certificates and sessions. Knows no socket, no record and no protocol inside TLS.
