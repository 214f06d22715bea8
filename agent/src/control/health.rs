//! Whether the agent lives, and whether it captures what it is to capture.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use verbatim_kube::Store;
use verbatim_proxy::Shards;
use verbatim_steer::{HookReport, NamespaceTroubles, Steering};

use crate::{issued::Known, worker::Vitals};

/// A shard that has been silent for longer does not live.
const SILENCE: Duration = Duration::from_secs(3);

/// What can be wrong, each with the name under which it is shown.
pub(crate) type Conditions = Vec<(&'static str, Result<(), String>)>;

/// What the watchdog has found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hooks {
    /// Programs that do not run.
    pub(crate) missing: BTreeSet<&'static str>,
    /// Programs that run.
    pub(crate) effective: BTreeSet<&'static str>,
    /// Another agent has taken the hooks over.
    pub(crate) superseded: bool,
    /// The kernel did not say.
    pub(crate) unknown: bool,
    /// Losses so far.
    pub(crate) lost: u64,
    /// Programs brought back so far.
    pub(crate) restored: u64,
}

/// Looks at the agent's parts, without keeping any of them.
pub(crate) struct Health {
    pub(crate) vitals: Vitals,
    /// Where the API server tells of pods.
    pub(crate) pods: Option<Arc<Store>>,
    /// Where the cluster's issuer gives certificates.
    pub(crate) issuer: Option<Known>,
    heartbeat_timeout: Duration,
    /// Set once all namespaces that there were have been looked at.
    namespaces: OnceLock<NamespaceTroubles>,
    draining: AtomicBool,
    hooks: Mutex<Hooks>,
}

impl Health {
    pub(crate) fn new(
        vitals: Vitals,
        pods: Option<Arc<Store>>,
        issuer: Option<Known>,
        heartbeat_timeout: Duration,
    ) -> Self {
        Self {
            vitals,
            pods,
            issuer,
            heartbeat_timeout,
            namespaces: OnceLock::new(),
            draining: AtomicBool::new(false),
            hooks: Mutex::default(),
        }
    }

    pub(crate) fn steering(&self) -> Option<Arc<Steering>> {
        Weak::upgrade(&self.vitals.steering)
    }

    pub(crate) fn shards(&self) -> Option<Arc<Shards>> {
        Weak::upgrade(&self.vitals.shards)
    }

    /// All namespaces that there were have been looked at; what is wrong with them is known there.
    pub(crate) fn scanned(&self, troubles: NamespaceTroubles) {
        // They are looked at for the first time once.
        self.namespaces.set(troubles).ok();
    }

    /// What the kernel lacks and the agent can do without, and what follows.
    pub(crate) fn lacking(&self) -> Vec<String> {
        let steering = self.steering();
        let lacking = steering.iter().flat_map(|steering| steering.lacking());
        lacking.map(ToString::to_string).collect()
    }

    /// Namespaces that are not in use, or why that is not known.
    pub(crate) fn troubles(&self) -> Vec<String> {
        self.namespaces.get().map(NamespaceTroubles::now).unwrap_or_default()
    }

    /// It ends: nothing new is taken.
    pub(crate) fn draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// What the watchdog has found.
    pub(crate) fn hooks(&self, report: &HookReport, lost: usize, restored: usize) {
        let mut hooks = self.lock();
        hooks.unknown = false;
        hooks.superseded = report.superseded;
        hooks.missing =
            report.lost.iter().filter(|one| one.restored.is_err()).map(|one| one.program).collect();
        hooks.effective = report.effective.iter().copied().collect();
        hooks.lost = hooks.lost.saturating_add(u64::try_from(lost).unwrap_or(u64::MAX));
        hooks.restored = hooks.restored.saturating_add(u64::try_from(restored).unwrap_or(u64::MAX));
    }

    /// The watchdog has found nothing out.
    pub(crate) fn hooks_unknown(&self) {
        self.lock().unknown = true;
    }

    /// See [`Self::hooks`].
    pub(crate) fn found(&self) -> Hooks {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Hooks> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it lives: where it does not, only a new start helps.
    pub(crate) fn live(&self) -> Conditions {
        let draining = self.draining.load(Ordering::Relaxed);
        vec![("shards", self.shards_answer(draining)), ("heartbeat", self.heart_beats(draining))]
    }

    /// Whether it captures what it is to capture.
    pub(crate) fn ready(&self) -> Conditions {
        let mut conditions = self.live();
        let draining = self.draining.load(Ordering::Relaxed);
        conditions.extend([
            ("serving", if draining { Err("draining".to_owned()) } else { Ok(()) }),
            ("attached", self.attached()),
            ("namespaces", self.all_in_use()),
            ("programs", self.programs()),
            ("spool", said(!self.vitals.spool.is_full(), "full")),
        ]);
        // Without them no TLS ends here: a rollout is to stop at this node.
        conditions.extend(self.issuer.iter().map(|issuer| ("certificates", issuer.usable())));
        conditions
    }

    fn shards_answer(&self, draining: bool) -> Result<(), String> {
        match self.shards() {
            // Ended, and what is left is shipped.
            _ if draining => Ok(()),
            None => Err("ended".to_owned()),
            Some(shards) if shards.silence() > SILENCE => {
                Err(format!("silent for {} s", shards.silence().as_secs()))
            }
            Some(_) => Ok(()),
        }
    }

    fn heart_beats(&self, draining: bool) -> Result<(), String> {
        if draining {
            return Ok(());
        }
        match self.vitals.heartbeat.age() {
            Ok(age) if age > self.heartbeat_timeout => Err(format!("none for {} s", age.as_secs())),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn all_in_use(&self) -> Result<(), String> {
        match self.troubles() {
            _ if self.namespaces.get().is_none() => Err("not looked at yet".to_owned()),
            troubles if troubles.is_empty() => Ok(()),
            troubles => Err(troubles.join("; ")),
        }
    }

    fn attached(&self) -> Result<(), String> {
        said(self.steering().is_some_and(|steering| steering.is_attached()), "nothing is attached")
    }

    fn programs(&self) -> Result<(), String> {
        let hooks = self.lock();
        match () {
            () if hooks.superseded => Err("another agent has taken over".to_owned()),
            () if hooks.unknown => Err("unknown".to_owned()),
            () if hooks.missing.is_empty() => Ok(()),
            () => {
                Err(format!("not running: {}", hooks.missing.iter().copied().collect::<Vec<_>>().join(", ")))
            }
        }
    }
}

fn said(good: bool, otherwise: &str) -> Result<(), String> {
    if good { Ok(()) } else { Err(otherwise.to_owned()) }
}

/// Whether all is well, and a line for each condition.
pub(crate) fn report(conditions: &Conditions) -> (bool, String) {
    let line = |(name, state): &(&str, Result<(), String>)| match state {
        Ok(()) => format!("{name}: ok\n"),
        Err(why) => format!("{name}: {why}\n"),
    };
    (conditions.iter().all(|(_, state)| state.is_ok()), conditions.iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_condition_that_does_not_hold_is_enough() {
        let good = vec![("shards", Ok(())), ("spool", Ok(()))];
        assert_eq!(report(&good), (true, "shards: ok\nspool: ok\n".to_owned()));
        let bad = vec![("shards", Ok(())), ("spool", Err("full".to_owned()))];
        assert_eq!(report(&bad), (false, "shards: ok\nspool: full\n".to_owned()));
    }
}
