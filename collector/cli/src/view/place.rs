//! Where a workload lives, beyond its names, and how it was named or why it was not.

use serde::Serialize;
use verbatim_api::v1;

use super::AttributeView;
use crate::names::Named;

/// See [`v1::Workload`] and [`v1::Pod`].
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlaceView {
    pub(crate) resolution: String,
    pub(crate) cluster: String,
    /// The Google service account that the workload's own is annotated to act as.
    pub(crate) impersonated_service_account: String,
    pub(crate) container_kind: String,
    pub(crate) container_id: String,
    /// From the pod's controller upwards, e.g. `ReplicaSet/web-5d9`.
    pub(crate) owners: Vec<String>,
    pub(crate) image: String,
    pub(crate) image_digest: String,
    /// Those that the node agent's configuration names.
    pub(crate) labels: Vec<AttributeView>,
    pub(crate) host_network: bool,
    pub(crate) static_pod: bool,
}

impl PlaceView {
    pub(crate) fn new(workload: &v1::Workload, pod: Option<&v1::Pod>) -> Self {
        let view = Self {
            resolution: workload.resolution().short(),
            cluster: workload.cluster.clone(),
            impersonated_service_account: workload.impersonated_service_account.clone(),
            container_kind: workload.container_kind().short(),
            container_id: workload.container_id.clone(),
            ..Self::default()
        };
        let Some(pod) = pod else { return view };
        Self {
            owners: pod.owners.iter().map(|owner| format!("{}/{}", owner.kind, owner.name)).collect(),
            image: pod.image.clone(),
            image_digest: pod.image_digest.clone(),
            labels: pod.labels.iter().map(AttributeView::new).collect(),
            host_network: pod.host_network,
            static_pod: pod.static_pod,
            ..view
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_says_how_it_was_named_and_who_keeps_its_pod() {
        let workload = v1::Workload {
            resolution: v1::Resolution::ContainerUnknown.into(),
            container_kind: v1::ContainerKind::Sidecar.into(),
            ..v1::Workload::default()
        };
        let owner = |kind: &str, name: &str| v1::Owner {
            kind: kind.into(),
            name: name.into(),
            ..v1::Owner::default()
        };
        let pod = v1::Pod {
            owners: vec![owner("ReplicaSet", "web-5d9"), owner("Deployment", "web")],
            ..v1::Pod::default()
        };
        let view = PlaceView::new(&workload, Some(&pod));
        assert_eq!(
            (view.resolution.as_str(), view.container_kind.as_str()),
            ("container-unknown", "sidecar")
        );
        assert_eq!(view.owners, ["ReplicaSet/web-5d9", "Deployment/web"]);
    }
}
