//! One shard's stream: batches up, acknowledgements down, again from the last acknowledgement when the
//! stream breaks.

use std::{collections::VecDeque, rc::Rc, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};
use verbatim_api::v1::{self, ingest_client::IngestClient};

use crate::{backoff::Backoff, health::Health, source::Source, target::chain};

/// Batches on the way at once.
const WINDOW: usize = 8;
/// Entries of a batch, where a signed head lies within.
const BATCH_ENTRIES: usize = 2000;
/// Bytes of a batch, where a signed head lies within.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// An answer to the call itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Each answer behind the end of what the collector takes.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A batch on the way: its chain and its last sequence.
struct OnTheWay {
    chain_id: Vec<u8>,
    last: u64,
}

/// Ships until the source is drained after `finishing` became true.
pub(crate) async fn run<S: Source>(
    mut source: S,
    channel: Channel,
    mut finishing: watch::Receiver<bool>,
    health: Rc<Health>,
) {
    let mut backoff = Backoff::new();
    let mut latest = None;
    loop {
        let lost =
            match stream(&mut source, channel.clone(), &mut finishing, &health, &mut backoff, &mut latest)
                .await
            {
                Ok(()) => return,
                Err(lost) => lost,
            };
        health.bad(&lost);
        source.rewind();
        tokio::time::sleep(backoff.wait()).await;
    }
}

/// One stream, until all is shipped (`Ok`) or it breaks.
async fn stream<S: Source>(
    source: &mut S,
    channel: Channel,
    finishing: &mut watch::Receiver<bool>,
    health: &Health,
    backoff: &mut Backoff,
    latest: &mut Option<v1::AppendResponse>,
) -> Result<(), String> {
    // Don't bother the collector while there is nothing to say.
    if !wait_for_work(source, finishing, latest).await {
        return Ok(());
    }
    let (batches, outgoing) = mpsc::channel(WINDOW);
    let mut client = IngestClient::new(channel);
    let call = client.append(ReceiverStream::new(outgoing));
    let mut answers: Streaming<v1::AppendResponse> = match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return Err(explain(&status)),
        Err(_elapsed) => return Err(format!("no answer within {} s", CALL_TIMEOUT.as_secs())),
    };
    let mut on_the_way: VecDeque<OnTheWay> = VecDeque::new();
    loop {
        while on_the_way.len() < WINDOW {
            let next = source.next_batch(BATCH_ENTRIES, BATCH_BYTES);
            let Some(batch) = next.map_err(|error| format!("the spool cannot be read: {}", chain(&error)))?
            else {
                break;
            };
            let entries = u64::try_from(batch.entries.len()).unwrap_or(u64::MAX);
            let last = batch.first_sequence.saturating_add(entries.saturating_sub(1));
            on_the_way.push_back(OnTheWay { chain_id: batch.chain_id.clone(), last });
            if batches.send(batch).await.is_err() {
                return Err(last_words(source, &mut answers, &mut on_the_way, latest).await);
            }
        }
        if on_the_way.is_empty() && finished(source, finishing, latest) {
            return Ok(());
        }
        let full = on_the_way.len() >= WINDOW;
        tokio::select! {
            answer = answers.message() => {
                let answer = answer.map_err(|status| explain(&status))?;
                let answer = answer.ok_or_else(|| "the collector ended the stream".to_owned())?;
                take(source, &answer, &mut on_the_way);
                *latest = Some(answer);
                health.good();
                backoff.reset();
            }
            () = source.changed(), if !full => {}
            changed = finishing.changed() => {
                if changed.is_err() {
                    // Nobody can tell us to finish any more: the agent is ending without it.
                    return Ok(());
                }
            }
        }
    }
}

/// What the collector still acknowledged when it took nothing more, and why it took nothing more.
async fn last_words<S: Source>(
    source: &mut S,
    answers: &mut Streaming<v1::AppendResponse>,
    on_the_way: &mut VecDeque<OnTheWay>,
    latest: &mut Option<v1::AppendResponse>,
) -> String {
    // One for each batch at most, and the end.
    for _ in 0..=WINDOW {
        match tokio::time::timeout(LAST_WORDS, answers.message()).await {
            Ok(Ok(Some(answer))) => {
                take(source, &answer, on_the_way);
                *latest = Some(answer);
            }
            Ok(Ok(None)) => return "the collector ended the stream".to_owned(),
            Ok(Err(status)) => return explain(&status),
            Err(_elapsed) => break,
        }
    }
    "the stream was closed".to_owned()
}

/// `false`: nothing is left, and nothing more comes.
async fn wait_for_work<S: Source>(
    source: &mut S,
    finishing: &mut watch::Receiver<bool>,
    latest: &Option<v1::AppendResponse>,
) -> bool {
    loop {
        if finished(source, finishing, latest) {
            return false;
        }
        tokio::select! {
            () = source.changed() => return true,
            changed = finishing.changed() => {
                if changed.is_err() {
                    return false;
                }
            }
        }
    }
}

/// Whether everything is shipped and nothing more comes. The last record of a chain may have been
/// acknowledged before its shard had closed it: only now can its segment go, so say it again.
fn finished<S: Source>(
    source: &mut S,
    finishing: &mut watch::Receiver<bool>,
    latest: &Option<v1::AppendResponse>,
) -> bool {
    if !*finishing.borrow_and_update() {
        return false;
    }
    if let Some(answer) = latest {
        source.acknowledge(&answer.chain_id, answer.durable_sequence);
    }
    source.drained()
}

fn take<S: Source>(source: &mut S, answer: &v1::AppendResponse, on_the_way: &mut VecDeque<OnTheWay>) {
    for finding in answer.findings() {
        tracing::warn!(?finding, sequence = answer.durable_sequence, "collector found fault with a batch");
    }
    on_the_way.retain(|batch| batch.chain_id != answer.chain_id || batch.last > answer.durable_sequence);
    source.acknowledge(&answer.chain_id, answer.durable_sequence);
}

fn explain(status: &Status) -> String {
    let text = match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    };
    std::error::Error::source(status)
        .map_or_else(|| text.clone(), |cause| format!("{text}: {}", chain(cause)))
}
