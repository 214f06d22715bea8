//! Root certificates as PEM files and folders hold them.
//!
//! Owns where systems keep them and how they are read: what is no certificate is never taken along. Knows
//! not what they are for.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, pem::PemObject};

/// The largest file that is read, bytes: the largest bundle known is 0.5 MB.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// The most files of one folder that are read.
const MAX_FILES: usize = 4096;

/// Where distributions keep the bundle: Debian, Alpine; Red Hat, old and new; SUSE; Alpine; Arch.
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
];

/// Where there is no bundle there may be single files.
const SYSTEM_FOLDER: &str = "/etc/ssl/certs";

/// Root certificates cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file or folder cannot be read.
    #[error("reading certificates from `{}` failed: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There are none.
    #[error("no certificate was found in `{}`: expected PEM, `-----BEGIN CERTIFICATE-----`", path.display())]
    Empty {
        /// Where.
        path: PathBuf,
    },
    /// There is no bundle in any of the usual places.
    #[error(
        "no bundle of root certificates was found on this system: install `ca-certificates`, or set SSL_CERT_FILE"
    )]
    NoSystemBundle,
}

/// The system's bundle of root certificates: the first of the usual places that exists, else the file that
/// `SSL_CERT_FILE` of this process names, else the usual folder.
#[must_use]
pub fn system_bundle() -> Option<PathBuf> {
    let usual = SYSTEM_BUNDLES.iter().map(PathBuf::from);
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let folder = PathBuf::from(SYSTEM_FOLDER);
    usual.chain(named).find(|path| path.is_file()).or_else(|| folder.is_dir().then_some(folder))
}

/// A set of certificates, in the order in which they were added, none twice.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    known: HashSet<CertificateDer<'static>>,
}

impl Roots {
    /// Adds certificates; those that are there already are left out.
    pub fn add(&mut self, certificates: impl IntoIterator<Item = CertificateDer<'static>>) {
        for certificate in certificates {
            if self.known.insert(certificate.clone()) {
                self.certificates.push(certificate);
            }
        }
    }

    /// Adds every certificate of a PEM text; anything else in it, private keys not least, is left out.
    /// How many there were.
    pub fn add_pem(&mut self, text: &[u8]) -> usize {
        let found: Vec<_> = CertificateDer::pem_slice_iter(text).filter_map(Result::ok).collect();
        let count = found.len();
        self.add(found);
        count
    }

    /// Adds the certificates of a PEM file, or of all PEM files of a folder.
    ///
    /// # Errors
    ///
    /// When it cannot be read or holds none.
    pub fn add_path(&mut self, path: &Path) -> Result<(), RootsError> {
        let read = |error| RootsError::Read { path: path.to_owned(), error };
        let mut count = 0_usize;
        if path.is_dir() {
            let entries = fs::read_dir(path).map_err(read)?.filter_map(Result::ok).map(|entry| entry.path());
            let mut files: Vec<_> = entries.filter(|path| path.is_file()).take(MAX_FILES).collect();
            files.sort();
            for file in files {
                // One of many that cannot be read is no reason to lose the others.
                count = count.saturating_add(bounded(&file).map_or(0, |text| self.add_pem(&text)));
            }
        } else {
            count = self.add_pem(&bounded(path).map_err(read)?);
        }
        if count == 0 { Err(RootsError::Empty { path: path.to_owned() }) } else { Ok(()) }
    }

    /// Adds the system's.
    ///
    /// # Errors
    ///
    /// When there is no bundle, or it cannot be read.
    pub fn add_system(&mut self) -> Result<(), RootsError> {
        self.add_path(&system_bundle().ok_or(RootsError::NoSystemBundle)?)
    }

    /// All of them.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }
}

/// Reads a file of bounded length.
pub(crate) fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    if read as u64 == MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than any store of certificates"));
    }
    Ok(bytes)
}
