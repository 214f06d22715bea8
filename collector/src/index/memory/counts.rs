//! Counts and chains without a file.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::MemoryIndex;
use crate::{
    index::{
        Id, IndexError, SessionRow,
        counts::{
            ChainPart, ChainRow, ChainStep, Class, Counts, LAST, Reading, Recorded, SeriesKey, gaps,
            superfluous,
        },
    },
    log::Location,
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Counted {
    chains: HashMap<Id, ChainRow>,
    readings: BTreeMap<(SeriesKey, i32), Vec<Reading>>,
}

impl Counted {
    pub(super) fn chain(&mut self, part: &ChainPart) {
        self.chains.entry(part.chain).or_default().merge(part);
        if let ChainStep::Opened { predecessor: Some(predecessor), .. } = &part.step {
            let row = self.chains.entry(*predecessor).or_default();
            (row.chain, row.succeeded) = (*predecessor, true);
        }
    }

    pub(super) fn reading(&mut self, reading: &Reading) {
        let of = self.readings.entry((reading.key.clone(), reading.outcome)).or_default();
        let walls: Vec<u64> = of.iter().rev().map(|one| one.wall).collect();
        if superfluous(&walls) {
            of.remove(of.len() - LAST);
        }
        of.push(reading.clone());
    }

    /// Name of a chain's node; empty where its opening is not known.
    pub(super) fn node(&self, chain: &Id) -> String {
        self.chains.get(chain).map(|row| row.node.clone()).unwrap_or_default()
    }

    pub(super) fn forget_below(&mut self, position: u64) {
        for readings in self.readings.values_mut() {
            readings.retain(|reading| reading.location.position >= position);
        }
        self.readings.retain(|_, readings| !readings.is_empty());
    }
}

fn key(row: &SessionRow) -> SeriesKey {
    SeriesKey { node: row.node.clone(), cgroup: row.cgroup, series: row.series }
}

impl MemoryIndex {
    fn of<T>(&self, of: &SeriesKey, above: u64, up_to: u64, found: impl Fn(Vec<&SessionRow>) -> T) -> T {
        let tables = self.tables();
        let rows = tables.sessions.values();
        found(rows.filter(|row| key(row) == *of && row.number > above && row.number <= up_to).collect())
    }
}

impl Counts for MemoryIndex {
    fn chains(&self) -> Result<Vec<ChainRow>, IndexError> {
        Ok(self.tables().counted.chains.values().cloned().collect())
    }

    fn readings(&self) -> Result<Vec<Reading>, IndexError> {
        let tables = self.tables();
        let mut all = Vec::new();
        for readings in tables.counted.readings.values() {
            let mut of = readings.clone();
            of.sort_by_key(|reading| reading.boottime);
            all.extend(of);
        }
        Ok(all)
    }

    fn recorded(&self) -> Result<Vec<(SeriesKey, u64, u64)>, IndexError> {
        let mut found: BTreeMap<SeriesKey, (u64, u64)> = BTreeMap::new();
        for row in self.tables().sessions.values() {
            let (count, highest) = found.entry(key(row)).or_default();
            *count += 1;
            *highest = row.number.max(*highest);
        }
        Ok(found.into_iter().map(|(key, (count, highest))| (key, count, highest)).collect())
    }

    fn between(&self, key: &SeriesKey, above: u64, up_to: u64) -> Result<Recorded, IndexError> {
        Ok(self.of(key, above, up_to, |rows| {
            let mut classes: BTreeMap<(i32, i32, bool), u64> = BTreeMap::new();
            for row in &rows {
                *classes.entry((row.capture, row.reason, row.closed_wall == 0)).or_default() += 1;
            }
            let numbers: BTreeSet<u64> = rows.iter().map(|row| row.number).collect();
            let class = |((capture, reason, open), count)| Class { capture, reason, open, count };
            Recorded { classes: classes.into_iter().map(class).collect(), numbers: numbers.len() as u64 }
        }))
    }

    fn absent(&self, key: &SeriesKey, above: u64, up_to: u64, most: usize) -> Result<Vec<u64>, IndexError> {
        Ok(self.of(key, above, up_to, |rows| {
            let numbers: BTreeSet<u64> = rows.iter().map(|row| row.number).collect();
            gaps(numbers.into_iter(), above, up_to, most)
        }))
    }

    fn older(&self, key: &SeriesKey, above: u64, boottime: u64) -> Result<u64, IndexError> {
        let older = |rows: Vec<&SessionRow>| rows.iter().filter(|r| r.opened_boottime <= boottime).count();
        Ok(self.of(key, above, u64::MAX, older) as u64)
    }

    fn sample(&self, key: &SeriesKey) -> Result<Option<Location>, IndexError> {
        let latest = |rows: Vec<&SessionRow>| {
            rows.into_iter().max_by_key(|row| row.number).and_then(|row| row.opened.or(row.closed))
        };
        // Numbers begin at 1; those of series 0 are all 0 and nobody asks for them.
        Ok(self.of(key, 0, u64::MAX, latest))
    }
}
