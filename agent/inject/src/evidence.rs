//! What a stored pod shows of an injection, per container.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde::{Deserialize, Serialize};
use verbatim_tls::{
    RootId,
    variables::{DIRECT_PATH, TRUST_STORE, java_store},
};

use crate::{
    INJECTED,
    container::{Own, OwnCause, Variables, is_bundle, is_whole_mount},
    options::{EnvFrom, Options},
    pod::{Injected, Skip, skip},
};

/// How a container stands.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "trust", rename_all = "camelCase")]
pub enum ContainerTrust {
    /// It was given everything: its clients trust these roots, at least.
    Injected {
        /// See [`Injected::roots`].
        roots: BTreeSet<RootId>,
    },
    /// It was given the bundle, and some of what decides about trust is its own: which of its clients trust us cannot
    /// be told.
    Partly {
        /// See [`Injected::roots`].
        roots: BTreeSet<RootId>,
        /// What is its own.
        own: BTreeSet<Own>,
    },
    /// It was not.
    NotInjected {
        /// Why not, as far as the pod shows it.
        why: NotInjected,
    },
}

/// See [`ContainerTrust::NotInjected`].
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", content = "detail", rename_all = "camelCase")]
pub enum NotInjected {
    /// The pod is of a kind that is given nothing.
    Skipped(Skip),
    /// Nothing in the pod says that the webhook has seen it: it was made before, in a namespace that is not selected,
    /// or while the webhook did not answer.
    NeverSeen,
    /// What the annotation says cannot be read.
    Unreadable,
    /// The annotation does not name this container: it came later.
    NotNamed,
    /// The annotation names it, but the bundle is not mounted in it: somebody else wrote the annotation.
    NotMounted,
    /// The bundle is mounted, but not one variable leads to it.
    NoVariable,
    /// Ephemeral containers come into a pod that exists already, and are given nothing.
    Ephemeral,
}

impl fmt::Display for NotInjected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skipped(skip) => skip.fmt(f),
            Self::NeverSeen => f.write_str("the webhook has not seen the pod"),
            Self::Unreadable => f.write_str("the annotation of the injection cannot be read"),
            Self::NotNamed => f.write_str("the container came after the injection"),
            Self::NotMounted => f.write_str("the bundle is not mounted, whatever the annotation says"),
            Self::NoVariable => f.write_str("no variable leads to the bundle"),
            Self::Ephemeral => f.write_str("ephemeral containers are given nothing"),
        }
    }
}

/// What each container of the pod was given, by its name.
#[must_use]
pub fn trust(pod: &Pod) -> BTreeMap<String, ContainerTrust> {
    let Some(spec) = &pod.spec else { return BTreeMap::new() };
    let text = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(INJECTED));
    let injected = match (text, skip(pod)) {
        // What a static pod says of itself, nobody has written but its author.
        (_, Some(skip @ Skip::Static)) | (None, Some(skip)) => Err(NotInjected::Skipped(skip)),
        (None, None) => Err(NotInjected::NeverSeen),
        (Some(text), _) => {
            serde_json::from_str::<Injected>(text).map_err(|_unreadable| NotInjected::Unreadable)
        }
    };
    let regular = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut found: BTreeMap<_, _> = regular
        .map(|container| {
            let trust = match &injected {
                Ok(injected) => one(spec, container, injected),
                Err(why) => Err(why.clone()),
            };
            (container.name.clone(), trust.unwrap_or_else(|why| ContainerTrust::NotInjected { why }))
        })
        .collect();
    for container in spec.ephemeral_containers.iter().flatten() {
        let trust = ContainerTrust::NotInjected { why: NotInjected::Ephemeral };
        found.insert(container.name.clone(), trust);
    }
    found
}

fn one(spec: &PodSpec, container: &Container, injected: &Injected) -> Result<ContainerTrust, NotInjected> {
    if !injected.containers.contains_key(&container.name) {
        return Err(NotInjected::NotNamed);
    }
    let volumes = spec.volumes.iter().flatten().filter(|volume| is_bundle(volume, &injected.config_map));
    let names: BTreeSet<&str> = volumes.map(|volume| volume.name.as_str()).collect();
    let folder = injected.folder.as_str();
    let mounted = container
        .volume_mounts
        .iter()
        .flatten()
        .any(|mount| names.contains(mount.name.as_str()) && is_whole_mount(mount, folder));
    if !mounted {
        return Err(NotInjected::NotMounted);
    }
    // What an injection would still have to do is what is missing.
    let options = Options {
        config_map: injected.config_map.clone(),
        folder: folder.to_owned(),
        roots: BTreeSet::new(),
        extras: BTreeSet::new(),
        env_from: EnvFrom::LeaveAlone,
    };
    let variables = Variables::of(container, folder, &options, &BTreeSet::new());
    let mut own = variables.own;
    let added = variables.added.iter().map(|added| added.name.clone());
    let store = format!("{folder}/{TRUST_STORE}");
    let replaced =
        variables.replaced.iter().filter(|(_, value)| java_store(value).is_some_and(|named| named == store));
    let replaced =
        replaced.filter_map(|(index, _)| container.env.as_ref()?.get(*index).map(|entry| entry.name.clone()));
    // Where the path past TLS is not closed, TLS is as good as before.
    let missing: Vec<_> = added.chain(replaced).filter(|name| name != DIRECT_PATH.0).collect();
    let ours = variables.ours.saturating_sub(missing.len());
    own.extend(missing.into_iter().map(|name| Own { name, cause: OwnCause::Missing }));
    let roots = injected.roots.clone();
    match (ours, own.is_empty()) {
        (0, _) => Err(NotInjected::NoVariable),
        (_, true) => Ok(ContainerTrust::Injected { roots }),
        (_, false) => Ok(ContainerTrust::Partly { roots, own }),
    }
}
