//! Where what is kept is: a Secret of the issuer's own namespace, changed only by who has read its last version.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use futures_util::StreamExt;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{ObjectMeta, PartialObjectMeta, PostParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::sync::watch;
use verbatim_tls::now;

use crate::kept::{Class, Kept, KeptError, Rules};

/// The key in the Secret's data.
const KEY: &str = "state.json";
/// Between two looks where nobody tells of a change: time passes, and a watch may be of no use.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How often a change is tried that others' changes came in between of.
const TRIES: usize = 5;

/// It is not kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The API server.
    #[error("the Secret {secret} cannot be {what}: {source}")]
    Kube {
        /// Which.
        secret: String,
        /// Read, or written.
        what: &'static str,
        /// Why.
        source: Box<kube::Error>,
    },
    /// What is in it.
    #[error("the Secret {secret}: {source}")]
    Kept {
        /// Which.
        secret: String,
        /// Why.
        source: KeptError,
    },
    /// It holds something else.
    #[error(
        "the Secret {0} has no `state.json`: it is another's, or was emptied; roots are not made anew over it"
    )]
    Empty(String),
    /// Others are quicker each time.
    #[error("the Secret {0} changes all the time")]
    Contended(String),
}

/// The Secret.
#[derive(Clone)]
pub struct Store {
    api: Api<Secret>,
    /// That it changed, and not what it holds.
    changes: Api<PartialObjectMeta<Secret>>,
    name: String,
    rules: Rules,
}

impl Store {
    /// That Secret.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, rules: Rules) -> Self {
        let changes = Api::namespaced(client.clone(), namespace);
        Self { api: Api::namespaced(client, namespace), changes, name: name.to_owned(), rules }
    }

    fn kube(&self, what: &'static str) -> impl Fn(kube::Error) -> StoreError + '_ {
        move |source| StoreError::Kube { secret: self.name.clone(), what, source: Box::new(source) }
    }

    fn kept(&self, source: KeptError) -> StoreError {
        StoreError::Kept { secret: self.name.clone(), source }
    }

    async fn read(&self) -> Result<Option<(Secret, Kept)>, StoreError> {
        let Some(secret) = self.api.get_opt(&self.name).await.map_err(self.kube("read"))? else {
            return Ok(None);
        };
        let text = secret.data.as_ref().and_then(|data| data.get(KEY));
        let text = text.ok_or_else(|| StoreError::Empty(self.name.clone()))?;
        let kept = Kept::read(&text.0).map_err(|source| self.kept(source))?;
        Ok(Some((secret, kept)))
    }

    /// Changes what is kept, once it is known that nobody else did meanwhile; made where there is nothing yet.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn change(
        &self,
        change: impl Fn(&mut Kept, &Rules) -> Result<(), KeptError>,
    ) -> Result<Kept, StoreError> {
        for _ in 0..TRIES {
            let (secret, before) = match self.read().await? {
                Some((secret, kept)) => (Some(secret), Some(kept)),
                None => (None, None),
            };
            let mut kept = match &before {
                Some(kept) => kept.clone(),
                None => Kept::new(&self.rules, now()).map_err(|source| self.kept(source))?,
            };
            change(&mut kept, &self.rules).map_err(|source| self.kept(source))?;
            kept.tick(&self.rules, now()).map_err(|source| self.kept(source))?;
            if before.as_ref() == Some(&kept) {
                return Ok(kept);
            }
            let data = BTreeMap::from([(KEY.to_owned(), ByteString(kept.write().to_vec()))]);
            let params = PostParams::default();
            let written = match secret {
                Some(mut secret) => {
                    // With the version that was read: another's change in between is a conflict.
                    secret.data = Some(data);
                    self.api.replace(&self.name, &params, &secret).await
                }
                None => {
                    let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                    let secret = Secret { metadata, data: Some(data), ..Secret::default() };
                    self.api.create(&params, &secret).await
                }
            };
            match written {
                Ok(_) => {
                    report(before.as_ref(), &kept);
                    return Ok(kept);
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(self.kube("written")(error)),
            }
        }
        Err(StoreError::Contended(self.name.clone()))
    }

    /// What is kept, with what is due done.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn look(&self) -> Result<Kept, StoreError> {
        self.change(|_, _| Ok(())).await
    }

    /// Looks again when somebody has changed it and from time to time, and tells. While the API server is away, what
    /// was known is gone on with.
    ///
    /// Another replica's change is to be known at once: until then pods would be given roots, and namespaces a bundle,
    /// that it has replaced.
    pub async fn follow(self, told: watch::Sender<Arc<Kept>>) {
        let named = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut changes = pin!(watcher(self.changes.clone(), named).default_backoff());
        loop {
            tokio::select! {
                Some(event) = changes.next() => match event {
                    Ok(Event::Apply(_) | Event::InitDone) => {}
                    Ok(Event::Init | Event::InitApply(_) | Event::Delete(_)) => continue,
                    Err(error) => {
                        tracing::warn!(%error, "what is kept cannot be watched: it is looked at from time to time");
                        continue;
                    }
                },
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            if let Err(error) = self.look_and_tell(&told).await {
                tracing::error!(%error, "what is kept cannot be looked at; what is known stays");
            }
        }
    }

    /// As [`Store::look`], and tells where it is another than what was known.
    pub(crate) async fn look_and_tell(
        &self,
        told: &watch::Sender<Arc<Kept>>,
    ) -> Result<Arc<Kept>, StoreError> {
        let kept = self.look().await?;
        told.send_if_modified(|known| {
            let other = **known != kept;
            if other {
                *known = Arc::new(kept);
            }
            other
        });
        Ok(Arc::clone(&told.borrow()))
    }
}

/// What has happened to the authorities.
fn report(before: Option<&Kept>, now: &Kept) {
    for class in Class::ALL {
        let phases = |kept: &Kept| {
            kept.generations(class).iter().map(|one| (one.certificate.clone(), one.phase)).collect::<Vec<_>>()
        };
        let was = before.map(phases).unwrap_or_default();
        for (certificate, phase) in phases(now) {
            if !was.contains(&(certificate, phase)) {
                tracing::info!(class = %class, ?phase, "an authority has come into this phase");
            }
        }
    }
}
