//! The authority that a node agent is given, made as an issuer on a cluster would make it, and the trust that
//! goes with it into pods: constrained roots in the bundle, intermediates of the node's with the same
//! constraints, never in the bundle.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, DnType, GeneralSubtree, IsCa, KeyPair,
    KeyUsagePurpose, NameConstraints,
};
use verbatim_tls::{Roots, trust_files};

use crate::{google::Root, network::DATABASE_NAME, trust::Trust};

/// What is given to an agent and to pods.
#[derive(Debug)]
pub struct Given {
    /// The `tls` section of the agent's configuration.
    pub configuration: String,
    /// What pods get.
    pub trust: Trust,
    /// What is known of PostgreSQL's passwords: nothing, until a scenario writes it.
    pub verifiers: PathBuf,
}

/// Makes it in a folder. `upstream` is the root that only the agent trusts.
pub fn create(folder: &Path, upstream: &Root) -> Result<Given> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let apis = NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("googleapis.com".into())],
        excluded_subtrees: vec![range("0.0.0.0", 0)?, range("::", 0)?],
    };
    let databases = NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName(DATABASE_NAME.into()),
            range("10.0.0.0", 8)?,
            range("fd00::", 8)?,
        ],
        excluded_subtrees: Vec::new(),
    };
    let classes = [class(folder, "apis", apis)?, class(folder, "databases", databases)?];
    let bundle = folder.join("bundle.pem");
    // The image's own roots, as far as the lab has any, do not belong to them: nothing in the lab is signed by
    // a root that pods trust, so that whatever works for them works through the agent.
    let text: String = classes.iter().map(|class| class.root_pem.as_str()).collect();
    fs::write(&bundle, &text)?;
    // The product's own: Java is to be able to read what it is given.
    let mut given = Roots::default();
    given.add_pem(text.as_bytes());
    let store = folder.join("truststore.p12");
    fs::write(&store, trust_files(&given).1)?;
    let roots: Vec<_> = classes.iter().map(|class| class.root.display().to_string()).collect();
    let intermediates: Vec<_> = classes
        .iter()
        .map(|class| {
            format!("{{certificate: {}, key: {}}}", class.certificate.display(), class.key.display())
        })
        .collect();
    let verifiers = folder.join("verifiers");
    fs::write(&verifiers, "; nothing yet\n")?;
    fs::set_permissions(&verifiers, fs::Permissions::from_mode(0o600))?;
    let configuration = format!(
        "\
tls:
  authority: {{roots: [{}], intermediates: [{}]}}
  upstreamRoots: {{system: true, files: [{}]}}
  stateFile: {}
  verifierFile: {}
",
        roots.join(", "),
        intermediates.join(", "),
        upstream.certificate().display(),
        folder.join("refusals").display(),
        verifiers.display(),
    );
    Ok(Given { configuration, trust: Trust::new(bundle, Some(store)), verifiers })
}

struct Class {
    root_pem: String,
    root: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

fn class(folder: &Path, name: &str, constraints: NameConstraints) -> Result<Class> {
    let root = CertifiedIssuer::self_signed(params(name, "root", 1, &constraints), KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = params(name, "intermediate", 0, &constraints).signed_by(&key, &root)?;
    let path = |end: &str| folder.join(format!("{name}{end}"));
    let class =
        Class { root_pem: root.pem(), root: path("-root.pem"), certificate: path(".pem"), key: path(".key") };
    fs::write(&class.root, &class.root_pem)?;
    fs::write(&class.certificate, certificate.pem())?;
    fs::write(&class.key, key.serialize_pem())?;
    Ok(class)
}

fn params(class: &str, role: &str, depth: u8, constraints: &NameConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("Lab's {role} for {class}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(constraints.clone());
    params.use_authority_key_identifier_extension = true;
    params
}

fn range(address: &str, length: u8) -> Result<GeneralSubtree> {
    let address: IpAddr = address.parse()?;
    Ok(GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, length)))
}
