//! How many connections one network namespace may have open in a shard: as many as are still free for all.
//!
//! Connections cost descriptors and memory, and a workload can open any number and say nothing on them. What it opens
//! beyond its share waits in the queue of its own listener, and nobody else's waits with it. The rule is that of dynamic
//! queue thresholds in shared-memory switches (Choudhury and Hahne, 1998) with a factor of one: whoever is alone in being
//! greedy gets half of all, two get a third each, and there is always room for one more.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
};

/// Those of one network namespace.
#[derive(Debug)]
pub(crate) struct Share {
    netns_cookie: u64,
    open: Cell<usize>,
    crowded: Cell<bool>,
}

impl Share {
    /// One more is open.
    pub(crate) fn take(&self) {
        self.open.set(self.open.get().saturating_add(1));
    }

    /// One has ended.
    pub(crate) fn give_back(&self) {
        self.open.set(self.open.get().saturating_sub(1));
    }

    fn say_crowded(&self) {
        if !self.crowded.replace(true) {
            let (netns, open) = (self.netns_cookie, self.open.get());
            tracing::warn!(
                netns,
                open,
                "a network namespace has its share of connections: more of its own wait"
            );
        }
    }
}

/// A shard's.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    of: RefCell<HashMap<u64, Rc<Share>>>,
    full: Cell<bool>,
}

impl Shares {
    /// The share of a namespace that somebody listens in.
    pub(crate) fn of(&self, netns_cookie: u64) -> Rc<Share> {
        let mut shares = self.of.borrow_mut();
        let new = || Rc::new(Share { netns_cookie, open: Cell::new(0), crowded: Cell::new(false) });
        Rc::clone(shares.entry(netns_cookie).or_insert_with(new))
    }

    /// Nobody listens there any more.
    pub(crate) fn forget(&self, netns_cookie: u64) {
        self.of.borrow_mut().remove(&netns_cookie);
    }

    /// Whether one more may be taken, where so many are open in the shard of so many that can be. A namespace that is
    /// alone may have all.
    pub(crate) fn admit(&self, share: &Share, open: usize, most: usize) -> bool {
        let free = most.saturating_sub(open);
        if free == 0 {
            if !self.full.replace(true) {
                tracing::warn!(
                    open,
                    "as many connections are open as can be: more wait; raise the limit of open files, or of connections"
                );
            }
            return false;
        }
        if free > most / 4 {
            self.full.set(false);
        }
        let others = self.of.borrow().len() > 1;
        let admitted = !others || share.open.get() < free;
        if !admitted {
            share.say_crowded();
        } else if share.open.get() < free / 2 {
            // Not with each connection that comes and goes.
            share.crowded.set(false);
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes for these until nothing is admitted; how many each has.
    fn fill(shares: &Shares, greedy: &[&Share], most: usize, before: usize) -> Vec<usize> {
        let mut open = before;
        loop {
            let mut taken = false;
            for share in greedy {
                if shares.admit(share, open, most) {
                    share.take();
                    open += 1;
                    taken = true;
                }
            }
            if !taken {
                return greedy.iter().map(|share| share.open.get()).collect();
            }
        }
    }

    #[test]
    fn who_is_greedy_leaves_as_much_as_he_takes() {
        let shares = Shares::default();
        let (one, two, modest) = (shares.of(1), shares.of(2), shares.of(3));
        assert_eq!(fill(&shares, &[&one], 1000, 0), [500]);
        assert!(shares.admit(&modest, 500, 1000));
        let both = fill(&shares, &[&one, &two], 1000, 500);
        assert_eq!(both, [500, 250]);
        assert!(shares.admit(&modest, 750, 1000));
        assert!(!shares.admit(&one, 750, 1000));
    }

    #[test]
    fn who_is_alone_may_have_all_and_no_more() {
        let shares = Shares::default();
        let only = shares.of(1);
        assert_eq!(fill(&shares, &[&only], 1000, 0), [1000]);
        drop(shares.of(2));
        assert!(!shares.admit(&only, 999, 1000));
        shares.forget(2);
        assert!(shares.admit(&only, 999, 1000));
    }
}
