//! What each HTTP/2 endpoint says of itself, and what it keeps.

use h2::{client, server};

use crate::HttpConfig;

/// What any server should take at once (RFC 9113 section 6.5.2).
const INITIAL_STREAMS: usize = 100;

/// Toward the server.
pub(super) fn upstream(config: &HttpConfig) -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(config.stream_window)
        .initial_connection_window_size(config.connection_window)
        .max_header_list_size(config.header_bytes.saturating_mul(2))
        .max_send_buffer_size(config.send_buffer)
        // Until it says how many it takes. Those that it takes no more wait for others to end.
        .initial_max_send_streams(INITIAL_STREAMS.min(config.concurrent_streams as usize));
    builder
}

/// Toward the client.
pub(super) fn client(config: &HttpConfig) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(config.stream_window)
        .initial_connection_window_size(config.connection_window)
        .max_concurrent_streams(config.concurrent_streams)
        .max_header_list_size(config.header_bytes)
        .max_send_buffer_size(config.send_buffer);
    builder
}
