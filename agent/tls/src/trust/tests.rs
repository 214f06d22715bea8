//! Bundles and trust stores: nothing that was trusted is lost, and nothing secret is taken along.

use std::{
    collections::HashSet,
    path::Path,
    process::{Command, Stdio},
};

use super::*;

fn authority() -> Authority {
    Authority::for_run(&[]).unwrap()
}

fn certificates(text: &str) -> HashSet<CertificateDer<'static>> {
    let mut roots = Roots::default();
    roots.add_pem(text.as_bytes());
    roots.certificates().iter().cloned().collect()
}

/// A root of somebody else's, with its key.
fn foreign() -> (CertificateDer<'static>, String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    (certificate.der().clone(), certificate.pem(), key.serialize_pem())
}

fn store(path: &Path, password: Option<&str>) -> Source {
    Source::Java(JavaStore { path: path.to_owned(), password: password.map(str::to_owned) })
}

#[test]
fn a_bundle_holds_what_the_file_held_and_our_roots_and_no_key() {
    let (authority, folder) = (authority(), tempfile::tempdir().unwrap());
    let file = folder.path().join("theirs.pem");
    let (theirs, pem, key) = foreign();
    std::fs::write(
        &file,
        format!("# a comment\n{key}\n{pem}{pem}\n-----BEGIN JUNK-----\nAAAA\n-----END JUNK-----\n"),
    )
    .unwrap();
    let (bundle, problems) = pem_bundle(&Source::Pem(vec![file]), &authority);
    assert!(problems.is_empty(), "{problems:?}");
    let expected: HashSet<_> = authority.roots().into_iter().chain([theirs]).collect();
    assert_eq!(certificates(&bundle), expected);
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 3, "none twice");
    assert!(!bundle.contains("PRIVATE KEY") && !bundle.contains("comment"));
}

#[test]
fn a_bundle_of_the_system_holds_all_of_its_roots() {
    let Some(system) = crate::system_bundle() else {
        return verbatim_missing::skip("the system's bundle of roots is not on this machine");
    };
    let authority = authority();
    let (bundle, problems) = pem_bundle(&Source::System, &authority);
    assert!(problems.is_empty());
    let before = certificates(&std::fs::read_to_string(system).unwrap());
    assert!(before.len() > 10 && certificates(&bundle).is_superset(&before));
    assert_eq!(certificates(&bundle).len(), before.len() + 2);
    // The same again is the same: ours once more, and no second copy.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bundle.pem");
    std::fs::write(&file, &bundle).unwrap();
    assert_eq!(pem_bundle(&Source::Pem(vec![file]), &authority).0, bundle);
}

#[test]
fn a_folder_of_certificates_becomes_one_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let roots: Vec<_> = (0..3).map(|_| foreign()).collect();
    for (n, (_, pem, _)) in roots.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{n:08x}.0")), pem).unwrap();
    }
    std::fs::write(folder.path().join("README"), "nothing").unwrap();
    std::fs::create_dir(folder.path().join("java")).unwrap();
    let (bundle, problems) = pem_bundle(&Source::Pem(vec![folder.path().to_owned()]), &authority());
    assert!(problems.is_empty(), "{problems:?}");
    assert!(roots.iter().all(|(certificate, _, _)| certificates(&bundle).contains(certificate)));
}

#[test]
fn a_source_that_cannot_be_read_leaves_our_roots_and_a_problem_that_names_it() {
    let authority = authority();
    let (bundle, problems) = pem_bundle(&Source::Pem(vec!["/nonexistent/roots.pem".into()]), &authority);
    assert_eq!(certificates(&bundle).len(), 2);
    assert!(problems[0].to_string().contains("/nonexistent/roots.pem"), "{problems:?}");
    let (_, problems) = pkcs12_trust_store(&store(Path::new("/nonexistent/t.p12"), None), &authority);
    assert!(problems[0].to_string().contains("/nonexistent/t.p12"), "{problems:?}");
}

#[test]
fn what_is_prepared_holds_a_file_for_each_variable_that_names_one() {
    let authority = authority();
    let folder = tempfile::tempdir().unwrap();
    let (theirs, pem, _) = foreign();
    let file = folder.path().join("theirs.pem");
    std::fs::write(&file, pem).unwrap();
    let existing = |name: &str| (name == "REQUESTS_CA_BUNDLE").then(|| file.clone().into_os_string());
    let prepared = prepare(&plan(existing, &TrustPaths { folder: "/trust".into() }), &authority);
    let files: Vec<_> = prepared.files.iter().map(|file| file.path.to_str().unwrap()).collect();
    assert_eq!(files, ["/trust/bundle.pem", "/trust/bundle-2.pem", "/trust/truststore.p12"]);
    for change in &prepared.changes {
        let named = prepared.files.iter().filter(|file| change.points_to(&file.path)).count();
        let needed =
            usize::from(!["PGCHANNELBINDING", "GOOGLE_CLOUD_DISABLE_DIRECT_PATH"].contains(&change.name));
        assert_eq!(named, needed, "{}", change.name);
    }
    let second = String::from_utf8(prepared.files[1].bytes.clone()).unwrap();
    assert!(certificates(&second).contains(&theirs) && certificates(&second).len() == 3);
}

#[test]
fn a_variable_whose_file_cannot_be_read_is_left_alone() {
    let existing = |name: &str| match name {
        "SSL_CERT_FILE" => Some("/nonexistent/roots.pem".into()),
        "JAVA_TOOL_OPTIONS" => Some("-Djavax.net.ssl.trustStore=/nonexistent/t.p12".into()),
        _ => None,
    };
    let prepared = prepare(&plan(existing, &TrustPaths { folder: "/trust".into() }), &authority());
    let changed: Vec<_> = prepared.changes.iter().map(|change| change.name).collect();
    assert!(!changed.contains(&"SSL_CERT_FILE") && !changed.contains(&"JAVA_TOOL_OPTIONS"), "{changed:?}");
    assert!(changed.contains(&"REQUESTS_CA_BUNDLE"));
    let files: Vec<_> = prepared.files.iter().map(|file| file.path.to_str().unwrap()).collect();
    assert_eq!(files, ["/trust/bundle.pem"]);
    for path in ["/nonexistent/roots.pem", "/nonexistent/t.p12"] {
        assert!(prepared.problems.iter().any(|problem| problem.to_string().contains(path)), "{path}");
    }
}

#[test]
fn a_trust_store_is_read_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let (_, pem, _) = foreign();
    let file = folder.path().join("theirs.pem");
    std::fs::write(&file, pem).unwrap();
    let authority = authority();
    let (written, problems) = pkcs12_trust_store(&Source::Pem(vec![file]), &authority);
    assert!(problems.is_empty());
    let path = folder.path().join("t.p12");
    std::fs::write(&path, &written).unwrap();
    for password in [None, Some("changeit")] {
        let (again, problems) = pkcs12_trust_store(&store(&path, password), &authority);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(again, written);
    }
}

#[test]
fn whatever_is_cut_or_changed_in_a_store_is_an_error_or_a_certificate_less() {
    let authority = authority();
    let written = pkcs12::write(&authority.roots());
    for length in 0..written.len() {
        assert!(pkcs12::read(&written[..length], None).is_err(), "cut at {length}");
    }
    for index in 0..written.len() {
        let mut changed = written.clone();
        changed[index] ^= 0x21;
        if let Ok(read) = pkcs12::read(&changed, Some("x")) {
            assert!(read.len() <= 2);
        }
    }
    let mut old = vec![0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff];
    assert!(jks::read(&old).is_err(), "entries that are not there");
    old.extend([
        0, 0, 0, 2, 0, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, b'X', b'.', b'5', b'0', b'9', 0xff, 0xff, 0xff,
        0xff,
    ]);
    assert!(jks::read(&old).is_err(), "a certificate of four gigabytes");
}

/// `keytool` with these arguments; `None`, and the test skipped, where it is not on this machine.
fn keytool(arguments: &[&str]) -> Option<String> {
    if !verbatim_missing::has("keytool") {
        return None;
    }
    let output = Command::new("keytool").args(arguments).stdin(Stdio::null()).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "keytool said:\n{text}");
    Some(text)
}

#[test]
fn java_reads_the_trust_store_with_and_without_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority();
    let (written, problems) = pkcs12_trust_store(&Source::Jdk, &authority);
    assert!(problems.is_empty(), "{problems:?}");
    let count = pkcs12::read(&written, None).unwrap().len();
    assert!(count >= 2);
    let path = folder.path().join("t.p12");
    std::fs::write(&path, &written).unwrap();
    for password in [&[][..], &["-storepass", "whatever"]] {
        let arguments =
            [&["-list", "-storetype", "PKCS12", "-keystore", path.to_str().unwrap()], password].concat();
        let Some(listed) = keytool(&arguments) else { return };
        assert_eq!(listed.matches("trustedCertEntry").count(), count, "{listed}");
    }
}

#[test]
fn stores_that_keytool_writes_are_carried_over() {
    let folder = tempfile::tempdir().unwrap();
    let (theirs, pem, _) = foreign();
    let file = folder.path().join("theirs.pem");
    std::fs::write(&file, pem).unwrap();
    for kind in ["PKCS12", "JKS"] {
        let path = folder.path().join(kind);
        let arguments = [
            "-importcert",
            "-noprompt",
            "-alias",
            "theirs",
            "-storetype",
            kind,
            "-storepass",
            "s3cret!",
            "-file",
            file.to_str().unwrap(),
            "-keystore",
            path.to_str().unwrap(),
        ];
        if keytool(&arguments).is_none() {
            return;
        }
        let (written, problems) = pkcs12_trust_store(&store(&path, Some("s3cret!")), &authority());
        assert!(problems.is_empty(), "{kind}: {problems:?}");
        assert!(pkcs12::read(&written, None).unwrap().contains(&theirs), "{kind}");
    }
    for password in [None, Some("wrong")] {
        let (_, problems) = pkcs12_trust_store(&store(&folder.path().join("PKCS12"), password), &authority());
        assert!(problems[0].to_string().contains("password"), "{problems:?}");
        assert!(!problems[0].to_string().contains("wrong."), "a password is never quoted");
    }
}
