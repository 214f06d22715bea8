//! What the authority signs, what it refuses to sign, and what nobody would accept.

mod clients;
mod pem;

use rustls::version::{TLS12, TLS13};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::*;
use crate::{
    Downstream,
    testing::{BOTH, client, shake},
};

fn name(text: &str) -> LeafName {
    LeafName::parse(text).unwrap()
}

fn authority() -> Authority {
    Authority::for_run(&["db.example".to_owned(), "203.0.113.0/24".to_owned()]).unwrap()
}

/// A chain for the name from an intermediate that may not vouch for it: API names' is 0, databases' is 1.
fn forged(authority: &Authority, class: usize, text: &str) -> Arc<CertifiedKey> {
    Arc::new(authority.sign(&authority.current.load().issuing[class], &name(text), now()).unwrap())
}

#[test]
fn leaves_are_for_permitted_names_and_no_others() {
    let authority = authority();
    for permitted in [
        "bigquery.googleapis.com",
        "a.b.googleapis.com",
        "x.us-central1.sql.goog",
        "db.example",
        "replica.db.example",
        "10.1.2.3",
        "172.31.255.255",
        "192.168.0.9",
        "100.64.0.1",
        "127.0.0.1",
        "::1",
        "fd12::1",
        "203.0.113.9",
        "localhost",
    ] {
        assert!(authority.permits(&name(permitted)), "{permitted}");
        assert!(authority.leaf(&name(permitted)).is_ok(), "{permitted}");
    }
    for refused in [
        "example.com",
        "googleapis.com.example",
        "198.51.100.1",
        "172.32.0.1",
        "2001:db8::1",
        "169.254.169.254",
        "notdb.example",
    ] {
        assert!(!authority.permits(&name(refused)), "{refused}");
        let error = authority.leaf(&name(refused)).unwrap_err();
        assert!(matches!(error, LeafError::OutsideConstraints { .. }), "{error}");
        assert!(error.to_string().contains(&format!("--name {refused}")), "{error}");
    }
}

#[test]
fn a_leaf_has_an_empty_subject_and_exactly_one_critical_name() {
    let authority = authority();
    for text in ["bigquery.googleapis.com", "10.1.2.3", "fd00::1"] {
        let key = authority.leaf(&name(text)).unwrap();
        let [leaf, intermediate] = key.cert.as_slice() else {
            panic!("a leaf and its intermediate are sent")
        };
        let (_, leaf) = X509Certificate::from_der(leaf).unwrap();
        let (_, intermediate) = X509Certificate::from_der(intermediate).unwrap();
        assert_eq!(leaf.subject().iter().count(), 0);
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert!(names.critical);
        let [san] = names.value.general_names.as_slice() else { panic!("one name and no second") };
        match san {
            GeneralName::DNSName(san) => assert_eq!(*san, text),
            GeneralName::IPAddress(bytes) => assert_eq!(bytes.len(), if text.contains(':') { 16 } else { 4 }),
            other => panic!("{other}"),
        }
        assert!(!leaf.is_ca() && intermediate.is_ca());
        let seconds = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
        assert!((24 * 3600..48 * 3600).contains(&seconds), "{seconds}");
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && !usage.client_auth);
    }
}

#[test]
fn roots_and_intermediates_carry_the_same_constraints_for_every_kind_of_name() {
    let authority = authority();
    for (root, issuing) in authority.roots().iter().zip(&authority.current.load().issuing) {
        let (_, root) = X509Certificate::from_der(root).unwrap();
        let (_, intermediate) = X509Certificate::from_der(&issuing.certificate).unwrap();
        for (certificate, depth) in [(&root, 1), (&intermediate, 0)] {
            let read = Constraints::read(certificate).unwrap();
            assert_eq!(read, issuing.constraints[0]);
            assert_eq!(read.unconstrained(), None);
            assert!(certificate.name_constraints().unwrap().unwrap().critical);
            let basic = certificate.basic_constraints().unwrap().unwrap().value;
            assert_eq!((basic.ca, basic.path_len_constraint), (true, Some(depth)));
        }
        assert_ne!(root.public_key().raw, intermediate.public_key().raw);
    }
}

#[test]
fn all_leaves_share_a_key_and_none_its_number() {
    let authority = authority();
    let numbers: std::collections::HashSet<_> = (0..100)
        .map(|n| {
            let key = authority.leaf(&name(&format!("h{n}.googleapis.com"))).unwrap();
            let (_, leaf) = X509Certificate::from_der(&key.cert[0]).unwrap();
            assert!(key.keys_match().is_ok());
            leaf.tbs_certificate.raw_serial().to_vec()
        })
        .collect();
    assert_eq!(numbers.len(), 100);
}

#[test]
fn a_leaf_is_kept_until_half_of_its_time_is_over() {
    let authority = authority();
    let (name, start) = (name("bigquery.googleapis.com"), now());
    let first = authority.leaf_at(&name, start).unwrap();
    assert!(Arc::ptr_eq(&first, &authority.leaf_at(&name, start + 11 * 3600).unwrap()));
    let second = authority.leaf_at(&name, start + 13 * 3600).unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&second, &authority.leaf_at(&name, start + 13 * 3600).unwrap()));
}

#[test]
fn a_leaf_never_outlives_its_intermediate() {
    let authority = authority();
    let name = name("bigquery.googleapis.com");
    let end = authority.current.load().issuing[0].not_after;
    let key = authority.leaf_at(&name, end - 600).unwrap();
    let (_, leaf) = X509Certificate::from_der(&key.cert[0]).unwrap();
    assert_eq!(leaf.validity().not_after.timestamp(), end);
    let error = authority.leaf_at(&name, end).unwrap_err();
    assert_eq!(error, LeafError::Expired { name, not_after: end });
}

#[test]
fn no_more_leaves_are_kept_than_the_bound() {
    let authority = authority();
    let key = authority.leaf(&name("x.googleapis.com")).unwrap();
    let current = authority.current.load();
    let mut leaves = current.leaves.lock().unwrap();
    for n in 0..CACHED_LEAVES + 100 {
        leaves.insert(
            name(&format!("h{n}.googleapis.com")),
            Cached { key: Arc::clone(&key), renew_at: i64::MAX },
        );
    }
    assert_eq!(leaves.len(), CACHED_LEAVES);
}

#[test]
fn names_that_are_none_cannot_be_configured() {
    for text in ["*.example", "0.0.0.0/0", "a b", ""] {
        let error = Authority::for_run(&[text.to_owned()]).unwrap_err();
        assert!(matches!(error, AuthorityError::Name(_)), "{error}");
    }
}

#[test]
fn roots_of_two_runs_have_different_names() {
    let subjects =
        |authority: &Authority| authority.roots().iter().map(material::subject).collect::<Vec<_>>();
    assert_ne!(subjects(&authority()), subjects(&authority()));
}

#[test]
fn a_client_that_trusts_the_roots_alone_accepts_leaves_in_both_versions() {
    let authority = authority();
    let downstream = Downstream::new().unwrap();
    for versions in [&[&TLS13][..], &[&TLS12], BOTH] {
        for text in ["bigquery.googleapis.com", "10.1.2.3", "fd00::1", "db.example", "localhost"] {
            let name = name(text);
            let server = downstream.config(authority.leaf(&name).unwrap(), None);
            let client = Arc::new(client(&authority.roots(), versions));
            let pair = shake(client, name.server_name(), server);
            assert!(pair.succeeded(), "{text}: {:?} {:?}", pair.client_error, pair.server_error);
        }
    }
}

#[test]
fn a_stolen_intermediate_is_worthless_beyond_its_names() {
    let authority = authority();
    let downstream = Downstream::new().unwrap();
    for (class, text) in FORGERIES {
        let server = downstream.config(forged(&authority, class, text), None);
        let client = Arc::new(client(&authority.roots(), BOTH));
        let pair = shake(client, name(text).server_name(), server);
        let error = pair.client_error.unwrap_or_else(|| panic!("{text} was accepted"));
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{text}: {error}");
    }
}

/// What neither intermediate may vouch for.
const FORGERIES: [(usize, &str); 7] = [
    (1, "bigquery.googleapis.com"),
    (1, "other.example"),
    (1, "198.51.100.1"),
    (1, "2001:db8::1"),
    (0, "127.0.0.1"),
    (0, "::1"),
    (0, "other.example"),
];
