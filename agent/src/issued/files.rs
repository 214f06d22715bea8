//! An authority of files, read again when they change: whoever renews them need not start the agent again.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::task::JoinHandle;
use verbatim_agent_config as config;
use verbatim_tls::Authority;

use crate::trust::authority_files;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(10);

/// What is seen of a file from outside: a renamed one has another inode time, a rewritten one another length or time.
fn seen(paths: &[PathBuf]) -> Vec<Option<(SystemTime, u64)>> {
    let one = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.modified().ok()?, found.len()))
    };
    paths.iter().map(one).collect()
}

/// Looks for as long as the agent runs. What cannot be used, half of a change not least, leaves the old in force.
pub(crate) fn reread(config: &config::Authority, authority: Arc<Authority>) -> JoinHandle<()> {
    let config = config.clone();
    let intermediates =
        config.intermediates.iter().flat_map(|one| [one.certificate.clone(), one.key.clone()]);
    let paths: Vec<_> = config.roots.iter().cloned().chain(intermediates).collect();
    tokio::spawn(async move {
        let mut last = seen(&paths);
        loop {
            tokio::time::sleep(PAUSE).await;
            let now = seen(&paths);
            if now == last {
                continue;
            }
            let replaced = authority_files(&config)
                .and_then(|material| authority.replace(&material).map_err(Into::into));
            match replaced {
                Ok(()) => tracing::info!("the authority's files have changed: the new ones are used"),
                Err(error) => {
                    tracing::error!(%error, "the authority's files have changed and cannot be used; the old ones stay");
                }
            }
            last = now;
        }
    })
}
