//! A report for people.

use std::fmt::Write as _;

use super::{Report, Workload, diagnosis::Captured};

const HEADINGS: [&str; 4] = ["NAMESPACE", "POD", "CONTAINER", "CAPTURED"];

/// Nothing that a workload chose reaches the terminal as it is.
fn clean(text: &str) -> String {
    let mut line = String::new();
    verbatim_terminal::escape(text.as_bytes(), &mut line);
    line
}

fn captured(captured: Captured) -> &'static str {
    match captured {
        Captured::Everything => "everything",
        Captured::MostOfIt => "most of it",
        Captured::WithoutTls => "without TLS",
        Captured::Nothing => "nothing",
    }
}

fn cells(workload: &Workload) -> [String; 4] {
    let or = |text: &str, other: &str| clean(if text.is_empty() { other } else { text });
    let mut how = captured(workload.captured).to_owned();
    if workload.host_network {
        how.push_str(" (node's network)");
    }
    [or(&workload.namespace, "?"), or(&workload.pod, &workload.pod_uid), or(&workload.container, "?"), how]
}

/// A line a container, and two for each reason: why, and what to do.
pub(crate) fn shown(report: &Report) -> String {
    let rows: Vec<_> = report.workloads.iter().map(cells).collect();
    let mut widths = HEADINGS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: [&str; 4]| {
        let padded: Vec<_> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        // Writing to a text cannot fail.
        writeln!(text, "{}", padded.join("  ").trim_end()).ok();
    };
    if !rows.is_empty() {
        line(HEADINGS);
    }
    let mut findings = Vec::new();
    for (workload, row) in report.workloads.iter().zip(&rows) {
        line([&row[0], &row[1], &row[2], &row[3]]);
        findings.push(&workload.findings);
    }
    // Reasons go below their line, so they are put in from the end.
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (index, findings) in findings.iter().enumerate().rev() {
        let mut below = Vec::new();
        for finding in *findings {
            below.push(format!("    {}", clean(&finding.text())));
            below.push(format!("      → {}", finding.advice()));
        }
        let at = index.saturating_add(2);
        lines.splice(at..at, below);
    }
    let mut head = Vec::new();
    for problem in &report.agent {
        head.push(format!("the agent itself: {}", clean(problem)));
    }
    head.extend(report.kernel.iter().map(|lacking| clean(lacking)));
    match &report.authority {
        None => head.push("TLS is not looked into: the configuration has no `tls`".to_owned()),
        Some(authority) => {
            if let Some(why) = &authority.failing {
                head.push(format!("the issuer gave nothing when it was asked last: {}", clean(why)));
            }
            if !authority.ready {
                head.push("there are no certificates to end TLS with: all TLS is spliced".to_owned());
            }
        }
    }
    let count = report.workloads.len();
    let well = report.workloads.iter().filter(|workload| workload.is_well()).count();
    lines.push(format!("{well} of {count} containers are as they should be"));
    head.extend(lines);
    head.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{AuthorityReport, diagnosis::Finding};

    #[test]
    fn a_reason_stands_below_its_container_with_what_to_do_and_steers_no_terminal() {
        let workload = |pod: &str, findings: Vec<Finding>| Workload {
            namespace: "shop".into(),
            pod: pod.into(),
            container: "app".into(),
            pod_uid: "u".into(),
            cgroup: "c".into(),
            host_network: false,
            captured: if findings.is_empty() { Captured::Everything } else { Captured::MostOfIt },
            findings,
        };
        let refused = Finding::Refused {
            service: "a\x1b[2J:443".into(),
            alert: "unknown_ca".into(),
            since_unix_seconds: 1,
        };
        let report = Report {
            agent: vec!["spool: full".into()],
            kernel: vec![],
            authority: Some(AuthorityReport {
                ready: false,
                roots: vec![],
                until: None,
                failing: Some("429".into()),
            }),
            workloads: vec![workload("good-1", vec![]), workload("bad-1", vec![refused])],
        };
        assert!(!report.is_well());
        let text = shown(&report);
        assert!(!text.contains('\x1b'), "{text}");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "the agent itself: spool: full");
        assert!(lines[1].contains("429") && lines[2].contains("spliced"));
        assert!(
            lines[3].starts_with("NAMESPACE") && lines[4].contains("good-1") && lines[5].contains("bad-1")
        );
        assert!(lines[6].starts_with("    it refused") && lines[7].starts_with("      → "));
        assert_eq!(lines[8], "1 of 2 containers are as they should be");
    }
}
