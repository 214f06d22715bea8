//! Group mode: what counts as safe is on the disk.

use std::{
    fs::File,
    io,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use verbatim_spool::{Opened, SpoolConfig, Surroundings, SyncMode};

use crate::support::*;

/// A disk that syncs when it is told to.
#[derive(Clone, Default)]
struct Disk {
    held: Arc<(Mutex<bool>, Condvar)>,
    broken: Arc<AtomicBool>,
    failed: Arc<AtomicUsize>,
    files: Arc<AtomicUsize>,
    folders: Arc<AtomicUsize>,
}

impl Disk {
    fn hold(&self, held: bool) {
        *self.held.0.lock().unwrap() = held;
        self.held.1.notify_all();
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let folder = file.metadata()?.is_dir();
        drop(self.held.1.wait_while(self.held.0.lock().unwrap(), |held| *held).unwrap());
        if self.broken.load(Ordering::Acquire) {
            self.failed.fetch_add(1, Ordering::AcqRel);
            return Err(io::Error::other("the disk is broken"));
        }
        file.sync_data()?;
        let counter = if folder { &self.folders } else { &self.files };
        counter.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn open(&self, directory: &std::path::Path) -> Opened {
        let disk = self.clone();
        let surroundings =
            Surroundings { sync: Arc::new(move |file| disk.sync(file)), ..Surroundings::default() };
        let config = SpoolConfig { sync: SyncMode::Group, ..config(directory) };
        verbatim_spool::open_in(&config, 1, surroundings).unwrap()
    }
}

async fn pending(future: impl Future<Output = ()>) -> bool {
    tokio::time::timeout(Duration::from_millis(50), future).await.is_err()
}

#[test]
fn a_record_is_durable_and_ships_only_once_it_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let mut opened = disk.open(dir.path());
    let mut collector = Collector::default();
    run(async {
        let first = opened.spools[0].append(started("first")).unwrap();
        opened.spools[0].durable(first.position).await;
        disk.hold(true);
        let second = opened.spools[0].append(started("second")).unwrap();
        assert!(pending(opened.spools[0].durable(second.position)).await);
        opened.spools[0].sign();
        collector.drain(&mut opened.outboxes[0]);
        assert_eq!(collector.texts(), ["first"], "what is not synced does not ship");
        disk.hold(false);
        opened.spools[0].durable(second.position).await;
        opened.spools[0].sign();
        collector.drain(&mut opened.outboxes[0]);
        assert_eq!(collector.texts(), ["first", "second"]);
    });
}

#[test]
fn many_commands_wait_for_one_sync() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let opened = disk.open(dir.path());
    run(async {
        opened.spools[0].durable(1).await;
        disk.hold(true);
        let positions: Vec<_> =
            (0..100).map(|n| opened.spools[0].append(started(&n.to_string())).unwrap().position).collect();
        let before = disk.files.load(Ordering::Acquire);
        disk.hold(false);
        for position in positions {
            opened.spools[0].durable(position).await;
        }
        // One that was under way, and one for all that came meanwhile.
        assert!(disk.files.load(Ordering::Acquire) - before <= 2);
    });
}

#[test]
fn records_that_nobody_waits_for_are_synced_and_shipped_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Disk::default().open(dir.path());
    opened.spools[0].append(started("nobody waits")).unwrap();
    let mut collector = Collector::default();
    run(async {
        while collector.texts().is_empty() {
            opened.outboxes[0].changed().await;
            collector.drain(&mut opened.outboxes[0]);
        }
    });
}

#[test]
fn a_new_segment_is_synced_with_its_folder_before_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let mut opened = disk.open(dir.path());
    assert!(disk.files.load(Ordering::Acquire) >= 2 && disk.folders.load(Ordering::Acquire) >= 2);
    run(async {
        for n in 0..1000 {
            let command = opened.spools[0].append_when_room(started(&n.to_string())).await.unwrap();
            opened.spools[0].durable(command.position).await;
        }
    });
    let made = segments(dir.path(), 0).len();
    assert!(disk.folders.load(Ordering::Acquire) >= made, "{made}");
    opened.spools.pop().unwrap().close();
    let mut collector = Collector::default();
    collector.drain(&mut opened.outboxes[0]);
    assert_eq!(collector.texts().len(), 1000);
    assert!(opened.outboxes[0].drained());
}

#[test]
fn after_a_failed_sync_nothing_counts_as_durable_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let mut opened = disk.open(dir.path());
    run(async {
        let first = opened.spools[0].append(started("first")).unwrap();
        opened.spools[0].durable(first.position).await;
        disk.broken.store(true, Ordering::Release);
        let second = opened.spools[0].append(started("second")).unwrap();
        assert!(pending(opened.spools[0].durable(second.position)).await);
        while disk.failed.load(Ordering::Acquire) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        disk.broken.store(false, Ordering::Release);
        let third = opened.spools[0].append(started("third")).unwrap();
        assert!(pending(opened.spools[0].durable(third.position)).await);
    });
    let mut collector = Collector::default();
    opened.spools[0].sign();
    collector.drain(&mut opened.outboxes[0]);
    assert_eq!(collector.texts(), ["first"]);
}
