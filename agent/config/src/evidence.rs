//! The keys of the configuration that say how credentials are looked at, and whose word counts about on whose behalf
//! a workload acts.

use std::path::PathBuf;

use serde::Deserialize;

/// Where Google's OAuth 2.0 server says whose an access token is.
const TOKENINFO: &str = "https://oauth2.googleapis.com/tokeninfo";

/// How credentials are looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credentials {
    /// What fingerprints are made with: one per cluster. Without it each start makes its own, and no two nodes' can
    /// be compared.
    pub fingerprint_key: Option<FingerprintKey>,
    /// Whether the issuer is asked whose a token is that was not seen being issued.
    #[serde(default)]
    pub tokeninfo: Tokeninfo,
}

/// A key in a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FingerprintKey {
    /// 32 bytes as 64 hexadecimal digits or in base64.
    pub file: PathBuf,
}

/// Asking the issuer of a token.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tokeninfo {
    /// At all: the token is sent to the endpoint below.
    #[serde(default)]
    pub enabled: bool,
    /// `https://`.
    #[serde(default = "default_tokeninfo")]
    pub endpoint: String,
}

impl Default for Tokeninfo {
    fn default() -> Self {
        Self { enabled: false, endpoint: default_tokeninfo() }
    }
}

fn default_tokeninfo() -> String {
    TOKENINFO.to_owned()
}

/// On whose behalf workloads act.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OnBehalfOf {
    /// Whose signed tokens are believed; nobody's where it is empty.
    #[serde(default)]
    pub issuers: Vec<Issuer>,
    /// Names under which a person is told: baggage members, headers, keys of SQL comments, labels, words of
    /// `application_name`.
    pub names: Option<Vec<String>>,
    /// The same for the framework's session.
    pub session_names: Option<Vec<String>>,
    /// The same for its task.
    pub task_names: Option<Vec<String>>,
    /// The same for its tool.
    pub tool_names: Option<Vec<String>>,
}

/// Somebody whose signed tokens are believed.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    /// As in the claim `iss`.
    pub issuer: String,
    /// One of them must be in the claim `aud`.
    pub audiences: Vec<String>,
    /// Its public keys.
    pub jwks: Jwks,
    /// The claim that names the workload which it was given to.
    #[serde(default = "default_workload_claim")]
    pub workload_claim: String,
}

fn default_workload_claim() -> String {
    "workload".to_owned()
}

/// A JSON Web Key Set (RFC 7517); either of the two.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Jwks {
    /// In a file, read again when it changes.
    pub file: Option<PathBuf>,
    /// Fetched, `https://`.
    pub url: Option<String>,
}
