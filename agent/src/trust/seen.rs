//! What is seen from outside of the files of an authority.

use std::{path::PathBuf, time::SystemTime};

use verbatim_agent_config as config;

/// Of one moment. To be taken before the files are read: what changes afterwards is seen then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen(Vec<Option<(SystemTime, u64)>>);

impl Seen {
    /// Now. A renamed file has another inode time, a rewritten one another length or time.
    pub(crate) fn of(authority: &config::Authority) -> Self {
        let intermediates = authority.intermediates.iter().flat_map(|one| [&one.certificate, &one.key]);
        let one = |path: &PathBuf| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len()))
        };
        Self(authority.roots.iter().chain(intermediates).map(one).collect())
    }
}
