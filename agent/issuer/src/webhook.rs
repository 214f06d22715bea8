//! The admission of pods: what the API server asks, and what it is answered. A pod is never refused, and where anything
//! is not as expected it is admitted as it is: it is spliced then, and recorded so.

use std::{collections::BTreeSet, sync::Arc};

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Pod;
use kube::core::{
    DynamicObject,
    admission::{
        AdmissionRequest, AdmissionResponse, AdmissionReview, ConvertAdmissionReviewError, Operation,
    },
};
use verbatim_inject::{Options, Outcome, inject};

use crate::{
    bundle::Bundle,
    config::{Given, Injection},
    metrics::{Admission, Metrics},
    namespaces::{Standing, Standings},
};

/// Never injected: what the cluster itself stands on.
const SYSTEM: &str = "kube-system";
/// A warning is cut there by the API server.
const LONGEST_WARNING: usize = 250;

/// What answers.
pub(crate) struct Webhook {
    injection: Injection,
    config_map: String,
    exempt: BTreeSet<String>,
    bundle: Arc<ArcSwap<Bundle>>,
    standings: Arc<Standings>,
    metrics: Arc<Metrics>,
}

impl Webhook {
    /// For the issuer's own namespace, whose pods are left alone too.
    #[must_use]
    pub(crate) fn new(
        injection: &Injection,
        config_map: &str,
        own_namespace: &str,
        bundle: Arc<ArcSwap<Bundle>>,
        standings: Arc<Standings>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let own = [SYSTEM.to_owned(), own_namespace.to_owned()];
        let exempt = injection.exempt_namespaces.iter().cloned().chain(own).collect();
        Self {
            injection: injection.clone(),
            config_map: config_map.to_owned(),
            exempt,
            bundle,
            standings,
            metrics,
        }
    }

    /// Answers a review (admission.k8s.io/v1), as it came over the wire. A pod that is newer than our types is admitted
    /// as it is; `None` where it is no review at all: what becomes of the pod is then the failure policy's say.
    #[must_use]
    pub(crate) fn review(&self, body: &[u8]) -> Option<AdmissionReview<DynamicObject>> {
        let why = match request::<Pod>(body) {
            Ok(request) => return Some(self.answer(&request).into_review()),
            Err(why) => why,
        };
        self.metrics.admitted(Admission::NotUnderstood);
        tracing::warn!(why, "a review was not understood");
        let request = request::<DynamicObject>(body).ok()?;
        let warning = "not injected: the pod was not understood".to_owned();
        Some(warned(AdmissionResponse::from(&request), vec![warning]).into_review())
    }

    fn answer(&self, request: &AdmissionRequest<Pod>) -> AdmissionResponse {
        let response = AdmissionResponse::from(request);
        let namespace = request.namespace.as_deref().unwrap_or_default();
        let Some(pod) = request.object.as_ref().filter(|_| request.operation == Operation::Create) else {
            self.metrics.admitted(Admission::Exempt);
            return response;
        };
        let given = self.given(namespace, pod);
        if self.exempt.contains(namespace) || !given.inject {
            self.metrics.admitted(Admission::Exempt);
            return response;
        }
        if let Standing::Failing(why) = self.standings.of(namespace) {
            // The pod would wait for it and never start.
            self.metrics.admitted(Admission::NoBundle);
            tracing::warn!(namespace, why, "a pod is not injected: its namespace has no bundle");
            return warned(response, vec![format!("not injected: {} cannot be kept here", self.config_map)]);
        }
        let options = Options {
            config_map: self.config_map.clone(),
            folder: self.injection.folder.clone(),
            roots: self.bundle.load().roots.clone(),
            extras: given.extras,
            env_from: given.env_from,
        };
        let Outcome { result, patch, warnings } = inject(pod, &options);
        let name = pod.metadata.name.as_ref().or(pod.metadata.generate_name.as_ref());
        match &result {
            Ok(injected) => {
                self.metrics.admitted(Admission::Injected);
                let containers = injected.containers.len();
                tracing::debug!(namespace, name, containers, dry_run = request.dry_run, "a pod is injected");
            }
            Err(skip) => {
                self.metrics.admitted(Admission::Skipped);
                tracing::debug!(namespace, name, %skip, "a pod is left alone");
            }
        }
        let response = warned(response, warnings);
        if patch.0.is_empty() {
            return response;
        }
        let untouched = response.clone();
        response.with_patch(patch).unwrap_or_else(|error| {
            tracing::error!(%error, "a patch cannot be written");
            untouched
        })
    }

    /// By the first rule that matches.
    fn given(&self, namespace: &str, pod: &Pod) -> Given {
        let account =
            pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let label = |name: &str| pod.metadata.labels.as_ref().and_then(|labels| labels.get(name));
        let found = self.injection.rules.iter().find(|rule| {
            let wanted = &rule.matching;
            wanted.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
                && wanted.service_account.as_deref().is_none_or(|wanted| wanted == account)
                && wanted.labels.iter().all(|(name, wanted)| label(name) == Some(wanted))
        });
        found.map(|rule| rule.set.clone()).unwrap_or_default()
    }
}

fn request<T>(body: &[u8]) -> Result<AdmissionRequest<T>, String>
where
    T: kube::Resource + serde::de::DeserializeOwned,
{
    let review: AdmissionReview<T> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    review.try_into().map_err(|error: ConvertAdmissionReviewError| error.to_string())
}

fn warned(mut response: AdmissionResponse, warnings: Vec<String>) -> AdmissionResponse {
    let cut = |mut warning: String| {
        warning.truncate(warning.floor_char_boundary(LONGEST_WARNING));
        warning
    };
    if !warnings.is_empty() {
        let own = |warning| format!("verbatim: {warning}");
        response.warnings = Some(warnings.into_iter().map(own).map(cut).collect());
    }
    response
}
