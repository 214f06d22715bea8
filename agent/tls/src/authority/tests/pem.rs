//! The authority that `serve` is given.

use rcgen::{CertificateParams, IsCa};

use super::*;

/// What an issuer would hand out: the roots, and an intermediate of each class with its key.
fn material(authority: &Authority) -> AuthorityMaterial {
    let current = authority.current.load();
    let intermediates = current.issuing.iter().map(|issuing| {
        let certificate = crate::trust::pem_text(std::slice::from_ref(&issuing.certificate));
        format!("{}{certificate}", issuing.issuer.key().serialize_pem())
    });
    AuthorityMaterial { roots: authority.roots_pem(), intermediates: intermediates.collect() }
}

#[test]
fn an_authority_from_pem_vouches_for_what_its_certificates_say() {
    let made = authority();
    let read = Authority::from_pem(&material(&made)).unwrap();
    assert_eq!(read.roots(), made.roots());
    for (text, permitted) in [
        ("bigquery.googleapis.com", true),
        ("10.0.0.1", true),
        ("db.example", true),
        ("example.com", false),
        ("198.51.100.1", false),
    ] {
        assert_eq!(read.permits(&name(text)), permitted, "{text}");
    }
    let server = Downstream::new().unwrap().config(read.leaf(&name("db.example")).unwrap(), None);
    let pair = shake(Arc::new(client(&made.roots(), BOTH)), name("db.example").server_name(), server);
    assert!(pair.succeeded(), "{:?}", pair.client_error);
}

#[test]
fn what_is_missing_from_the_material_is_named() {
    let authority = authority();
    let whole = material(&authority);
    let error =
        Authority::from_pem(&AuthorityMaterial { roots: String::new(), ..whole.clone() }).unwrap_err();
    assert!(matches!(error, AuthorityError::NoRoot), "{error}");
    let error =
        Authority::from_pem(&AuthorityMaterial { intermediates: vec![], ..whole.clone() }).unwrap_err();
    assert!(matches!(error, AuthorityError::NoIntermediate), "{error}");
    let without_key = AuthorityMaterial { intermediates: vec![whole.roots.clone()], ..whole.clone() };
    let error = Authority::from_pem(&without_key).unwrap_err();
    assert!(error.to_string().contains("intermediate 1"), "{error}");
    // The other one's key.
    let key = authority.current.load().issuing[1].issuer.key().serialize_pem();
    let certificate =
        crate::trust::pem_text(std::slice::from_ref(&authority.current.load().issuing[0].certificate));
    let error =
        Authority::from_pem(&AuthorityMaterial { intermediates: vec![key + &certificate], ..whole.clone() })
            .unwrap_err();
    assert!(error.to_string().contains("another one's"), "{error}");
    // Roots of another authority.
    let foreign = AuthorityMaterial { roots: super::authority().roots_pem(), ..whole };
    assert!(matches!(Authority::from_pem(&foreign).unwrap_err(), AuthorityError::Unusable { .. }));
}

#[test]
fn an_authority_without_constraints_is_refused() {
    let root_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&root_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let intermediate = params.signed_by(&key, &Issuer::from_params(&params, &root_key)).unwrap();
    let material = AuthorityMaterial {
        roots: root.pem(),
        intermediates: vec![intermediate.pem() + &key.serialize_pem()],
    };
    let error = Authority::from_pem(&material).unwrap_err();
    assert!(matches!(error, AuthorityError::Unconstrained { what: "DNS names", .. }), "{error}");
}

#[test]
fn an_intermediate_whose_time_is_over_is_refused() {
    let root_key = KeyPair::generate().unwrap();
    let constraints = shape::constraints(NameClass::Api, &[]).unwrap();
    let year = 366 * 24 * 3600;
    let root = shape::authority("root".into(), Some(&constraints), 1, now(), now() + year).unwrap();
    let key = KeyPair::generate().unwrap();
    let old = shape::authority("intermediate".into(), Some(&constraints), 0, now() - 2 * year, now() - year)
        .unwrap();
    let intermediate = old.signed_by(&key, &Issuer::from_params(&root, &root_key)).unwrap();
    let material = AuthorityMaterial {
        roots: root.self_signed(&root_key).unwrap().pem(),
        intermediates: vec![intermediate.pem() + &key.serialize_pem()],
    };
    let error = Authority::from_pem(&material).unwrap_err();
    assert!(error.to_string().contains("expires"), "{error}");
}

#[test]
fn an_intermediate_is_bound_by_its_root_as_well() {
    let [api, databases] = NameClass::ALL.map(|class| shape::constraints(class, &[]).unwrap());
    let root_key = KeyPair::generate().unwrap();
    let root = shape::authority("root".into(), Some(&api), 1, now(), now() + 3600).unwrap();
    let key = KeyPair::generate().unwrap();
    let intermediate = shape::authority("intermediate".into(), Some(&databases), 0, now(), now() + 3600)
        .unwrap()
        .signed_by(&key, &Issuer::from_params(&root, &root_key))
        .unwrap();
    let material = AuthorityMaterial {
        roots: root.self_signed(&root_key).unwrap().pem(),
        intermediates: vec![intermediate.pem() + &key.serialize_pem()],
    };
    let error = Authority::from_pem(&material).unwrap_err();
    assert!(error.to_string().contains("no name is within"), "{error}");
}

#[test]
fn a_key_never_shows_in_what_is_printed() {
    let authority = authority();
    let material = material(&authority);
    let printed = format!("{authority:?} {material:?}");
    assert!(!printed.contains("PRIVATE KEY") && printed.contains("googleapis.com"));
}
