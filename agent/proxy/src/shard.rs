//! One shard: a thread, its listeners, its connections, its spool.
//!
//! Owns who is open and what happens at drain. Knows nothing of what a connection does.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, oneshot},
    task::{JoinHandle, LocalSet, spawn_local},
    time::{Instant, sleep, sleep_until, timeout},
};
use verbatim_spool::{AppendError, Appended, Draft};
use verbatim_wire::message::Messages;

use crate::{
    Deps, Protocols, ProxyConfig, Records,
    buffer::Pool,
    cancel::Registry,
    chains::Chains,
    client::Clients,
    connection,
    control::Control,
    descriptors::{self, Descriptors, exhausted},
    guard::CatchPanic,
    known::Known,
    shares::{Share, Shares},
    splicing::Pipes,
    stats::{Counters, add},
    strangers::Strangers,
};

/// Connections that are taken from the queue of a listener that is about to be closed: as many as it holds. A
/// successor may go on with the same queue.
const REST: usize = 4096;

/// While there is no room for one more connection.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Between two signs of life of a shard.
const PULSE: Duration = Duration::from_millis(100);

/// What a shard is told.
pub(crate) enum Message {
    Listen { listener: std::net::TcpListener, netns_cookie: u64, done: oneshot::Sender<io::Result<()>> },
    StopListening { netns_cookie: u64, done: oneshot::Sender<()> },
    StopAccepting { done: oneshot::Sender<()> },
    Append { draft: Box<Draft>, entrusted: bool, done: oneshot::Sender<Result<Appended, AppendError>> },
    Cancel { connection: u64, answer: oneshot::Sender<bool> },
    Drain { deadline: Duration, done: oneshot::Sender<()> },
}

/// What a shard is made of.
pub(crate) struct Parts {
    pub(crate) index: usize,
    /// How many there are.
    pub(crate) shards: usize,
    pub(crate) config: ProxyConfig,
    pub(crate) deps: Deps,
    pub(crate) protocols: Arc<dyn Protocols>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) chains: Arc<Chains>,
    pub(crate) known: Arc<Known>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) messages: mpsc::Receiver<Message>,
}

/// What the tasks of a shard share.
pub(crate) struct Shard<R> {
    pub(crate) index: usize,
    pub(crate) config: ProxyConfig,
    pub(crate) deps: Deps,
    pub(crate) protocols: Arc<dyn Protocols>,
    pub(crate) registry: Arc<Registry>,
    /// Decodes messages of HTTP.
    pub(crate) decoders: Option<Arc<dyn Messages>>,
    pub(crate) chains: Arc<Chains>,
    pub(crate) known: Arc<Known>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) spool: Rc<R>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) pipes: Pipes,
    pub(crate) clients: Clients,
    pub(crate) descriptors: Descriptors,
    pub(crate) strangers: Strangers,
    shares: Shares,
    /// How many shards share the process's descriptors.
    shards: usize,
    connections: RefCell<HashMap<u64, Rc<Control>>>,
    next_connection: Cell<u64>,
    /// Told when a connection ends.
    ended: Notify,
}

/// Runs a shard until it is drained. The thread's whole life.
pub(crate) fn run<R: Records>(parts: Parts, spool: R) {
    let index = parts.index;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(shard = index, %error, "shard has no runtime and ends");
            return;
        }
    };
    let tasks = LocalSet::new();
    let spool = Rc::new(spool);
    let done = tasks.block_on(&runtime, serve(parts, Rc::clone(&spool)));
    // Whatever still waits for room (an agent's own record) holds the spool.
    drop(tasks);
    match (Rc::try_unwrap(spool), done.unwritten) {
        (Ok(spool), 0) => spool.close(),
        (_, unwritten) => {
            tracing::error!(shard = index, unwritten, "chain left open for its successor to complete");
        }
    }
    for done in done.waiting {
        if done.send(()).is_err() {
            tracing::debug!(shard = index, "nobody waits for the drain");
        }
    }
}

struct Done {
    waiting: Vec<oneshot::Sender<()>>,
    unwritten: u64,
}

async fn serve<R: Records>(parts: Parts, spool: Rc<R>) -> Done {
    let mut messages = parts.messages;
    let shard = Rc::new(Shard {
        index: parts.index,
        pool: Rc::new(Pool::new(&parts.config.limits)),
        pipes: Pipes::default(),
        clients: Clients::default(),
        descriptors: Descriptors::default(),
        strangers: Strangers::new(),
        shares: Shares::default(),
        shards: parts.shards,
        config: parts.config,
        deps: parts.deps,
        decoders: parts.protocols.messages(),
        protocols: parts.protocols,
        registry: parts.registry,
        chains: parts.chains,
        known: parts.known,
        counters: parts.counters,
        spool,
        connections: RefCell::default(),
        next_connection: Cell::new(0),
        ended: Notify::new(),
    });
    let pulse = spawn_local(beat(Rc::clone(&shard)));
    let mut listeners = Listeners::default();
    let mut waiting = Vec::new();
    let deadline = loop {
        match messages.recv().await {
            Some(Message::Drain { deadline, done }) => {
                waiting.push(done);
                break deadline;
            }
            Some(message) => shard.handle(message, &mut listeners).await,
            None => break Duration::ZERO,
        }
    };
    listeners.stop_all().await;
    let deadline = Instant::now() + deadline;
    while shard.open() > 0 && Instant::now() < deadline {
        tokio::select! {
            () = shard.ended.notified() => {}
            () = sleep_until(deadline) => {}
            message = messages.recv() => match message {
                Some(Message::Drain { done, .. }) => waiting.push(done),
                Some(message) => shard.handle(message, &mut listeners).await,
                None => break,
            },
        }
    }
    listeners.stop_all().await;
    for control in shard.connections.borrow().values() {
        control.kill();
    }
    while shard.open() > 0 {
        shard.ended.notified().await;
    }
    let unwritten = shard.counters.unwritten.load(std::sync::atomic::Ordering::Relaxed);
    // It holds the spool, which is closed next.
    pulse.abort();
    drop(pulse.await);
    Done { waiting, unwritten }
}

/// Says that this thread turns and its timers run, for as long as they do.
async fn beat<R: Records>(shard: Rc<Shard<R>>) {
    loop {
        shard.counters.alive();
        sleep(PULSE).await;
    }
}

#[derive(Default)]
struct Listeners(HashMap<u64, Vec<Listening>>);

/// A task that accepts, until it is told to stop.
struct Listening {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Listeners {
    async fn stop(&mut self, netns_cookie: u64) {
        for Listening { stop, task } in self.0.remove(&netns_cookie).unwrap_or_default() {
            ignore_gone(stop.send(()));
            // Its end, whatever it is, is all that is waited for.
            drop(task.await);
        }
    }

    async fn stop_all(&mut self) {
        let cookies: Vec<_> = self.0.keys().copied().collect();
        for cookie in cookies {
            self.stop(cookie).await;
        }
    }
}

impl<R: Records> Shard<R> {
    async fn handle(self: &Rc<Self>, message: Message, listeners: &mut Listeners) {
        match message {
            Message::Listen { listener, netns_cookie, done } => {
                let outcome = self.listen(listener, netns_cookie).map(|task| {
                    listeners.0.entry(netns_cookie).or_default().push(task);
                });
                ignore_gone(done.send(outcome));
            }
            Message::StopListening { netns_cookie, done } => {
                listeners.stop(netns_cookie).await;
                self.shares.forget(netns_cookie);
                ignore_gone(done.send(()));
            }
            Message::StopAccepting { done } => {
                listeners.stop_all().await;
                ignore_gone(done.send(()));
            }
            Message::Append { draft, entrusted, mut done } => {
                let spool = Rc::clone(&self.spool);
                spawn_local(async move {
                    while entrusted || !done.is_closed() {
                        match spool.append((*draft).clone()) {
                            Err(AppendError::Full) if entrusted => spool.room().await,
                            Err(AppendError::Full) => {
                                tokio::select! { () = spool.room() => {} () = done.closed() => {} }
                            }
                            outcome => return ignore_gone(done.send(outcome)),
                        }
                    }
                });
            }
            Message::Cancel { connection, answer } => {
                let control = self.connections.borrow().get(&connection).cloned();
                match control {
                    Some(control) => control.cancel(answer),
                    None => ignore_gone(answer.send(false)),
                }
            }
            // The caller takes it before.
            Message::Drain { done, .. } => ignore_gone(done.send(())),
        }
    }

    fn open(&self) -> usize {
        self.connections.borrow().len()
    }

    fn listen(self: &Rc<Self>, listener: std::net::TcpListener, netns_cookie: u64) -> io::Result<Listening> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (stop, stopped) = oneshot::channel();
        let (shard, share) = (Rc::clone(self), self.shares.of(netns_cookie));
        let task = spawn_local(async move {
            tokio::select! {
                // In either order: what waits is taken below.
                _ = stopped => {}
                never = shard.accept(&listener, &share) => match never {},
            }
            if let Err(error) = shard.accept_rest(listener, &share) {
                tracing::warn!(shard = shard.index, %error, "connections may be left in a queue");
            }
        });
        Ok(Listening { stop, task })
    }

    /// Takes what is in the queue of a listener that is about to be closed: the kernel has counted it, and the
    /// client believes that it is connected.
    fn accept_rest(self: &Rc<Self>, listener: TcpListener, share: &Rc<Share>) -> io::Result<()> {
        let listener = listener.into_std()?;
        for _ in 0..REST {
            match listener.accept() {
                Ok((client, source)) => {
                    client.set_nonblocking(true)?;
                    self.spawn(TcpStream::from_std(client)?, source, share);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Connections that can be open at once, two descriptors each.
    fn most(&self, usable: u64) -> usize {
        let descriptors = usize::try_from(usable).unwrap_or(usize::MAX);
        self.config.connections_per_shard.min(descriptors / self.shards.saturating_mul(2).max(1))
    }

    async fn accept(self: &Rc<Self>, listener: &TcpListener, share: &Rc<Share>) -> Infallible {
        let mut usable = descriptors::usable();
        loop {
            while !self.shares.admit(share, self.open(), self.most(usable)) {
                drop(timeout(LOOK_AGAIN, self.ended.notified()).await);
                // The limit may have changed, too.
                usable = descriptors::usable();
            }
            self.descriptors.enough(listener).await;
            match listener.accept().await {
                Ok((client, source)) => {
                    usable = descriptors::usable();
                    self.descriptors.note(&client, usable);
                    self.spawn(client, source, share);
                }
                Err(error) if exhausted(&error) => self.descriptors.run_out(),
                Err(error) => {
                    tracing::warn!(shard = self.index, %error, "accept failed");
                    // The backlog waits meanwhile.
                    sleep(descriptors::PAUSE).await;
                }
            }
        }
    }

    fn spawn(self: &Rc<Self>, client: TcpStream, source: SocketAddr, share: &Rc<Share>) {
        share.take();
        let number = self.next_connection.get();
        self.next_connection.set(number.wrapping_add(1));
        let control = Rc::new(Control::default());
        self.connections.borrow_mut().insert(number, Rc::clone(&control));
        add(&self.counters.accepted, 1);
        let (shard, share) = (Rc::clone(self), Rc::clone(share));
        spawn_local(async move {
            let accepted = connection::Accepted { client, source, number };
            let mut serving = CatchPanic::new(connection::serve(&shard, accepted, &control));
            let served = poll_fn(|cx| {
                shard.counters.turn();
                Pin::new(&mut serving).poll(cx)
            });
            let served = served.await;
            drop(serving);
            if let Err(panicked) = served {
                add(&shard.counters.panics, 1);
                tracing::error!(shard = shard.index, message = panicked.0, "connection panicked");
            }
            shard.connections.borrow_mut().remove(&number);
            share.give_back();
            add(&shard.counters.ended, 1);
            shard.ended.notify_waiters();
            shard.ended.notify_one();
        });
    }
}

/// An answer that nobody waits for any more is nobody's loss.
fn ignore_gone<T>(sent: Result<(), T>) {
    drop(sent);
}
