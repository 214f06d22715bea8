//! Puts the parts together, and takes them down again in the right order.

use std::{
    fs, io, os::unix::fs::DirBuilderExt as _, path::Path, sync::Arc, thread::JoinHandle, time::Duration,
};

use tokio::sync::watch;
use tonic::service::Routes;
use verbatim_api::v1::{audit_server::AuditServer, ingest_server::IngestServer};

use crate::{
    audit::{AuditParts, AuditService},
    config::{Address, Config},
    index::{Index, IndexError, SqliteIndex},
    indexer::{Carry, Indexer},
    ingest::IngestService,
    listen::{ListenError, Listening, listen},
    lock::{DataLock, LockError},
    log::{Log, LogLimits},
    retention,
    store::{LocalStore, StoreError},
};

/// Folder of the log below the data directory.
pub(crate) const LOG: &str = "log";
/// The index's file.
pub(crate) const INDEX: &str = "index.sqlite";
/// How often the open segment's age is looked at.
const TICK: Duration = Duration::from_secs(30);
/// How long a tail's reader may take nothing.
const TAIL_PATIENCE: Duration = Duration::from_secs(30);

/// Why the collector did not come up or went down.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory.
    #[error("cannot make data directory {place}: {source}")]
    Data {
        /// Which.
        place: String,
        /// The system's own words.
        source: io::Error,
    },
    /// It is another collector's.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// A listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The log takes nothing any more.
    #[error("{0}")]
    Broken(String),
    /// A listener ended by itself.
    #[error("listener {address} failed: {detail}")]
    Listener {
        /// Which.
        address: String,
        /// What happened.
        detail: String,
    },
}

/// A collector that serves.
#[derive(Debug)]
pub struct Collector {
    /// Where nodes write.
    pub ingest: Address,
    /// Where people ask.
    pub audit: Address,
    log: Log,
    draining: watch::Sender<bool>,
    stop_indexer: watch::Sender<bool>,
    listeners: Vec<Listening>,
    threads: Vec<JoinHandle<()>>,
    _lock: DataLock,
}

/// Starts a collector. When this returns, both listeners take connections.
pub async fn start(config: &Config) -> Result<Collector, ServeError> {
    make_private(&config.data)
        .map_err(|source| ServeError::Data { place: config.data.display().to_string(), source })?;
    let lock = DataLock::exclusive(&config.data)?;
    let limits = LogLimits {
        segment_bytes: config.log.segment_size.0,
        seal_after: config.log.seal_after.0,
        waiting_bytes: usize::try_from(config.log.waiting.0).unwrap_or(usize::MAX),
        ..LogLimits::default()
    };
    let data = config.data.clone();
    // Recovery and the opening of files block.
    let opened = tokio::task::spawn_blocking(move || {
        let (store, damage) = LocalStore::open(&data.join(LOG))?;
        for found in &damage {
            tracing::warn!(
                segment = found.segment,
                part = found.part.folder(),
                bytes = found.bytes,
                "tail of an unacknowledged group cut off"
            );
        }
        let (log, writer) = Log::open(Arc::new(store), &damage, limits)?;
        let index: Arc<dyn Index> = Arc::new(SqliteIndex::open(&data.join(INDEX))?);
        Ok::<_, ServeError>((log, writer, index))
    });
    let (log, writer, index) = opened.await.map_err(|e| ServeError::Broken(e.to_string()))??;

    let (draining, drain) = watch::channel(false);
    let (stop_indexer, stop) = watch::channel(false);
    let indexer = Indexer::new(Arc::clone(log.view()), Arc::clone(&index), Carry::Out(log.clone()));
    let parts = AuditParts {
        view: Arc::clone(log.view()),
        log: Some(log.clone()),
        index,
        indexed: indexer.watch(),
        outcomes: indexer.outcomes(),
        draining: drain.clone(),
        tail_patience: TAIL_PATIENCE,
    };
    let threads = vec![writer, indexer.spawn(stop).map_err(ServeError::Thread)?];
    tokio::spawn(retention::run(log.clone(), config.retention.clone(), drain.clone()));
    tokio::spawn(tick(log.clone(), drain.clone()));

    let size = |size: crate::config::ByteSize| usize::try_from(size.0).unwrap_or(usize::MAX);
    let ingest = IngestServer::new(IngestService::new(log.clone(), drain.clone()))
        .max_decoding_message_size(size(config.ingest.max_message));
    let audit =
        AuditServer::new(AuditService::new(parts)).max_decoding_message_size(size(config.audit.max_message));
    let ingest_routes = with_health(Routes::new(ingest), "verbatim.v1.Ingest").await;
    let audit_routes = with_health(Routes::new(audit), "verbatim.v1.Audit").await;
    let mut collector = Collector {
        ingest: config.ingest.listen.clone(),
        audit: config.audit.listen.clone(),
        log,
        draining,
        stop_indexer,
        listeners: Vec::new(),
        threads,
        _lock: lock,
    };
    for (listener, routes) in [(&config.ingest, ingest_routes), (&config.audit, audit_routes)] {
        match listen(listener, routes, drain.clone()).await {
            Ok(listening) => collector.listeners.push(listening),
            Err(e) => {
                collector.shut_down().await?;
                return Err(e.into());
            }
        }
    }
    collector.ingest = collector.listeners[0].address.clone();
    collector.audit = collector.listeners[1].address.clone();
    Ok(collector)
}

/// Health and reflection beside a service.
pub(crate) async fn with_health(routes: Routes, service: &str) -> Routes {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status(service, tonic_health::ServingStatus::Serving).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(verbatim_api::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    let routes = routes.add_service(health);
    match reflection {
        Ok(reflection) => routes.add_service(reflection),
        Err(e) => {
            tracing::error!(error = %e, "no reflection");
            routes
        }
    }
}

async fn tick(log: Log, mut draining: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = draining.wait_for(|d| *d) => return,
            () = tokio::time::sleep(TICK) => {}
        }
        if log.tick().await.is_err() {
            return;
        }
    }
}

/// A directory for root, or whoever runs the collector, alone.
fn make_private(data: &Path) -> io::Result<()> {
    if data.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data)
}

impl Collector {
    /// Returns when the collector cannot go on, with the reason.
    pub async fn failed(&mut self) -> ServeError {
        let mut broken = self.log.broken();
        let Some((first, rest)) = self.listeners.split_first_mut() else {
            return ServeError::Broken("no listener".to_owned());
        };
        let Some(second) = rest.first_mut() else { return ServeError::Broken("no listener".to_owned()) };
        let (first_address, second_address) = (first.address.to_string(), second.address.to_string());
        let ended = |address, result: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>| {
            let detail = match result {
                Ok(Ok(())) => "it ended".to_owned(),
                Ok(Err(e)) => e.to_string(),
                Err(e) => e.to_string(),
            };
            ServeError::Listener { address, detail }
        };
        tokio::select! {
            reason = broken.wait_for(Option::is_some) => {
                let reason = reason.ok().and_then(|r| r.clone());
                ServeError::Broken(reason.unwrap_or_else(|| "the log's writer ended".to_owned()))
            }
            result = &mut first.task => ended(first_address, result),
            result = &mut second.task => ended(second_address, result),
        }
    }

    /// Takes nothing more, acknowledges what was taken, seals, indexes up to the end.
    pub async fn shut_down(self) -> Result<(), ServeError> {
        let Self { log, draining, stop_indexer, listeners, threads, _lock, .. } = self;
        draining.send_replace(true);
        for listening in listeners {
            let address = listening.address.to_string();
            // One that ended before was reported by `failed`.
            if !listening.task.is_finished()
                && let Ok(Err(e)) = listening.task.await
            {
                tracing::warn!(address, error = %e, "listener did not end well");
            }
        }
        log.close().await;
        let mut threads = threads.into_iter();
        if let Some(writer) = threads.next() {
            join(writer).await;
        }
        stop_indexer.send_replace(true);
        for thread in threads {
            join(thread).await;
        }
        Ok(())
    }
}

async fn join(thread: JoinHandle<()>) {
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    if !matches!(joined, Ok(Ok(()))) {
        tracing::error!("a thread ended badly");
    }
}
