//! From the sums of series to rows by node, workload and destination, and to findings.

use std::collections::BTreeMap;

use prost::Message as _;
use verbatim_api::v1::{self, FindingKind, PrincipalKind};

use super::{Answer, CoverageError, series::Sums};
use crate::{
    index::{
        Id,
        counts::{Reading, SeriesKey},
    },
    log::{Location, LogView},
    store::StoreError,
};

/// Rows of an answer; of what is more, destinations are put together.
const MOST: usize = 5_000;

/// Whose connects, and where they went.
#[derive(Clone, Debug, Default)]
pub(super) struct Who {
    node: String,
    principal: String,
    workload: v1::Workload,
    address: String,
    port: u32,
    /// Of the record that says so.
    pub(super) chain: Id,
    pub(super) wall: u64,
}

impl Who {
    /// Nobody in particular.
    pub(super) fn node(node: &str) -> Self {
        Self { node: node.to_owned(), ..Self::default() }
    }

    /// As a record says. `None`: it is not kept any more, or cannot be read.
    pub(super) fn read(view: &LogView, at: &Location) -> Result<Option<Self>, CoverageError> {
        let (envelope, content) = match view.entry(at) {
            Ok(entry) => entry,
            Err(StoreError::Gone { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Ok(envelope) = v1::Envelope::decode(envelope) else { return Ok(None) };
        let content = v1::Content::decode(content).unwrap_or_default();
        let mut workload = envelope.workload.unwrap_or_default();
        let target = content.target.unwrap_or_default();
        let local = content.client.unwrap_or_default().local_user;
        let unresolved = workload.principal_kind() == PrincipalKind::Unresolved;
        let principal = match () {
            () if !workload.principal.is_empty() => workload.principal.clone(),
            () if !local.is_empty() => local,
            () if unresolved => "unresolved".to_owned(),
            () => String::new(),
        };
        // A workload may have several cgroups; only one that nobody can name is its cgroup.
        if !unresolved {
            workload.cgroup_id = 0;
        }
        workload.container.clear();
        Ok(Some(Self {
            node: workload.node.clone(),
            principal,
            workload,
            address: target.address,
            port: target.port,
            chain: Id::try_from(envelope.chain_id.as_slice()).unwrap_or_default(),
            wall: envelope.wall_nanos,
        }))
    }

    pub(super) fn is_named(&self) -> bool {
        self.workload.principal_kind() != PrincipalKind::Unresolved
    }

    fn matches(&self, question: &v1::CoverageRequest, key: &SeriesKey) -> bool {
        let of = &self.workload;
        let is = |wanted: &str, value: &str| !value.is_empty() && wanted == value;
        let wanted = &question.workload;
        (question.node.is_empty() || question.node == self.node)
            && (wanted.is_empty()
                || is(wanted, &self.principal)
                || is(wanted, &format!("{}/{}", of.namespace, of.service_account))
                || is(wanted, &of.pod_name)
                || is(wanted, &of.pod_uid)
                || is(wanted, &key.cgroup.to_string()))
    }

    /// What a row is one of.
    fn place(&self) -> Place {
        let of = &self.workload;
        let workload = [&self.principal, &of.namespace, &of.service_account, &of.pod_name, &of.pod_uid];
        Place {
            node: self.node.clone(),
            workload: workload.map(Clone::clone),
            cgroup: of.cgroup_id,
            address: self.address.clone(),
            port: self.port,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    node: String,
    workload: [String; 5],
    cgroup: u64,
    address: String,
    port: u32,
}

/// Rows in the making.
pub(super) struct Rows<'a> {
    question: &'a v1::CoverageRequest,
    rows: BTreeMap<Place, v1::CoverageRow>,
    findings: Vec<v1::Finding>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(question: &'a v1::CoverageRequest) -> Self {
        Self { question, rows: BTreeMap::new(), findings: Vec::new() }
    }

    /// Adds a series. Whose it is, is only asked where there is something to add.
    pub(super) fn add(
        &mut self,
        key: &SeriesKey,
        sums: Sums,
        reading: Option<&Reading>,
        who: impl FnOnce() -> Result<Who, CoverageError>,
    ) -> Result<(), CoverageError> {
        if sums == Sums::default() || (!self.question.node.is_empty() && self.question.node != key.node) {
            return Ok(());
        }
        let who = who()?;
        if !who.matches(self.question, key) {
            return Ok(());
        }
        if sums.disagree() {
            self.findings.push(finding(&who, &sums, reading));
        }
        let row = self.rows.entry(who.place()).or_insert_with(|| v1::CoverageRow {
            node: who.node.clone(),
            principal: who.principal.clone(),
            workload: Some(who.workload.clone()),
            address: who.address.clone(),
            port: who.port,
            ..v1::CoverageRow::default()
        });
        add(row, &as_row(&sums));
        Ok(())
    }

    pub(super) fn finish(self) -> Answer {
        let mut rows: Vec<(Place, v1::CoverageRow)> = self.rows.into_iter().collect();
        if rows.len() > MOST {
            rows.sort_by_key(|(_, row)| std::cmp::Reverse((row.missing + row.invented, row.connects)));
            let mut others: BTreeMap<Place, v1::CoverageRow> = BTreeMap::new();
            for (mut place, mut row) in rows.split_off(MOST) {
                (place.address, place.port) = (String::new(), 0);
                (row.address, row.port) = (String::new(), 0);
                match others.get_mut(&place) {
                    Some(sum) => add(sum, &row),
                    None => drop(others.insert(place, row)),
                }
            }
            rows.extend(others);
            rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        Answer { rows: rows.into_iter().map(|(_, row)| row).collect(), findings: self.findings }
    }
}

fn as_row(sums: &Sums) -> v1::CoverageRow {
    let outcomes = |counts: &[(v1::ConnectOutcome, u64)]| {
        counts
            .iter()
            .map(|(outcome, count)| v1::OutcomeCount { outcome: (*outcome).into(), count: *count })
            .collect()
    };
    let reasons = sums.undecoded.iter();
    v1::CoverageRow {
        connects: sums.connects,
        decoded: sums.decoded,
        undecoded: reasons
            .map(|(reason, count)| v1::ReasonCount { reason: (*reason).into(), count: *count })
            .collect(),
        open: sums.open,
        cut_off: sums.cut_off,
        denied: sums.denied,
        missed: outcomes(&sums.missed),
        passed: outcomes(&sums.passed),
        failed: sums.failed,
        pending: sums.pending,
        missing: sums.missing,
        missing_numbers: sums.missing_numbers.clone(),
        invented: sums.invented,
        ahead: sums.ahead,
        uncounted: sums.uncounted,
        ..v1::CoverageRow::default()
    }
}

fn add(sum: &mut v1::CoverageRow, more: &v1::CoverageRow) {
    sum.connects += more.connects;
    sum.decoded += more.decoded;
    sum.open += more.open;
    sum.cut_off += more.cut_off;
    sum.denied += more.denied;
    sum.failed += more.failed;
    sum.pending += more.pending;
    sum.missing += more.missing;
    sum.invented += more.invented;
    sum.ahead += more.ahead;
    sum.uncounted += more.uncounted;
    sum.missing_numbers.extend(&more.missing_numbers);
    for one in &more.undecoded {
        match sum.undecoded.iter_mut().find(|known| known.reason == one.reason) {
            Some(known) => known.count += one.count,
            None => sum.undecoded.push(*one),
        }
    }
    for (sums, more) in [(&mut sum.missed, &more.missed), (&mut sum.passed, &more.passed)] {
        for one in more {
            match sums.iter_mut().find(|known| known.outcome == one.outcome) {
                Some(known) => known.count += one.count,
                None => sums.push(*one),
            }
        }
    }
}

fn finding(who: &Who, sums: &Sums, reading: Option<&Reading>) -> v1::Finding {
    let whose = match who.principal.as_str() {
        "unresolved" => format!("cgroup {}", who.workload.cgroup_id),
        principal => principal.to_owned(),
    };
    let mut what = Vec::new();
    if sums.missing > 0 {
        let numbers: Vec<String> = sums.missing_numbers.iter().map(u64::to_string).collect();
        let more = if sums.missing > sums.missing_numbers.len() as u64 { ", …" } else { "" };
        what.push(format!(
            "{} connections that the kernel counted have no record (numbers {}{more})",
            sums.missing,
            numbers.join(", ")
        ));
    }
    if sums.invented > 0 {
        what.push(format!("{} records are of connections that the kernel did not count", sums.invented));
    }
    let to = match (who.address.as_str(), who.port) {
        ("", _) => "a destination that was deleted".to_owned(),
        (address, port) if address.contains(':') => format!("[{address}]:{port}"),
        (address, port) => format!("{address}:{port}"),
    };
    v1::Finding {
        kind: FindingKind::CoverageDisagrees.into(),
        chain_id: reading.map_or(who.chain, |reading| reading.chain).to_vec(),
        first_sequence: reading.map_or(0, |reading| reading.sequence),
        last_sequence: reading.map_or(0, |reading| reading.sequence),
        found_wall_nanos: reading.map_or(who.wall, |reading| reading.wall),
        detail: format!("node {}, {whose} to {to}: {}", who.node, what.join("; ")),
    }
}
