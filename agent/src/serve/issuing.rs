//! Who keeps the authority up to date: the cluster's issuer, or whoever writes the files; and the verifiers, whose file
//! is read again.

use std::sync::Arc;

use tokio::task::JoinHandle;
use verbatim_agent_config::{self as config, NodeAgent};
use verbatim_ship::Issued;

use crate::{
    evidence::Engine,
    issued::{self, Receivers},
    trust::Material,
};

/// Has the authority kept up to date by whoever issues it, and the verifiers by whoever writes them.
pub(super) fn follow(
    config: &NodeAgent,
    material: Option<&Material>,
    collector: Issued,
    evidence: &Engine,
) -> Issuing {
    let (Some(tls), Some(material)) = (&config.tls, material) else { return Issuing::default() };
    let authority = Arc::clone(&material.authority);
    let verifiers = material.verifiers.follow();
    let mut issuing = match &tls.authority {
        config::Authority { issuer: Some(issuer), .. } => {
            // One that a person has configured goes before the cluster's.
            let fingerprints =
                config.credentials.fingerprint_key.is_none().then(|| Arc::clone(evidence.fingerprints()));
            let receivers = Receivers { authority, collector, fingerprints };
            let (task, known) = issued::start(issuer, receivers);
            Issuing { tasks: vec![task], known: Some(known) }
        }
        files => {
            // One that is made for this process has none.
            let reread = |seen| issued::reread(files, authority, seen);
            Issuing { tasks: material.seen.clone().map(reread).into_iter().collect(), known: None }
        }
    };
    issuing.tasks.extend(verifiers);
    issuing
}

/// What keeps them up to date; it ends when this is dropped.
#[derive(Default)]
pub(super) struct Issuing {
    tasks: Vec<JoinHandle<()>>,
    /// Where an issuer does it.
    pub(super) known: Option<issued::Known>,
}

impl Issuing {
    /// Waits a while for what an issuer is asked for: nothing is to be steered before TLS can end here, if that can be
    /// helped.
    pub(super) async fn first(&self) {
        let Some(known) = &self.known else { return };
        if !known.given().await {
            tracing::warn!(
                "the issuer has not answered: until it does, TLS passes undecoded and is recorded so"
            );
        }
    }
}

impl Drop for Issuing {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
