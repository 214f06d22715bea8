//! From command-line conditions to the API's filter.

use jiff::{Span, Timestamp};
use verbatim_api::v1;

use crate::{
    args::FilterArgs,
    failure::Failure,
    names::{Named, parse_id},
};

/// Builds the filter; times are taken relative to `now`.
pub(crate) fn build(args: &FilterArgs, now: Timestamp) -> Result<v1::Filter, Failure> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    Ok(v1::Filter {
        principal: text(&args.principal),
        namespace: text(&args.namespace),
        service_account: text(&args.service_account),
        pod: text(&args.pod),
        cluster: text(&args.cluster),
        owner: args.owner.as_deref().map_or(Ok(String::new()), owner)?,
        service: text(&args.service),
        database: text(&args.database),
        operations: values::<v1::Operation>(&args.operation)?,
        decisions: values::<v1::Decision>(&args.decision)?,
        statuses: values::<v1::Status>(&args.status)?,
        captures: values::<v1::Capture>(&args.capture)?,
        from_wall_nanos: args.since.as_deref().map_or(Ok(0), |t| time(t, now))?,
        to_wall_nanos: args.until.as_deref().map_or(Ok(0), |t| time(t, now))?,
        text: text(&args.text),
        flow_id: args.session.as_deref().map_or(Ok(Vec::new()), parse_id)?,
        method: text(&args.method),
        resource: text(&args.resource),
        http_statuses: args.http_status.clone(),
        findings: values::<v1::CommandFinding>(&args.finding)?,
        credential_matches: values::<v1::CredentialMatch>(&args.credential_match)?,
        on_behalf_of: text(&args.on_behalf_of),
        behalf_kinds: values::<v1::BehalfKind>(&args.behalf)?,
        resolutions: values::<v1::Resolution>(&args.resolution)?,
        parent_command_id: args.parent.as_deref().map_or(Ok(Vec::new()), parse_id)?,
    })
}

pub(crate) fn values<T: Named + Into<i32>>(names: &[String]) -> Result<Vec<i32>, Failure> {
    names.iter().map(|name| T::parse(name).map(Into::into)).collect()
}

/// `KIND/NAME`.
fn owner(text: &str) -> Result<String, Failure> {
    match text.split_once('/') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(text.to_owned())
        }
        _ => Err(Failure::Usage(format!("`{text}` is no owner: write KIND/NAME, e.g. Deployment/cart"))),
    }
}

/// `2026-11-24T10:00:00Z` or a span before now such as `90m`; nanoseconds since 1970.
pub(crate) fn time(text: &str, now: Timestamp) -> Result<u64, Failure> {
    let absolute = text.parse::<Timestamp>().ok();
    let at = absolute.or_else(|| {
        let span = text.parse::<Span>().ok()?;
        // A day has 24 hours here: what "7d ago" means must not depend on a time zone.
        let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
        now.checked_sub(duration).ok()
    });
    at.and_then(|at| u64::try_from(at.as_nanosecond()).ok()).ok_or_else(|| {
        Failure::Usage(format!(
            "`{text}` is no time: write 2026-11-24T10:00:00Z, or 90m, 2h, 7d for so long ago"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-24T10:00:00Z".parse().unwrap()
    }

    #[test]
    fn times_are_absolute_or_so_long_ago() {
        let hour = 3_600_000_000_000;
        let at = |text| time(text, now()).unwrap();
        assert_eq!(at("2026-11-24T09:00:00Z"), at("1h"));
        assert_eq!(at("2026-11-24T10:00:00+01:00"), at("60m"));
        assert_eq!(at("1h") - at("1d"), 23 * hour);
    }

    #[test]
    fn what_is_no_time_is_a_usage_error() {
        for text in ["", "yesterday", "10", "1969-01-01T00:00:00Z"] {
            assert_eq!(time(text, now()).unwrap_err().exit_code(), 2, "{text}");
        }
    }

    #[test]
    fn an_owner_has_a_kind_and_a_name() {
        for text in ["", "cart", "/cart", "Deployment/", "apps/Deployment/cart"] {
            assert_eq!(owner(text).unwrap_err().exit_code(), 2, "{text}");
        }
    }

    #[test]
    fn conditions_become_the_api_s_filter() {
        let args = FilterArgs {
            operation: vec!["query".into(), "execute".into()],
            status: vec!["not-forwarded".into()],
            since: Some("1h".into()),
            method: Some("bigquery.jobs.query".into()),
            http_status: vec![403],
            finding: vec!["host-mismatch".into(), "credential-of-another".into()],
            credential_match: vec!["no".into()],
            on_behalf_of: Some("ada".into()),
            behalf: vec!["verified".into()],
            resolution: vec!["pod-unknown".into()],
            cluster: Some("projects/p/locations/l/clusters/c".into()),
            owner: Some("Deployment/cart".into()),
            parent: Some("00000000-0000-0000-0000-000000000001".into()),
            ..FilterArgs::default()
        };
        let filter = build(&args, now()).unwrap();
        assert_eq!(filter.operations, [v1::Operation::Query as i32, v1::Operation::Execute as i32]);
        assert_eq!(filter.statuses, [v1::Status::NotForwarded as i32]);
        assert!(filter.from_wall_nanos > 0 && filter.to_wall_nanos == 0);
        assert_eq!((filter.method.as_str(), &filter.http_statuses[..]), ("bigquery.jobs.query", &[403][..]));
        let findings =
            [v1::CommandFinding::HostMismatch as i32, v1::CommandFinding::CredentialOfAnother as i32];
        assert_eq!(filter.findings, findings);
        assert_eq!(filter.credential_matches, [v1::CredentialMatch::No as i32]);
        assert_eq!(filter.resolutions, [v1::Resolution::PodUnknown as i32]);
        assert_eq!(
            (filter.cluster.as_str(), filter.owner.as_str()),
            ("projects/p/locations/l/clusters/c", "Deployment/cart")
        );
        let verified = [v1::BehalfKind::Verified as i32];
        assert_eq!((filter.on_behalf_of.as_str(), &filter.behalf_kinds[..]), ("ada", &verified[..]));
        assert_eq!((filter.parent_command_id.len(), filter.parent_command_id.last()), (16, Some(&1)));
    }
}
