//! Asks a data directory without a collector: the same Audit service, in this process, for reading only.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tonic::{
    service::Routes,
    transport::{Channel, Endpoint, Server, Uri},
};
use verbatim_api::v1::audit_server::AuditServer;

use crate::{
    audit::{AuditParts, AuditService},
    index::{Index, IndexError, SqliteIndex},
    indexer::{Carry, Indexer, IndexerError},
    lock::{DataLock, LockError},
    log::{LogView, book::Book},
    serve::{INDEX, LOG, with_health},
    store::{LocalStore, StoreError},
};

/// Bytes under way between the two ends.
const PIPE: usize = 1 << 20;

/// Why a directory cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing was recorded there.
    #[error("{0} holds no records: name the directory that was given to --data")]
    NoData(String),
    /// A collector has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The index could not be made.
    #[error(transparent)]
    Indexer(#[from] IndexerError),
    /// A directory for an index of our own.
    #[error("cannot make a temporary index: {0}")]
    Temporary(io::Error),
    /// The two ends within this process.
    #[error("cannot connect in-process: {0}")]
    Connect(#[from] tonic::transport::Error),
}

/// What has to live as long as questions are asked.
#[derive(Debug)]
struct Held {
    _lock: DataLock,
    _temporary: Option<tempfile::TempDir>,
    _draining: watch::Sender<bool>,
}

/// Opens a data directory that no collector runs on. Works with a missing or stale index: one of its own is
/// made for the time being, and nothing in the directory is changed.
pub async fn open_offline(data: &Path) -> Result<Channel, OpenError> {
    let data = data.to_owned();
    let opened = tokio::task::spawn_blocking(move || open(&data));
    let (view, index, indexer, lock, temporary) =
        opened.await.map_err(|e| OpenError::Temporary(io::Error::other(e)))??;
    let (draining, drain) = watch::channel(false);
    let parts = AuditParts {
        view,
        log: None,
        index,
        indexed: indexer.watch(),
        outcomes: indexer.outcomes(),
        draining: drain,
        tail_patience: std::time::Duration::from_secs(30),
    };
    let held = Held { _lock: lock, _temporary: temporary, _draining: draining };
    let routes = Routes::new(AuditServer::new(AuditService::new(parts)));
    let routes = with_health(routes, "verbatim.v1.Audit").await;
    let (ours, theirs) = tokio::io::duplex(PIPE);
    tokio::spawn(async move {
        let incoming = tokio_stream::once(Ok::<_, io::Error>(theirs));
        // Ends with the caller's last clone of the channel.
        if let Err(e) = Server::builder().add_routes(routes).serve_with_incoming(incoming).await {
            tracing::debug!(error = %e, "in-process connection ended");
        }
        drop((held, indexer));
    });
    let mut ours = Some(ours);
    let connect = tower::service_fn(move |_: Uri| {
        let taken = ours.take().map(TokioIo::new);
        async move { taken.ok_or_else(|| io::Error::other("the in-process connection ended")) }
    });
    Ok(Endpoint::from_static("http://in-process").connect_with_connector(connect).await?)
}

type Opened = (Arc<LogView>, Arc<dyn Index>, Indexer, DataLock, Option<tempfile::TempDir>);

fn open(data: &Path) -> Result<Opened, OpenError> {
    let root = data.join(LOG);
    if !root.is_dir() {
        return Err(OpenError::NoData(data.display().to_string()));
    }
    let lock = DataLock::shared(data)?;
    let view = Arc::new(LogView::new(Arc::new(LocalStore::open_read_only(&root)?))?);
    let (_, end) = Book::read(&view)?;
    let file = data.join(INDEX);
    let (index, temporary): (Arc<dyn Index>, _) = match fresh(&file, end) {
        Some(index) => (Arc::new(index), None),
        None => {
            let temporary = tempfile::tempdir().map_err(OpenError::Temporary)?;
            let copy = copy(&file, temporary.path()).map_err(OpenError::Temporary)?;
            (Arc::new(SqliteIndex::open(&copy)?), Some(temporary))
        }
    };
    let mut indexer = Indexer::new(Arc::clone(&view), Arc::clone(&index), Carry::Hide);
    indexer.catch_up()?;
    Ok((view, index, indexer, lock, temporary))
}

/// The index as it lies there, if it has read everything and nothing of it is only in its write-ahead log.
fn fresh(file: &Path, end: u64) -> Option<SqliteIndex> {
    let mut wal = file.as_os_str().to_owned();
    wal.push("-wal");
    if fs::metadata(&wal).is_ok_and(|m| m.len() > 0) || !file.exists() {
        return None;
    }
    let index = SqliteIndex::open_read_only(file).ok()?;
    (index.position().ok()? == end).then_some(index)
}

/// What there is of an index, to go on from.
fn copy(file: &Path, folder: &Path) -> io::Result<PathBuf> {
    let copy = folder.join(INDEX);
    for suffix in ["", "-wal"] {
        let named = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        match fs::copy(named(file), named(&copy)) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(copy)
}
