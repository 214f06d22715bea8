//! What other processes left in slots that nobody has any more: recovered and shipped by whoever lives.

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
};

use crate::{
    OpenError, Outbox, Recovered,
    node::Node,
    open::existing,
    recover::{Folder, Instance},
    slot::Slot,
};

/// Finds what was left behind, now and later: an agent that was taken over may die while it drains, or end
/// before the collector has everything.
#[derive(Debug)]
pub struct Leftovers {
    directory: PathBuf,
    instance: Instance,
    /// The spool's own handles keep it open, this one does not.
    node: Weak<Node>,
}

impl Leftovers {
    pub(crate) fn new(directory: PathBuf, instance: Instance, node: &Arc<Node>) -> Self {
        Self { directory, instance, node: Arc::downgrade(node) }
    }

    /// Recovers what is there now, an outbox for each slot. A slot is removed when its outbox is dropped after
    /// everything was acknowledged.
    ///
    /// # Errors
    /// A folder cannot be read or written; what was recovered before is lost to this process, not to the next.
    pub fn adopt(&self) -> Result<Vec<(Outbox, Recovered)>, OpenError> {
        let Some(node) = self.node.upgrade() else { return Ok(Vec::new()) };
        let slots = Slot::left_behind(&self.directory, node.slot())?;
        slots.into_iter().map(|slot| self.recover(slot, &node)).collect()
    }

    fn recover(&self, slot: Slot, node: &Arc<Node>) -> Result<(Outbox, Recovered), OpenError> {
        let common = &node.common;
        let mut lanes = Vec::new();
        let mut sum = Recovered::default();
        for number in existing(&slot.path)? {
            let path = slot.path.join(format!("shard-{number}"));
            let shard = u32::try_from(number).unwrap_or(u32::MAX);
            let folder = Folder { common, instance: &self.instance, path, shard };
            let (lane, _closed, recovered) = folder.recover(false)?;
            lanes.push(lane);
            sum.add(recovered);
        }
        Ok((Outbox::adopted(lanes, slot, Arc::clone(node)), sum))
    }
}
