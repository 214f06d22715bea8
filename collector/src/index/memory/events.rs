//! Events without a file.

use super::{MemoryIndex, among, ordered};
use crate::index::{
    IndexError,
    events::{EventQuery, EventRow, Events},
};

fn is_of(row: &EventRow, wanted: &str) -> bool {
    let is = |value: &str| !value.is_empty() && value == wanted;
    wanted.is_empty()
        || is(&row.principal)
        || is(&row.pod_name)
        || is(&row.pod_uid)
        || is(&format!("{}/{}", row.namespace, row.service_account))
        || (row.cgroup != 0 && row.cgroup.to_string() == wanted)
}

impl Events for MemoryIndex {
    fn events(&self, query: &EventQuery) -> Result<Vec<(EventRow, String)>, IndexError> {
        let tables = self.tables();
        let rows = ordered(&tables.events, query.after, query.oldest_first)
            .filter(|row| among(&query.events, row.event) && is_of(row, &query.workload))
            .filter(|row| query.from_wall == 0 || row.wall >= query.from_wall)
            .filter(|row| query.to_wall == 0 || row.wall < query.to_wall)
            .map(|row| (row.clone(), tables.counted.node(&row.chain)))
            .filter(|(_, node)| query.node.is_empty() || *node == query.node);
        Ok(rows.take(query.limit).collect())
    }
}
