//! A person's order not to steer for a while: given, recorded, ended.
//!
//! The kernel has the order and ends it by itself; what is here says who may give one, and sees to it that its
//! begin and its end are records, also where an earlier worker or nobody at all was there to write them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::Notify;
use verbatim_api::v1::{self, CoverageEvent};
use verbatim_proxy::Shards;
use verbatim_steer::{Bypass, Bypasses, SteerError, Steering};
use verbatim_sys::clock;

use super::{
    person::Person,
    words::{Answer, Order},
};
use crate::worker::journal;

/// Between two looks: an order can also come from elsewhere, while no agent answered.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Why an order is not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("only root may give orders")]
    NotRoot,
    #[error("the configuration says `bypass.enabled: false`")]
    Disabled,
    #[error("a bypass may last {} at most (`bypass.maximum`)", humane(*.0))]
    TooLong(Duration),
    #[error("a bypass of no time is none: say for how long")]
    NoTime,
    #[error("a bypass needs a reason")]
    NoReason,
    #[error("the reason is longer than {} bytes", Bypass::REASON_BYTES)]
    LongReason,
    #[error(transparent)]
    Steer(#[from] SteerError),
}

/// What orders may be given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) enabled: bool,
    pub(crate) maximum: Duration,
}

impl Limits {
    /// The order for the kernel, if it may be given.
    pub(crate) fn admit(
        self,
        millis: u64,
        reason: &str,
        person: Person,
        counted_before: u64,
    ) -> Result<Bypass, Refusal> {
        let length = Duration::from_millis(millis);
        let reason = reason.trim();
        match () {
            () if !self.enabled => return Err(Refusal::Disabled),
            () if length.is_zero() => return Err(Refusal::NoTime),
            () if length > self.maximum => return Err(Refusal::TooLong(self.maximum)),
            () if reason.is_empty() => return Err(Refusal::NoReason),
            () if reason.len() > Bypass::REASON_BYTES => return Err(Refusal::LongReason),
            () => {}
        }
        let since_nanos = clock::monotonic_nanos();
        Ok(Bypass {
            since_nanos,
            until_nanos: since_nanos.saturating_add(millis.saturating_mul(1_000_000)),
            counted_before,
            uid: person.uid,
            login: person.login,
            reason: reason.to_owned(),
            recorded: false,
        })
    }
}

/// Takes orders and keeps account of them.
pub(crate) struct Orders {
    limits: Limits,
    bypasses: Bypasses,
    steering: Weak<Steering>,
    shards: Weak<Shards>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// The order whose begin was handed to the spool, by its time.
    told: Option<u64>,
    /// Since when the order holds whose begin was recorded last.
    begun: Option<u64>,
    /// Who ended the order of this time before its own time.
    ended_by: Option<(u64, Person)>,
    /// Orders that another took the place of, and what had passed under them.
    replaced: VecDeque<(Bypass, u64)>,
}

impl Orders {
    pub(crate) fn new(limits: Limits, steering: &Arc<Steering>, shards: &Arc<Shards>) -> Self {
        Self {
            limits,
            bypasses: steering.bypasses(),
            steering: Arc::downgrade(steering),
            shards: Arc::downgrade(shards),
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Carries an order out, and says how it stands then.
    pub(crate) fn carry_out(&self, order: &Order, person: Person) -> Answer {
        let done = match order {
            _ if person.uid != 0 => Err(Refusal::NotRoot),
            Order::Status | Order::Doctor => Ok(()),
            Order::End => self.end(person),
            Order::Bypass { millis, reason } => self.begin(*millis, reason, person),
        };
        match done.and_then(|()| self.answer()) {
            Ok(answer) => answer,
            Err(refusal) => Answer::Refused { why: refusal.to_string() },
        }
    }

    /// The order that holds, and what has passed under it.
    pub(crate) fn now(&self) -> Result<Option<(Bypass, u64)>, SteerError> {
        let order = self.bypasses.read()?.filter(|order| !order.left().is_zero());
        Ok(order.map(|order| {
            let passed = self.passed().saturating_sub(order.counted_before);
            (order, passed)
        }))
    }

    fn answer(&self) -> Result<Answer, Refusal> {
        Ok(match self.now()? {
            None => Answer::Steering,
            Some((order, passed)) => Answer::Bypassed {
                left_millis: u64::try_from(order.left().as_millis()).unwrap_or(u64::MAX),
                by: asked(&order).display(),
                reason: order.reason,
                passed,
            },
        })
    }

    fn begin(&self, millis: u64, reason: &str, person: Person) -> Result<(), Refusal> {
        let passed = self.passed();
        let order = self.limits.admit(millis, reason, person, passed)?;
        if let Some(before) = self.bypasses.read()? {
            let under = passed.saturating_sub(before.counted_before);
            self.state().replaced.push_back((before, under));
        }
        // Before it is recorded: a spool without room may be the very reason.
        self.bypasses.set(&order)?;
        self.changed.notify_one();
        Ok(())
    }

    fn end(&self, person: Person) -> Result<(), Refusal> {
        if let Some(order) = self.bypasses.read()?.filter(|order| !order.left().is_zero()) {
            self.state().ended_by = Some((order.since_nanos, person));
            self.bypasses.set(&Bypass { until_nanos: clock::monotonic_nanos(), ..order })?;
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Records begins and ends as they come. Never returns.
    pub(crate) async fn account(&self) {
        loop {
            let replaced = self.state().replaced.pop_front();
            if let Some((order, passed)) = replaced {
                // It may have been recorded while another took its place.
                if !order.recorded && self.state().begun != Some(order.since_nanos) {
                    self.record_begin(&order).await;
                }
                self.record_end(&order, passed, "another took its place").await;
                continue;
            }
            // Who goes on with the maps accounts for what is in them.
            if self.steering.upgrade().is_none_or(|steering| steering.is_frozen()) {
                self.wait(LOOK_AGAIN).await;
                continue;
            }
            let wait = match self.bypasses.read() {
                Ok(None) => LOOK_AGAIN,
                Ok(Some(order)) if !order.recorded && self.state().told != Some(order.since_nanos) => {
                    self.state().told = Some(order.since_nanos);
                    if self.record_begin(&order).await {
                        self.state().begun = Some(order.since_nanos);
                        self.change(&order, |order| order.recorded = true);
                    }
                    continue;
                }
                Ok(Some(order)) if order.left().is_zero() => {
                    let ended_by =
                        self.state().ended_by.take().filter(|(since, _)| *since == order.since_nanos);
                    let how = ended_by.map_or_else(
                        || "by itself".to_owned(),
                        |(_, person)| format!("by {}", person.display()),
                    );
                    let passed = self.passed().saturating_sub(order.counted_before);
                    self.record_end(&order, passed, &how).await;
                    self.forget(&order);
                    continue;
                }
                Ok(Some(order)) => order.left(),
                Err(error) => {
                    tracing::error!(%error, "whether steering is bypassed cannot be read");
                    LOOK_AGAIN
                }
            };
            self.wait(wait).await;
        }
    }

    /// For so long, or until an order comes.
    async fn wait(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.changed.notified() => {}
        }
    }

    async fn record_begin(&self, order: &Bypass) -> bool {
        let by = asked(order);
        let (left, reason) = (humane(order.left()), &order.reason);
        tracing::error!(
            alert = "bypass",
            %reason,
            by = %by.display(),
            %left,
            "steering is bypassed: connections pass uncaptured"
        );
        self.record(CoverageEvent::BypassBegan, 0, order, "").await
    }

    async fn record_end(&self, order: &Bypass, passed: u64, how: &str) {
        tracing::error!(alert = "bypass", passed, how, "steering is not bypassed any more");
        self.record(CoverageEvent::BypassEnded, passed, order, how).await;
    }

    async fn record(&self, event: CoverageEvent, count: u64, order: &Bypass, how: &str) -> bool {
        let Some(shards) = self.shards.upgrade() else { return false };
        let by = asked(order);
        let coverage = v1::Coverage {
            event: event.into(),
            count,
            until_wall_nanos: wall(order.until_nanos),
            ..v1::Coverage::default()
        };
        let bypass = v1::Bypass {
            reason: order.reason.clone(),
            uid: by.uid,
            user: by.user(),
            login: by.login_name(),
            end: how.to_owned(),
        };
        let content = v1::Content { bypass: Some(bypass), ..v1::Content::default() };
        journal::covered(&shards, coverage, Some(content)).await
    }

    /// Changes the order, if it is still the same.
    fn change(&self, order: &Bypass, change: impl FnOnce(&mut Bypass)) {
        let changed = self.bypasses.read().and_then(|now| match now {
            Some(mut now) if now.since_nanos == order.since_nanos => {
                change(&mut now);
                self.bypasses.set(&now)
            }
            _ => Ok(()),
        });
        if let Err(error) = changed {
            tracing::error!(%error, "that a bypass is recorded could not be noted");
        }
    }

    fn forget(&self, order: &Bypass) {
        let same = |now: Option<Bypass>| now.is_some_and(|now| now.since_nanos == order.since_nanos);
        let forgotten = self.bypasses.read().and_then(|now| match same(now) {
            true => self.bypasses.forget(),
            false => Ok(()),
        });
        if let Err(error) = forgotten {
            tracing::error!(%error, "that a bypass has ended could not be noted");
        }
    }

    fn passed(&self) -> u64 {
        let counters = self.steering.upgrade().and_then(|steering| steering.counters().ok());
        let bypassed = verbatim_steer::BYPASSED;
        let found = counters.into_iter().flatten().find(|(name, _)| *name == bypassed);
        found.map_or(0, |(_, value)| value)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn asked(order: &Bypass) -> Person {
    Person { uid: order.uid, login: order.login }
}

/// A time of CLOCK_MONOTONIC by the wall clock as it is now.
fn wall(monotonic_nanos: u64) -> u64 {
    let (now, wall) = (clock::monotonic_nanos(), clock::wall_nanos());
    match monotonic_nanos.checked_sub(now) {
        Some(ahead) => wall.saturating_add(ahead),
        None => wall.saturating_sub(now.saturating_sub(monotonic_nanos)),
    }
}

/// To a second, e.g. `14m59s`.
pub(crate) fn humane(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0) => format!("{}ms", time.as_millis()),
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, 0) => format!("{minutes}m"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, 0, 0) => format!("{hours}h"),
        (hours, minutes, _) => format!("{hours}h{minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { enabled: true, maximum: Duration::from_secs(3600) };
    const ROOT: Person = Person { uid: 0, login: Some(1000) };

    #[test]
    fn an_order_needs_a_reason_a_time_and_leave() {
        let refused = |limits: Limits, millis, reason: &str| {
            limits.admit(millis, reason, ROOT, 0).err().map(|refusal| refusal.to_string()).unwrap_or_default()
        };
        assert!(refused(LIMITS, 1, " \t").contains("needs a reason"));
        assert!(refused(LIMITS, 0, "why").contains("no time"));
        assert!(refused(LIMITS, 3_600_001, "why").contains("1h at most"));
        assert!(refused(LIMITS, 1, &"x".repeat(257)).contains("256 bytes"));
        assert!(refused(Limits { enabled: false, ..LIMITS }, 1, "why").contains("bypass.enabled"));
        assert_eq!(refused(LIMITS, 3_600_000, "why"), "");
    }

    #[test]
    fn an_order_says_who_why_and_until_when() {
        let order = LIMITS.admit(2000, " the database is down ", ROOT, 7).expect("order");
        assert_eq!(order.until_nanos - order.since_nanos, 2_000_000_000);
        assert_eq!((order.uid, order.login, order.counted_before), (0, Some(1000), 7));
        assert_eq!(order.reason, "the database is down");
        assert!(!order.recorded && !order.left().is_zero());
        assert!(wall(order.until_nanos) > clock::wall_nanos());
    }

    #[test]
    fn times_are_written_for_people() {
        let humane = |seconds| humane(Duration::from_secs(seconds));
        assert_eq!([humane(59), humane(900), humane(899)], ["59s", "15m", "14m59s"]);
        assert_eq!([humane(3600), humane(5400)], ["1h", "1h30m"]);
    }
}
