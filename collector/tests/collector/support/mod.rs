//! A collector in this process, or as one of its own, and clients for it.

pub(crate) mod node;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use verbatim_api::v1::{
    self, AppendRequest, AppendResponse, audit_client::AuditClient, ingest_client::IngestClient,
};
use verbatim_collector::{
    Collector,
    config::{Address, Config},
};

/// Everything that the log holds when the question arrives.
pub(crate) const NOW: u64 = u64::MAX;

/// A folder with the places of a collector in it.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary folder"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub(crate) fn ingest(&self) -> PathBuf {
        self.path().join("ingest.sock")
    }

    pub(crate) fn audit(&self) -> PathBuf {
        self.path().join("audit.sock")
    }

    pub(crate) fn config(&self) -> Config {
        Config::embedded(self.data(), Address::Unix(self.ingest()), Address::Unix(self.audit()), &[])
    }

    pub(crate) async fn start(&self) -> Collector {
        verbatim_collector::start(&self.config()).await.expect("collector starts")
    }

    pub(crate) async fn ingest_client(&self) -> IngestClient<Channel> {
        IngestClient::new(connect(&self.ingest()).await).max_encoding_message_size(64 << 20)
    }

    pub(crate) async fn audit_client(&self) -> AuditClient<Channel> {
        AuditClient::new(connect(&self.audit()).await).max_decoding_message_size(64 << 20)
    }

    /// Starts the binary and waits until it is ready.
    pub(crate) fn spawn(&self) -> Process {
        self.spawn_with(&[])
    }

    pub(crate) fn spawn_with(&self, more: &[&str]) -> Process {
        let ingest = format!("unix:{}", self.ingest().display());
        let audit = format!("unix:{}", self.audit().display());
        let data = self.data();
        let mut command = Command::new(env!("CARGO_BIN_EXE_verbatim-collector"));
        command
            .arg("serve")
            .arg("--data")
            .arg(data)
            .args(["--ingest", &ingest, "--audit", &audit])
            .args(more);
        self.ready(command)
    }

    #[allow(dead_code, reason = "for the tests that need root")]
    pub(crate) fn spawn_configured(&self, file: &Path) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_verbatim-collector"));
        command.arg("serve").arg("--config").arg(file);
        self.ready(command)
    }

    fn ready(&self, mut command: Command) -> Process {
        let (ready, said) = (self.path().join("ready"), self.path().join("stderr"));
        if ready.exists() {
            std::fs::remove_file(&ready).expect("old ready file");
        }
        let stderr = std::fs::File::create(&said).expect("file for standard error");
        command.arg("--ready-file").arg(&ready).stdout(Stdio::null()).stderr(stderr);
        let mut process = Process(command.spawn().expect("collector's binary"));
        let said = || std::fs::read_to_string(&said).unwrap_or_default();
        let until = Instant::now() + PATIENCE;
        while !ready.exists() {
            let ended = process.0.try_wait().expect("status");
            assert!(ended.is_none(), "the collector ended at its start, {ended:?}: {}", said());
            assert!(Instant::now() < until, "the collector does not get ready: {}", said());
            std::thread::sleep(Duration::from_millis(10));
        }
        process
    }
}

/// How long what must come is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A process that does not outlive its test.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("kill");
        self.0.wait().expect("wait");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

pub(crate) async fn connect(socket: &Path) -> Channel {
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).expect("endpoint");
    endpoint.connect().await.expect("connects")
}

/// Sends batches on one stream and returns the answers.
pub(crate) async fn append(
    client: &mut IngestClient<Channel>,
    batches: Vec<AppendRequest>,
) -> Result<Vec<AppendResponse>, tonic::Status> {
    let mut answers = client.append(tokio_stream::iter(batches)).await?.into_inner();
    let mut all = Vec::new();
    while let Some(answer) = answers.message().await? {
        all.push(answer);
    }
    Ok(all)
}

/// All commands that match, by pages.
pub(crate) async fn search(client: &mut AuditClient<Channel>, filter: v1::Filter) -> Vec<v1::Command> {
    let mut request =
        v1::SearchRequest { filter: Some(filter), at_least_position: NOW, ..v1::SearchRequest::default() };
    let mut all = Vec::new();
    loop {
        let page = client.search(request.clone()).await.expect("search").into_inner();
        all.extend(page.commands);
        if page.next_cursor.is_empty() {
            return all;
        }
        request.cursor = page.next_cursor;
    }
}

/// Findings after everything is indexed.
pub(crate) async fn findings(client: &mut AuditClient<Channel>) -> Vec<v1::Finding> {
    search(client, v1::Filter { text: "nothing".to_owned(), ..v1::Filter::default() }).await;
    client.findings(v1::FindingsRequest::default()).await.expect("findings").into_inner().findings
}

/// Connections as far as they are indexed, the first page.
pub(crate) async fn sessions(client: &mut AuditClient<Channel>) -> Vec<v1::Session> {
    client.sessions(v1::SessionsRequest::default()).await.expect("sessions").into_inner().sessions
}

/// All files below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).expect("folder").map(|e| e.expect("entry").path());
    let mut all: Vec<_> = paths.flat_map(|p| if p.is_dir() { files(&p) } else { vec![p] }).collect();
    all.sort();
    all
}

/// Files below a folder that hold a text, in whatever case. One that goes meanwhile holds nothing.
pub(crate) fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let holds = |bytes: Vec<u8>| bytes.windows(text.len()).any(|w| w.eq_ignore_ascii_case(text.as_bytes()));
    let read = |path: &Path| match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        read => read.expect("file"),
    };
    files(folder).into_iter().filter(|p| holds(read(p))).collect()
}
