//! Where `tracing` goes: standard error, as text or JSON. What the eBPF programs log comes this way too.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::LogFormat;

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoggingError {
    /// The level is none.
    #[error(
        "log level `{level}`: {source}; write error, warn, info, debug, trace, or e.g. `warn,verbatim_proxy=debug`"
    )]
    Level {
        /// As written.
        level: String,
        /// Why not.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody else has begun to.
    #[error("logging is set up already")]
    Twice,
}

/// Starts to log; starts no thread.
pub(crate) fn start(level: &str, format: LogFormat) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(level)
        .map_err(|source| LoggingError::Level { level: level.to_owned(), source })?;
    let logger = fmt().with_env_filter(filter).with_writer(stderr);
    match format {
        LogFormat::Text => logger.with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => logger.json().flatten_event(true).try_init(),
    }
    .map_err(|_taken| LoggingError::Twice)
}
