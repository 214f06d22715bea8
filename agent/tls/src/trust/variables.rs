//! The variables by which clients find their roots, one list for everybody who gives trust.
//!
//! Owns names and what Java's options say. What a command or a pod has already, and how that is merged, is whose who
//! asks.

use super::java_options::{store_options, with_store};

/// Each names a file that replaces the client's own roots.
pub const REPLACING: [&str; 6] = [
    // OpenSSL, Go, Python, curl; httpx and aiohttp through Python.
    "SSL_CERT_FILE",
    // requests, and with it google-cloud's REST clients.
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTPLIB2_CA_CERTS",
    // gRPC's core, and grpc-js.
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    // bq, gsutil, gcloud.
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
];
/// Which variables a client goes by where the first is not set.
const FALLBACKS: [(&str, &[&str]); 2] =
    [("REQUESTS_CA_BUNDLE", &["CURL_CA_BUNDLE"]), ("CURL_CA_BUNDLE", &["SSL_CERT_DIR", "SSL_CERT_FILE"])];
/// Node: adds to its own roots.
pub const ADDING: &str = "NODE_EXTRA_CA_CERTS";
/// Java's variables, the one that has the last word first. Only the last is set where none names a trust store.
pub const JAVA: [&str; 3] = ["_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", JAVA_TOOL_OPTIONS];
/// The one that every JVM reads.
pub const JAVA_TOOL_OPTIONS: &str = "JAVA_TOOL_OPTIONS";
/// libpq: channel binding sees the certificate, and so would see ours. PGSSLROOTCERT is never set: with it
/// `require` becomes `verify-ca`, and `prefer` falls back to plaintext where it does not fit.
pub const CHANNEL_BINDING: (&str, &str) = ("PGCHANNELBINDING", "disable");
/// gRPC to Google past the network's usual way, with ALTS in place of TLS.
pub const DIRECT_PATH: (&str, &str) = ("GOOGLE_CLOUD_DISABLE_DIRECT_PATH", "true");
/// Tokens bound to a client's certificate, which nobody in between can present. Only where a selector says so.
pub const BOUND_TOKENS: (&str, &str) = ("GOOGLE_API_ENABLE_RUNTIME_BOUND_TOKEN", "false");

/// What a client goes by where this variable is not set.
#[must_use]
pub fn fallbacks(name: &str) -> &'static [&'static str] {
    FALLBACKS.iter().find(|(first, _)| *first == name).map_or(&[], |(_, others)| *others)
}

/// The PEM bundle's name in the folder that a workload is given.
pub const BUNDLE: &str = "bundle.pem";
/// The name there of Java's trust store.
pub const TRUST_STORE: &str = "truststore.p12";

/// The trust store that Java's options name, where they name one: the last counts.
#[must_use]
pub fn java_store(options: &str) -> Option<String> {
    store_options(options).path
}

/// Java's options with our trust store appended, which then counts.
#[must_use]
pub fn with_java_store(options: &str, path: &str) -> String {
    with_store(options, path)
}
