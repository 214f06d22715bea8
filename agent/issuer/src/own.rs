//! Verbatim's own certificates on the cluster, and who is to believe them: the server's, the collector's, the
//! `caBundle` of the webhook, the ConfigMap for nodes and collector.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        core::v1::{ConfigMap, Secret},
    },
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams},
};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde_json::json;
use tokio::sync::watch;
use verbatim_tls::{IssueError, now};

use crate::{
    config::Config,
    kept::{Class, Kept, KeptError},
};

/// How long the issuer's own certificate is good for. Made anew at each start, and at half of it.
const OWN: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long the collector's is. It is read at the collector's start.
const COLLECTOR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Between two looks at whether somebody has changed what is kept here.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
const MANAGER: &str = "verbatim-issuer";

/// There is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// See [`KeptError`].
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// See [`IssueError`].
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// rustls does not take it.
    #[error("our own certificate is not accepted: {0}")]
    Tls(#[from] rustls::Error),
    /// Our own PEM.
    #[error("our own certificate cannot be read")]
    Pem,
    /// The API server.
    #[error("{what}: {source}")]
    Kube {
        /// What could not be done.
        what: &'static str,
        /// Why.
        source: Box<kube::Error>,
    },
}

fn kube(what: &'static str) -> impl Fn(kube::Error) -> OwnError {
    move |source| OwnError::Kube { what, source: Box::new(source) }
}

/// The server's certificate of this moment.
#[derive(Debug)]
pub(crate) struct Own {
    key: ArcSwap<CertifiedKey>,
}

/// What it was made from, and until when it serves.
struct Made {
    authority: String,
    renew_at: i64,
}

fn certified(kept: &Kept, names: &[String]) -> Result<(CertifiedKey, Made), OwnError> {
    let identity = kept.plain(Class::Servers)?.server(names, OWN)?;
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes())
        .map_err(|_unreadable| OwnError::Pem)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(|_unreadable| OwnError::Pem)?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
    let renew_at = now().saturating_add(identity.not_after.saturating_sub(now()) / 2);
    let made = Made { authority: kept.certificates(Class::Servers), renew_at };
    Ok((CertifiedKey::new(vec![certificate.into_owned()], key), made))
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.load_full())
    }
}

/// Keeps all of it.
pub(crate) struct Keeper {
    own: Arc<Own>,
    made: Made,
    client: Client,
    namespace: String,
    config: Config,
    done: watch::Sender<bool>,
}

impl Keeper {
    /// Makes the server's certificate; the rest is for [`Keeper::run`]. `done` tells whether all is as it should be.
    ///
    /// # Errors
    /// When there is no certificate.
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        config: &Config,
        kept: &Kept,
        done: watch::Sender<bool>,
    ) -> Result<Self, OwnError> {
        let (key, made) = certified(kept, &config.names)?;
        let own = Arc::new(Own { key: ArcSwap::from_pointee(key) });
        Ok(Self { own, made, client, namespace: namespace.to_owned(), config: config.clone(), done })
    }

    /// For the server.
    #[must_use]
    pub(crate) fn own(&self) -> Arc<Own> {
        Arc::clone(&self.own)
    }

    /// Never returns.
    pub(crate) async fn run(mut self, mut kept: watch::Receiver<Arc<Kept>>) {
        loop {
            let now = Arc::clone(&kept.borrow_and_update());
            let well = match self.keep(&now).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::error!(%error, "the issuer's own certificates are not all in their place; tried again");
                    false
                }
            };
            self.done.send_replace(well);
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                changed = kept.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn keep(&mut self, kept: &Kept) -> Result<(), OwnError> {
        // Believed first, used then.
        self.authorities(kept).await?;
        self.webhook(kept).await?;
        if now() >= self.made.renew_at || self.made.authority != kept.certificates(Class::Servers) {
            let (key, made) = certified(kept, &self.config.names)?;
            self.own.key.store(Arc::new(key));
            self.made = made;
            tracing::info!("the issuer has a new certificate of its own");
        }
        self.collector(kept).await
    }

    /// `servers.pem` for nodes and `clients.pem` for the collector.
    async fn authorities(&self, kept: &Kept) -> Result<(), OwnError> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace);
        let data = BTreeMap::from([
            ("servers.pem".to_owned(), kept.certificates(Class::Servers)),
            ("clients.pem".to_owned(), kept.certificates(Class::Clients)),
        ]);
        let name = &self.config.authorities;
        let there = api.get_opt(name).await.map_err(kube("the ConfigMap of authorities cannot be read"))?;
        if there.is_some_and(|there| there.data.as_ref() == Some(&data)) {
            return Ok(());
        }
        let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
        let config_map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
        let params = PatchParams::apply(MANAGER).force();
        let applied = api.patch(name, &params, &Patch::Apply(&config_map)).await;
        applied.map(drop).map_err(kube("the ConfigMap of authorities cannot be written"))
    }

    /// `caBundle` of each webhook of the configuration.
    async fn webhook(&self, kept: &Kept) -> Result<(), OwnError> {
        let name = &self.config.injection.webhook;
        if name.is_empty() {
            return Ok(());
        }
        let api = Api::<MutatingWebhookConfiguration>::all(self.client.clone());
        let wanted = ByteString(kept.certificates(Class::Servers).into_bytes());
        let there = api.get(name).await.map_err(kube("the MutatingWebhookConfiguration cannot be read"))?;
        let other: Vec<_> = there
            .webhooks
            .iter()
            .flatten()
            .filter(|webhook| webhook.client_config.ca_bundle.as_ref() != Some(&wanted))
            .map(|webhook| json!({ "name": webhook.name, "clientConfig": { "caBundle": wanted } }))
            .collect();
        if other.is_empty() {
            return Ok(());
        }
        // Merged by name: nothing else of it is ours to say.
        let patch = json!({ "webhooks": other });
        api.patch(name, &PatchParams::default(), &Patch::Strategic(&patch))
            .await
            .map_err(kube("the webhook's caBundle cannot be written"))?;
        tracing::info!(webhook = name, "the API server is told whom to believe");
        Ok(())
    }

    /// The collector's certificate; left as it is while it is good, believed and for these names.
    async fn collector(&self, kept: &Kept) -> Result<(), OwnError> {
        let Some(collector) = &self.config.collector else { return Ok(()) };
        let api = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        let there =
            api.get_opt(&collector.secret).await.map_err(kube("the collector's Secret cannot be read"))?;
        let authority = kept.plain(Class::Servers)?;
        // Which authority, names and time it was made for.
        let made_for = format!("{} {}", authority.certificate_pem(), collector.names.join(" "));
        let text = |key: &str| {
            let data = there.as_ref()?.data.as_ref()?.get(key)?;
            String::from_utf8(data.0.clone()).ok()
        };
        let until = text("notAfter").and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
        let half = i64::try_from(COLLECTOR.as_secs()).unwrap_or(i64::MAX) / 2;
        if text("madeFor").as_deref() == Some(&made_for) && now() < until.saturating_sub(half) {
            return Ok(());
        }
        let identity = authority.server(&collector.names, COLLECTOR)?;
        let data = [
            ("tls.crt", identity.certificate.clone()),
            ("tls.key", identity.key.to_string()),
            ("notAfter", identity.not_after.to_string()),
            ("madeFor", made_for),
        ];
        let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())));
        let secret = Secret {
            metadata: ObjectMeta { name: Some(collector.secret.clone()), ..ObjectMeta::default() },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(BTreeMap::from(data)),
            ..Secret::default()
        };
        let params = PatchParams::apply(MANAGER).force();
        api.patch(&collector.secret, &params, &Patch::Apply(&secret))
            .await
            .map_err(kube("the collector's Secret cannot be written"))?;
        tracing::info!(
            secret = collector.secret,
            "the collector has a certificate; it reads it at its next start"
        );
        Ok(())
    }
}
