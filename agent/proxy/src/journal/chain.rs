//! What goes on beyond one command: where it began, and how it ended.

use std::time::Duration;

use verbatim_sys::clock;
use verbatim_wire::seam::{CommandId, Outcome};

use super::{Journal, Stall};
use crate::{Records, chains::Begun, seam::Summary};

/// Bytes of a statement that are kept for the line about its job's end.
const SHOWN_BYTES: usize = 512;

impl<R: Records> Journal<R> {
    /// What is remembered of a command that began something; `None` where its start is not in the spool.
    pub(crate) fn begun(&self, id: CommandId) -> Option<Begun> {
        let open = self.look(id).filter(|open| open.recorded())?;
        let statement = open.statement.get(..SHOWN_BYTES).unwrap_or(&open.statement);
        Some(Begun {
            command_id: open.command_id.clone(),
            started_boottime: open.started_boottime,
            operation: open.operation,
            service: open.service,
            method: open.method.clone(),
            resource: open.resource.clone(),
            statement: statement.to_vec(),
            sensitive: open.sensitive,
        })
    }

    /// Records how what a command began has ended.
    pub(crate) fn chain_ended(&self, begun: &Begun, outcome: &Outcome) -> Result<(), Stall> {
        let hushed;
        let outcome = if begun.sensitive {
            hushed = self.hushed(outcome);
            &hushed
        } else {
            outcome
        };
        let duration = clock::boottime_nanos().saturating_sub(begun.started_boottime);
        self.append(self.facts.chain_ended(begun, outcome, duration))?;
        if self.observer.enabled() {
            let duration = Duration::from_nanos(duration);
            let started_wall = clock::wall_nanos().saturating_sub(duration.as_nanos() as u64);
            self.observer.finished(Summary {
                wall_nanos: started_wall,
                service: begun.service,
                operation: begun.operation,
                method: begun.method.clone(),
                resource: begun.resource.clone(),
                decision: verbatim_api::v1::Decision::Allowed,
                status: crate::record::status(outcome.status),
                duration,
                statement: begun.statement.clone(),
                ..self.summary(outcome)
            });
        }
        Ok(())
    }
}
