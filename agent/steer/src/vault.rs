//! Listeners that outlive the process that made them: handed out as they are made, given to its successor.

use std::{collections::HashMap, io};

use crate::{NamespaceListeners, ShardListeners};

/// Keeps listeners beyond this process's life.
pub trait Vault: Send + Sync + 'static {
    /// Keeps duplicates of a namespace's listeners. Called before the kernel sends connections to them, so that
    /// none is lost with this process.
    ///
    /// # Errors
    /// They are not kept.
    fn keep(&self, made: &NamespaceListeners) -> io::Result<()>;

    /// Lets go of a namespace's.
    fn forget(&self, cookie: u64);
}

/// One shard's listeners of a predecessor.
#[derive(Debug)]
pub struct Handed {
    /// Cookie of the namespace that they stand in.
    pub cookie: u64,
    /// Their port.
    pub port: u16,
    /// Which shard's they were.
    pub shard: usize,
    /// Themselves.
    pub listeners: ShardListeners,
}

/// What a predecessor has handed over, by namespace.
pub(crate) type HandedOver = HashMap<u64, (u16, Vec<ShardListeners>)>;

/// Sorts it. Listeners of one namespace on two ports would contradict each other: the last port counts.
pub(crate) fn by_namespace(mut handed: Vec<Handed>) -> HandedOver {
    handed.sort_by_key(|one| one.shard);
    let mut sorted = HandedOver::new();
    for Handed { cookie, port, listeners, .. } in handed {
        let (known, all) = sorted.entry(cookie).or_insert_with(|| (port, Vec::new()));
        if *known != port {
            *known = port;
            all.clear();
        }
        all.push(listeners);
    }
    sorted
}
