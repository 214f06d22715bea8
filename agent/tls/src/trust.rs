//! What a workload is given so that it trusts us, beside everything that it trusted before.
//!
//! Owns bundles, Java's trust store and the variables that point to them. Writes no file and starts no process.

mod environment;
mod java_options;
mod jks;
mod pkcs12;
pub mod variables;

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

pub use self::{
    environment::{Bundle, Change, EnvironmentPlan, JavaStore, TrustPaths, TrustStore, plan},
    pkcs12::StoreError,
};
use crate::{
    authority::Authority,
    roots::{Roots, RootsError, bounded},
};

/// Where certificates come from that the workload trusts already.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The system's bundle.
    System,
    /// The trust stores of the JDKs on this system; without any, the system's bundle.
    Jdk,
    /// PEM files, or folders of them.
    Pem(Vec<PathBuf>),
    /// A trust store that Java is told to use.
    Java(JavaStore),
}

/// Trust that could not be carried over.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// PEM certificates.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// A Java trust store.
    #[error("reading the trust store `{}` failed: {error}", path.display())]
    Store {
        /// Which.
        path: PathBuf,
        /// Why.
        error: StoreError,
    },
}

/// A file that the command needs to be able to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustFile {
    /// Where it goes.
    pub path: PathBuf,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// What is to be written and set before the command starts.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Files to be written.
    pub files: Vec<TrustFile>,
    /// Variables to be set then.
    pub changes: Vec<Change>,
    /// What could not be carried over, to be logged: clients that go by it will refuse our leaves.
    pub problems: Vec<Problem>,
}

/// Reads what the plan builds on. Where a file that the command itself named cannot be read, what names it is left
/// as it is: trust is never taken away, not even by mistake.
#[must_use]
pub fn prepare(plan: &EnvironmentPlan, authority: &Authority) -> Prepared {
    let mut prepared = Prepared { changes: plan.changes.clone(), ..Prepared::default() };
    for Bundle { path, source } in &plan.bundles {
        let (text, problems) = pem_bundle(source, authority);
        prepared.add(path, text.into_bytes(), source, problems);
    }
    for TrustStore { path, source } in &plan.trust_stores {
        let (bytes, problems) = pkcs12_trust_store(source, authority);
        prepared.add(path, bytes, source, problems);
    }
    prepared
}

impl Prepared {
    fn add(&mut self, path: &Path, bytes: Vec<u8>, source: &Source, problems: Vec<Problem>) {
        let of_the_command = matches!(source, Source::Pem(_) | Source::Java(_));
        if of_the_command && !problems.is_empty() {
            self.changes.retain(|change| !change.points_to(path));
        } else {
            self.files.push(TrustFile { path: path.to_owned(), bytes });
        }
        self.problems.extend(problems);
    }
}

/// A PEM bundle: everything of the source, and our roots. Private keys and whatever else a source holds stay out.
///
/// What could not be read comes beside it: the bundle is then what was readable, and ours.
#[must_use]
pub fn pem_bundle(source: &Source, authority: &Authority) -> (String, Vec<Problem>) {
    let (roots, problems) = gather(source, authority);
    (pem_text(roots.certificates()), problems)
}

/// A trust store for Java: everything of the source, and our roots. PKCS#12, neither encrypted nor with a MAC, as
/// the JDK's own has been since 18: it opens with any password and with none.
///
/// Problems as in [`pem_bundle`].
#[must_use]
pub fn pkcs12_trust_store(source: &Source, authority: &Authority) -> (Vec<u8>, Vec<Problem>) {
    let (roots, problems) = gather(source, authority);
    (pkcs12::write(roots.certificates()), problems)
}

/// A PEM bundle and a trust store for Java with exactly these roots; see [`pem_bundle`] and [`pkcs12_trust_store`].
#[must_use]
pub fn trust_files(roots: &Roots) -> (String, Vec<u8>) {
    (pem_text(roots.certificates()), pkcs12::write(roots.certificates()))
}

fn gather(source: &Source, authority: &Authority) -> (Roots, Vec<Problem>) {
    let mut roots = Roots::default();
    let mut problems = Vec::new();
    let added = match source {
        Source::System => roots.add_system().map_err(Problem::from),
        Source::Pem(paths) => {
            problems.extend(paths.iter().filter_map(|path| roots.add_path(path).err()).map(Problem::from));
            Ok(())
        }
        Source::Java(store) => add_store(&mut roots, store.path.clone(), store.password.as_deref()),
        Source::Jdk => {
            for path in jdk_stores() {
                problems.extend(add_store(&mut roots, path, None).err());
            }
            if roots.certificates().is_empty() { roots.add_system().map_err(Problem::from) } else { Ok(()) }
        }
    };
    problems.extend(added.err());
    roots.add(authority.roots());
    (roots, problems)
}

fn add_store(roots: &mut Roots, path: PathBuf, password: Option<&str>) -> Result<(), Problem> {
    let read = bounded(&path).map_err(StoreError::Read).and_then(|bytes| {
        if jks::is_one(&bytes) { jks::read(&bytes) } else { pkcs12::read(&bytes, password) }
    });
    roots.add(read.map_err(|error| Problem::Store { path, error })?);
    Ok(())
}

/// The JDKs' own trust stores, each file once.
fn jdk_stores() -> Vec<PathBuf> {
    let homes = std::env::var_os("JAVA_HOME").map(PathBuf::from).into_iter();
    let installed = std::fs::read_dir("/usr/lib/jvm").into_iter().flatten().filter_map(Result::ok);
    let homes = homes.chain(installed.map(|entry| entry.path()));
    let within = homes.flat_map(|home| {
        // With a JRE of its own until 8.
        ["lib/security/cacerts", "jre/lib/security/cacerts"].map(|file| home.join(file))
    });
    let shared =
        ["/etc/ssl/certs/java/cacerts", "/etc/pki/ca-trust/extracted/java/cacerts"].map(PathBuf::from);
    let mut found: Vec<_> = within.chain(shared).filter_map(|path| path.canonicalize().ok()).collect();
    found.sort();
    found.dedup();
    found
}

/// Certificates as PEM text.
pub(crate) fn pem_text(certificates: &[CertificateDer<'_>]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let blocks: Vec<_> =
        certificates.iter().map(|certificate| pem::Pem::new("CERTIFICATE", certificate.to_vec())).collect();
    pem::encode_many_config(&blocks, config)
}

#[cfg(test)]
mod tests;
