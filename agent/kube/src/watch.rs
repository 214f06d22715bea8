//! Lists and watches this node's pods, for as long as it runs.
//!
//! Owns when a list is made anew, and how long an API server that fails is left alone. What an event means is the
//! [`Book`]'s business.
//!
//! `kube`'s watcher resumes by resourceVersion and lists anew where the server says so in an event (410). It goes on
//! as if nothing had happened where the 410 is the watch's own answer, and after an event that could not be read,
//! which is then lost: there it is started anew. Lists are pages of a `GET`, not streams: Kubernetes 1.20 has no
//! others.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod as Object;
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        utils::Backoff,
        watcher::{self, DefaultBackoff, Event, watcher},
    },
};
use tokio::time::{Instant as Moment, sleep_until};

use crate::{
    lookups::Lookups,
    pod::{Keep, Pod},
    store::{Book, Reach, Store},
};

/// Pods of one page: few, for a page is in memory as a whole.
const PAGE: u32 = 50;
/// The server ends a watch after this time, and the watcher begins the next; seconds. A connection that died
/// silently is noticed five seconds later.
const WATCH: u32 = 240;
/// Without any event for so long, everything is listed anew.
const SILENCE: Duration = Duration::from_secs(900);
/// Events that are taken before readers see them.
const AT_ONCE: usize = 256;

/// How often the API server is asked.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A page of a list takes no longer.
    pub list: Duration,
    /// Between two lists that were made because a pod was missed: at first, and at most; doubled for each that was in
    /// vain.
    pub early: (Duration, Duration),
    /// How old an annotation of a service account may be.
    pub fresh: Duration,
    /// Between two looks for what is too old.
    pub tick: Duration,
    /// An attempt to go on that has not failed for so long has succeeded: a dial gives up sooner.
    pub holds: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            list: Duration::from_secs(30),
            early: (Duration::from_secs(5), Duration::from_secs(300)),
            fresh: Duration::from_secs(60),
            tick: Duration::from_secs(10),
            holds: Duration::from_secs(35),
        }
    }
}

/// Keeps the store as the API server says. Never returns.
pub async fn follow(client: Client, keep: Keep, pace: Pace, store: Arc<Store>) {
    let api = Api::<Object>::all(client.clone());
    let fields = format!("spec.nodeName={}", keep.node);
    let config = watcher::Config::default().fields(&fields).page_size(PAGE).timeout(WATCH);
    let now = Moment::now();
    let mut follower = Follower {
        keep,
        book: Book::new(Arc::clone(&store)),
        store,
        lookups: Lookups::new(client, pace.fresh),
        backoff: DefaultBackoff::default(),
        resume: now,
        listing: true,
        deadline: now + pace.list,
        early: pace.early.0,
        listed: now,
        found: false,
        tick: now + pace.tick,
        pace,
    };
    loop {
        let events = watcher(api.clone(), config.clone()).boxed();
        follower.read(events).await;
    }
}

struct Follower {
    keep: Keep,
    book: Book,
    store: Arc<Store>,
    lookups: Lookups,
    backoff: DefaultBackoff,
    /// Not before, after a failure.
    resume: Moment,
    listing: bool,
    /// The server is not believed to answer any more.
    deadline: Moment,
    /// See [`Pace::early`].
    early: Duration,
    listed: Moment,
    /// The list under way has brought a pod that was not known.
    found: bool,
    tick: Moment,
    pace: Pace,
}

type Events = Pin<Box<dyn Stream<Item = watcher::Result<Event<Object>>> + Send>>;

impl Follower {
    /// Returns where everything must be listed anew.
    async fn read(&mut self, mut events: Events) {
        self.begin_listing();
        loop {
            tokio::select! {
                event = events.next(), if Moment::now() >= self.resume => {
                    let Some(event) = event else { return };
                    if self.take(event) {
                        return;
                    }
                    for _ in 0..AT_ONCE {
                        if Moment::now() < self.resume {
                            break;
                        }
                        let Some(Some(event)) = events.next().now_or_never() else { break };
                        if self.take(event) {
                            return;
                        }
                    }
                    self.publish();
                }
                () = sleep_until(self.resume), if Moment::now() < self.resume => {}
                () = sleep_until(self.deadline.max(self.resume)) => {
                    if self.listing {
                        self.fail(&"no answer in time");
                    }
                    return;
                }
                () = self.store.wanted(), if !self.listing && self.listed.elapsed() >= self.early => {
                    self.early = (self.early * 2).min(self.pace.early.1);
                    return;
                }
                () = self.lookups.answered() => self.look_up(),
                () = sleep_until(self.tick) => {
                    self.tick = Moment::now() + self.pace.tick;
                    self.look_up();
                    self.recover();
                }
            }
        }
    }

    /// A watch that goes on where it was says nothing until something happens.
    fn recover(&self) {
        let lost = self.store.reach() == Reach::Lost && !self.listing;
        if lost && Moment::now() >= self.resume + self.pace.holds {
            tracing::info!("the API server is heard again");
            self.store.reached(Reach::Synced);
        }
    }

    fn begin_listing(&mut self) {
        self.listing = true;
        self.found = false;
        self.deadline = Moment::now().max(self.resume) + self.pace.list;
    }

    /// Whether everything must be listed anew.
    fn take(&mut self, event: watcher::Result<Event<Object>>) -> bool {
        let now = Instant::now();
        let patience = if self.listing { self.pace.list } else { SILENCE };
        self.deadline = Moment::now() + patience;
        match event {
            Ok(Event::Init) => {
                self.begin_listing();
                self.book.list_begins();
            }
            Ok(Event::InitApply(object) | Event::Apply(object)) => self.apply(&object),
            Ok(Event::Delete(object)) => self.book.delete(&object.uid().unwrap_or_default(), now),
            Ok(Event::InitDone) => {
                self.book.list_ends(now);
                self.listing = false;
                self.listed = Moment::now();
                self.deadline = self.listed + SILENCE;
                self.backoff.reset();
                if self.found {
                    self.early = self.pace.early.0;
                }
                self.publish();
                if self.store.reach() != Reach::Synced {
                    tracing::info!(pods = self.book.living().count(), "pods of this node are known");
                    self.store.reached(Reach::Synced);
                }
            }
            Err(error) => {
                self.fail(&error);
                return anew(&error);
            }
        }
        false
    }

    fn apply(&mut self, object: &Object) {
        let pod = match Pod::read(object, &self.keep) {
            Ok(pod) => pod,
            Err(refused) => {
                let (namespace, pod) =
                    (object.metadata.namespace.as_deref(), object.metadata.name.as_deref());
                tracing::warn!(%refused, namespace, pod, "what the API server says of a pod is not believed");
                return;
            }
        };
        let uid = pod.uid.clone();
        self.found |= self.book.get(&uid).is_none();
        let version = object.metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
        self.book.apply(pod, version);
        self.look_up_one(&uid);
    }

    fn look_up_one(&mut self, uid: &str) {
        if let Some(known) = self.book.get(uid) {
            let (account, owners) = self.lookups.of(known, Instant::now());
            self.book.learn(uid, Some(account), Some(owners));
        }
    }

    fn look_up(&mut self) {
        let uids: Vec<String> = self.book.wanting().map(|known| known.pod.uid.clone()).collect();
        for uid in uids {
            self.look_up_one(&uid);
        }
        self.publish();
    }

    fn publish(&mut self) {
        self.book.publish(Instant::now());
    }

    /// Waits, ever longer while nothing works.
    fn fail(&mut self, error: &dyn std::fmt::Display) {
        if self.store.reach() == Reach::Lost {
            tracing::debug!(%error, "the API server still fails");
        } else {
            tracing::warn!(%error, "the API server fails: what it said last holds");
        }
        self.store.reached(Reach::Lost);
        let pause = self.backoff.next().unwrap_or(self.pace.list);
        self.resume = Moment::now() + pause;
        self.deadline = self.deadline.max(self.resume + self.pace.list);
    }
}

/// See the top.
fn anew(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 410,
        watcher::Error::WatchFailed(error) => {
            matches!(error, kube::Error::SerdeError(_) | kube::Error::Api(_))
        }
        _ => false,
    }
}
