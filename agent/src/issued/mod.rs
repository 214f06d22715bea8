//! What the cluster's issuer gives this node: intermediates, the certificate toward the collector, the key of
//! fingerprints. Asked for at start, and again at half of its time.
//!
//! Owns when it is asked for and where what comes is put. While the issuer is away, what was given goes on for as long
//! as it is good; without any, TLS is spliced and recorded so. Keys are made here and never leave the node.

mod ask;
mod files;

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle, time::timeout};
use verbatim_agent_config::ClusterIssuer;
use verbatim_credential::{FingerprintKey, Fingerprints};
use verbatim_issuer_api::{NodeAnswer, NodeRequest};
use verbatim_ship::Issued;
use verbatim_tls::{Authority, AuthorityMaterial, NameClass, Request, RootId, now};
use zeroize::Zeroizing;

pub(crate) use ask::{AskError, Door};
pub(crate) use files::reread;

/// Between two tries, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What is good for longer is asked for again all the same: a rotation is to come around.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// How long whoever starts to steer waits for the first answer. A predecessor goes on meanwhile, and what comes to a
/// dead worker's listeners waits; without it, every TLS connection until the answer would pass undecoded.
const FIRST_ANSWER: Duration = Duration::from_secs(3);

/// Where what is given goes.
pub(crate) struct Receivers {
    /// Toward workloads.
    pub(crate) authority: Arc<Authority>,
    /// Toward the collector.
    pub(crate) collector: Issued,
    /// What fingerprints are made with; absent where the cluster's key is not wanted.
    pub(crate) fingerprints: Option<Arc<Fingerprints>>,
}

/// How it stands, for who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Until when what was given is good, seconds since 1970; none was given yet where it is absent.
    pub(crate) until: Option<i64>,
    /// The roots that leaves lead to.
    pub(crate) roots: Vec<RootId>,
    /// Why the last try came to nothing.
    pub(crate) failing: Option<String>,
}

/// See [`Standing`]; shared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known(Arc<watch::Sender<Standing>>);

impl Known {
    /// Of this moment.
    pub(crate) fn now(&self) -> Standing {
        self.0.borrow().clone()
    }

    /// Waits until something was given, for a while; whether it was.
    pub(crate) async fn given(&self) -> bool {
        let mut standing = self.0.subscribe();
        let given = standing.wait_for(|standing| standing.until.is_some());
        matches!(timeout(FIRST_ANSWER, given).await, Ok(Ok(_)))
    }

    /// Whether what was given is good, or why there is nothing good.
    pub(crate) fn usable(&self) -> Result<(), String> {
        let Standing { until, failing, .. } = self.now();
        match (until, failing) {
            (Some(until), _) if until > now() => Ok(()),
            (_, Some(why)) => Err(why),
            (_, None) => Err("the issuer has given none yet".to_owned()),
        }
    }

    fn set(&self, change: impl FnOnce(&mut Standing)) {
        self.0.send_modify(change);
    }
}

/// What came cannot be used.
#[derive(Debug, thiserror::Error)]
enum UseError {
    /// See [`AskError`].
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Of ours or of the issuer's.
    #[error("what the issuer gave cannot be used: {0}")]
    Authority(#[from] verbatim_tls::AuthorityError),
    /// Toward the collector.
    #[error("what the issuer gave cannot be used: {0}")]
    Collector(#[from] verbatim_ship::IssuedError),
    /// It lacks something.
    #[error("what the issuer gave cannot be used: it lacks {0}")]
    Lacks(&'static str),
}

/// Asks for as long as the agent runs.
pub(crate) fn start(config: &ClusterIssuer, receivers: Receivers) -> (JoinHandle<()>, Known) {
    let known = Known::default();
    let (door, told) = (Door::new(config), known.clone());
    let task = tokio::spawn(async move {
        let mut pause = FIRST_PAUSE;
        loop {
            match once(&door, &receivers).await {
                Ok(until) => {
                    if told.now().failing.is_some() {
                        tracing::info!("the issuer answers again");
                    }
                    let roots = receivers.authority.leads_to();
                    told.set(|standing| *standing = Standing { until: Some(until), roots, failing: None });
                    pause = FIRST_PAUSE;
                    tokio::time::sleep(wait(until, now())).await;
                }
                Err(error) => {
                    let (standing, why) = (told.now(), error.to_string());
                    // Said once for each reason, tried again each time.
                    if standing.failing.as_ref() != Some(&why) {
                        tracing::warn!(
                            %error,
                            ready = receivers.authority.is_ready(),
                            "the issuer gives nothing; tried again"
                        );
                    }
                    told.set(|standing| standing.failing = Some(why));
                    tokio::time::sleep(jittered(pause)).await;
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
            }
        }
    });
    (task, known)
}

/// Half of what is left.
fn wait(until: i64, now: i64) -> Duration {
    let left = Duration::from_secs(u64::try_from(until.saturating_sub(now)).unwrap_or_default());
    jittered((left / 2).clamp(FIRST_PAUSE, LONGEST_WAIT))
}

/// All nodes start at the same time once: they need not go on asking at the same time.
fn jittered(time: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u128() % 1000;
    let part = u32::try_from(random).unwrap_or_default();
    time.mul_f64(f64::from(part).mul_add(0.0002, 0.8))
}

/// Asks, puts everything where it belongs, and says until when all of it is good.
async fn once(door: &Door, receivers: &Receivers) -> Result<i64, UseError> {
    let (api, databases, client) = (Request::make()?, Request::make()?, Request::make()?);
    let request = NodeRequest { api: api.pem()?, databases: databases.pem()?, client: client.pem()? };
    let answer = door.ask(&request).await?;
    let mut material = AuthorityMaterial { roots: answer.roots.clone(), intermediates: Vec::new() };
    for (class, key) in [(NameClass::Api, &api), (NameClass::Databases, &databases)] {
        let found = answer.intermediates.iter().find(|one| one.class == class);
        let found = found.ok_or(UseError::Lacks("an intermediate"))?;
        material.intermediates.push(format!("{}{}", found.certificate.certificate, *key.key_pem()));
    }
    receivers.authority.replace(&material)?;
    receivers.collector.set(&answer.client.certificate, &client.key_pem())?;
    if let Some(fingerprints) = &receivers.fingerprints {
        let key = &answer.fingerprint_key;
        let bytes = key.bytes().map(Zeroizing::new).ok_or(UseError::Lacks("the key of fingerprints"))?;
        if *fingerprints.key_id() != *key.id {
            tracing::info!(key = key.id, "credentials are fingerprinted with the cluster's key");
            fingerprints.replace(FingerprintKey::new(&key.id, &bytes));
        }
    }
    let NodeAnswer { node, intermediates, client, .. } = &answer;
    let ends = intermediates.iter().map(|one| one.certificate.not_after).chain([client.not_after]);
    let until = ends.min().unwrap_or_default();
    tracing::info!(node, until, "the issuer has given this node its certificates");
    Ok(until)
}

#[cfg(test)]
mod tests;
