//! What a command's environment becomes.

use std::collections::BTreeMap;

use super::*;

fn planned(existing: &[(&str, &str)]) -> (BTreeMap<&'static str, String>, EnvironmentPlan) {
    let existing: BTreeMap<_, _> = existing.iter().copied().collect();
    let plan = plan(|name| existing.get(name).map(OsString::from), &TrustPaths { folder: "/trust".into() });
    let changes = plan.changes.iter().map(|change| (change.name, change.value.to_str().unwrap().to_owned()));
    (changes.collect(), plan)
}

#[test]
fn an_empty_environment_gets_the_minimal_set_and_nothing_else() {
    let (changes, plan) = planned(&[]);
    let bundle = "/trust/bundle.pem".to_owned();
    let expected = [
        ("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", bundle.clone()),
        ("CURL_CA_BUNDLE", bundle.clone()),
        ("GOOGLE_CLOUD_DISABLE_DIRECT_PATH", "true".into()),
        ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", bundle.clone()),
        ("HTTPLIB2_CA_CERTS", bundle.clone()),
        (
            "JAVA_TOOL_OPTIONS",
            "-Djavax.net.ssl.trustStore=/trust/truststore.p12 -Djavax.net.ssl.trustStoreType=PKCS12".into(),
        ),
        ("NODE_EXTRA_CA_CERTS", bundle.clone()),
        ("PGCHANNELBINDING", "disable".into()),
        ("REQUESTS_CA_BUNDLE", bundle.clone()),
        ("SSL_CERT_FILE", bundle.clone()),
    ];
    assert_eq!(changes, expected.into());
    assert_eq!(plan.bundles, [Bundle { path: bundle.into(), source: Source::System }]);
    assert_eq!(plan.trust_stores, [TrustStore { path: "/trust/truststore.p12".into(), source: Source::Jdk }]);
}

#[test]
fn a_file_that_a_variable_named_stays_trusted_by_whom_it_was_and_by_nobody_else() {
    let (changes, plan) = planned(&[
        ("SSL_CERT_FILE", "/their/roots.pem"),
        ("REQUESTS_CA_BUNDLE", "/their/roots.pem"),
        ("NODE_EXTRA_CA_CERTS", "/their/extra.pem"),
        ("HTTPLIB2_CA_CERTS", ""),
    ]);
    assert_eq!(changes["SSL_CERT_FILE"], "/trust/bundle-2.pem");
    assert_eq!(changes["REQUESTS_CA_BUNDLE"], "/trust/bundle-2.pem");
    assert_eq!(changes["NODE_EXTRA_CA_CERTS"], "/trust/bundle-3.pem");
    assert_eq!(changes["HTTPLIB2_CA_CERTS"], "/trust/bundle.pem");
    let sources: Vec<_> = plan.bundles.iter().map(|bundle| &bundle.source).collect();
    let theirs = |path: &str| Source::Pem(vec![path.into()]);
    assert_eq!(sources, [&Source::System, &theirs("/their/roots.pem"), &theirs("/their/extra.pem")]);
}

#[test]
fn a_client_that_goes_by_another_variable_goes_on_doing_so() {
    let (changes, _) = planned(&[("SSL_CERT_FILE", "/their/roots.pem")]);
    assert_eq!(changes["SSL_CERT_FILE"], "/trust/bundle-2.pem");
    assert_eq!(changes["CURL_CA_BUNDLE"], "/trust/bundle-2.pem");
    assert_eq!(changes["REQUESTS_CA_BUNDLE"], "/trust/bundle.pem");
    let (changes, plan) = planned(&[("SSL_CERT_DIR", "/their/roots"), ("SSL_CERT_FILE", "/their/roots.pem")]);
    assert_eq!(changes["CURL_CA_BUNDLE"], "/trust/bundle-3.pem");
    let both = Source::Pem(vec!["/their/roots".into(), "/their/roots.pem".into()]);
    assert_eq!(plan.bundles[2].source, both, "some versions read the one, some both");
    let (changes, _) = planned(&[("CURL_CA_BUNDLE", "/their/roots.pem")]);
    assert_eq!(changes["CURL_CA_BUNDLE"], "/trust/bundle-2.pem");
    assert_eq!(changes["REQUESTS_CA_BUNDLE"], "/trust/bundle-2.pem");
    let (changes, _) = planned(&[("CURL_CA_BUNDLE", "/a.pem"), ("REQUESTS_CA_BUNDLE", "/b.pem")]);
    assert_ne!(changes["CURL_CA_BUNDLE"], changes["REQUESTS_CA_BUNDLE"]);
}

#[test]
fn java_options_are_appended_to_and_a_store_in_them_is_carried_over() {
    let (changes, plan) = planned(&[("JAVA_TOOL_OPTIONS", "-Xmx1g")]);
    assert!(changes["JAVA_TOOL_OPTIONS"].starts_with("-Xmx1g -Djavax.net.ssl.trustStore=/trust/"));
    assert_eq!(plan.trust_stores[0].source, Source::Jdk);

    let theirs = "-Djavax.net.ssl.trustStore=/their.p12 -Djavax.net.ssl.trustStorePassword=pw";
    let (changes, plan) =
        planned(&[("JAVA_TOOL_OPTIONS", "-Djavax.net.ssl.trustStore=/x"), ("JDK_JAVA_OPTIONS", theirs)]);
    // The one that would have counted is carried over, and ours counts now wherever one was named.
    let store = JavaStore { path: "/their.p12".into(), password: Some("pw".into()) };
    assert_eq!(plan.trust_stores[0].source, Source::Java(store));
    for name in ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"] {
        assert_eq!(store_options(&changes[name]).path.as_deref(), Some("/trust/truststore.p12"), "{name}");
    }
    assert!(!changes.contains_key("_JAVA_OPTIONS"));
    assert!(!format!("{plan:?}").contains("\"pw\""), "a password is not printed");
}

#[test]
fn what_a_person_decided_otherwise_is_not_overwritten() {
    let (changes, _) =
        planned(&[("PGCHANNELBINDING", "require"), ("GOOGLE_CLOUD_DISABLE_DIRECT_PATH", "false")]);
    assert!(!changes.contains_key("PGCHANNELBINDING"));
    assert!(!changes.contains_key("GOOGLE_CLOUD_DISABLE_DIRECT_PATH"));
    assert_eq!(planned(&[("PGCHANNELBINDING", "prefer")]).0["PGCHANNELBINDING"], "disable");
}

#[test]
fn the_root_file_of_libpq_is_never_touched() {
    for existing in [&[][..], &[("PGSSLROOTCERT", "/their/root.pem"), ("PGSSLMODE", "verify-full")]] {
        let (changes, _) = planned(existing);
        assert!(changes.keys().all(|name| !name.starts_with("PGSSL")));
    }
}

#[test]
fn planning_for_a_command_that_is_ours_already_nests() {
    let (changes, _) = planned(&[]);
    let outer: Vec<_> = changes.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let plan = plan(
        |name| outer.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()),
        &TrustPaths { folder: "/inner".into() },
    );
    let sources: Vec<_> = plan.bundles.iter().map(|bundle| &bundle.source).collect();
    assert_eq!(sources, [&Source::System, &Source::Pem(vec!["/trust/bundle.pem".into()])]);
    let store = JavaStore { path: "/trust/truststore.p12".into(), password: None };
    assert_eq!(plan.trust_stores[0].source, Source::Java(store));
}

#[test]
fn a_value_that_is_no_text_is_kept() {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let odd = OsString::from_vec(b"-Dx=\xff".to_vec());
    let plan =
        plan(|name| (name == "JAVA_TOOL_OPTIONS").then(|| odd.clone()), &TrustPaths { folder: "/t".into() });
    let java = plan.changes.iter().find(|change| change.name == "JAVA_TOOL_OPTIONS").unwrap();
    assert!(java.value.as_bytes().starts_with(b"-Dx=\xff -Djavax.net.ssl.trustStore=/t/"));
}
