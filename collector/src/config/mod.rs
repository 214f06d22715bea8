//! The collector's configuration: a YAML file, or flags for the one that is embedded beside an agent.
//!
//! Owns names, defaults and what contradicts itself. Opens no file but its own.

mod parse;

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use serde::Deserialize;

use verbatim_config::positive;
pub use verbatim_config::{ByteSize, ConfigError, Span};

pub use self::parse::{load, parse};

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Address {
    /// `tcp:HOST:PORT`; an IP address, for names are looked up at a time nobody chose.
    Tcp(SocketAddr),
    /// `unix:PATH`.
    Unix(PathBuf),
}

/// Why text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address: write unix:/absolute/path or tcp:IP:PORT, e.g. tcp:0.0.0.0:7443")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.to_owned());
        match text.split_once(':') {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => address.parse().map(Self::Tcp).map_err(|_wrong| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// `verbatim.v1`.
    pub api_version: String,
    /// `Collector`.
    pub kind: String,
    /// Directory for log and index.
    pub data: PathBuf,
    /// Listener for node agents.
    pub ingest: Listener,
    /// Listener for those who ask.
    pub audit: Listener,
    /// The segment log.
    #[serde(default)]
    pub log: LogConfig,
    /// How long and how much is kept.
    #[serde(default)]
    pub retention: Retention,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// Where.
    pub listen: Address,
    /// Needed for TCP; not for a Unix socket.
    pub tls: Option<Tls>,
    /// Names (URI or DNS, from the subject alternative names) that a client's certificate must have one of.
    /// Empty: everybody whom `clientCa` vouches for.
    #[serde(default)]
    pub allowed_names: Vec<String>,
    /// Processes in these cgroups, or below, may not use a Unix socket.
    #[serde(default)]
    pub refuse_cgroups: Vec<PathBuf>,
    /// Largest message, bytes.
    #[serde(default = "default_message", deserialize_with = "positive")]
    pub max_message: ByteSize,
}

fn default_message() -> ByteSize {
    ByteSize(16 << 20)
}

impl Listener {
    /// A listener with defaults.
    #[must_use]
    pub fn new(listen: Address) -> Self {
        Self {
            listen,
            tls: None,
            allowed_names: Vec::new(),
            refuse_cgroups: Vec::new(),
            max_message: default_message(),
        }
    }
}

/// Certificates, PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// Our own, with its intermediates.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who vouches for clients of this listener.
    pub client_ca: PathBuf,
}

/// The segment log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LogConfig {
    /// A segment is sealed at this size.
    #[serde(deserialize_with = "positive")]
    pub segment_size: ByteSize,
    /// A segment is sealed at this age.
    #[serde(deserialize_with = "positive")]
    pub seal_after: Span,
    /// Batches that wait for their commit, all together.
    #[serde(deserialize_with = "positive")]
    pub waiting: ByteSize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_size: ByteSize(64 << 20),
            seal_after: Span(Duration::from_secs(3600)),
            waiting: ByteSize(128 << 20),
        }
    }
}

/// How long and how much is kept. Whole sealed segments go, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retention {
    /// Of contents; they may go before their envelopes.
    pub contents: Limit,
    /// Of envelopes; their contents go with them.
    pub envelopes: Limit,
    /// How often it is looked at.
    #[serde(deserialize_with = "positive")]
    pub interval: Span,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            contents: Limit::default(),
            envelopes: Limit::default(),
            interval: Span(Duration::from_secs(600)),
        }
    }
}

/// A limit; what is absent does not limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limit {
    /// Segments whose last record is older go.
    #[serde(deserialize_with = "positive")]
    pub max_age: Option<Span>,
    /// While more than this is kept, the oldest segment goes.
    #[serde(deserialize_with = "positive")]
    pub max_size: Option<ByteSize>,
}

impl Config {
    /// For a collector beside an agent: all defaults, no TLS.
    #[must_use]
    pub fn embedded(data: PathBuf, ingest: Address, audit: Address, refuse_cgroups: &[PathBuf]) -> Self {
        let listener = |listen| Listener { refuse_cgroups: refuse_cgroups.to_vec(), ..Listener::new(listen) };
        Self {
            api_version: parse::API_VERSION.to_owned(),
            kind: parse::KIND.to_owned(),
            data,
            ingest: listener(ingest),
            audit: listener(audit),
            log: LogConfig::default(),
            retention: Retention::default(),
        }
    }
}
