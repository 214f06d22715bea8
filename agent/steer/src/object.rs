//! The compiled eBPF programs, embedded at build time (see `build.rs`).

use crate::SteerError;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/verbatim-ebpf"));

/// The ELF object with all programs and maps.
pub(crate) fn programs() -> Result<&'static [u8], SteerError> {
    if OBJECT.is_empty() { Err(SteerError::NoPrograms) } else { Ok(OBJECT) }
}
