//! Many short connections, and a server for them: what a client sees of each is counted.
//!
//! The server closes first, so that no client runs out of ports.

use std::{
    io::{Read, Write, stdin},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// A line that no protocol begins with.
const LINE: &[u8] = b"\x01 traffic\n";
const THREADS: u32 = 8;
/// Connections of a thread that wait for their answers at once.
const WAITING: usize = 125;
const STACK_BYTES: usize = 64 * 1024;
/// Connections that wait for the server: on a busy machine more than the standard library's 128, beyond which the
/// kernel forgets connections whose clients know nothing of it.
const BACKLOG: i32 = 4096;
/// An answer may have to wait for a worker that is being started.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of connections.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Served to their end.
    pub served: u64,
    /// connect() failed.
    pub failed: u64,
    /// Connected, and lost before the answer.
    pub lost: u64,
    /// Why the first connect() failed.
    pub failure: Option<String>,
    /// Why the first one was lost.
    pub loss: Option<String>,
}

#[derive(Default)]
struct Shared {
    served: AtomicU64,
    failed: AtomicU64,
    lost: AtomicU64,
    begun: AtomicU64,
    ended: AtomicBool,
    failure: OnceLock<String>,
    loss: OnceLock<String>,
}

impl Shared {
    fn lose(&self, error: &std::io::Error) -> u64 {
        self.loss.get_or_init(|| format!("{:?}: {error}", error.kind()));
        self.lost.fetch_add(1, Ordering::Relaxed)
    }
}

/// Makes `most` connections, `rate` in a second where the machine can, or as many until standard input ends.
pub fn load(to: SocketAddr, rate: u32, most: u64) -> Result<Counts> {
    let shared = Arc::new(Shared::default());
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                connect_all(to, Duration::from_secs(1) * THREADS / rate.max(1), most, &shared)
            })
        })
        .collect();
    let told = Arc::clone(&shared);
    thread::spawn(move || {
        stdin().read_to_end(&mut Vec::new()).ok();
        told.ended.store(true, Ordering::Relaxed);
    });
    for thread in threads {
        thread.join().ok().context("a client's thread panicked")?;
    }
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Counts {
        served: read(&shared.served),
        failed: read(&shared.failed),
        lost: read(&shared.lost),
        failure: shared.failure.get().cloned(),
        loss: shared.loss.get().cloned(),
    })
}

/// Whoever waits for an answer keeps nobody from connecting, unless there are so many that the machine cannot do more.
fn connect_all(to: SocketAddr, pause: Duration, most: u64, shared: &Arc<Shared>) {
    let mut due = Instant::now();
    let mut waiting = Vec::new();
    while !shared.ended.load(Ordering::Relaxed) && shared.begun.fetch_add(1, Ordering::Relaxed) < most {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += pause;
        let stream = match TcpStream::connect(to) {
            Ok(stream) => stream,
            Err(error) => {
                shared.failure.get_or_init(|| error.to_string());
                shared.failed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        };
        let counted = Arc::clone(shared);
        let exchanging = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            match exchange(stream) {
                Ok(()) => counted.served.fetch_add(1, Ordering::Relaxed),
                Err(error) => counted.lose(&error),
            };
        });
        match exchanging {
            Ok(thread) => waiting.push(thread),
            Err(error) => {
                shared.lose(&error);
            }
        }
        waiting.retain(|thread| !thread.is_finished());
        while waiting.len() >= WAITING && !shared.ended.load(Ordering::Relaxed) {
            thread::sleep(pause);
            waiting.retain(|thread| !thread.is_finished());
        }
    }
    for thread in waiting {
        drop(thread.join());
    }
}

fn exchange(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(LINE)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer == LINE { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

/// Answers each connection with what it says first, and closes it; says how many said something at the end of
/// standard input.
pub fn serve(on: SocketAddr, listening: impl FnOnce()) -> Result<u64> {
    let listener = TcpListener::bind(on).with_context(|| format!("cannot listen on {on}"))?;
    socket2::SockRef::from(&listener).listen(BACKLOG)?;
    let served = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&served);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let counted = Arc::clone(&counted);
            thread::spawn(move || answer(stream, &counted));
        }
    });
    listening();
    stdin().read_to_end(&mut Vec::new())?;
    Ok(served.load(Ordering::Relaxed))
}

/// Whatever reaches the server counts, also where the answer gets lost.
fn answer(mut stream: TcpStream, served: &AtomicU64) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut said = [0; LINE.len()];
    stream.read_exact(&mut said)?;
    served.fetch_add(1, Ordering::Relaxed);
    stream.write_all(&said)?;
    stream.shutdown(Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}
