//! Compares what was recorded of HTTP with what the front saw: one record for each request, one request for
//! each record that says that it went on.

use std::collections::BTreeMap;

use verbatim_api::v1::{Operation, Protocol, Status};

use super::methods::method;
use crate::{audit::Seen, did::Call, front::Request, sets::Differences};

/// What both know of a request: the principal (which the front knows by its peer's address), the API's method
/// or else verb and path, and the status of the answer.
type Key = (String, String, u16);

/// Compares the two; `principals` names the pods by their addresses.
pub fn compare(
    seen: &[Seen],
    requests: &[Request],
    principals: &[(&str, String)],
) -> Result<(), Differences> {
    let mut counts: BTreeMap<Key, (usize, usize)> = BTreeMap::new();
    let mut differences = Vec::new();
    for one in seen.iter().filter(|one| http(one) && one.status != Status::NotForwarded) {
        let what = if one.method.starts_with("bigquery.") { one.method.clone() } else { one.request() };
        counts.entry((one.principal.clone(), what, one.http_status)).or_default().0 += 1;
    }
    for one in requests {
        let Some((_, principal)) = principals.iter().find(|(address, _)| *address == one.peer) else {
            differences.push(format!("a request from {}, which is no pod: {one:?}", one.peer));
            continue;
        };
        let verb_and_path = || format!("{} {}", one.method, one.path);
        let what = method(&one.method, &one.path).map_or_else(verb_and_path, str::to_owned);
        counts.entry((principal.clone(), what, one.status)).or_default().1 += 1;
    }
    for ((principal, what, status), (recorded, arrived)) in counts {
        if recorded != arrived {
            differences.push(format!(
                "{what} answered with {status} for {principal}: recorded {recorded}, arrived {arrived}"
            ));
        }
    }
    if differences.is_empty() { Ok(()) } else { Err(Differences(differences)) }
}

/// Whether a record is of an HTTP request.
fn http(one: &Seen) -> bool {
    matches!(one.protocol, Protocol::Http1 | Protocol::Http2) && one.operation != Operation::Connect
}

/// Checks that what clients say that they called is among what was recorded, as often as they say.
pub fn calls(called: &[Call], principal: &str, seen: &[Seen]) -> Result<(), Differences> {
    let mut left: Vec<&Seen> = seen.iter().filter(|one| one.principal == principal).collect();
    let mut differences = Vec::new();
    for call in called {
        let name = |known: &str, prefix: &str| known.trim_start_matches(prefix).to_lowercase();
        let fits = |one: &&Seen| {
            one.method == call.call
                && call.op.as_ref().is_none_or(|op| name(one.operation.as_str_name(), "OPERATION_") == *op)
                && call
                    .status
                    .as_ref()
                    .is_none_or(|status| name(one.status.as_str_name(), "STATUS_") == *status)
                && call.http_status.is_none_or(|status| one.http_status == status)
        };
        match left.iter().position(fits) {
            Some(at) => drop(left.swap_remove(at)),
            None => differences.push(format!("not recorded, or not like this: {call:?}")),
        }
    }
    if differences.is_empty() { Ok(()) } else { Err(Differences(differences)) }
}
