//! What the proxy is told by configuration. Knows no file format.

use std::time::Duration;

use verbatim_http::HttpConfig;
use verbatim_wire::seam::Limits;

/// Limits and times of all shards.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Limits of every decoder; the relay's buffers hold its capture limit and 64 KiB more.
    pub limits: Limits,
    /// How long a dial upstream may take until the workload's connection is reset.
    pub dial_timeout: Duration,
    /// Connections per shard: at this many a shard stops accepting, and the backlog fills.
    pub connections_per_shard: usize,
    /// Idle time until the kernel probes either leg.
    pub keepalive: Duration,
    /// How long a refused connection that we end is still read, so that the client gets our last answer
    /// before it gets a reset.
    pub linger: Duration,
    /// How long a cancel request waits for the shard that holds its target; then it goes upstream.
    pub cancel_timeout: Duration,
    /// How long a TLS handshake may take, on either leg.
    pub handshake_timeout: Duration,
    /// How long a server that asked for a client's certificate may take, over TLS 1.3, to say that it will not do
    /// without, beside the time that the network takes: until then its client is not answered.
    pub objection_timeout: Duration,
    /// Limits of connections of HTTP.
    pub http: HttpConfig,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            dial_timeout: Duration::from_secs(30),
            connections_per_shard: 16 * 1024,
            keepalive: Duration::from_secs(60),
            linger: Duration::from_secs(5),
            cancel_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(30),
            objection_timeout: Duration::from_millis(250),
            http: HttpConfig::default(),
        }
    }
}
