//! An authority of the scenario's own, and certificates of it, made by the `openssl` command.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::shell;

/// Curve of every key.
const KEY: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];

/// An authority.
#[derive(Clone, Debug)]
pub struct Authority {
    folder: PathBuf,
}

/// A certificate of it with its key, PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes one in a folder.
    pub fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let authority = Self { folder: folder.to_owned() };
        let (key, certificate) = (authority.path("ca.key"), authority.path("ca.pem"));
        let own = ["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=lab authority"];
        let files = ["-keyout", &key, "-out", &certificate];
        shell::run("openssl", &[&own[..], &KEY, &files].concat())?;
        Ok(authority)
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Its own certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Issues one for a name and, for servers, an address.
    pub fn issue(&self, name: &str, address: &str) -> Result<Issued> {
        let [key, request, certificate, names] =
            ["key", "csr", "pem", "ext"].map(|end| self.path(&format!("{name}.{end}")));
        fs::write(&names, format!("subjectAltName=DNS:{name},IP:{address}\n"))?;
        let subject = format!("/CN={name}");
        let own = ["req", "-nodes", "-subj", &subject, "-keyout", &key, "-out", &request];
        shell::run("openssl", &[&own[..], &KEY].concat())?;
        shell::run(
            "openssl",
            &[
                "x509",
                "-req",
                "-days",
                "2",
                "-in",
                &request,
                "-CA",
                &self.path("ca.pem"),
                "-CAkey",
                &self.path("ca.key"),
                "-CAcreateserial",
                "-extfile",
                &names,
                "-out",
                &certificate,
            ],
        )?;
        Ok(Issued { certificate: certificate.into(), key: key.into() })
    }
}
