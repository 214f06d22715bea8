//! How many files the process may open, and what to do while it has none left.

use std::{io, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// After an accept that failed, until the next.
const PAUSE: Duration = Duration::from_millis(50);

/// As many as it may have at most.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(e) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(error = %e, "limit of open files not raised");
    }
}

/// A listener whose accepts fail: said once, until one succeeds.
#[derive(Debug, Default)]
pub(crate) struct Failing(bool);

impl Failing {
    pub(crate) fn succeeded(&mut self) {
        if std::mem::take(&mut self.0) {
            tracing::info!("connections are accepted again");
        }
    }

    /// Waits: the connection stays in the backlog, and the accept would fail again at once.
    pub(crate) async fn failed(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.0, true) {
            tracing::warn!(%error, "connections are not accepted: they wait");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
