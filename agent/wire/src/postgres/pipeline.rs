//! What the server owes: one entry for each message that it will answer, in order.

use std::{collections::VecDeque, sync::Arc};

use super::{
    names::Serial,
    statements::{Portal, Statement},
};
use crate::seam::{CommandId, Direction};

/// A command that was forwarded and has not ended.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) id: CommandId,
    pub(super) serial: Serial,
    /// Bytes toward the server so far.
    pub(super) sent: u64,
    /// What it takes away when it succeeds.
    pub(super) forgets: Option<Box<Forgets>>,
}

/// The commands of one message, in order; nearly always one, which costs no allocation.
#[derive(Debug, Default)]
pub(super) struct Commands {
    first: Option<InFlight>,
    rest: VecDeque<InFlight>,
}

impl Commands {
    pub(super) fn one(command: InFlight) -> Self {
        Self { first: Some(command), rest: VecDeque::new() }
    }

    pub(super) fn push(&mut self, command: InFlight) {
        if self.is_empty() {
            self.first = Some(command);
        } else {
            self.rest.push_back(command);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn first_mut(&mut self) -> Option<&mut InFlight> {
        self.first.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &InFlight> {
        self.first.iter().chain(&self.rest)
    }
}

impl Iterator for Commands {
    type Item = InFlight;

    fn next(&mut self) -> Option<InFlight> {
        let next = self.first.take();
        self.first = self.rest.pop_front();
        next
    }
}

/// Names that a statement's success takes away.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Forgets {
    /// `DEALLOCATE name`.
    Statement(Vec<u8>),
    /// `DEALLOCATE ALL`, `DISCARD ALL`.
    AllStatements,
}

/// Which encryption was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    Tls,
    Gss,
}

/// A message that the server will answer.
#[derive(Debug)]
pub(super) enum Owed {
    Encryption(Encryption),
    /// Authentication, up to the first ReadyForQuery.
    Startup,
    Parse {
        serial: Serial,
        statement: Arc<Statement>,
    },
    Bind {
        serial: Serial,
        portal: Arc<Portal>,
    },
    Describe {
        statement: Option<Arc<Statement>>,
        portal: Option<Arc<Portal>>,
    },
    CloseStatement {
        serial: Serial,
        name: Box<[u8]>,
    },
    ClosePortal {
        serial: Serial,
        name: Box<[u8]>,
    },
    Execute {
        command: InFlight,
        portal: Option<Arc<Portal>>,
    },
    /// A simple query, or a FunctionCall.
    Query {
        serial: Serial,
        commands: Commands,
        failed: bool,
    },
    /// Our substitute for a refused command.
    Refused {
        serial: Serial,
        /// The ErrorResponse that takes the place of the server's; `None` when it has.
        error: Option<Vec<u8>>,
        /// Whether a ReadyForQuery follows: it stands for a Query.
        ready: bool,
    },
    Sync {
        serial: Serial,
    },
}

impl Owed {
    /// The command that is running while this is at the head.
    pub(super) fn running(&mut self) -> Option<&mut InFlight> {
        match self {
            Self::Execute { command, .. } => Some(command),
            Self::Query { commands, .. } => commands.first_mut(),
            _ => None,
        }
    }
}

/// Whether the server's next word after a completed Execute is ReadyForQuery: a Sync comes before any
/// other command.
pub(super) fn ready_follows(queue: &VecDeque<Owed>) -> bool {
    for owed in queue.iter().take(8) {
        match owed {
            Owed::Sync { .. } => return true,
            Owed::Execute { .. } | Owed::Query { .. } | Owed::Refused { .. } => return false,
            _ => {}
        }
    }
    false
}

/// Edits of one direction, gathered so that neighbours become one.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) direction: Direction,
    forward: u64,
    /// Input bytes without an edit yet.
    pub(super) held: u64,
    /// All input that was read.
    pub(super) read: u64,
}

impl Script {
    pub(super) fn new(direction: Direction) -> Self {
        Self { direction, forward: 0, held: 0, read: 0 }
    }

    /// Input that was read and about which nothing is decided.
    pub(super) fn hold(&mut self, bytes: usize) {
        self.held = self.held.saturating_add(bytes as u64);
        self.read = self.read.saturating_add(bytes as u64);
    }

    /// Everything held goes on.
    pub(super) fn pass(&mut self) {
        self.forward = self.forward.saturating_add(core::mem::take(&mut self.held));
    }

    /// Everything held but the last byte goes on.
    pub(super) fn pass_all_but_last(&mut self) {
        let passing = self.held.saturating_sub(1);
        self.held = self.held.saturating_sub(passing);
        self.forward = self.forward.saturating_add(passing);
    }

    /// Takes what is to be forwarded before another edit.
    pub(super) fn take_forward(&mut self) -> Option<u64> {
        match core::mem::take(&mut self.forward) {
            0 => None,
            bytes => Some(bytes),
        }
    }
}
