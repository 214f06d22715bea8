//! Certificates of the control plane and of the node, and who may do what with them (Kubernetes: PKI certificates and
//! requirements).

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::{API_SERVICE, NODE};
use crate::shell;

/// Files in a folder, each named after whose it is.
#[derive(Debug)]
pub(super) struct Keys(PathBuf);

/// Name of the files, common name, organisation (a group to Kubernetes), names and addresses of a server.
type Holder = (&'static str, &'static str, Option<&'static str>, &'static [&'static str]);

const HOLDERS: [Holder; 7] = [
    (
        "apiserver",
        "kube-apiserver",
        None,
        &["127.0.0.1", NODE, API_SERVICE, "localhost", "kubernetes.default.svc", "kubernetes.default"],
    ),
    ("kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters"), &[]),
    ("admin", "admin", Some("system:masters"), &[]),
    ("kube-controller-manager", "system:kube-controller-manager", None, &[]),
    ("kube-scheduler", "system:kube-scheduler", None, &[]),
    ("kube-proxy", "system:kube-proxy", None, &[]),
    ("kubelet", "system:node:node1", Some("system:nodes"), &["node1", NODE]),
];

impl Keys {
    /// Makes all of them.
    pub(super) fn create(folder: PathBuf) -> Result<Self> {
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let keys = Self(folder);
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "lab cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        keys.write("ca.crt", &authority.pem())?;
        for holder in HOLDERS {
            keys.issue(&authority, holder)?;
        }
        // Signs service accounts' tokens. RSA, as everywhere.
        let key = keys.path("service-accounts.key").display().to_string();
        let rsa =
            ["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &key];
        shell::run("openssl", &rsa)?;
        Ok(keys)
    }

    fn issue(&self, authority: &CertifiedIssuer<'_, KeyPair>, holder: Holder) -> Result<()> {
        let (file, name, organisation, names) = holder;
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(organisation) = organisation {
            params.distinguished_name.push(DnType::OrganizationName, organisation);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        self.write(&format!("{file}.crt"), &params.signed_by(&key, authority)?.pem())?;
        self.write(&format!("{file}.key"), &key.serialize_pem())?;
        let configuration = format!(
            "\
apiVersion: v1
kind: Config
clusters: [{{name: lab, cluster: {{server: 'https://{NODE}:6443', certificate-authority: {authority}}}}}]
users: [{{name: holder, user: {{client-certificate: {certificate}, client-key: {key}}}}}]
contexts: [{{name: lab, context: {{cluster: lab, user: holder}}}}]
current-context: lab
",
            authority = self.path("ca.crt").display(),
            certificate = self.path(&format!("{file}.crt")).display(),
            key = self.path(&format!("{file}.key")).display(),
        );
        self.write(&format!("{file}.kubeconfig"), &configuration)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// One of the files.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// How a holder reaches the API server.
    pub(super) fn kubeconfig(&self, holder: &str) -> PathBuf {
        self.path(&format!("{holder}.kubeconfig"))
    }

    /// Their folder.
    pub(super) fn folder(&self) -> &Path {
        &self.0
    }
}
