//! The authority that signs Google's side of the lab, and what else a server may show: only the proxy's
//! upstream trusts this root, as everybody trusts Google's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// A certificate chain and its key, PEM files.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The leaf, then what signed it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The authority.
pub struct Root {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Root {
    /// Makes one in a folder.
    pub fn create(folder: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let root = Self { folder: folder.to_owned(), issuer };
        fs::write(root.certificate(), root.issuer.pem())?;
        Ok(root)
    }

    /// Its own certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("root.pem")
    }

    /// A certificate for names and addresses.
    pub fn issue(&self, file: &str, names: &[&str]) -> Result<Shown> {
        self.sign(file, leaf(names)?)
    }

    /// One that was good until long ago.
    pub fn issue_expired(&self, file: &str, names: &[&str]) -> Result<Shown> {
        let mut params = leaf(names)?;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(file, params)
    }

    /// One that nobody but itself vouches for.
    pub fn self_signed(&self, file: &str, names: &[&str]) -> Result<Shown> {
        let key = KeyPair::generate()?;
        let certificate = leaf(names)?.self_signed(&key)?;
        self.write(file, &certificate.pem(), &key)
    }

    fn sign(&self, file: &str, params: CertificateParams) -> Result<Shown> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        self.write(file, &(certificate.pem() + &self.issuer.pem()), &key)
    }

    fn write(&self, file: &str, chain: &str, key: &KeyPair) -> Result<Shown> {
        let shown = Shown {
            certificate: self.folder.join(format!("{file}.pem")),
            key: self.folder.join(format!("{file}.key")),
        };
        fs::write(&shown.certificate, chain)?;
        fs::write(&shown.key, key.serialize_pem())?;
        Ok(shown)
    }
}

impl std::fmt::Debug for Root {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Root").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// With a common name as well, as Google's have.
fn leaf(names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names.clone())?;
    params.distinguished_name.push(DnType::CommonName, names.first().map_or("lab", String::as_str));
    Ok(params)
}
