//! What the issuer keeps: authorities in their generations, and the key of fingerprints. One text in a Secret.
//!
//! Owns how one generation takes the place of another. Processes read their roots once: so a new root is in the bundles
//! for the longest life of a pod before anything is signed with it. Pure but for the making of keys; knows no cluster.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use verbatim_issuer_api::FingerprintKey;
use verbatim_tls::{AuthorityError, IssuingRoot, NameClass, PlainAuthority};
use zeroize::Zeroizing;

/// What an authority is for.
#[derive(
    Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, clap::ValueEnum,
)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// API names toward workloads.
    Api,
    /// Databases toward workloads.
    Databases,
    /// The issuer's and the collector's own certificates, toward nodes and the API server.
    Servers,
    /// Nodes' certificates, toward the collector.
    Clients,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Api, Self::Databases, Self::Servers, Self::Clients];

    /// Where workloads are to trust it.
    #[must_use]
    pub fn names(self) -> Option<NameClass> {
        match self {
            Self::Api => Some(NameClass::Api),
            Self::Databases => Some(NameClass::Databases),
            Self::Servers | Self::Clients => None,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Api => "api",
            Self::Databases => "databases",
            Self::Servers => "servers",
            Self::Clients => "clients",
        })
    }
}

/// Where a generation is in its life.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// It is believed in wherever its certificate has come, and signs nothing yet.
    Published,
    /// It signs.
    Active,
    /// It signs nothing any more, its key is destroyed; what it has signed is still good.
    Retiring,
}

/// One authority.
#[derive(Clone, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Generation {
    /// PEM.
    pub certificate: String,
    /// PEM; empty once it is destroyed.
    key: Zeroizing<String>,
    /// Seconds since 1970.
    pub not_after: i64,
    /// See [`Phase`].
    pub phase: Phase,
    /// When it came into its phase, seconds since 1970.
    pub since: i64,
    /// Configured names that it may vouch for, beside the usual ones.
    #[serde(default)]
    pub names: Vec<String>,
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("phase", &self.phase)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

/// All of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// 1.
    version: u32,
    /// See [`FingerprintKey`].
    pub fingerprint_key: FingerprintKey,
    /// Of each class, the oldest first.
    authorities: BTreeMap<Class, Vec<Generation>>,
}

/// By what time one generation follows another.
#[derive(Clone, Debug)]
pub struct Rules {
    /// See `roots` of the configuration.
    pub names: Vec<String>,
    /// How long a new one is good for.
    pub lifetime: Duration,
    /// How long a root for workloads is published before it signs.
    pub lead: Duration,
    /// How long an authority of our own connections is: whoever must believe it reads a mounted ConfigMap.
    pub own_lead: Duration,
    /// How long what is signed is good for, at most.
    pub signed: Duration,
}

/// What is kept cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// It is another version's.
    #[error(
        "what is kept has version {0}, this issuer knows 1: run the version that wrote it, or a newer one"
    )]
    Version(u32),
    /// It is no text of ours. Its own words are not repeated: they are next to keys.
    #[error("what is kept cannot be read (line {line}, column {column})")]
    Unreadable {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// A key or certificate.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// There is none that signs.
    #[error("there is no authority for {0} that signs")]
    None(Class),
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

impl Kept {
    /// Everything made for the first time.
    ///
    /// # Errors
    /// When a key cannot be made.
    pub fn new(rules: &Rules, now: i64) -> Result<Self, KeptError> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        let mut id = [0_u8; 4];
        let fill = |bytes: &mut [u8]| aws_lc_rs::rand::fill(bytes);
        // The operating system has no randomness: nothing else would work either.
        fill(&mut *bytes)
            .and_then(|()| fill(&mut id))
            .map_err(|_unspecified| KeptError::None(Class::Clients))?;
        let fingerprint_key = FingerprintKey::new(&format!("{:08x}", u32::from_be_bytes(id)), &bytes);
        let mut this = Self { version: 1, fingerprint_key, authorities: BTreeMap::new() };
        this.tick(rules, now)?;
        Ok(this)
    }

    /// As it was kept.
    ///
    /// # Errors
    /// When it is not ours.
    pub fn read(text: &[u8]) -> Result<Self, KeptError> {
        let this: Self = serde_json::from_slice(text)
            .map_err(|error| KeptError::Unreadable { line: error.line(), column: error.column() })?;
        if this.version != 1 {
            return Err(KeptError::Version(this.version));
        }
        Ok(this)
    }

    /// To be kept.
    #[must_use]
    pub fn write(&self) -> Zeroizing<Vec<u8>> {
        // Strings and numbers can always be written.
        Zeroizing::new(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Of a class, the oldest first.
    #[must_use]
    pub fn generations(&self, class: Class) -> &[Generation] {
        self.authorities.get(&class).map(Vec::as_slice).unwrap_or_default()
    }

    fn active(&self, class: Class) -> Result<&Generation, KeptError> {
        self.generations(class).iter().find(|one| one.phase == Phase::Active).ok_or(KeptError::None(class))
    }

    /// Certificates of a class that are to be believed, PEM.
    #[must_use]
    pub fn certificates(&self, class: Class) -> String {
        self.generations(class).iter().map(|one| one.certificate.as_str()).collect()
    }

    /// The root that signs intermediates of a class.
    ///
    /// # Errors
    /// When what is kept cannot be used.
    pub fn root(&self, class: NameClass) -> Result<IssuingRoot, KeptError> {
        let class = match class {
            NameClass::Api => Class::Api,
            NameClass::Databases => Class::Databases,
        };
        let active = self.active(class)?;
        Ok(IssuingRoot::from_pem(&active.certificate, &active.key)?)
    }

    /// What signs certificates of our own connections.
    ///
    /// # Errors
    /// When what is kept cannot be used.
    pub fn plain(&self, class: Class) -> Result<PlainAuthority, KeptError> {
        let active = self.active(class)?;
        Ok(PlainAuthority::from_pem(&active.certificate, &active.key)?)
    }

    /// Does what is due, and says whether anything was.
    ///
    /// # Errors
    /// When a key cannot be made, or a configured name is none.
    pub fn tick(&mut self, rules: &Rules, now: i64) -> Result<bool, KeptError> {
        let before = self.authorities.clone();
        for class in Class::ALL {
            let lead = rules.lead_of(class);
            let generations = self.authorities.entry(class).or_default();
            let newest = generations.iter().rev().find(|one| one.phase != Phase::Retiring);
            let due = newest.is_none_or(|newest| {
                // So that the successor signs well before this one can no more.
                let margin = seconds(lead).saturating_add(seconds(rules.signed)).saturating_mul(2);
                let names = class == Class::Databases && newest.names != rules.names;
                now >= newest.not_after.saturating_sub(margin) || names
            });
            if due {
                self.begin(class, rules, now)?;
            }
            let generations = self.authorities.entry(class).or_default();
            let ripe = |one: &Generation| now >= one.since.saturating_add(seconds(lead));
            let follows = generations.iter().rposition(|one| one.phase == Phase::Published && ripe(one));
            // Without one that signs there is nothing to wait for.
            let none = !generations.iter().any(|one| one.phase == Phase::Active);
            if let Some(next) = follows.or_else(|| none.then(|| generations.len().checked_sub(1)).flatten()) {
                activate(generations, next, now);
            }
            let kept = seconds(rules.signed).saturating_add(3600);
            generations.retain(|one| one.phase != Phase::Retiring || now < one.since.saturating_add(kept));
        }
        Ok(before != self.authorities)
    }

    /// Makes a successor, to be published. One that is published already is replaced: it has signed nothing.
    ///
    /// # Errors
    /// When a key cannot be made, or a configured name is none.
    pub fn begin(&mut self, class: Class, rules: &Rules, now: i64) -> Result<(), KeptError> {
        let next = make(class, rules, now)?;
        let generations = self.authorities.entry(class).or_default();
        generations.retain(|one| one.phase != Phase::Published);
        generations.push(next);
        Ok(())
    }

    /// Has what is published sign from now on, whoever may not believe it yet: for a key that is lost. What the
    /// lost one has signed is believed no more.
    pub fn hasten(&mut self, class: Class, now: i64) {
        let generations = self.authorities.entry(class).or_default();
        if let Some(next) = generations.iter().rposition(|one| one.phase == Phase::Published) {
            activate(generations, next, now);
            generations.retain(|one| one.phase != Phase::Retiring);
        }
    }
}

impl Rules {
    fn lead_of(&self, class: Class) -> Duration {
        if class.names().is_some() { self.lead } else { self.own_lead }
    }
}

fn activate(generations: &mut [Generation], next: usize, now: i64) {
    for (index, one) in generations.iter_mut().enumerate() {
        if index == next {
            (one.phase, one.since) = (Phase::Active, now);
        } else if one.phase == Phase::Active {
            (one.phase, one.since) = (Phase::Retiring, now);
            one.key = Zeroizing::new(String::new());
        }
    }
}

fn make(class: Class, rules: &Rules, now: i64) -> Result<Generation, KeptError> {
    let names = if class == Class::Databases { rules.names.clone() } else { Vec::new() };
    let (certificate, key, not_after) = match class.names() {
        Some(kind) => {
            let root = IssuingRoot::make(kind, &names, rules.lifetime)?;
            (root.certificate_pem(), root.key_pem(), root.not_after())
        }
        None => {
            let plain = PlainAuthority::make(&format!("authority for {class}"), rules.lifetime)?;
            (plain.certificate_pem(), plain.key_pem(), plain.not_after())
        }
    };
    Ok(Generation { certificate, key, not_after, phase: Phase::Published, since: now, names })
}

#[cfg(test)]
mod tests;
