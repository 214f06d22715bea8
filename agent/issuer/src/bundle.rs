//! What workloads are to believe at one moment: both files, and the names of our roots in them.

use std::{collections::BTreeSet, sync::Arc};

use verbatim_inject::RootId;
use verbatim_tls::{Roots, RootsError, trust_files};

use crate::{
    config,
    kept::{Class, Kept},
};

/// Both files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bundle {
    /// `bundle.pem`.
    pub(crate) pem: String,
    /// `truststore.p12`.
    pub(crate) store: Vec<u8>,
    /// Our roots in them.
    pub(crate) roots: BTreeSet<RootId>,
}

/// Roots that are not ours: read once, for they come with the image and with a mounted file.
#[derive(Clone, Debug)]
pub(crate) struct Others(Arc<Roots>);

impl Others {
    /// As the configuration says.
    ///
    /// # Errors
    /// When a file cannot be read, or holds no certificate: a bundle that lacks roots would take trust away.
    pub(crate) fn read(config: &config::Bundle) -> Result<Self, RootsError> {
        let mut roots = Roots::default();
        if config.system {
            roots.add_system()?;
        }
        for path in &config.extra_roots {
            roots.add_path(path)?;
        }
        Ok(Self(Arc::new(roots)))
    }

    /// With ours.
    #[must_use]
    pub(crate) fn with(&self, kept: &Kept) -> Bundle {
        let mut ours = Roots::default();
        for class in Class::ALL.into_iter().filter(|class| class.names().is_some()) {
            ours.add_pem(kept.certificates(class).as_bytes());
        }
        let mut all = Roots::clone(&self.0);
        all.add(ours.certificates().iter().cloned());
        let (pem, store) = trust_files(&all);
        Bundle { pem, store, roots: ours.certificates().iter().map(RootId::of).collect() }
    }
}
