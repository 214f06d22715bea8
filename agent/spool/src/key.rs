//! The key that a node agent signs heads with: Ed25519, made at start, never on a disk.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use verbatim_api::{
    chain::{ChainId, Hash, head_message},
    v1,
};

/// Signs heads. One per agent instance, shared by its shards.
#[derive(Debug)]
pub(crate) struct NodeKey {
    pair: Ed25519KeyPair,
    public: [u8; 32],
}

/// A place in a chain that can be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) sequence: u64,
    /// h(sequence).
    pub(crate) hash: Hash,
}

impl NodeKey {
    /// `None` where the operating system gives no randomness.
    pub(crate) fn generate() -> Option<Self> {
        Self::from_pair(Ed25519KeyPair::generate().ok()?)
    }

    /// For golden files.
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Option<Self> {
        Self::from_pair(Ed25519KeyPair::from_seed_unchecked(seed).ok()?)
    }

    fn from_pair(pair: Ed25519KeyPair) -> Option<Self> {
        let public = pair.public_key().as_ref().try_into().ok()?;
        Some(Self { pair, public })
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        self.public
    }

    /// Signs a chain up to a mark.
    pub(crate) fn sign(
        &self,
        chain: &ChainId,
        mark: Mark,
        wall_nanos: u64,
        recovery: bool,
    ) -> v1::SignedHead {
        let message = head_message(chain, mark.sequence, &mark.hash, wall_nanos);
        v1::SignedHead {
            sequence: mark.sequence,
            hash: mark.hash.to_vec(),
            wall_nanos,
            signature: self.pair.sign(&message).as_ref().to_vec(),
            public_key: self.public.to_vec(),
            recovery,
        }
    }
}
