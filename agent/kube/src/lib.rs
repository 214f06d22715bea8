//! What the API server says about this node's pods.
//!
//! Owns the watches and what is kept of them. Knows no cgroup, no connection and no record.
