//! What a decoder of one API's messages gives to a call: which messages are commands, and how they ended.

use crate::seam::{Command, CommandId, Direction, Outcome};

/// What the first unit of a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The head: whether the client says anything or not.
    Head,
    /// Head and first message together: nothing goes on before that. Not for calls in which the server may
    /// speak first.
    FirstMessage,
}

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Which way it goes.
    pub direction: Direction,
    /// Its place among those of its direction, from 0.
    pub index: u64,
    /// Its bytes without compression, cut at what is wanted.
    pub bytes: &'a [u8],
    /// Its length on the wire, without prefix.
    pub length: u64,
    /// Whether all of it has come. If not it is longer than is wanted, and comes again when it is whole.
    pub whole: bool,
    /// It is compressed in a way that is not taken off, or is not what it says it is: `bytes` is as far as
    /// it could be read.
    pub undecoded: bool,
    /// The id that the first command found in it gets; the others' follow.
    pub next_command: CommandId,
}

/// What is in a message.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Commands of a message to the server: one unit, held until it is decided. Where a message comes again
    /// when it is whole, the same number of them.
    pub commands: Vec<Command>,
    /// Commands that have ended, as a message of the server says.
    pub ended: Vec<(CommandId, Outcome)>,
}

/// Reads the messages of one call.
pub trait GrpcMessages: Send {
    /// What the first unit is.
    fn opening(&self) -> Opening {
        Opening::Head
    }

    /// How many bytes of each message are wanted, compressed or not. With 0 they are counted, and none is
    /// held.
    fn wanted(&self, _direction: Direction) -> usize {
        0
    }

    /// A message has come, whole or as much of it as is wanted.
    fn message(&mut self, _message: &Message<'_>) -> Found {
        Found::default()
    }

    /// A command ends with the call: adds what the messages said to what the status says.
    fn outcome(&mut self, _command: CommandId, _outcome: &mut Outcome) {}
}

/// Counts messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted;

impl GrpcMessages for Counted {}
