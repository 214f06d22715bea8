//! How often somebody may ask.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hashlink::LruCache;

/// Those that are remembered; the least active are forgotten first.
const REMEMBERED: usize = 4096;

/// A bucket for each who asks: it holds a minute's worth, and fills evenly.
pub(crate) struct Limits {
    per_minute: f64,
    buckets: Mutex<LruCache<String, (f64, Instant)>>,
}

impl Limits {
    /// So many a minute.
    #[must_use]
    pub(crate) fn new(per_minute: u32) -> Self {
        Self { per_minute: f64::from(per_minute), buckets: Mutex::new(LruCache::new(REMEMBERED)) }
    }

    /// Whether this one may.
    #[must_use]
    pub(crate) fn admit(&self, who: &str, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = buckets.get(who).copied().unwrap_or((self.per_minute, now));
        let gained =
            now.saturating_duration_since(since).as_secs_f64() / MINUTE.as_secs_f64() * self.per_minute;
        let left = (left + gained).min(self.per_minute);
        let admitted = left >= 1.0;
        buckets.insert(who.to_owned(), (if admitted { left - 1.0 } else { left }, now));
        admitted
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_often_waits_and_others_do_not() {
        let limits = Limits::new(3);
        let start = Instant::now();
        let admitted = (0..5).filter(|_| limits.admit("a", start)).count();
        assert_eq!(admitted, 3);
        assert!(limits.admit("b", start));
        assert!(!limits.admit("a", start + Duration::from_secs(10)));
        assert!(limits.admit("a", start + Duration::from_secs(30)));
    }
}
