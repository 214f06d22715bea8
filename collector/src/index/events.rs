//! What agents tell of themselves: one row a record of coverage that is no count.
//!
//! Only keeps and finds; nothing is joined.

use verbatim_api::v1;

use super::{Id, IndexError};
use crate::log::Location;

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventRow {
    /// Orders by time, as [`super::CommandRow::key`]; the index gives it.
    pub key: i64,
    /// Of the record.
    pub id: Id,
    /// Of the record: whose node it is, its chain says.
    pub chain: Id,
    /// `CoverageEvent`.
    pub event: i32,
    /// As [`super::Names::principal`]: content-borne where it is local.
    pub principal: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes service account.
    pub service_account: String,
    /// Pod's name.
    pub pod_name: String,
    /// Pod's UID.
    pub pod_uid: String,
    /// cgroup v2 id; 0 where it is of no workload.
    pub cgroup: u64,
    /// Wall clock, nanoseconds.
    pub wall: u64,
    /// Where the record is.
    pub location: Location,
}

/// What is looked for; an empty field does not restrict.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// `CoverageEvent`: one of them.
    pub events: Vec<i32>,
    /// Name of the node.
    pub node: String,
    /// Principal, NAMESPACE/SERVICE-ACCOUNT, pod's name or UID, or cgroup id.
    pub workload: String,
    /// Half-open interval of the wall clock, nanoseconds; 0 does not restrict.
    pub from_wall: u64,
    /// See `from_wall`.
    pub to_wall: u64,
    /// Only rows behind this one, in the asked order.
    pub after: Option<i64>,
    /// Ascending by time.
    pub oldest_first: bool,
    /// Rows at most.
    pub limit: usize,
}

impl EventQuery {
    /// Of a question; where a page begins and ends is not in it.
    #[must_use]
    pub fn new(question: &v1::EventsRequest) -> Self {
        Self {
            events: question.events.clone(),
            node: question.node.clone(),
            workload: question.workload.clone(),
            from_wall: question.from_wall_nanos,
            to_wall: question.to_wall_nanos,
            oldest_first: question.oldest_first,
            ..Self::default()
        }
    }
}

/// What an index finds of them.
pub trait Events {
    /// By time, each with the name of its node, which is empty where the chain's opening is not known.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn events(&self, query: &EventQuery) -> Result<Vec<(EventRow, String)>, IndexError>;
}
