//! Where `tracing` goes: standard error, as text or JSON. What the eBPF programs log comes this way too.

use std::io::stderr;

use tracing_subscriber::{EnvFilter, fmt};

use verbatim_agent_config::LogFormat;

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
    let filter = EnvFilter::try_new(with_libraries(level))
        .map_err(|source| LoggingError::Level { level: level.to_owned(), source })?;
    // No colours: what a person pastes into a report is to be readable.
    let logger = fmt().with_env_filter(filter).with_writer(stderr).with_ansi(false);
    match format {
        LogFormat::Text => logger.try_init(),
        LogFormat::Json => logger.json().flatten_event(true).try_init(),
    }
    .map_err(|_taken| LoggingError::Twice)
}

/// A bare level is for our own code: below us, `debug` means pages of relocations and HTTP/2 frames. rustls warns of
/// each alert that a peer sends, as every client in Java does at its end: what one means is in the records.
fn with_libraries(level: &str) -> String {
    let level = level.to_owned();
    let quiet = ["aya", "aya_obj", "h2", "hyper", "hyper_util", "tonic", "tower"];
    match level.to_ascii_lowercase().as_str() {
        _ if level.contains(['=', ',']) => level,
        "debug" | "trace" => {
            let filter = quiet.iter().fold(level, |filter, library| format!("{filter},{library}=info"));
            filter + ",rustls=error"
        }
        "info" | "warn" => level + ",rustls=error",
        _ => level,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_for_our_own_code_and_a_filter_is_taken_as_it_is() {
        assert_eq!(with_libraries("info"), "info,rustls=error");
        assert_eq!(with_libraries("off"), "off");
        assert!(with_libraries("debug").starts_with("debug,aya=info,"));
        assert_eq!(with_libraries("debug,h2=trace"), "debug,h2=trace");
        for filter in ["debug", "trace", "info"] {
            EnvFilter::try_new(with_libraries(filter)).expect("filter");
        }
    }
}
