//! What the programs have counted since they were loaded.

use aya::maps::{MapData, PerCpuArray};
use verbatim_ebpf_common::Counter;

use crate::SteerError;

/// Names and sums over all CPUs.
pub(crate) fn read(counts: &PerCpuArray<MapData, u64>) -> Result<Vec<(&'static str, u64)>, SteerError> {
    Counter::ALL
        .iter()
        .map(|&counter| {
            let values = counts
                .get(&(counter as u32), 0)
                .map_err(|error| SteerError::kernel("reading the counters", error))?;
            Ok((counter.name(), values.iter().sum()))
        })
        .collect()
}
