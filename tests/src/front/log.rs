//! The front's own log: one line for each request that came in, as it came.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// A request as the front saw it. Whether there was a credential is kept, the credential is not.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Request {
    /// Number of its connection, from 1.
    pub connection: u64,
    /// Address of whoever connected, as the front sees it.
    pub peer: String,
    /// Address that was connected to.
    pub address: String,
    /// Server name of the ClientHello.
    pub server_name: String,
    /// `h2`, `http/1.1`, or empty where nothing was negotiated.
    pub alpn: String,
    /// `TLSv1_2`, `TLSv1_3`.
    pub tls: String,
    /// The TLS session was resumed.
    pub resumed: bool,
    /// `Host` or `:authority`.
    pub host: String,
    /// Method.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Query; empty where there is none.
    pub query: String,
    /// Header names and values but for credentials, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// Whether there was an `Authorization` header.
    pub authorized: bool,
    /// Ids within path and body, see [`crate::did::ids`].
    pub ids: Vec<String>,
    /// Length of the body.
    pub bytes: u64,
    /// Whether the body came to its end.
    pub whole: bool,
    /// Status of the answer; 0 where there was none.
    pub status: u16,
}

/// Where requests are written.
#[derive(Debug)]
pub(super) struct Log(Mutex<File>);

impl Log {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(Mutex::new(file)))
    }

    /// Begins a line; it is written when the value goes, however the exchange ends.
    pub(super) fn line(self: &Arc<Self>, request: Request) -> Line {
        Line { request, log: Arc::clone(self) }
    }

    fn write(&self, request: &Request) -> Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(&line)
            .context("cannot write the log of requests")
    }
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) request: Request,
    log: Arc<Log>,
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Err(error) = self.log.write(&self.request) {
            // A log that cannot be written is no witness; the missing line fails the scenario.
            drop(writeln!(std::io::stderr(), "{error:#}"));
        }
    }
}

/// Reads a log. A last line without its end is still being written.
pub(crate) fn read(text: &str) -> Result<Vec<Request>> {
    let complete = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    complete
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("no line of the front's log: {line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Log, Request, read};

    #[test]
    fn a_request_is_read_as_it_was_written_and_a_half_line_is_left_for_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let request = Request { method: "POST".into(), ids: vec!["a-1".into()], ..Default::default() };
        let log = std::sync::Arc::new(Log::create(&path).unwrap());
        drop(log.line(request.clone()));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(read(&text).unwrap(), std::slice::from_ref(&request));
        assert_eq!(read(&(text + "{\"connection\":")).unwrap(), [request]);
    }
}
