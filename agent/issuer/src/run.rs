//! Everything put together.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use kube::Client;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinHandle,
};
use verbatim_tls::RootsError;

use crate::{
    bundle::Others,
    config::Config,
    kept::Rules,
    metrics::Metrics,
    namespaces::{self, Standings},
    nodes::Desk,
    own::{self, OwnError},
    review::Reviewer,
    server::{self, Subject},
    store::{Store, StoreError},
    webhook::Webhook,
};

/// How long whoever must believe an authority of our own connections is given to hear of it: kubelet writes a mounted
/// ConfigMap again within two minutes, and the collector reads it at its start.
const OWN_LEAD: Duration = Duration::from_secs(7 * 24 * 3600);

/// It does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// See [`OwnError`].
    #[error(transparent)]
    Own(#[from] OwnError),
    /// Roots that a bundle should hold.
    #[error("bundle: {0}")]
    Roots(#[from] RootsError),
    /// The address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// The rules of the configuration.
#[must_use]
pub(crate) fn rules(config: &Config) -> Rules {
    let signed = config.nodes.intermediate_lifetime.0.max(config.nodes.client_lifetime.0);
    Rules {
        names: config.roots.names.clone(),
        lifetime: config.roots.lifetime.0,
        lead: config.roots.max_pod_lifetime.0,
        own_lead: config.roots.max_pod_lifetime.0.min(OWN_LEAD),
        signed,
    }
}

/// An issuer that serves.
#[derive(Debug)]
pub struct Running {
    /// Where.
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    keepers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Ends it.
    pub async fn stop(self) {
        drop(self.stop);
        self.server.await.ok();
        for keeper in self.keepers {
            keeper.abort();
            keeper.await.ok();
        }
    }
}

/// Reads or makes what is kept, listens, and keeps everything in its place.
///
/// # Errors
/// See [`StartError`].
pub async fn start(client: Client, config: &Config) -> Result<Running, StartError> {
    let namespace = config.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let others = Others::read(&config.bundle)?;
    let listen = |source| StartError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let store = Store::new(client.clone(), &namespace, &config.secret, rules(config));
    let kept = Arc::new(store.look().await?);

    let metrics = Arc::new(Metrics::default());
    let standings = Arc::new(Standings::default());
    let first = Arc::new(others.with(&kept));
    let bundle = Arc::new(ArcSwap::new(Arc::clone(&first)));
    let (own_kept, own_known) = watch::channel(false);
    let own = own::Keeper::new(client.clone(), &namespace, config, &kept, own_kept)?;
    let certificate = own.own();
    let (tell_kept, know_kept) = watch::channel(Arc::clone(&kept));
    let (tell_bundle, know_bundle) = watch::channel(first);

    let reviewer =
        Reviewer::new(client.clone(), &namespace, &config.nodes.service_account, &config.nodes.audience);
    let subject = Arc::new(Subject {
        desk: Desk::new(reviewer, &config.nodes, store.clone(), tell_kept.clone(), Arc::clone(&metrics)),
        webhook: Webhook::new(
            &config.injection,
            &config.bundle.config_map,
            &namespace,
            Arc::clone(&bundle),
            Arc::clone(&standings),
            Arc::clone(&metrics),
        ),
        own_kept: own_known,
        standings: Arc::clone(&standings),
        metrics,
    });
    let keeper = namespaces::Keeper::new(
        client,
        &config.bundle.config_map,
        &config.bundle.namespace_selector,
        standings,
    );
    let mut changes = know_kept.clone();
    let keepers = vec![
        tokio::spawn(store.follow(tell_kept)),
        tokio::spawn(own.run(know_kept)),
        tokio::spawn(keeper.run(know_bundle)),
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let kept = Arc::clone(&changes.borrow_and_update());
                let next = Arc::new(others.with(&kept));
                if **bundle.load() != *next {
                    bundle.store(Arc::clone(&next));
                    tell_bundle.send_replace(next);
                }
            }
        }),
    ];
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let ending = async {
            stopped.await.ok();
        };
        if let Err(error) = server::serve(listener, certificate, subject, ending).await {
            tracing::error!(%error, "nothing is served");
        }
    });
    tracing::info!(%address, namespace, "the issuer serves");
    Ok(Running { address, stop, server, keepers })
}
