//! Asks Google whose an access token is that was not seen being issued
//! (<https://developers.google.com/identity/protocols/oauth2/openid-connect#obtaininguserprofileinformation>, the
//! endpoint that its libraries call `tokeninfo`).
//!
//! Owns a bounded queue and a bounded memory of answers. Nobody waits for one: it serves commands that come later.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hashlink::LruCache;
use tokio::{sync::mpsc, task::JoinHandle};
use verbatim_credential::{FingerprintKey, Told};
use verbatim_wire::Secret;

use super::fetch::{FetchError, Fetcher};

/// Tokens that wait to be asked about; what is more is not asked about this time.
const WAITING: usize = 64;
/// Answers remembered.
const REMEMBERED: usize = 4096;
/// How long an answer is believed: no longer than a token usually lives.
const GOOD: Duration = Duration::from_secs(3600);
/// How long nothing is asked again after no answer.
const BAD: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
struct Answer {
    /// `None`: asked, or not answered.
    told: Option<Told>,
    until: Instant,
}

type Memory = Mutex<LruCache<[u8; 32], Answer>>;

/// See the module.
pub(super) struct Tokeninfo {
    digest: FingerprintKey,
    memory: Arc<Memory>,
    queue: mpsc::Sender<([u8; 32], Secret)>,
}

impl Tokeninfo {
    /// Starts to ask. `generation` grows with each answer.
    pub(super) fn start(
        endpoint: String,
        fetcher: Arc<Fetcher>,
        generation: Arc<AtomicU64>,
    ) -> (Self, JoinHandle<()>) {
        let memory: Arc<Memory> = Arc::new(Mutex::new(LruCache::new(REMEMBERED)));
        let (queue, waiting) = mpsc::channel(WAITING);
        let task = tokio::spawn(work(endpoint, fetcher, waiting, Arc::clone(&memory), generation));
        (Self { digest: FingerprintKey::of_process(), memory, queue }, task)
    }

    /// What was answered; if nothing was, somebody asks.
    pub(super) fn ask(&self, token: &[u8]) -> Option<Told> {
        let digest = self.digest.of(token).code;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let known = memory.get(&digest).filter(|known| known.until > Instant::now());
        if let Some(known) = known {
            return known.told.clone();
        }
        if self.queue.try_send((digest, Secret::new(token.to_vec()))).is_ok() {
            memory.insert(digest, Answer { told: None, until: Instant::now() + BAD });
        }
        None
    }
}

async fn work(
    endpoint: String,
    fetcher: Arc<Fetcher>,
    mut waiting: mpsc::Receiver<([u8; 32], Secret)>,
    memory: Arc<Memory>,
    generation: Arc<AtomicU64>,
) {
    while let Some((digest, token)) = waiting.recv().await {
        let form = [b"access_token=", &*encoded(token.bytes())].concat();
        let answer = match fetcher.post_form(&endpoint, form.into()).await {
            Ok(body) => Answer { told: Some(told(&body)), until: Instant::now() + GOOD },
            // Not a token of Google's, or one that has ended: nothing to be known, and no reason to ask again soon.
            Err(FetchError::Status(status @ 400..500)) => {
                tracing::debug!(status, "tokeninfo does not know a token");
                Answer { told: None, until: Instant::now() + GOOD }
            }
            Err(error) => {
                tracing::debug!(%error, "tokeninfo cannot be asked");
                Answer { told: None, until: Instant::now() + BAD }
            }
        };
        let news = answer.told.is_some();
        memory.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, answer);
        if news {
            generation.fetch_add(1, Ordering::Release);
        }
    }
}

fn told(body: &[u8]) -> Told {
    let answer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| {
        let text = answer.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        text.chars().take(256).collect::<String>()
    };
    Told { email: text("email"), subject: text("sub") }
}

/// For a form: whatever is not unreserved (RFC 3986 section 2.3) as an escape.
fn encoded(token: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(token.len());
    for byte in token {
        match byte {
            b'-' | b'.' | b'_' | b'~' => encoded.push(*byte),
            byte if byte.is_ascii_alphanumeric() => encoded.push(*byte),
            byte => encoded.extend(format!("%{byte:02X}").into_bytes()),
        }
    }
    encoded
}
