//! An authority of files, read again when they change: whoever renews them need not start the agent again.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use verbatim_agent_config as config;
use verbatim_tls::Authority;

use crate::trust::{Seen, authority_files};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(10);

/// Looks for as long as the agent runs. What cannot be used, half of a change not least, leaves the old in force.
/// `seen`: before the files were read first.
pub(crate) fn reread(config: &config::Authority, authority: Arc<Authority>, seen: Seen) -> JoinHandle<()> {
    follow(config, authority, seen, PAUSE)
}

fn follow(
    config: &config::Authority,
    authority: Arc<Authority>,
    seen: Seen,
    pause: Duration,
) -> JoinHandle<()> {
    let config = config.clone();
    tokio::spawn(async move {
        let mut last = seen;
        loop {
            tokio::time::sleep(pause).await;
            let now = Seen::of(&config);
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use verbatim_tls::{IssuingRoot, NameClass, Request, RootId};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Writes what an issuer of files would.
    fn write(config: &config::Authority, root: &IssuingRoot) {
        let request = Request::make().expect("made");
        let issued = root.intermediate(&request.pem().expect("PEM"), "node-1", HOUR).expect("issued");
        let [one] = config.intermediates.as_slice() else { panic!("one intermediate") };
        let put = |path: &PathBuf, text: &str| {
            let beside = path.with_extension("new");
            std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path)).expect("written");
        };
        put(&one.key, &request.key_pem());
        put(&one.certificate, &issued.certificate);
        put(&config.roots[0], &root.certificate_pem());
    }

    async fn until(authority: &Authority, wanted: &RootId) {
        for _ in 0..500 {
            if authority.leads_to().contains(wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not within 10 s");
    }

    fn named(folder: &std::path::Path) -> config::Authority {
        let path = |name: &str| folder.join(name);
        let intermediate = config::Intermediate { certificate: path("i.pem"), key: path("i.key") };
        config::Authority {
            roots: vec![path("roots.pem")],
            intermediates: vec![intermediate],
            ..config::Authority::default()
        }
    }

    fn root() -> IssuingRoot {
        IssuingRoot::make(NameClass::Api, &[], HOUR).expect("made")
    }

    #[tokio::test]
    async fn files_that_change_after_they_were_read_and_before_anybody_follows_them_are_used() {
        let folder = tempfile::tempdir().expect("folder");
        let config = named(folder.path());
        let (first, second) = (root(), root());
        write(&config, &first);
        let seen = Seen::of(&config);
        let authority =
            Arc::new(Authority::from_pem(&authority_files(&config).expect("read")).expect("used"));
        // Later than what a file system tells apart.
        tokio::time::sleep(Duration::from_millis(50)).await;
        write(&config, &second);
        let task = follow(&config, Arc::clone(&authority), seen, Duration::from_millis(20));
        until(&authority, &second.id()).await;
        task.abort();
    }

    #[tokio::test]
    async fn files_that_change_are_used_and_the_old_ones_where_they_are_none() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        let config = named(folder.path());
        let (first, second, third) = (root(), root(), root());
        write(&config, &first);
        let seen = Seen::of(&config);
        let authority =
            Arc::new(Authority::from_pem(&authority_files(&config).expect("read")).expect("used"));
        let task = follow(&config, Arc::clone(&authority), seen, Duration::from_millis(20));
        tokio::time::sleep(Duration::from_millis(100)).await;
        write(&config, &second);
        until(&authority, &second.id()).await;
        // Half a change is none, and the other half is noticed.
        std::fs::write(path("roots.pem"), "no root at all").expect("written");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(authority.leads_to(), [second.id()]);
        write(&config, &third);
        until(&authority, &third.id()).await;
        task.abort();
    }
}
