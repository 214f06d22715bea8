//! One container: which variables it gets, and which are its own.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, EnvVar, Volume, VolumeMount};
use serde::{Deserialize, Serialize};
use verbatim_tls::variables::{
    ADDING, BUNDLE, CHANNEL_BINDING, DIRECT_PATH, JAVA, JAVA_TOOL_OPTIONS, REPLACING, TRUST_STORE, fallbacks,
    java_store, with_java_store,
};

use crate::options::{EnvFrom, Extra, Options};

/// A variable that decides about trust and is not ours in this container.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Own {
    /// Its name.
    pub name: String,
    /// Why it is not ours.
    pub cause: OwnCause,
}

/// See [`Own::cause`].
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OwnCause {
    /// The pod sets it.
    Set,
    /// A ConfigMap or Secret of `envFrom` may set it.
    EnvFrom,
    /// It is just not there: the pod was admitted otherwise than we would have it.
    Missing,
}

/// How a variable stands in a container.
enum Standing<'a> {
    /// Nobody sets it.
    Free,
    /// By the last entry with this name, which is the one that counts: its place and its value, where it has one
    /// that does not refer to others.
    Set(usize, Option<&'a str>),
    /// See [`OwnCause::EnvFrom`].
    FromElsewhere,
}

fn standing<'a>(container: &'a Container, name: &str, env_from: EnvFrom) -> Standing<'a> {
    let entries = container.env.iter().flatten().enumerate();
    if let Some((index, entry)) = entries.filter(|(_, entry)| entry.name == name).last() {
        let value = entry.value.as_deref().filter(|_| entry.value_from.is_none());
        // Without either it is set, to nothing.
        let value = if entry.value_from.is_none() { Some(value.unwrap_or_default()) } else { value };
        return Standing::Set(index, value.filter(|value| !value.contains("$(")));
    }
    let reaches = |prefix: Option<&String>| prefix.is_none_or(|prefix| name.starts_with(prefix.as_str()));
    let elsewhere = container.env_from.iter().flatten().any(|source| reaches(source.prefix.as_ref()));
    if elsewhere && env_from == EnvFrom::LeaveAlone { Standing::FromElsewhere } else { Standing::Free }
}

/// Whether the pod itself sets it, to something else than we would.
fn is_own(container: &Container, name: &str, value: &str) -> bool {
    match standing(container, name, EnvFrom::Override) {
        Standing::Set(_, set) => set.is_none_or(|set| set != value && !set.is_empty()),
        Standing::FromElsewhere | Standing::Free => false,
    }
}

/// What becomes of a container's variables.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    /// To be appended.
    pub(crate) added: Vec<EnvVar>,
    /// To be replaced: place and new value.
    pub(crate) replaced: Vec<(usize, String)>,
    /// What decides about trust and is not ours.
    pub(crate) own: BTreeSet<Own>,
    /// How many of those that decide about trust are ours, by now or before.
    pub(crate) ours: usize,
}

impl Variables {
    pub(crate) fn of(
        container: &Container,
        folder: &str,
        options: &Options,
        extras: &BTreeSet<Extra>,
    ) -> Self {
        let mut this = Self::default();
        let bundle = format!("{folder}/{BUNDLE}");
        for name in REPLACING.into_iter().chain([ADDING]) {
            this.exactly(container, name, &bundle, options.env_from, true);
        }
        this.java(container, folder, options.env_from);
        this.exactly(container, CHANNEL_BINDING.0, CHANNEL_BINDING.1, options.env_from, true);
        this.exactly(container, DIRECT_PATH.0, DIRECT_PATH.1, options.env_from, false);
        for extra in extras {
            let (name, value) = extra.variable();
            this.exactly(container, name, value.unwrap_or(&bundle), options.env_from, false);
        }
        this
    }

    fn own(&mut self, name: &str, cause: OwnCause) {
        self.own.insert(Own { name: name.to_owned(), cause });
    }

    fn add(&mut self, name: &str, value: String) {
        self.added.push(EnvVar { name: name.to_owned(), value: Some(value), value_from: None });
    }

    fn exactly(&mut self, container: &Container, name: &str, value: &str, env_from: EnvFrom, decides: bool) {
        let ours = match standing(container, name, env_from) {
            Standing::Set(_, Some(set)) if set == value => Ok(()),
            Standing::Set(..) => Err(OwnCause::Set),
            Standing::FromElsewhere => Err(OwnCause::EnvFrom),
            // Its client goes by another one, which is the pod's own: ours would take that trust away.
            Standing::Free if fallbacks(name).iter().any(|other| is_own(container, other, value)) => {
                Err(OwnCause::Set)
            }
            Standing::Free => {
                self.add(name, value.to_owned());
                Ok(())
            }
        };
        match ours {
            _ if !decides => {}
            Ok(()) => self.ours = self.ours.saturating_add(1),
            Err(cause) => self.own(name, cause),
        }
    }

    fn java(&mut self, container: &Container, folder: &str, env_from: EnvFrom) {
        let store = format!("{folder}/{TRUST_STORE}");
        // Those that have the last word: a store of theirs, or one that cannot be told, makes ours useless.
        for name in JAVA.into_iter().filter(|name| *name != JAVA_TOOL_OPTIONS) {
            match standing(container, name, EnvFrom::Override) {
                Standing::Set(_, Some(value)) if java_store(value).is_none_or(|named| named == store) => {}
                Standing::Set(..) => return self.own(name, OwnCause::Set),
                Standing::FromElsewhere | Standing::Free => {}
            }
        }
        match standing(container, JAVA_TOOL_OPTIONS, env_from) {
            Standing::Free => self.add(JAVA_TOOL_OPTIONS, with_java_store("", &store)),
            Standing::Set(index, Some(value)) => match java_store(value) {
                None => {
                    let appended = with_java_store(value, &store);
                    // An open quote would swallow it.
                    if java_store(&appended).as_ref() != Some(&store) {
                        return self.own(JAVA_TOOL_OPTIONS, OwnCause::Set);
                    }
                    self.replaced.push((index, appended));
                }
                Some(named) if named == store => {}
                Some(_theirs) => return self.own(JAVA_TOOL_OPTIONS, OwnCause::Set),
            },
            Standing::Set(_, None) => return self.own(JAVA_TOOL_OPTIONS, OwnCause::Set),
            Standing::FromElsewhere => return self.own(JAVA_TOOL_OPTIONS, OwnCause::EnvFrom),
        }
        self.ours = self.ours.saturating_add(1);
    }
}

/// Whether a volume is the whole bundle, and a container waits for it.
pub(crate) fn is_bundle(volume: &Volume, config_map: &str) -> bool {
    volume.config_map.as_ref().is_some_and(|source| {
        source.name == config_map && source.items.is_none() && source.optional != Some(true)
    })
}

/// Whether it puts a whole volume there.
pub(crate) fn is_whole_mount(mount: &VolumeMount, folder: &str) -> bool {
    mount.mount_path.trim_end_matches('/') == folder
        && mount.sub_path.is_none()
        && mount.sub_path_expr.is_none()
}

/// Whether a place is the folder, or within it. What is mounted above is no obstacle where the runtime can make a
/// folder in it: it mounts the shorter path first.
pub(crate) fn is_within(path: &str, folder: &str) -> bool {
    parts(path).starts_with(&parts(folder))
}

/// Whether what is mounted there leaves no room for the folder: it is above it, and nothing can be made in it. Then
/// the container would not start.
pub(crate) fn is_closed_above(mount: &VolumeMount, volumes: &[Volume], folder: &str) -> bool {
    let (above, below) = (parts(&mount.mount_path), parts(folder));
    let read_only = || {
        let volume = volumes.iter().find(|volume| volume.name == mount.name);
        mount.read_only == Some(true) || volume.is_some_and(is_read_only)
    };
    above.len() < below.len() && below.starts_with(&above) && read_only()
}

/// Whether nothing can be written to a volume, however it is mounted.
fn is_read_only(volume: &Volume) -> bool {
    let Volume { config_map, secret, projected, downward_api, image, .. } = volume;
    let claim = volume.persistent_volume_claim.as_ref().and_then(|claim| claim.read_only);
    let driver = volume.csi.as_ref().and_then(|driver| driver.read_only);
    config_map.is_some()
        || secret.is_some()
        || projected.is_some()
        || downward_api.is_some()
        || image.is_some()
        || claim == Some(true)
        || driver == Some(true)
}

/// A path's parts. `/var/run` is `/run` in most images: a link that cannot be seen from here.
fn parts(path: &str) -> Vec<&str> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    match parts.as_slice() {
        ["var", "run", ..] => parts.get(1..).map(<[&str]>::to_vec).unwrap_or_default(),
        _ => parts,
    }
}
