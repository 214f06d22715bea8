//! Certificates and keys, read from the files that a person named or made at start, and both legs with them.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use verbatim_proxy::seam::{Tls, Trust};
use verbatim_tls::{
    Authority, AuthorityError, AuthorityMaterial, Downstream, RootsError, Upstream, UpstreamError,
    UpstreamRoots,
};

use verbatim_agent_config as config;

use super::seen::Seen;
use crate::verifiers::{Verifiers, VerifiersError};

/// Why there is no authority, or nobody is believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MaterialError {
    /// A file.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in them, or the names.
    #[error("the authority toward workloads: {0}")]
    Authority(#[from] AuthorityError),
    /// Whom to believe.
    #[error("who vouches for servers: {0}")]
    Upstream(#[from] UpstreamError),
    /// Theirs or ours.
    #[error("no TLS toward workloads: {0}")]
    Tls(#[from] rustls::Error),
    /// A file of further roots.
    #[error("{0} holds no certificate: expected PEM, `-----BEGIN CERTIFICATE-----`")]
    NoCertificate(PathBuf),
    /// What is known of passwords.
    #[error("what is known of PostgreSQL's passwords: {0}")]
    Verifiers(#[from] VerifiersError),
}

/// Whom workloads believe, and whom we do.
#[derive(Clone, Debug)]
pub(crate) struct Material {
    pub(crate) authority: Arc<Authority>,
    /// Its files, before they were read; what is not of files is not looked at.
    pub(crate) seen: Option<Seen>,
    upstream: Arc<Upstream>,
    downstream: Arc<Downstream>,
    pub(crate) verifiers: Verifiers,
}

impl Material {
    fn new(
        authority: Authority,
        upstream: Upstream,
        verifiers: Option<&Path>,
    ) -> Result<Self, MaterialError> {
        let verifiers = Verifiers::read(verifiers)?;
        let (authority, upstream) = (Arc::new(authority), Arc::new(upstream));
        let downstream = Arc::new(Downstream::new()?);
        Ok(Self { authority, seen: None, upstream, downstream, verifiers })
    }

    /// Of the configuration.
    pub(crate) fn configured(tls: &config::Termination) -> Result<Self, MaterialError> {
        let of_files = tls.authority.ephemeral.is_none() && tls.authority.issuer.is_none();
        let seen = of_files.then(|| Seen::of(&tls.authority));
        let authority = match (&tls.authority.ephemeral, &tls.authority.issuer) {
            (Some(ephemeral), _) => Authority::for_run(&ephemeral.names)?,
            // It is given later, and replaced while it is used.
            (None, Some(_)) => Authority::waiting()?,
            (None, None) => Authority::from_pem(&authority_files(&tls.authority)?)?,
        };
        let config::UpstreamRoots { system, files } = &tls.upstream_roots;
        let upstream = Upstream::new(&UpstreamRoots { system: *system, extra_pem: read_roots(files)? })?;
        Ok(Self { seen, ..Self::new(authority, upstream, tls.verifier_file.as_deref())? })
    }

    /// Of one run. `None`: there is nobody who could be believed to vouch for servers.
    pub(crate) fn for_run(
        names: &[String],
        roots: &[PathBuf],
        verifiers: Option<&Path>,
    ) -> Result<Option<Self>, MaterialError> {
        let authority = Authority::for_run(names)?;
        let mut believed = UpstreamRoots { system: true, extra_pem: read_roots(roots)? };
        let upstream = match Upstream::new(&believed) {
            Err(UpstreamError::Roots(RootsError::NoSystemBundle)) if roots.is_empty() => return Ok(None),
            Err(UpstreamError::Roots(RootsError::NoSystemBundle)) => {
                believed.system = false;
                Upstream::new(&believed)
            }
            made => made,
        };
        Self::new(authority, upstream?, verifiers).map(Some)
    }

    /// For the proxy.
    pub(crate) fn tls(&self, trust: impl Trust) -> Arc<Tls> {
        Arc::new(Tls {
            authority: Arc::clone(&self.authority),
            upstream: Arc::clone(&self.upstream),
            downstream: Arc::clone(&self.downstream),
            trust: Arc::new(trust),
            verifiers: Arc::new(self.verifiers.clone()),
        })
    }
}

fn read(path: &Path) -> Result<String, MaterialError> {
    std::fs::read_to_string(path).map_err(|source| MaterialError::Read { path: path.to_owned(), source })
}

/// The authority of files.
pub(crate) fn authority_files(authority: &config::Authority) -> Result<AuthorityMaterial, MaterialError> {
    let mut material = AuthorityMaterial::default();
    for path in &authority.roots {
        material.roots.push_str(&read(path)?);
        material.roots.push('\n');
    }
    for config::Intermediate { certificate, key } in &authority.intermediates {
        // One file may hold both.
        let mut text = read(certificate)?;
        if key != certificate {
            text.push('\n');
            text.push_str(&read(key)?);
        }
        material.intermediates.push(text);
    }
    Ok(material)
}

/// Files with roots that servers' certificates may lead to.
fn read_roots(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, MaterialError> {
    let text = |path: &PathBuf| {
        let text = read(path)?;
        if text.contains("-----BEGIN CERTIFICATE-----") {
            Ok(text.into_bytes())
        } else {
            Err(MaterialError::NoCertificate(path.clone()))
        }
    };
    files.iter().map(text).collect()
}
