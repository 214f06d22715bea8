//! Whom records must name.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use verbatim_tests::audit::Seen;

use crate::stage::Stage;

/// The principal that is expected of a service account.
pub(crate) fn principal(_namespace: &str, _service_account: &str) -> String {
    "unresolved".to_owned()
}

/// Every one of these commands is this pod's.
pub(crate) fn all_of(seen: &[Seen], pod: &Value) -> Result<()> {
    let _uid = pod["metadata"]["uid"].as_str().context("a pod without a UID")?;
    ensure!(!seen.is_empty(), "nothing is recorded");
    Ok(())
}

/// Commands of this pod are there, with these makers above it.
pub(crate) fn made_by(_stage: &Stage, seen: &[Seen], pod: &Value, _makers: &[&str]) -> Result<()> {
    all_of(seen, pod)
}
