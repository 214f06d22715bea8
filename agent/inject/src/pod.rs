//! A whole pod at its admission.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use json_patch::Patch;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use verbatim_tls::RootId;

use crate::{
    ENV_FROM, EXTRAS, INJECT, INJECTED, VERSION,
    container::{Own, OwnCause, Variables, is_bundle, is_closed_above, is_whole_mount, is_within},
    options::{EnvFrom, Extra, Options, UnknownExtra},
    patch::Operations,
};

/// Set by kubelet on what it mirrors from its own files (Kubernetes, "Static Pods").
const MIRROR: &str = "kubernetes.io/config.mirror";
/// A well-known label of nodes, by which older pods say where they can run.
const OS_LABEL: &str = "kubernetes.io/os";
/// Read by everybody in the container, whoever that is.
const MODE: i32 = 0o444;

/// Why a pod is left alone.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Skip {
    /// Its annotation or label says so.
    OptedOut,
    /// It runs from a file of its node's kubelet, and is only mirrored: such a pod may refer to no ConfigMap.
    Static,
    /// No client on Windows is known to go by these variables, and no agent runs there.
    Windows,
    /// It says nothing of its containers.
    NoSpec,
    /// Every container sets for itself what would have to be set.
    AllOwn,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OptedOut => "the pod says that it is to be left alone",
            Self::Static => "a static pod may refer to no ConfigMap",
            Self::Windows => "the pod runs on Windows",
            Self::NoSpec => "the pod has no containers",
            Self::AllOwn => "every container sets its own trust, or may",
        })
    }
}

/// What was given to a pod, as its annotation says.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Injected {
    /// [`VERSION`] of who gave it.
    pub version: u32,
    /// The ConfigMap of the bundle.
    pub config_map: String,
    /// Where it is mounted.
    pub folder: String,
    /// The roots of ours that were in the bundle then: what the processes trust at least.
    pub roots: BTreeSet<RootId>,
    /// Containers that were given the bundle, each with the variables that are its own.
    pub containers: BTreeMap<String, Vec<String>>,
}

/// What is to become of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What was given, or why nothing was.
    pub result: Result<Injected, Skip>,
    /// Brings it about; without operations where nothing is to be done.
    pub patch: Patch,
    /// For whoever made the pod, a line each.
    pub warnings: Vec<String>,
}

/// Says what a pod is to be given. Applied to its own result it changes nothing, and a container that another webhook
/// has added meanwhile is given the same as the others.
#[must_use]
pub fn inject(pod: &Pod, options: &Options) -> Outcome {
    let mut operations = Operations::default();
    let mut warnings = Vec::new();
    let result = match skip(pod) {
        Some(skip) => Err(skip),
        None => match &pod.spec {
            None => Err(Skip::NoSpec),
            Some(spec) => given(pod, spec, options, &mut operations, &mut warnings),
        },
    };
    annotate(pod, &result, &mut operations);
    Outcome { result, patch: operations.into_patch(), warnings }
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Why this pod is given nothing, whatever is in it.
pub(crate) fn skip(pod: &Pod) -> Option<Skip> {
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(INJECT)).map(String::as_str);
    let spec = pod.spec.as_ref();
    let os = spec.and_then(|spec| spec.os.as_ref()).map(|os| os.name.as_str());
    let wanted = spec.and_then(|spec| spec.node_selector.as_ref()?.get(OS_LABEL)).map(String::as_str);
    match () {
        () if annotation(pod, MIRROR).is_some() => Some(Skip::Static),
        () if annotation(pod, INJECT) == Some("false") || label == Some("false") => Some(Skip::OptedOut),
        () if os.or(wanted) == Some("windows") => Some(Skip::Windows),
        () => None,
    }
}

fn given(
    pod: &Pod,
    spec: &PodSpec,
    options: &Options,
    operations: &mut Operations,
    warnings: &mut Vec<String>,
) -> Result<Injected, Skip> {
    let mut extras = options.extras.clone();
    for word in annotation(pod, EXTRAS).unwrap_or_default().split(',').map(str::trim) {
        match word.parse::<Extra>() {
            Ok(extra) => {
                extras.insert(extra);
            }
            Err(UnknownExtra(word)) if word.is_empty() => {}
            Err(unknown) => warnings.push(format!("annotation {EXTRAS}: {unknown}")),
        }
    }
    let mut options = options.clone();
    match annotation(pod, ENV_FROM) {
        Some("override") => options.env_from = EnvFrom::Override,
        Some(other) => {
            warnings.push(format!("annotation {ENV_FROM}: `{other}` is not known: it may say `override`"));
        }
        None => {}
    }
    let (volume, known) = volume(spec, &options.config_map);
    let mut containers = BTreeMap::new();
    let lists =
        [("initContainers", spec.init_containers.as_deref()), ("containers", Some(&*spec.containers))];
    for (list, index, container) in lists.into_iter().flat_map(|(list, containers)| {
        containers.unwrap_or_default().iter().enumerate().map(move |(index, found)| (list, index, found))
    }) {
        let given = room(container, spec, &options.folder)
            .and_then(|()| one(list, index, container, &volume, &options, &extras, operations));
        match given {
            Ok(own) => {
                warnings.extend(warning(&container.name, &own));
                containers.insert(container.name.clone(), own.into_iter().map(|own| own.name).collect());
            }
            Err(why) => warnings.push(format!("container {}: nothing is set: {why}", container.name)),
        }
    }
    if containers.is_empty() {
        return Err(Skip::AllOwn);
    }
    if !known {
        let value = json!({
            "name": volume,
            "configMap": { "name": options.config_map, "defaultMode": MODE },
        });
        operations.append(&["spec", "volumes"], spec.volumes.is_some(), vec![value]);
    }
    let Options { config_map, folder, roots, .. } = options;
    Ok(Injected { version: VERSION, config_map, folder, roots, containers })
}

/// The volume's name, and whether the pod has it.
fn volume(spec: &PodSpec, config_map: &str) -> (String, bool) {
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    if let Some(volume) = volumes.iter().find(|volume| is_bundle(volume, config_map)) {
        return (volume.name.clone(), true);
    }
    // Another's volume may have taken the name.
    let names = std::iter::once(config_map.to_owned()).chain((2_u32..).map(|n| format!("{config_map}-{n}")));
    let free = |name: &String| volumes.iter().all(|volume| volume.name != *name);
    let name = names.into_iter().find(free).unwrap_or_else(|| config_map.to_owned());
    (name, false)
}

/// Whether the runtime can make the folder in a container: one that cannot be made keeps it from starting.
fn room(container: &Container, spec: &PodSpec, folder: &str) -> Result<(), String> {
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let mut mounts = container.volume_mounts.iter().flatten();
    match mounts.find(|mount| is_closed_above(mount, volumes, folder)) {
        Some(closed) => Err(format!(
            "what is mounted at {} is read-only, so that nothing can be put at {folder}",
            closed.mount_path
        )),
        None => Ok(()),
    }
}

/// Gives one container what it lacks; what stays its own.
fn one(
    list: &str,
    index: usize,
    container: &Container,
    volume: &str,
    options: &Options,
    extras: &BTreeSet<Extra>,
    operations: &mut Operations,
) -> Result<BTreeSet<Own>, String> {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let mounted = mounts.iter().any(|mount| mount.name == volume && is_whole_mount(mount, &options.folder));
    let devices = container.volume_devices.iter().flatten().map(|device| &device.device_path);
    let mut taken = mounts.iter().map(|mount| &mount.mount_path).chain(devices);
    if !mounted && taken.any(|path| is_within(path, &options.folder)) {
        return Err(format!("something of its own is mounted at {}", options.folder));
    }
    let variables = Variables::of(container, &options.folder, options, extras);
    if variables.ours == 0 {
        return Err("it sets every variable itself, or takes them from a ConfigMap or Secret".to_owned());
    }
    let index = index.to_string();
    let path = |rest: &[&'static str]| -> Vec<String> {
        ["spec", list, &index].into_iter().chain(rest.iter().copied()).map(str::to_owned).collect()
    };
    let path = |rest| path(rest);
    if !mounted {
        let mount = json!({ "name": volume, "mountPath": options.folder, "readOnly": true });
        let path = path(&["volumeMounts"]);
        operations.append(&borrowed(&path), container.volume_mounts.is_some(), vec![mount]);
    }
    for (place, value) in variables.replaced {
        let mut path = path(&["env"]);
        path.extend([place.to_string(), "value".to_owned()]);
        // Adds a member that is not there, too.
        operations.add(&borrowed(&path), Value::String(value));
    }
    let added = variables.added.iter().map(|added| json!({ "name": added.name, "value": added.value }));
    operations.append(&borrowed(&path(&["env"])), container.env.is_some(), added.collect());
    Ok(variables.own)
}

fn borrowed(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

/// What whoever made the pod should know.
fn warning(container: &str, own: &BTreeSet<Own>) -> Option<String> {
    let names = |cause| own.iter().filter(move |own| own.cause == cause).map(|own| own.name.as_str());
    let set: Vec<_> = names(OwnCause::Set).collect();
    let elsewhere = names(OwnCause::EnvFrom).count();
    match (set.as_slice(), elsewhere) {
        ([], 0) => None,
        ([], _) => Some(format!(
            "container {container}: {elsewhere} variables are left to envFrom; annotation {ENV_FROM}: override sets them"
        )),
        (set, _) => Some(format!("container {container} keeps its own {}", set.join(", "))),
    }
}

/// What the pod brings under our name was not written by us, or says what no longer holds.
fn annotate(pod: &Pod, result: &Result<Injected, Skip>, operations: &mut Operations) {
    let path = ["metadata", "annotations", INJECTED];
    let before = annotation(pod, INJECTED);
    match result {
        Ok(injected) => {
            let Ok(text) = serde_json::to_string(injected) else { return };
            if before == Some(text.as_str()) {
                return;
            }
            if pod.metadata.annotations.is_none() {
                operations.add(&["metadata", "annotations"], json!({ INJECTED: text }));
            } else {
                operations.add(&path, Value::String(text));
            }
        }
        // Kubelet makes a mirrored pod anew until the API server's is as it wants it.
        Err(Skip::Static) => {}
        Err(_) if before.is_some() => operations.remove(&path),
        Err(_) => {}
    }
}
