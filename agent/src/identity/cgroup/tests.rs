use proptest::prelude::*;

use super::*;

const UID: &str = "0f6e7c1a-2b3c-4d5e-8f90-a1b2c3d4e5f6";
const SLICE_UID: &str = "0f6e7c1a_2b3c_4d5e_8f90_a1b2c3d4e5f6";
const HASH: &str = "d41d8cd98f00b204e9800998ecf8427e";
const ID: &str = "5f2c9d0e4b6a8170f3e2d1c0b9a897867564534231201f0e0d0c0b0a09080706";

/// Writes `UID`, `SLICE`, `HASH` and `ID` out.
fn path(text: &str) -> String {
    text.replace("{uid}", UID).replace("{slice}", SLICE_UID).replace("{hash}", HASH).replace("{id}", ID)
}

fn place(text: &str) -> Place {
    Place::of(&path(text), &PodsRoot::default())
}

fn pod(uid: &str, qos: Qos, container: Option<(Runtime, bool)>) -> Place {
    let container = container.map(|(runtime, nested)| Container { id: ID.into(), runtime, nested });
    Place::Pod(PodCgroup { uid: uid.to_owned(), qos, container })
}

#[test]
fn the_names_of_kubelets_and_runtimes_are_read() {
    use Qos::{BestEffort, Burstable, Guaranteed};
    use Runtime::{Containerd, Crio, Docker, Unsaid};
    let cases = [
        // cgroupfs driver.
        ("kubepods/burstable/pod{uid}/{id}", UID, Burstable, Some((Unsaid, false))),
        ("kubepods/besteffort/pod{uid}/{id}", UID, BestEffort, Some((Unsaid, false))),
        ("kubepods/pod{uid}/{id}", UID, Guaranteed, Some((Unsaid, false))),
        ("kubepods/pod{uid}", UID, Guaranteed, None),
        ("kubepods/burstable/pod{uid}/crio-{id}", UID, Burstable, Some((Crio, false))),
        ("kubepods/burstable/pod{uid}/crio-conmon-{id}", UID, Burstable, None),
        ("kubepods/burstable/pod{hash}/{id}", HASH, Burstable, Some((Unsaid, false))),
        // systemd driver.
        (
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-{id}.scope",
            UID,
            Burstable,
            Some((Containerd, false)),
        ),
        (
            "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{slice}.slice/crio-{id}.scope",
            UID,
            BestEffort,
            Some((Crio, false)),
        ),
        (
            "kubepods.slice/kubepods-pod{slice}.slice/docker-{id}.scope",
            UID,
            Guaranteed,
            Some((Docker, false)),
        ),
        ("kubepods.slice/kubepods-pod{slice}.slice", UID, Guaranteed, None),
        (
            "kubepods.slice/kubepods-pod{hash}.slice/cri-containerd-{id}.scope",
            HASH,
            Guaranteed,
            Some((Containerd, false)),
        ),
        ("kubepods.slice/kubepods-pod{slice}.slice/crio-conmon-{id}.scope", UID, Guaranteed, None),
        // Below a container's own: CRI-O's `container`, systemd in a container, threads.
        (
            "kubepods.slice/kubepods-pod{slice}.slice/crio-{id}.scope/container",
            UID,
            Guaranteed,
            Some((Crio, true)),
        ),
        ("kubepods/burstable/pod{uid}/{id}/system.slice/nginx.service", UID, Burstable, Some((Unsaid, true))),
        // A pod within a pod is the outer one to this node.
        (
            "kubepods/burstable/pod{uid}/{id}/kubelet/kubepods/pod11111111-1111-4111-8111-111111111111/0",
            UID,
            Burstable,
            Some((Unsaid, true)),
        ),
        // kind's nodes.
        ("kubelet/kubepods/burstable/pod{uid}/{id}", UID, Burstable, Some((Unsaid, false))),
        (
            "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/\
             kubelet-kubepods-burstable-pod{slice}.slice/cri-containerd-{id}.scope",
            UID,
            Burstable,
            Some((Containerd, false)),
        ),
        ("kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{slice}.slice", UID, Guaranteed, None),
        // Of a pod, but not a container's.
        ("kubepods/pod{uid}/init.scope", UID, Guaranteed, None),
        ("kubepods/pod{uid}/0123abc", UID, Guaranteed, None),
    ];
    for (text, uid, qos, container) in cases {
        assert_eq!(place(text), pod(uid, qos, container), "{text}");
    }
}

#[test]
fn what_has_no_pods_name_among_pods_is_no_pods() {
    for text in [
        "kubepods",
        "kubepods/burstable",
        "kubepods/burstable/pod",
        "kubepods/burstable/podx.y",
        "kubepods/{id}",
        "kubepods.slice",
        "kubepods.slice/kubepods-burstable.slice",
        "kubepods.slice/kubepods-besteffort.slice/kubepods-burstable-pod{slice}.slice",
        "kubepods.slice/burstable/pod{uid}/{id}",
        "kubepods/kubepods-pod{slice}.slice/cri-containerd-{id}.scope",
    ] {
        assert_eq!(place(text), Place::AmongPods, "{text}");
    }
}

#[test]
fn what_a_user_may_name_at_will_is_no_pods() {
    for text in [
        "",
        "system.slice/containerd.service",
        "user.slice/user-1000.slice/user@1000.service/kubepods/burstable/pod{uid}/{id}",
        "user.slice/user-1000.slice/user@1000.service/kubelet/kubepods/pod{uid}/{id}",
        "docker/{id}/kubelet/kubepods/pod{uid}/{id}",
        "kubepodsx/pod{uid}/{id}",
        "xkubepods.slice/kubepods-pod{slice}.slice",
        "kubelet.slice/kubepods.slice/kubepods-pod{slice}.slice/cri-containerd-{id}.scope",
    ] {
        assert_eq!(place(text), Place::Outside, "{text}");
    }
}

#[test]
fn a_kubelets_own_root_is_read_where_the_configuration_names_it() {
    let root = PodsRoot::below("/docker/node-1/kubelet.slice/");
    let text = "docker/node-1/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{slice}.slice/crio-{id}.scope";
    assert_eq!(Place::of(&path(text), &root), pod(UID, Qos::Guaranteed, Some((Runtime::Crio, false))));
    assert_eq!(Place::of(&path("kubepods/pod{uid}/{id}"), &root), Place::Outside);
    let plain = PodsRoot::below("fleet/a");
    assert_eq!(
        Place::of(&path("fleet/a/kubepods/pod{uid}/{id}"), &plain),
        pod(UID, Qos::Guaranteed, Some((Runtime::Unsaid, false)))
    );
    assert_eq!(Place::of(&path("fleet/ab/kubepods/pod{uid}/{id}"), &plain), Place::Outside);
}

fn uid() -> impl Strategy<Value = String> {
    prop_oneof!["[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", "[0-9a-f]{32}"]
}

proptest! {
    /// Whatever is below it, and by whichever driver: the pod and the container are those that were written.
    #[test]
    fn what_was_written_is_read(
        uid in uid(),
        id in "[0-9a-f]{64}",
        systemd: bool,
        class in 0_u8..3,
        below in "(/[a-z0-9.:_-]{1,12}){0,3}",
    ) {
        let name = ["", "burstable", "besteffort"][usize::from(class)];
        let written = match (systemd, name) {
            (false, "") => format!("kubepods/pod{uid}/{id}{below}"),
            (false, name) => format!("kubepods/{name}/pod{uid}/{id}{below}"),
            (true, "") => {
                format!("kubepods.slice/kubepods-pod{}.slice/cri-containerd-{id}.scope{below}", uid.replace('-', "_"))
            }
            (true, name) => format!(
                "kubepods.slice/kubepods-{name}.slice/kubepods-{name}-pod{}.slice/cri-containerd-{id}.scope{below}",
                uid.replace('-', "_")
            ),
        };
        let place = Place::of(&written, &PodsRoot::default());
        let pod = place.pod().expect("a pod's");
        prop_assert_eq!(&pod.uid, &uid);
        let container = pod.container.as_ref().expect("a container's");
        prop_assert_eq!(&container.id, &id);
        prop_assert_eq!(container.nested, !below.is_empty());
    }

    /// Nothing panics, and no text but one at the pods' root names a pod.
    #[test]
    fn only_the_pods_root_holds_pods(text in "[a-z0-9./_-]{0,120}|(kubepods|pod|burstable|[.]slice|/|-){0,20}") {
        let place = Place::of(&text, &PodsRoot::default());
        if place.pod().is_some() {
            prop_assert!(text.starts_with("kubepods") || text.starts_with("kubelet"));
        }
    }
}
