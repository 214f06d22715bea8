//! On whose behalf a command says it is sent, in which trace, by which session, task and tool.
//!
//! Owns where that is looked for: W3C baggage, headers (which gRPC calls metadata), `X-Goog-Request-Reason`,
//! sqlcommenter comments, labels, `application_name`. Whether a token holds is [`Verifier`]'s to say; nothing else
//! makes anybody *verified*.

mod baggage;
mod comment;
mod keys;
mod told;
mod trace;
mod verify;

pub use keys::{KeySet, KeysError};
pub use told::{Behalf, Carried};
pub use verify::{Issuer, Rejection, Verified, Verifier};

/// Longest value that is kept, bytes.
const MOST_VALUE: usize = 256;

/// Which names stand for what. Compared without regard to case, `-` and `_` alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Who asked, as a token or as a text.
    pub on_behalf_of: Vec<String>,
    /// The framework's session.
    pub session: Vec<String>,
    /// Its task or run.
    pub task: Vec<String>,
    /// Its tool.
    pub tool: Vec<String>,
}

impl Default for Names {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            on_behalf_of: list(&["on-behalf-of", "verbatim-delegation"]),
            session: list(&["session-id", "session.id", "gen_ai.conversation.id"]),
            task: list(&["task-id", "task.id", "run-id"]),
            tool: list(&["tool-id", "tool", "gen_ai.tool.name", "mcp-toolbox-tool", "adk-bigquery-tool"]),
        }
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    OnBehalfOf,
    Session,
    Task,
    Tool,
    Traceparent,
    Tracestate,
}

impl Names {
    fn meaning(&self, name: &str) -> Option<Meaning> {
        let among = |names: &[String]| names.iter().any(|known| same(known, name));
        match name {
            "traceparent" => Some(Meaning::Traceparent),
            "tracestate" => Some(Meaning::Tracestate),
            _ if among(&self.on_behalf_of) => Some(Meaning::OnBehalfOf),
            _ if among(&self.session) => Some(Meaning::Session),
            _ if among(&self.task) => Some(Meaning::Task),
            _ if among(&self.tool) => Some(Meaning::Tool),
            _ => None,
        }
    }
}

fn same(known: &str, name: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    known.len() == name.len() && known.bytes().zip(name.bytes()).all(|(a, b)| plain(a) == plain(b))
}
