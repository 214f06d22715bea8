//! What injection gives a pod, so that its clients trust the node agent: a bundle and the variables that
//! name it. Nothing else distinguishes a pod whose clients are captured.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// Variables that replace or extend a client's roots by a file of PEM.
const BUNDLES: [&str; 7] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTPLIB2_CA_CERTS",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "NODE_EXTRA_CA_CERTS",
];

/// A bundle and a trust store for Java, in a folder that pods can read.
#[derive(Clone, Debug)]
pub struct Trust {
    bundle: PathBuf,
    java: Option<PathBuf>,
}

impl Trust {
    /// With a bundle, and a PKCS #12 trust store where there is one.
    #[must_use]
    pub fn new(bundle: PathBuf, java: Option<PathBuf>) -> Self {
        Self { bundle, java }
    }

    /// What a pod has without injection: the roots of its own image, which in the lab vouch for the lab's
    /// servers only.
    pub fn without_us(folder: &Path, root: &Path) -> Result<Self> {
        let bundle = folder.join("image-roots.pem");
        fs::copy(root, &bundle).with_context(|| format!("cannot write {}", bundle.display()))?;
        Ok(Self::new(bundle, None))
    }

    /// The bundle.
    #[must_use]
    pub fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// The variables that are set, those that say where the trust is and those that always go with them.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let bundle = self.bundle.display().to_string();
        let mut all: Vec<_> = BUNDLES.iter().map(|name| (*name, bundle.clone())).collect();
        if let Some(java) = &self.java {
            let options = format!(
                "-Djavax.net.ssl.trustStore={} -Djavax.net.ssl.trustStoreType=PKCS12 \
                 -Djavax.net.ssl.trustStorePassword=changeit",
                java.display()
            );
            all.push(("JAVA_TOOL_OPTIONS", options));
        }
        all.push(("PGCHANNELBINDING", "disable".into()));
        all.push(("GOOGLE_CLOUD_DISABLE_DIRECT_PATH", "true".into()));
        all
    }
}
