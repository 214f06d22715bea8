//! Which variables a command gets, and which bundles they point to.
//!
//! Owns how each variable is merged with what the command has already: trust is neither taken
//! away nor, but for ours, added. Pure: reads no file and no environment.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use super::{
    Source,
    java_options::{store_options, with_store},
    variables::{ADDING, CHANNEL_BINDING, DIRECT_PATH, JAVA, JAVA_TOOL_OPTIONS, REPLACING, fallbacks},
};

/// A trust store that Java was told to use.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct JavaStore {
    /// Where it is.
    pub path: PathBuf,
    /// Its password, where Java was told one.
    pub password: Option<String>,
}

impl std::fmt::Debug for JavaStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JavaStore").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Where the files go, as the command will see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustPaths {
    /// A folder that the command can read and that nobody else writes to. UTF-8, or Java is left out.
    pub folder: PathBuf,
}

/// A PEM bundle to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Where.
    pub path: PathBuf,
    /// What it holds beside our roots.
    pub source: Source,
}

/// A trust store for Java to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustStore {
    /// Where.
    pub path: PathBuf,
    /// What it holds beside our roots.
    pub source: Source,
}

/// A variable to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub name: &'static str,
    /// Its new value.
    pub value: OsString,
}

impl Change {
    /// Whether it is there for the file's sake.
    pub(super) fn points_to(&self, file: &Path) -> bool {
        let store = || store_options(self.value.to_str()?).path;
        match JAVA.contains(&self.name) {
            // Of what is no text the store cannot be told: there is one.
            true => self.value.to_str().is_none() || store().is_some_and(|path| Path::new(&path) == file),
            false => Path::new(&self.value) == file,
        }
    }
}

/// Everything that makes a command trust us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvironmentPlan {
    /// Variables to be set; the others stay.
    pub changes: Vec<Change>,
    /// Bundles to be written: `bundle.pem` with the system's roots first, then one for each other file that a variable
    /// named.
    pub bundles: Vec<Bundle>,
    /// Trust stores to be written.
    pub trust_stores: Vec<TrustStore>,
}

/// Plans it. `existing` looks a variable up in the environment that the command would have without us.
#[must_use]
pub fn plan(existing: impl Fn(&str) -> Option<OsString>, paths: &TrustPaths) -> EnvironmentPlan {
    let existing = |name: &str| existing(name).filter(|value| !value.is_empty());
    let mut plan = EnvironmentPlan::default();
    plan.bundle(Source::System, &paths.folder);
    for name in REPLACING.into_iter().chain([ADDING]) {
        let own = existing(name).map(|value| vec![value.into()]);
        let named: Vec<PathBuf> = own.unwrap_or_else(|| {
            // Its client goes by these until ours is set.
            fallbacks(name).iter().filter_map(|other| existing(other)).map(PathBuf::from).collect()
        });
        let source = if named.is_empty() { Source::System } else { Source::Pem(named) };
        let value = plan.bundle(source, &paths.folder).into_os_string();
        plan.changes.push(Change { name, value });
    }
    plan.java(&existing, &paths.folder);
    let (name, value) = CHANNEL_BINDING;
    if existing(name).is_none_or(|value| value == "prefer") {
        plan.changes.push(Change { name, value: value.into() });
    }
    let (name, value) = DIRECT_PATH;
    if existing(name).is_none() {
        plan.changes.push(Change { name, value: value.into() });
    }
    plan
}

impl EnvironmentPlan {
    /// Where the bundle with this source is: one for each.
    fn bundle(&mut self, source: Source, folder: &Path) -> PathBuf {
        if let Some(known) = self.bundles.iter().find(|bundle| bundle.source == source) {
            return known.path.clone();
        }
        let path = folder.join(numbered("bundle", self.bundles.len(), "pem"));
        self.bundles.push(Bundle { path: path.clone(), source });
        path
    }

    fn java(&mut self, existing: &impl Fn(&str) -> Option<OsString>, folder: &Path) {
        let Some(path) = folder.join(numbered("truststore", 0, "p12")).to_str().map(str::to_owned) else {
            return;
        };
        let texts = JAVA.map(|name| (name, existing(name)));
        let readable = |value: &Option<OsString>| value.as_deref().and_then(OsStr::to_str).map(store_options);
        let options = texts.iter().filter_map(|(_, value)| readable(value));
        // The first that names a store is the one that Java would use.
        let (mut store, mut password) = (None, None);
        for options in options {
            store = store.or(options.path);
            password = password.or(options.password);
        }
        let source =
            store.map_or(Source::Jdk, |store| Source::Java(JavaStore { path: store.into(), password }));
        for (name, value) in texts {
            let mut value = value.unwrap_or_default();
            let names_a_store = value.to_str().is_some_and(|text| store_options(text).path.is_some());
            if name == JAVA_TOOL_OPTIONS || names_a_store {
                // What is no UTF-8 is kept as it is.
                let ours = with_store(value.to_str().unwrap_or_default(), &path);
                if value.to_str().is_some() {
                    value = ours.into();
                } else {
                    value.push(" ");
                    value.push(ours);
                }
                self.changes.push(Change { name, value });
            }
        }
        self.trust_stores.push(TrustStore { path: path.into(), source });
    }
}

/// `bundle.pem`, `bundle-2.pem`, …
fn numbered(stem: &str, index: usize, extension: &str) -> String {
    match index {
        0 => format!("{stem}.{extension}"),
        _ => format!("{stem}-{}.{extension}", index.saturating_add(1)),
    }
}

#[cfg(test)]
mod tests;
