//! The authority that a node agent is given, as an issuer on a cluster would make it, and the trust that goes
//! with it into pods.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{google::Root, trust::Trust};

/// What is given to an agent and to pods.
#[derive(Debug)]
pub struct Given {
    /// The `tls` section of the agent's configuration.
    pub configuration: String,
    /// What pods get.
    pub trust: Trust,
}

/// Makes it in a folder. `upstream` is the root that only the agent trusts.
pub fn create(folder: &Path, upstream: &Root) -> Result<Given> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let bundle = folder.join("bundle.pem");
    let configuration = format!(
        "tls: {{authority: {{}}, upstreamRoots: {{system: true, files: [{}]}}, names: [db.vpc.internal]}}\n",
        upstream.certificate().display()
    );
    Ok(Given { configuration, trust: Trust::new(bundle, None) })
}
