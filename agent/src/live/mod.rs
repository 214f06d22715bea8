//! The live view of `run`: a line per command of the workload, as it ends.
//!
//! Owns the queue between shards and terminal. It drops what the terminal cannot take, and says how much:
//! the view is for eyes, the record is elsewhere.

mod line;

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use verbatim_proxy::seam::{Observer, Summary};
use verbatim_sys::process::terminal_columns;

/// Lines that wait for the terminal.
const WAITING: usize = 1024;
/// Columns of a line where there is no terminal.
const COLUMNS: usize = 200;
/// How long the last lines may take: a stopped terminal must not keep the agent from ending.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Where the lines go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// Standard error.
    Standard,
    /// A file.
    File(File),
    /// Nowhere.
    Off,
}

impl Sink {
    /// As `--live` says: a file, or `off`.
    pub(crate) fn open(wanted: Option<&Path>) -> io::Result<Self> {
        match wanted {
            None => Ok(Self::Standard),
            Some(path) if path == Path::new("off") => Ok(Self::Off),
            Some(path) => Ok(Self::File(File::options().append(true).create(true).open(path)?)),
        }
    }

    /// Asked before each line: a window can be resized.
    fn columns(&self) -> usize {
        match self {
            Self::Standard => terminal_columns(io::stderr().as_fd()).map_or(COLUMNS, usize::from),
            Self::File(_) | Self::Off => COLUMNS,
        }
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        // One write a line, so that lines of others don't get in between.
        match self {
            Self::Standard => io::stderr().write_all(line.as_bytes()),
            Self::File(file) => file.write_all(line.as_bytes()),
            Self::Off => Ok(()),
        }
    }
}

/// What the shards are given.
#[derive(Debug)]
pub(crate) struct Watching {
    queue: Option<SyncSender<Option<Summary>>>,
    dropped: Arc<AtomicU64>,
}

impl Observer for Watching {
    fn enabled(&self) -> bool {
        self.queue.is_some()
    }

    fn finished(&self, summary: Summary) {
        if let Some(queue) = &self.queue
            && queue.try_send(Some(summary)).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The thread that writes the lines.
#[derive(Debug)]
pub(crate) struct View {
    queue: Option<SyncSender<Option<Summary>>>,
    ended: Receiver<()>,
    dropped: Arc<AtomicU64>,
}

impl View {
    /// Starts it.
    pub(crate) fn start(sink: Sink) -> io::Result<Self> {
        let (queue, lines) = sync_channel(WAITING);
        let (end, ended) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let queue = (!matches!(sink, Sink::Off)).then_some(queue);
        if queue.is_some() {
            let dropped = Arc::clone(&dropped);
            let work = move || {
                show(sink, &lines, &dropped);
                end.send(()).ok();
            };
            std::thread::Builder::new().name("live".to_owned()).spawn(work)?;
        }
        Ok(Self { queue, ended, dropped })
    }

    /// For the shards.
    pub(crate) fn watching(&self) -> Watching {
        Watching { queue: self.queue.clone(), dropped: Arc::clone(&self.dropped) }
    }

    /// Shows what is still in the queue. A terminal that takes nothing is left after a moment.
    pub(crate) fn finish(self) {
        // A full queue means that nobody reads: its thread is left to itself, and ends with the process.
        if self.queue.is_some_and(|queue| queue.try_send(None).is_ok()) {
            self.ended.recv_timeout(LAST_LINES).ok();
        }
    }
}

/// Until `None` comes, or nobody can send any more.
fn show(mut sink: Sink, queue: &Receiver<Option<Summary>>, dropped: &AtomicU64) {
    let mut broken = false;
    let mut line = |text: String, sink: &mut Sink| {
        if !broken && let Err(error) = sink.write(&text) {
            tracing::warn!(%error, "live view cannot be written any more; recording goes on");
            broken = true;
        }
    };
    while let Ok(Some(summary)) = queue.recv() {
        let columns = sink.columns();
        line(line::format(&summary, columns), &mut sink);
        let missing = dropped.swap(0, Ordering::Relaxed);
        if missing > 0 {
            line(
                format!("… {missing} commands not shown here, but recorded: the view was too slow\n"),
                &mut sink,
            );
        }
    }
    let missing = dropped.swap(0, Ordering::Relaxed);
    if missing > 0 {
        line(
            format!("… {missing} commands not shown here, but recorded: the view was too slow\n"),
            &mut sink,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::live::line::tests::summary;

    #[test]
    fn lines_reach_the_file_in_order_and_finish_waits_for_them() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("live");
        let view = View::start(Sink::open(Some(&path)).expect("file")).expect("view");
        let watching = view.watching();
        for number in 0..100 {
            watching.finished(Summary { statement: format!("select {number}").into_bytes(), ..summary() });
        }
        view.finish();
        let text = fs::read_to_string(&path).expect("file");
        let shown: Vec<&str> =
            text.lines().filter_map(|line| line.split_once("select ")).map(|(_, n)| n).collect();
        assert_eq!(shown, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn what_the_view_cannot_take_is_counted_and_said() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("live");
        let (queue, lines) = sync_channel(2);
        let dropped = Arc::new(AtomicU64::new(0));
        let watching = Watching { queue: Some(queue.clone()), dropped: Arc::clone(&dropped) };
        for _ in 0..5 {
            watching.finished(summary());
        }
        drop((queue, watching));
        show(Sink::open(Some(&path)).expect("file"), &lines, &dropped);
        let text = fs::read_to_string(&path).expect("file");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("3 commands not shown"), "{text}");
    }

    #[test]
    fn off_builds_no_summaries() {
        let view = View::start(Sink::open(Some(Path::new("off"))).expect("off")).expect("view");
        assert!(!view.watching().enabled());
        view.finish();
    }
}
