//! What a spool takes from the machine, replaceable by tests: clocks, chance, the key, the disk's word.

use std::{fs::File, io, sync::Arc};

use crate::{
    ambient::{Ambient, Machine},
    key::NodeKey,
};

/// Makes the clocks and randomness of one chain.
pub type MakeAmbient = dyn Fn() -> Box<dyn Ambient> + Send + Sync;

/// Puts a file's data, or a folder's names, on the disk.
pub type SyncFile = dyn Fn(&File) -> io::Result<()> + Send + Sync;

/// Where a spool gets what it cannot make itself. [`Surroundings::default`] is the machine; tests and
/// golden files replace parts of it.
#[derive(Clone)]
pub struct Surroundings {
    /// Clocks and randomness, anew for each chain.
    pub ambient: Arc<MakeAmbient>,
    /// Wall clock of heads, nanoseconds since 1970.
    pub head_wall_nanos: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Id of this boot, 16 bytes; `None`: the kernel's.
    pub boot_id: Option<[u8; 16]>,
    /// Version that chains say they were written by.
    pub agent_version: String,
    /// Seed of the node's key; `None`: a new key.
    pub key_seed: Option<[u8; 32]>,
    /// Syncs a file's data, or a folder.
    pub sync: Arc<SyncFile>,
    /// Called before a segment is allocated; an error stands for the disk's.
    pub before_allocating: Arc<dyn Fn() -> io::Result<()> + Send + Sync>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            ambient: Arc::new(|| Box::new(Machine::new())),
            head_wall_nanos: Arc::new(verbatim_sys::clock::wall_nanos),
            boot_id: None,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            key_seed: None,
            sync: Arc::new(File::sync_data),
            before_allocating: Arc::new(|| Ok(())),
        }
    }
}

/// Where the kernel tells the id of this boot, as a UUID.
pub(crate) const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

impl Surroundings {
    pub(crate) fn boot_id(&self) -> io::Result<Vec<u8>> {
        if let Some(id) = self.boot_id {
            return Ok(id.to_vec());
        }
        let text = std::fs::read_to_string(BOOT_ID)?;
        let id = uuid::Uuid::try_parse(text.trim()).map_err(io::Error::other)?;
        Ok(id.into_bytes().to_vec())
    }

    pub(crate) fn key(&self) -> Option<NodeKey> {
        match &self.key_seed {
            Some(seed) => NodeKey::from_seed(seed),
            None => NodeKey::generate(),
        }
    }
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}
