//! Pods' network namespaces: listeners in them as they appear, and none where they are gone.
//!
//! Owns when listeners are made and handed over. What is accepted on them is the shards' business.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use verbatim_proxy::Shards;
use verbatim_steer::{NamespaceChange, NamespaceListeners, NamespaceWatcher, Namespaces, SteerError};

use crate::worker;
use verbatim_agent_config as config;

/// How often namespaces without an address are looked at again, and for how long.
const ADDRESS_LOOK: Duration = Duration::from_millis(500);
const ADDRESS_LOOKS: u32 = 240;

/// What the watcher's thread tells the control thread.
pub(super) enum Change {
    Appeared(NamespaceListeners),
    Gone(u64),
}

/// Makes listeners in namespaces as they appear, before a workload's first command.
pub(super) fn watch(
    config: &config::Namespaces,
    namespaces: Namespaces,
    changes: mpsc::Sender<Change>,
) -> io::Result<NamespaceWatcher> {
    let pattern = config.pattern.clone();
    let mut cookies: HashMap<String, u64> = HashMap::new();
    let changed = move |change| match change {
        NamespaceChange::Appeared { name, namespace } => match namespaces.add(&name, namespace) {
            Ok(made) => {
                cookies.insert(name, made.cookie);
                changes.blocking_send(Change::Appeared(made)).is_ok()
            }
            Err(error) => {
                // Just being made, or undone: it is offered again.
                tracing::debug!(namespace = %name, %error, "no listener yet");
                matches!(error, SteerError::NamespaceKnown { .. })
            }
        },
        NamespaceChange::Gone { name } => {
            if let Some(cookie) = cookies.remove(&name) {
                namespaces
                    .remove(cookie)
                    .inspect_err(|error| tracing::error!(%error, "namespace stays listed"))
                    .ok();
                changes.blocking_send(Change::Gone(cookie)).ok();
            }
            true
        }
    };
    NamespaceWatcher::start(&config.directory, move |name| pattern.matches(name).is_some(), changed)
}

/// Hands listeners to the shards and takes them away; looks for the addresses of pods that have none yet.
pub(super) async fn follow(mut changes: mpsc::Receiver<Change>, shards: Arc<Shards>, namespaces: Namespaces) {
    let mut without_address: HashMap<u64, u32> = HashMap::new();
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = tokio::time::sleep(ADDRESS_LOOK), if !without_address.is_empty() => {
                without_address.retain(|cookie, looks| {
                    *looks += 1;
                    let found = namespaces.refresh(*cookie);
                    let complete = found.as_ref().is_ok_and(|found| found.v4.is_some() || found.v6.is_some());
                    found.is_ok() && !complete && *looks < ADDRESS_LOOKS
                });
                continue;
            }
        };
        match change {
            None => return,
            Some(Change::Gone(cookie)) => {
                without_address.remove(&cookie);
                if let Err(error) = shards.stop_listening(cookie).await {
                    tracing::error!(%error, "listeners of a namespace that is gone stay open");
                }
            }
            Some(Change::Appeared(made)) => {
                if made.addresses.v4.is_none() && made.addresses.v6.is_none() {
                    without_address.insert(made.cookie, 0);
                }
                let name = made.name.clone();
                if let Err(error) = worker::listen(&shards, made).await {
                    tracing::error!(%error, namespace = %name, "connections from there are refused");
                }
            }
        }
    }
}
