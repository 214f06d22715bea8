//! Pods' network namespaces: listeners in them as they appear, and none where they are gone.
//!
//! Owns when listeners are made and handed over. What is accepted on them is the shards' business.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval},
};
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
    let mut looks = looks();
    loop {
        let change = match next(&mut changes, &mut looks, !without_address.is_empty()).await {
            Next::Change(change) => change,
            Next::Look => {
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

/// What to do.
enum Next<T> {
    /// `None`: nothing changes any more.
    Change(Option<T>),
    /// At namespaces without an address.
    Look,
}

fn looks() -> Interval {
    let mut looks = interval(ADDRESS_LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

/// Waits for a change; where a look is wanted, no longer than until it is due, however much changes meanwhile.
async fn next<T>(changes: &mut mpsc::Receiver<T>, looks: &mut Interval, wanted: bool) -> Next<T> {
    tokio::select! {
        change = changes.recv() => Next::Change(change),
        _ = looks.tick(), if wanted => Next::Look,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn namespaces_without_an_address_are_looked_at_however_much_changes() {
        let (sender, mut changes) = mpsc::channel(1);
        let changing = tokio::spawn(async move {
            for number in 0..50 {
                tokio::time::sleep(ADDRESS_LOOK / 5).await;
                sender.send(number).await.unwrap();
            }
        });
        let (mut looks, mut looked, mut changed) = (looks(), 0, 0);
        loop {
            match next(&mut changes, &mut looks, true).await {
                Next::Look => looked += 1,
                Next::Change(Some(_)) => changed += 1,
                Next::Change(None) => break,
            }
        }
        changing.await.unwrap();
        assert_eq!(changed, 50);
        assert!((9..=11).contains(&looked), "{looked} looks in ten times their interval");
    }
}
