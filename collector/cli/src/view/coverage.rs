//! What the kernel counted beside what is recorded, as a row, and whether all of it adds up.

use serde::Serialize;
use verbatim_api::v1;

use crate::names::Named;

/// Connects of one workload on one node to one destination.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CoverageView {
    pub(crate) node: String,
    pub(crate) principal: String,
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) pod: String,
    pub(crate) pod_uid: String,
    /// Where the workload could not be named.
    pub(crate) cgroup_id: Option<u64>,
    pub(crate) address: String,
    pub(crate) port: u32,
    pub(crate) connects: u64,
    pub(crate) decoded: u64,
    pub(crate) undecoded: Vec<CountView>,
    pub(crate) open: u64,
    pub(crate) cut_off: u64,
    pub(crate) denied: u64,
    pub(crate) missed: Vec<CountView>,
    pub(crate) passed: Vec<CountView>,
    pub(crate) failed: u64,
    pub(crate) pending: u64,
    pub(crate) missing: u64,
    pub(crate) missing_numbers: Vec<u64>,
    pub(crate) invented: u64,
    pub(crate) ahead: u64,
    pub(crate) uncounted: u64,
}

/// How many, of which kind.
#[derive(Debug, Serialize)]
pub(crate) struct CountView {
    pub(crate) kind: String,
    pub(crate) count: u64,
}

/// `3 tls, 1 silent`; empty for none.
pub(crate) fn counts(counts: &[CountView]) -> String {
    let each: Vec<_> = counts.iter().map(|one| format!("{} {}", one.count, one.kind)).collect();
    each.join(", ")
}

impl CoverageView {
    pub(crate) fn new(row: &v1::CoverageRow) -> Self {
        let workload = row.workload.clone().unwrap_or_default();
        let outcomes = |counts: &[v1::OutcomeCount]| {
            counts.iter().map(|one| CountView { kind: one.outcome().short(), count: one.count }).collect()
        };
        let reasons = row.undecoded.iter();
        Self {
            node: row.node.clone(),
            principal: row.principal.clone(),
            namespace: workload.namespace,
            service_account: workload.service_account,
            pod: workload.pod_name,
            pod_uid: workload.pod_uid,
            cgroup_id: (workload.cgroup_id != 0).then_some(workload.cgroup_id),
            address: row.address.clone(),
            port: row.port,
            connects: row.connects,
            decoded: row.decoded,
            undecoded: reasons
                .map(|one| CountView { kind: one.reason().short(), count: one.count })
                .collect(),
            open: row.open,
            cut_off: row.cut_off,
            denied: row.denied,
            missed: outcomes(&row.missed),
            passed: outcomes(&row.passed),
            failed: row.failed,
            pending: row.pending,
            missing: row.missing,
            missing_numbers: row.missing_numbers.clone(),
            invented: row.invented,
            ahead: row.ahead,
            uncounted: row.uncounted,
        }
    }

    /// Principal in short, or the cgroup.
    pub(crate) fn workload(&self) -> String {
        match (self.cgroup_id, self.principal.rsplit_once("/subject/")) {
            (Some(id), _) => format!("cgroup {id}"),
            (None, Some((_, subject))) => subject.to_owned(),
            (None, None) => self.principal.clone(),
        }
    }

    pub(crate) fn destination(&self) -> String {
        match self.address.as_str() {
            "" => String::new(),
            address if address.contains(':') => format!("[{address}]:{}", self.port),
            address => format!("{address}:{}", self.port),
        }
    }

    fn disagrees(&self) -> bool {
        self.missing > 0 || self.invented > 0
    }
}

/// One line over all rows; `Err` where the sums disagree.
pub(crate) fn verdict(rows: &[CoverageView]) -> Result<String, String> {
    let sum = |of: fn(&CoverageView) -> u64| rows.iter().map(of).sum::<u64>();
    let (connects, missing, invented) =
        (sum(|row| row.connects), sum(|row| row.missing), sum(|row| row.invented));
    let places: Vec<_> = rows
        .iter()
        .filter(|row| row.disagrees())
        .map(|row| format!("{} on {} to {}", row.workload(), row.node, row.destination()))
        .collect();
    if !places.is_empty() {
        const SHOWN: usize = 3;
        let more = places.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let shown = places.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
        return Err(format!(
            "the sums disagree: of {connects} connects, {missing} connections have no record, {invented} records \
             no count: {shown}{more}"
        ));
    }
    let mut line = format!("the sums agree: {connects} connects");
    for (count, what) in [
        (sum(|row| row.pending), "are too young to tell"),
        (sum(|row| row.uncounted), "could not be counted by destination"),
    ] {
        if count > 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> CoverageView {
        CoverageView {
            node: "n".into(),
            principal: "principal://pool/subject/ns/shop/sa/cart".into(),
            address: "fd00::1".into(),
            port: 5432,
            connects: 5,
            ..CoverageView::default()
        }
    }

    #[test]
    fn sums_that_agree_are_said_in_one_line_with_what_is_yet_to_come() {
        assert_eq!(verdict(&[row(), row()]), Ok("the sums agree: 10 connects".into()));
        let young = CoverageView { pending: 2, ..row() };
        assert_eq!(verdict(&[young]), Ok("the sums agree: 5 connects, 2 are too young to tell".into()));
    }

    #[test]
    fn sums_that_disagree_say_where() {
        let error = verdict(&[row(), CoverageView { missing: 1, ..row() }]).unwrap_err();
        assert!(error.contains("1 connections have no record"), "{error}");
        assert!(error.ends_with("ns/shop/sa/cart on n to [fd00::1]:5432"), "{error}");
    }

    #[test]
    fn a_workload_that_nobody_could_name_is_its_cgroup() {
        let unknown = CoverageView { principal: "unresolved".into(), cgroup_id: Some(9), ..row() };
        assert_eq!(unknown.workload(), "cgroup 9");
        let kinds = [("tls", 3), ("silent", 1)].map(|(kind, count)| CountView { kind: kind.into(), count });
        assert_eq!(counts(&kinds), "3 tls, 1 silent");
    }
}
