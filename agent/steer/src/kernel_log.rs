//! Brings what the eBPF programs log to `tracing`.

use log::{Level, Log, Metadata, Record};

/// Target under which the programs' messages appear.
const TARGET: &str = "verbatim_ebpf";

/// A logger for aya-log that hands each message to `tracing`, whichever way that is set up.
pub(crate) struct KernelLog;

impl Log for KernelLog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let message = record.args();
        match record.level() {
            Level::Error => tracing::error!(target: TARGET, "{message}"),
            Level::Warn => tracing::warn!(target: TARGET, "{message}"),
            Level::Info => tracing::info!(target: TARGET, "{message}"),
            Level::Debug => tracing::debug!(target: TARGET, "{message}"),
            Level::Trace => tracing::trace!(target: TARGET, "{message}"),
        }
    }

    fn flush(&self) {}
}
