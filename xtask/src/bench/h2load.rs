//! HTTP/2 over TLS: the server (nghttpd), who calls it (h2load), and reading what h2load says.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{Bench, certificates::Certificates};
use crate::{
    command,
    daemon::{self, Daemon},
    place,
};

/// What is posted where little is sent: a query as a client of BigQuery sends it.
const QUERY: &str = "{\"query\": \"SELECT name, price FROM shop.items WHERE id = @id\", \"useLegacySql\": false, \
                     \"requestId\": \"0f9a6c1e-3f5b-4a57-9d55-6a3c8f5d2b11\", \"maxResults\": 100}\n";

/// What small requests are answered with.
const ANSWER: &str = "{\"jobComplete\": true, \"rows\": []}\n";

/// A running nghttpd, which answers a request with the file of its path, a POST's body read to its end before.
pub(super) struct Server {
    pub(super) port: u16,
    folder: PathBuf,
    server: Daemon,
}

/// A body of a request, or a path to ask for.
#[derive(Clone, Copy)]
pub(super) enum File {
    /// What small requests are answered with.
    Small,
    /// A query, posted where little is sent.
    Query,
    /// 100 KB.
    Upload,
    /// 1 MB.
    Large,
    /// 1 GiB.
    Huge,
}

impl File {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Query => "query",
            Self::Upload => "upload",
            Self::Large => "large",
            Self::Huge => "huge",
        }
    }
}

impl Server {
    pub(super) fn start(bench: &Bench<'_>, certificates: &Certificates) -> Result<Self> {
        let program = place::program("nghttpd").context("nghttpd is not installed")?;
        let port = daemon::free_port()?;
        let folder = bench.scratch.path().join(format!("nghttpd-{port}"));
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        let write = |file: File, content: &[u8]| {
            let path = folder.join(file.name());
            fs::write(&path, content).with_context(|| path.display().to_string())
        };
        write(File::Small, ANSWER.as_bytes())?;
        write(File::Query, QUERY.as_bytes())?;
        write(File::Upload, &b"0123456789".repeat(10_000))?;
        write(File::Large, &b"0123456789".repeat(100_000))?;
        // A file with nothing in it but its length: no disk is read.
        let huge = folder.join(File::Huge.name());
        fs::File::create(&huge)
            .and_then(|file| file.set_len(1 << 30))
            .with_context(|| huge.display().to_string())?;
        // A thousand clients are more than what a shell's limit of descriptors leaves room for.
        let mut command = daemon::tied("prlimit", "TERM", None);
        command.arg("--nofile=8192:").arg(program);
        command.args(["--address=127.0.0.1", "--no-rfc7540-pri", "--htdocs"]).arg(&folder);
        command.arg(port.to_string()).arg(certificates.server_key()).arg(certificates.server());
        let mut server = Daemon::start(&mut command, "TERM", &folder.with_extension("log"))?;
        server.wait_until("nghttpd", || daemon::listens(port))?;
        Ok(Self { port, folder, server })
    }

    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.server.id()
    }

    /// A file's own path.
    pub(super) fn file(&self, file: File) -> PathBuf {
        self.folder.join(file.name())
    }
}

/// h2load toward this port, asking for one of the server's files; posting another one where that is given.
pub(super) fn command<A: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = A>,
    port: u16,
    asked: File,
    posted: Option<&Path>,
) -> Command {
    let mut h2load = Command::new("h2load");
    h2load.args(arguments);
    if let Some(posted) = posted {
        h2load.args(["--header=content-type: application/json", "--data"]).arg(posted);
    }
    h2load.arg(format!("https://127.0.0.1:{port}/{}", asked.name()));
    h2load
}

/// Both programs, which are of one version, and the small files, in a sentence for the report.
pub(super) fn described() -> Result<String> {
    let version = command::output(Command::new("h2load").arg("--version"))?;
    let version = version.trim().trim_start_matches("h2load ");
    Ok(format!(
        "h2load and nghttpd ({version}) with one thread each; a small POST has {} bytes, its answer {}.",
        QUERY.len(),
        ANSWER.len()
    ))
}

/// What h2load says it did.
#[derive(Debug, PartialEq)]
pub(super) struct Done {
    pub(super) requests: f64,
    pub(super) requests_per_second: f64,
}

impl Done {
    /// Reads it. One request that failed, or was answered by anything but success, is an error.
    pub(super) fn parse(output: &str) -> Result<Self> {
        let line = |start: &str| {
            let mut lines = output.lines();
            lines
                .find_map(|line| line.trim().strip_prefix(start))
                .with_context(|| format!("h2load did not say `{start}`:\n{output}"))
        };
        // `300 total, 300 started, 300 done, …`, and `finished in 2.13s, 141.17 req/s, 19.16KB/s`.
        let number = |line: &str, what: &str| -> Result<f64> {
            let mut parts = line.split(", ");
            parts
                .find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
                .with_context(|| format!("h2load did not say how many `{what}`:\n{output}"))
        };
        let requests = line("requests: ")?;
        let done = number(requests, " done")?;
        let codes = line("status codes: ")?;
        // Not by the number of good ones: an answer that began before counting did is not among them.
        let bad = [(requests, " failed"), (requests, " errored"), (requests, " timeout")]
            .into_iter()
            .chain([(codes, " 3xx"), (codes, " 4xx"), (codes, " 5xx")]);
        let bad = bad.map(|(line, what)| number(line, what)).sum::<Result<f64>>()?;
        if done == 0.0 || number(requests, " succeeded")? != done || bad > 0.0 {
            bail!("not every request was answered well:\n{output}");
        }
        Ok(Self { requests: done, requests_per_second: number(line("finished in ")?, " req/s")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "starting benchmark...\n\nfinished in 2.50s, 148500.00 req/s, 5.67MB/s\n\
        requests: 297000 total, 297000 started, 297000 done, 297000 succeeded, 0 failed, 0 errored, 0 timeout\n\
        status codes: 297000 2xx, 0 3xx, 0 4xx, 0 5xx\n";

    #[test]
    fn requests_and_rate_are_read_from_what_h2load_prints() {
        let done = Done { requests: 297000.0, requests_per_second: 148500.0 };
        assert_eq!(Done::parse(OUTPUT).unwrap(), done);
        assert!(Done::parse("").is_err());
    }

    #[test]
    fn a_request_that_was_not_answered_well_is_an_error() {
        for (good, bad) in [
            ("0 failed", "1 failed"),
            ("0 errored", "2 errored"),
            ("297000 succeeded", "296999 succeeded"),
            ("0 4xx", "1 4xx"),
        ] {
            assert!(Done::parse(&OUTPUT.replace(good, bad)).is_err(), "{bad}");
        }
        assert!(Done::parse(&OUTPUT.replace("297000", "0")).is_err());
    }
}
