//! A root and one server certificate for 127.0.0.1, made anew for each bench, by openssl. P-256, as Verbatim's own
//! leaves are, so that nobody's handshake costs more than another's.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{command, place};

/// What openssl is to put into them.
const EXTENSIONS: &str = "\
    [req]\n\
    distinguished_name = name\n\
    prompt = no\n\
    [name]\n\
    CN = bench\n\
    [root]\n\
    basicConstraints = critical, CA:TRUE\n\
    keyUsage = critical, keyCertSign\n\
    [server]\n\
    basicConstraints = critical, CA:FALSE\n\
    extendedKeyUsage = serverAuth\n\
    subjectAltName = IP:127.0.0.1\n";

/// Them and their keys, in a folder of the bench's scratch.
pub(super) struct Certificates(PathBuf);

impl Certificates {
    pub(super) fn make(scratch: &Path) -> Result<Self> {
        let folder = scratch.join("certificates");
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        let extensions = folder.join("openssl.cnf");
        fs::write(&extensions, EXTENSIONS).with_context(|| extensions.display().to_string())?;
        let made = Self(folder);
        let root = ["-CA".into(), made.roots().into_os_string(), "-CAkey".into(), made.key("root").into()];
        // A serial number of its own for each: a chain in which two are alike is refused by some.
        made.issue("root", "1", &[])?;
        made.issue("server", "2", &root)?;
        if place::is_root() {
            // Only its owner may read it, and PostgreSQL and pgbouncer do not run as root.
            command::quiet(Command::new("chown").arg("postgres").arg(made.server_key()))?;
        }
        Ok(made)
    }

    /// What whoever connects has to trust (PEM).
    pub(super) fn roots(&self) -> PathBuf {
        self.0.join("root.pem")
    }

    /// The servers' and peers' certificate (PEM).
    pub(super) fn server(&self) -> PathBuf {
        self.0.join("server.pem")
    }

    /// Its key (PEM), which the user `postgres` can read, and root.
    pub(super) fn server_key(&self) -> PathBuf {
        self.key("server")
    }

    fn key(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.key"))
    }

    /// A certificate of this name with a new key, its extensions in the section that is called the same; signed
    /// by itself where no issuer is named.
    fn issue(&self, name: &str, serial: &str, issuer: &[OsString]) -> Result<()> {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-new", "-x509", "-days", "7", "-set_serial", serial]).args(issuer);
        openssl.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]);
        openssl.args(["-extensions", name, "-config"]).arg(self.0.join("openssl.cnf"));
        openssl.arg("-keyout").arg(self.key(name));
        command::quiet(openssl.arg("-out").arg(self.0.join(format!("{name}.pem"))))
    }
}
