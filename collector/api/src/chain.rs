//! The hashes and signed bytes that bind records to one another; `docs/record-format.md` freezes them.
//!
//! Pure functions over bytes, used by the node that makes a chain and by everyone who verifies one.
//! Numbers are fixed-width and big-endian, a chain id is 16 bytes, every input is domain-separated.

use sha2::{Digest, Sha256};

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// A chain's id: 16 bytes, a UUIDv7.
pub type ChainId = [u8; 16];

const CONTENT: &[u8] = b"verbatim.v1.content";
const CHAIN: &[u8] = b"verbatim.v1.chain";
const OPEN: &[u8] = b"verbatim.v1.open";
const HEAD: &[u8] = b"verbatim.v1.head";

/// Head of the chain before its first: what a chain without a predecessor opens from.
pub const NO_PREDECESSOR: Hash = [0; 32];

/// Commitment to a serialised content: SHA-256("verbatim.v1.content" ‖ content).
#[must_use]
pub fn content_commitment(content: &[u8]) -> Hash {
    Sha256::new().chain_update(CONTENT).chain_update(content).finalize().into()
}

/// h(−1): SHA-256("verbatim.v1.open" ‖ chain id ‖ predecessor's head).
#[must_use]
pub fn open(chain: &ChainId, predecessor_head: &Hash) -> Hash {
    Sha256::new().chain_update(OPEN).chain_update(chain).chain_update(predecessor_head).finalize().into()
}

/// h(n) = SHA-256("verbatim.v1.chain" ‖ h(n−1) ‖ SHA-256(envelope)).
#[must_use]
pub fn link(previous: &Hash, envelope: &[u8]) -> Hash {
    let envelope: Hash = Sha256::digest(envelope).into();
    Sha256::new().chain_update(CHAIN).chain_update(previous).chain_update(envelope).finalize().into()
}

/// The bytes a node signs: "verbatim.v1.head" ‖ chain id ‖ sequence (u64) ‖ h ‖ wall time (u64, ns).
#[must_use]
pub fn head_message(chain: &ChainId, sequence: u64, hash: &Hash, wall_nanos: u64) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEAD.len() + 16 + 8 + 32 + 8);
    message.extend_from_slice(HEAD);
    message.extend_from_slice(chain);
    message.extend_from_slice(&sequence.to_be_bytes());
    message.extend_from_slice(hash);
    message.extend_from_slice(&wall_nanos.to_be_bytes());
    message
}
