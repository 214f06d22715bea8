//! `serve` and TLS: who is looked into, under whose authority, and what is remembered of who refused.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use libtest_mimic::Failed;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, GeneralSubtree, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, NameConstraints,
};
use verbatim_api::v1::{self, OpaqueReason};

use super::{
    cases,
    serving::{Tree, configuration, ends, serve_as, stop},
};
use crate::{
    Outcome,
    collector::{Collector, Manner, socket},
    support::{Bench, ended, ensure, text, until},
    tls::{BODY, TlsServer},
};

cases!(
    a_pod_that_was_given_our_roots_is_looked_into_and_others_are_not,
    a_refusal_is_remembered_across_restarts_and_ends_with_its_container,
    an_authority_without_constraints_is_refused_by_name,
);

/// A file's `tls` and what its first selectors say, instead of what the others have.
fn with_tls(bench: &Bench, tree: &Tree, authority: &str, root: &Path, selectors: &str) -> String {
    let plain = configuration(bench, tree, None);
    let state = bench.path("refusals.json");
    let tls = format!(
        "tls:\n  authority: {authority}\n  upstreamRoots: {{files: [{}]}}\n  stateFile: {}\n",
        root.display(),
        state.display(),
    );
    plain.replacen(
        "selectors:\n",
        &format!("{tls}selectors:\n{}", selectors.replace("NAME", &tree.name())),
        1,
    )
}

/// Certificates of this kind may sign, for loopback and nothing else, or for everything.
fn authority_of(name: &str, constrained: bool) -> Result<CertificateParams, Failed> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, name);
    let v4 = |address, prefix| {
        GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(IpAddr::V4(address), prefix))
    };
    let v6 = GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix("fd00::".parse()?, 8));
    params.name_constraints = constrained.then(|| NameConstraints {
        permitted_subtrees: vec![
            v4(Ipv4Addr::new(127, 0, 0, 0), 8),
            v6,
            GeneralSubtree::DnsName("invalid".to_owned()),
        ],
        excluded_subtrees: Vec::new(),
    });
    Ok(params)
}

/// A root that everybody can read, and what signs under it, as the configuration names them.
fn issued(bench: &Bench, constrained: bool) -> Result<String, Failed> {
    let (root_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
    let params = authority_of("Root of the cluster", constrained)?;
    let root = params.self_signed(&root_key)?;
    let intermediate = authority_of("Intermediate of the node", constrained)?;
    let intermediate = intermediate.signed_by(&key, &Issuer::new(params, root_key))?;
    let file = |name: &str, text: String| {
        let path = bench.path("open").join(name);
        fs::write(&path, text).map(|()| path.display().to_string())
    };
    let (root, intermediate) = (file("roots.pem", root.pem())?, file("node.pem", intermediate.pem())?);
    let key = file("node-key.pem", key.serialize_pem())?;
    Ok(format!("{{roots: [{root}], intermediates: [{{certificate: {intermediate}, key: {key}}}]}}"))
}

/// Exit code of curl with these roots, and who signed what it saw.
fn curl(tree: &Tree, below: &str, roots: &Path, server: &TlsServer) -> Result<(Option<i32>, String), Failed> {
    let roots = roots.display().to_string();
    let mut command = tree.command(below, "curl", &["-sSv", "--cacert", &roots, &server.url("/")]);
    let (code, stdout, stderr) = ended(&mut command)?;
    ensure(code != Some(0) || stdout == BODY, || format!("it got {stdout}"))?;
    let issuer = stderr.lines().find_map(|line| line.trim().strip_prefix("*  issuer:"));
    Ok((code, issuer.unwrap_or("nobody").trim().to_owned()))
}

const THEIRS: &str = "CN=Root of the test's server";

fn a_pod_that_was_given_our_roots_is_looked_into_and_others_are_not() -> Outcome {
    let bench = Bench::new();
    let tree = Tree::new(&bench)?;
    for container in ["c2", "c3", "c4"] {
        fs::create_dir(tree.path("kubepods/pod1111-aaaa").join(container))?;
    }
    let server = TlsServer::start(&bench, &[])?;
    let selectors = "\
- {match: {cgroup: 'NAME/kubepods/*/c1'}, set: {capture: steer, failMode: closed, trust: injected}}
- {match: {cgroup: 'NAME/kubepods/*/c2'}, set: {capture: steer, failMode: closed, trust: none}}
- {match: {cgroup: 'NAME/kubepods/*/c3'}, set: {capture: steer, failMode: closed, untrusted: deny}}
";
    let configuration = with_tls(&bench, &tree, &issued(&bench, true)?, &server.root, selectors);
    let collector = Collector::start(&socket(&bench.path("tmp")), Manner::Good, None);
    let agent = serve_as(&bench, &tree, &configuration)?;
    let ours = bench.path("open").join("roots.pem");
    let table = [
        ("c1", ours.as_path(), Some(0), "CN=Intermediate of the node", OpaqueReason::Unspecified),
        ("c2", &server.root, Some(0), THEIRS, OpaqueReason::BySelector),
        ("c3", &server.root, Some(35), "nobody", OpaqueReason::TrustNotInjected),
        ("c4", &server.root, Some(0), THEIRS, OpaqueReason::TrustNotInjected),
    ];
    for (container, roots, code, issuer, _) in table {
        let seen = curl(&tree, &format!("kubepods/pod1111-aaaa/{container}"), roots, &server)?;
        ensure(seen.0 == code && seen.1.contains(issuer), || format!("{container}: {seen:?}"))?;
    }
    stop(&bench, agent)?;
    let ends = ends(&collector);
    for (container, _, _, _, reason) in table {
        let seen: Vec<_> = ends
            .iter()
            .filter(|end| end.workload.as_ref().is_some_and(|workload| workload.container == container))
            .map(|end| end.opaque_reason())
            .collect();
        ensure(seen == [reason], || format!("{container}: {seen:?}"))?;
    }
    Ok(())
}

fn a_refusal_is_remembered_across_restarts_and_ends_with_its_container() -> Outcome {
    let bench = Bench::new();
    let tree = Tree::new(&bench)?;
    let server = TlsServer::start(&bench, &[])?;
    let selectors = "\
- {match: {cgroup: 'NAME/kubepods/**'}, set: {capture: steer, failMode: closed, trust: injected}}
";
    let folder = bench.path("open").join("trust");
    let authority = format!("{{ephemeral: {{directory: {}}}}}", folder.display());
    let configuration = with_tls(&bench, &tree, &authority, &server.root, selectors);
    let collector = Collector::start(&socket(&bench.path("tmp")), Manner::Good, None);
    let below = "kubepods/pod1111-aaaa/c1";

    let agent = serve_as(&bench, &tree, &configuration)?;
    let trusting = curl(&tree, below, &folder.join("bundle.pem"), &server)?;
    ensure(trusting.0 == Some(0) && trusting.1.contains("O=Verbatim"), || format!("{trusting:?}"))?;
    let first = curl(&tree, below, &server.root, &server)?;
    // What it said to us can be read after its end, and another shard may have the second.
    let refused = |end: &v1::Envelope| end.opaque_reason() == OpaqueReason::ClientDoesNotTrustUs;
    until("the first one's end is recorded", || ends(&collector).iter().any(refused))?;
    let second = curl(&tree, below, &server.root, &server)?;
    ensure(first.0 == Some(60) && second.0 == Some(0), || format!("{first:?}, {second:?}"))?;
    stop(&bench, agent)?;

    let agent = serve_as(&bench, &tree, &configuration)?;
    let third = curl(&tree, below, &server.root, &server)?;
    ensure(third.0 == Some(0) && third.1.contains(THEIRS), || format!("after the restart: {third:?}"))?;
    fs::remove_dir(tree.path(below))?;
    let state = bench.path("refusals.json");
    let known = || fs::read_to_string(&state).is_ok_and(|text| text.contains(below));
    until("what the container refused is forgotten with it", || !known())?;
    fs::create_dir(tree.path(below))?;
    let other = curl(&tree, below, &folder.join("bundle.pem"), &server)?;
    ensure(other.0 == Some(0) && other.1.contains("O=Verbatim"), || {
        format!("the next container: {other:?}")
    })?;
    stop(&bench, agent)
}

fn an_authority_without_constraints_is_refused_by_name() -> Outcome {
    let bench = Bench::new();
    let tree = Tree::new(&bench)?;
    let server = TlsServer::start(&bench, &[])?;
    let configuration = with_tls(&bench, &tree, &issued(&bench, false)?, &server.root, "");
    let file = bench.path("agent.yaml");
    fs::write(&file, configuration)?;
    let output = bench.agent(&["serve", "--check", "--config", &file.display().to_string()]).output()?;
    let said = text(&output.stderr);
    ensure(output.status.code() == Some(1), || format!("{}: {said}", output.status))?;
    ensure(said.contains("Intermediate of the node") && said.contains("does not constrain"), || said)
}
