//! What can go wrong, and the exit code that tells it to a script.

use tonic::{Code, Status};

/// Exit codes: 0 answered; 1 the collector or this machine failed; 2 wrong usage (clap's); 3 the collector
/// cannot be reached or refused this caller; 4 no such record; 5 the sums of `coverage` disagree.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nothing could be asked.
    #[error("{0}")]
    Unreachable(String),
    /// The collector answered with an error.
    #[error("the collector answered {}: {}", .0.code(), .0.message())]
    Answer(Box<Status>),
    /// `show` of an id that is not there.
    #[error("no record {0}")]
    NotFound(String),
    /// Connections that were counted have no record, or the reverse.
    #[error("{0}")]
    Disagree(String),
    /// The question is not a question.
    #[error("{0}")]
    Usage(String),
    /// Reading or writing on this side.
    #[error("{0:#}")]
    Local(anyhow::Error),
    /// The reader of our output has gone, e.g. `| head`.
    #[error("output closed")]
    OutputClosed,
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Answer(_) | Self::Local(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::NotFound(_) => 4,
            Self::Disagree(_) => 5,
        }
    }

    pub(crate) fn silent(&self) -> bool {
        matches!(self, Self::OutputClosed)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unavailable | Code::Unauthenticated | Code::PermissionDenied => {
                Self::Unreachable(format!("the collector cannot be asked: {}", status.message()))
            }
            // A connection that was closed on us, e.g. because this process may not ask: not an answer.
            Code::Unknown if std::error::Error::source(&status).is_some() => Self::Unreachable(
                "the collector closed the connection: it may refuse this process".to_owned(),
            ),
            Code::InvalidArgument => Self::Usage(status.message().to_owned()),
            _ => Self::Answer(Box::new(status)),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::Local(error.into())
        }
    }
}
