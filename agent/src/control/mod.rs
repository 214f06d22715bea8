//! What people and machines ask of a running agent: orders over a socket, metrics and health over HTTP; and the
//! watchdog, whose findings both tell.
//!
//! Owns who may ask for what. Looks at the worker's parts through handles that keep none of them alive.

mod ask;
mod exposition;
mod health;
mod http;
mod metrics;
mod orders;
mod person;
mod socket;
mod watchdog;
mod words;

use std::{io, path::Path, sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use verbatim_agent_config::NodeAgent;
use verbatim_kube::Store;
use verbatim_steer::NamespaceTroubles;

pub(crate) use ask::{bypass, doctor};
pub(crate) use health::Conditions;
pub(crate) use words::Order;

use crate::{doctor::Doctor, issued::Known, worker::Worker};
use health::Health;
use http::Subject;
use orders::{Limits, Orders};
use socket::Examiner;

/// Runs until it is stopped.
pub(crate) struct Control {
    health: Arc<Health>,
    orders: Arc<Orders>,
    /// What ends when the agent drains.
    ordering: Vec<JoinHandle<()>>,
    /// What goes on until its very end.
    answering: Option<JoinHandle<()>>,
}

impl Control {
    /// Answers questions from now on.
    pub(crate) fn start(
        config: &NodeAgent,
        worker: &Worker,
        pods: Option<Arc<Store>>,
        issuer: Option<Known>,
        heartbeat_timeout: Duration,
    ) -> Self {
        let limits = Limits { enabled: config.bypass.enabled, maximum: config.bypass.maximum.0 };
        let (steering, shards) = (worker.steering(), worker.shards());
        let orders = Arc::new(Orders::new(limits, steering, shards));
        let health = Arc::new(Health::new(worker.vitals(), pods, issuer, heartbeat_timeout));
        let watched = (Arc::downgrade(steering), Arc::downgrade(shards));
        let ordering = vec![tokio::spawn(watchdog::watch(watched.0, watched.1, Arc::clone(&health)))];
        let subject = Arc::new(Subject { health: Arc::clone(&health), orders: Arc::clone(&orders) });
        let answering = config.metrics.map(|metrics| tokio::spawn(http::serve(metrics.listen, subject)));
        Self { health, orders, ordering, answering }
    }

    /// Takes orders from now on, in the place of whoever did before: once the hooks are ours.
    pub(crate) fn take_orders(&mut self, run_directory: &Path, doctor: Doctor) -> io::Result<()> {
        let listener = socket::listen(run_directory)?;
        let accounting = Arc::clone(&self.orders);
        self.ordering.push(tokio::spawn(async move { accounting.account().await }));
        let examiner = Arc::new(Examiner { doctor, health: Arc::clone(&self.health) });
        self.ordering.push(tokio::spawn(socket::serve(listener, Arc::clone(&self.orders), examiner)));
        Ok(())
    }

    /// See [`Health::scanned`].
    pub(crate) fn scanned(&self, troubles: NamespaceTroubles) {
        self.health.scanned(troubles);
    }

    /// The agent ends: no more orders, and no more looking after the hooks.
    pub(crate) async fn drain(&mut self) {
        self.health.draining();
        for task in self.ordering.drain(..) {
            task.abort();
            task.await.ok();
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        for task in self.ordering.drain(..).chain(self.answering.take()) {
            task.abort();
        }
    }
}
