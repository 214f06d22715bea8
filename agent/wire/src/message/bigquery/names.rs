//! Names of BigQuery's resources, and keys of what goes on beyond a command.

use crate::{
    message::json::Value,
    seam::{ChainKey, ChainKind},
};

/// A job by its reference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) project: String,
    pub(super) location: String,
    pub(super) id: String,
}

impl Job {
    /// `None`: there is no job, or it has no id (a dry run).
    pub(super) fn of(reference: &Value, project: &str) -> Option<Self> {
        let id = reference.get("jobId").text().filter(|id| !id.is_empty())?;
        let project = reference.get("projectId").text().unwrap_or_else(|| project.to_owned());
        Some(Self { project, location: reference.get("location").text().unwrap_or_default(), id })
    }

    pub(super) fn key(&self) -> ChainKey {
        let Self { project, location, id } = self;
        let id = format!("{project}:{}.{id}", location.to_lowercase()).into_bytes();
        ChainKey { kind: ChainKind::BigQueryJob, id }
    }
}

/// The key of an upload. Its id is a credential.
pub(super) fn upload(host: &str, id: &str) -> ChainKey {
    ChainKey { kind: ChainKind::Upload, id: format!("{host} {id}").into_bytes() }
}

/// `projects/P/datasets/D[/KIND/NAME]`, by a reference.
pub(super) fn resource(reference: &Value, project: &str) -> Option<String> {
    let dataset = reference.get("datasetId").text()?;
    let project = reference.get("projectId").text().unwrap_or_else(|| project.to_owned());
    let mut name = format!("projects/{project}/datasets/{dataset}");
    for (kind, id) in [("tables", "tableId"), ("models", "modelId"), ("routines", "routineId")] {
        if let Some(id) = reference.get(id).text() {
            name.push_str(&format!("/{kind}/{id}"));
        }
    }
    if let Some(policy) = reference.get("policyId").text() {
        name.push_str(&format!("/rowAccessPolicies/{policy}"));
    }
    Some(name)
}
