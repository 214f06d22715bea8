//! Keeps the key sets of those whose signed tokens are believed: from files, read again when they change, and from
//! where they are published.
//!
//! Owns how long the last good set is used while no newer one can be had.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use verbatim_agent_config as config;
use verbatim_credential::behalf::{Issuer, KeySet};

use super::fetch::Fetcher;

/// Between two looks at a file.
const LOOK: Duration = Duration::from_secs(2);
/// Between two fetches.
const REFRESH: Duration = Duration::from_secs(300);
/// After a fetch that failed.
const RETRY: Duration = Duration::from_secs(10);
/// How long the last good set is believed while no other can be had.
const KEPT: Duration = Duration::from_secs(24 * 3600);

type Keys = Arc<ArcSwapOption<KeySet>>;

/// Issuers with their keys, which tasks keep. Files are read before this returns.
pub(super) fn start(
    issuers: &[config::Issuer],
    fetcher: Option<&Arc<Fetcher>>,
    tasks: &mut Vec<JoinHandle<()>>,
) -> Vec<Issuer> {
    let mut started = Vec::new();
    for issuer in issuers {
        let keys = Keys::default();
        let name = issuer.issuer.clone();
        match (&issuer.jwks.file, &issuer.jwks.url, fetcher) {
            (Some(path), _, _) => {
                let seen = read(&name, path, &keys, None);
                tasks.push(tokio::spawn(watch(name, path.clone(), Arc::clone(&keys), seen)));
            }
            (None, Some(url), Some(fetcher)) => {
                tasks.push(tokio::spawn(refresh(name, url.clone(), Arc::clone(fetcher), Arc::clone(&keys))));
            }
            // Refused with the configuration.
            _ => {}
        }
        started.push(Issuer {
            issuer: issuer.issuer.clone(),
            audiences: issuer.audiences.clone(),
            workload_claim: issuer.workload_claim.clone(),
            keys,
        });
    }
    started
}

/// What a file's last look saw: a set that cannot be read is said once.
type Seen = Option<(SystemTime, u64)>;

fn read(issuer: &str, path: &Path, keys: &Keys, before: Seen) -> Seen {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            if before.is_some() || keys.load().is_none() {
                tracing::warn!(issuer, path = %path.display(), %error, "key set cannot be read; the last one stays");
            }
            return None;
        }
    };
    let seen = Some((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len()));
    if seen == before {
        return seen;
    }
    match std::fs::read(path).map_err(|error| error.to_string()).and_then(|text| parse(&text)) {
        Ok(set) => {
            tracing::info!(issuer, keys = ?set, "key set read");
            keys.store(Some(Arc::new(set)));
        }
        Err(error) => {
            tracing::warn!(issuer, path = %path.display(), error, "key set cannot be read; the last one stays");
        }
    }
    seen
}

fn parse(text: &[u8]) -> Result<KeySet, String> {
    KeySet::parse(text).map_err(|error| error.to_string())
}

async fn watch(issuer: String, path: PathBuf, keys: Keys, mut seen: Seen) {
    loop {
        sleep(LOOK).await;
        seen = read(&issuer, &path, &keys, seen);
    }
}

async fn refresh(issuer: String, url: String, fetcher: Arc<Fetcher>, keys: Keys) {
    let mut good = Instant::now();
    let mut failing = false;
    loop {
        let fetched = fetcher.get(&url).await.map_err(|error| error.to_string());
        let pause = match fetched.and_then(|text| parse(&text)) {
            Ok(set) => {
                tracing::debug!(issuer, keys = ?set, "key set fetched");
                keys.store(Some(Arc::new(set)));
                (good, failing) = (Instant::now(), false);
                REFRESH
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(
                        issuer,
                        url,
                        error,
                        "key set cannot be fetched; the last one stays for a day"
                    );
                }
                if good.elapsed() > KEPT && keys.swap(None).is_some() {
                    tracing::error!(issuer, url, "key set is too old: its tokens cannot be checked any more");
                }
                RETRY
            }
        };
        sleep(pause).await;
    }
}
