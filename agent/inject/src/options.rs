//! What may be chosen about an injection.

use std::{collections::BTreeSet, str::FromStr};

use serde::{Deserialize, Serialize};
use verbatim_tls::{RootId, variables};

/// What is set beside the minimal set, by a selector or by the pod's own annotation.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extra {
    /// `GOOGLE_API_ENABLE_RUNTIME_BOUND_TOKEN=false`: no tokens that are bound to the client's certificate.
    NoBoundTokens,
    /// `DENO_CERT`.
    Deno,
    /// `AWS_CA_BUNDLE`.
    Aws,
    /// `GIT_SSL_CAINFO`.
    Git,
}

/// A word that is no [`Extra`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of no-bound-tokens, deno, aws, git")]
pub struct UnknownExtra(pub String);

impl FromStr for Extra {
    type Err = UnknownExtra;

    fn from_str(word: &str) -> Result<Self, UnknownExtra> {
        match word {
            "no-bound-tokens" => Ok(Self::NoBoundTokens),
            "deno" => Ok(Self::Deno),
            "aws" => Ok(Self::Aws),
            "git" => Ok(Self::Git),
            other => Err(UnknownExtra(other.to_owned())),
        }
    }
}

impl Extra {
    /// Its variable, and the value where that is not the bundle's path.
    pub(crate) fn variable(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::NoBoundTokens => (variables::BOUND_TOKENS.0, Some(variables::BOUND_TOKENS.1)),
            Self::Deno => ("DENO_CERT", None),
            Self::Aws => ("AWS_CA_BUNDLE", None),
            Self::Git => ("GIT_SSL_CAINFO", None),
        }
    }
}

/// What is done where a container takes variables from a ConfigMap or a Secret whose keys are not known here: a
/// variable of ours would go before one of theirs.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum EnvFrom {
    /// What could be set there is left alone.
    #[default]
    LeaveAlone,
    /// Ours are set all the same.
    Override,
}

/// What is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The ConfigMap with `bundle.pem` and `truststore.p12`, in the pod's namespace; also the volume's name.
    pub config_map: String,
    /// Where a container finds them.
    pub folder: String,
    /// The roots of ours that are in the bundle at this moment.
    pub roots: BTreeSet<RootId>,
    /// Beside the minimal set.
    pub extras: BTreeSet<Extra>,
    /// See [`EnvFrom`].
    pub env_from: EnvFrom,
}

impl Options {
    /// With the usual names.
    #[must_use]
    pub fn new(roots: impl IntoIterator<Item = RootId>) -> Self {
        Self {
            config_map: "verbatim-trust".to_owned(),
            folder: "/run/verbatim-trust".to_owned(),
            roots: roots.into_iter().collect(),
            extras: BTreeSet::new(),
            env_from: EnvFrom::LeaveAlone,
        }
    }
}
