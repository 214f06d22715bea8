//! What the servers themselves logged: PostgreSQL, and the front of Google's services.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::Result;

use super::judge::Logged;
use crate::{did, front, lab::Lab, pglog, tail::Tail};

/// Reads both logs as they grow.
#[derive(Debug)]
pub(super) struct Witness {
    database: Tail,
    front: Tail,
    /// By the mark that ids carry.
    by_mark: BTreeMap<String, Logged>,
    none: Logged,
    /// May come late.
    on_the_way: BTreeSet<String>,
}

impl Witness {
    pub(super) fn new(lab: &Lab) -> Result<Self> {
        let front: PathBuf = lab.google()?.log_file().to_owned();
        Ok(Self {
            database: Tail::new(lab.server.log_file()),
            front: Tail::new(front),
            by_mark: BTreeMap::new(),
            none: Logged::new(),
            on_the_way: BTreeSet::new(),
        })
    }

    /// Takes in what came since.
    pub(super) fn read(&mut self) -> Result<()> {
        for statement in pglog::read(&self.database.lines()?)? {
            did::ids(statement.text.as_bytes()).into_iter().for_each(|id| self.count(id));
        }
        for request in front::read(&self.front.lines()?)? {
            request.ids.into_iter().for_each(|id| self.count(id));
        }
        Ok(())
    }

    fn count(&mut self, id: String) {
        let mark = id.split('-').nth(1).unwrap_or_default().to_owned();
        *self.by_mark.entry(mark).or_default().entry(id).or_default() += 1;
    }

    /// What was logged of a round.
    pub(super) fn of(&self, mark: &str) -> &Logged {
        self.by_mark.get(mark).unwrap_or(&self.none)
    }

    /// A round that was judged: what comes of it from now on comes late.
    pub(super) fn forget(&mut self, mark: &str, on_the_way: BTreeSet<String>) {
        self.by_mark.remove(mark);
        self.on_the_way.extend(on_the_way);
    }

    /// What was logged of no round, or late.
    pub(super) fn rest(&mut self) -> Result<Vec<String>> {
        self.read()?;
        // Once each.
        let late = |(id, times): &(&String, &usize)| **times > 1 || !self.on_the_way.contains(*id);
        Ok(self.by_mark.values().flatten().filter(late).map(|(id, _)| id.clone()).collect())
    }
}
