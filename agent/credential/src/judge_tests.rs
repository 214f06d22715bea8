//! The table of cases: which credential, presented by whom, belongs to them.

use verbatim_api::v1::Issuance;

use super::*;
use crate::jwt::Jwt;

const AGENT: &str = "agent@p.iam.gserviceaccount.com";
const OTHER: &str = "other@p.iam.gserviceaccount.com";

fn pod() -> Workload<'static> {
    Workload {
        kind: PrincipalKind::Federated,
        principal: "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p.svc.id.goog/\
                    subject/ns/shop/sa/agent",
        namespace: "shop",
        service_account: "agent",
        impersonated: AGENT,
    }
}

fn local() -> Workload<'static> {
    Workload { kind: PrincipalKind::Local, ..Workload::default() }
}

fn unresolved() -> Workload<'static> {
    Workload { kind: PrincipalKind::Unresolved, ..Workload::default() }
}

fn named(kind: CredentialKind, subject: &str) -> Shown {
    Shown { kind, subject: subject.into(), person: is_person(subject), ..Shown::default() }
}

fn jwt(kind: CredentialKind, algorithm: &str, jwt: Jwt) -> Shown {
    let jwt = Jwt { algorithm: algorithm.into(), ..jwt };
    Shown { jwt: Some(jwt.clone()), ..named(kind, jwt.names()) }
}

fn own(account: &str, algorithm: &str) -> Shown {
    let claims = Jwt { issuer: account.into(), subject: account.into(), ..Jwt::default() };
    jwt(CredentialKind::SelfSignedJwt, algorithm, claims)
}

fn id_token(email: &str) -> Shown {
    let claims = Jwt { email: email.into(), subject: "1".into(), ..Jwt::default() };
    jwt(CredentialKind::IdToken, "RS256", claims)
}

fn kubernetes(namespace: &str, account: &str) -> Shown {
    let claims = Jwt { service_account: Some((namespace.into(), account.into())), ..Jwt::default() };
    jwt(CredentialKind::IdToken, "RS256", claims)
}

fn subject(subject: &str) -> Shown {
    jwt(CredentialKind::IdToken, "ES256", Jwt { subject: subject.into(), ..Jwt::default() })
}

#[test]
fn whose_a_credential_is_that_says_so_itself() {
    use CommandFinding::{CredentialOfAPerson as Person, CredentialOfAnother as Another, SharedKey};
    use CredentialKind as Kind;
    use CredentialMatch::{No, Unknown, Yes};
    let cases = [
        ("a key of the account that it acts as", own(AGENT, "RS256"), pod(), Yes, Some(SharedKey)),
        ("a shared key file", own(OTHER, "RS256"), pod(), No, Some(SharedKey)),
        ("a forged one without signature", own(AGENT, "none"), pod(), Unknown, Some(SharedKey)),
        ("one under a shared secret", own(AGENT, "HS256"), pod(), Unknown, Some(SharedKey)),
        ("a key, by nobody that is known", own(OTHER, "RS256"), unresolved(), Unknown, Some(SharedKey)),
        ("its own ID token", id_token(AGENT), pod(), Yes, None),
        ("the same in other letters", id_token("Agent@P.iam.gserviceaccount.com"), pod(), Yes, None),
        ("another's ID token", id_token(OTHER), pod(), No, Some(Another)),
        ("a person's ID token", id_token("ada@example.com"), pod(), No, Some(Person)),
        ("a person's, by a person", id_token("ada@example.com"), local(), Unknown, None),
        ("a person's, by nobody that is known", id_token("ada@example.com"), unresolved(), No, Some(Person)),
        ("its own Kubernetes token", kubernetes("shop", "agent"), pod(), Yes, None),
        ("that of a namesake elsewhere", kubernetes("bank", "agent"), pod(), No, Some(Another)),
        ("its federated principal", subject(pod().principal), pod(), Yes, None),
        ("a subject that is only a number", subject("1234"), pod(), Unknown, None),
        ("a person as subject", subject("ada@example.com"), pod(), No, Some(Person)),
        ("an opaque token", named(Kind::OpaqueToken, ""), pod(), Unknown, None),
        ("a bound token", named(Kind::BoundToken, ""), pod(), Unknown, None),
        ("an API key", named(Kind::ApiKey, ""), pod(), Unknown, None),
        ("a database user", named(Kind::DatabaseUser, "app"), pod(), Unknown, None),
        ("its IAM database user", named(Kind::DatabaseIamUser, AGENT), pod(), Yes, None),
        ("another's IAM database user", named(Kind::DatabaseIamUser, OTHER), pod(), No, Some(Another)),
        (
            "a person's IAM database user",
            named(Kind::DatabaseIamUser, "ada@example.com"),
            pod(),
            No,
            Some(Person),
        ),
        ("an IAM user, by a person", named(Kind::DatabaseIamUser, OTHER), local(), Unknown, None),
        ("a password", named(Kind::Password, "app"), pod(), Unknown, None),
        ("a person's password", named(Kind::Password, "ada@example.com"), pod(), No, Some(Person)),
        ("its own signed URL", named(Kind::SignedUrl, AGENT), pod(), Yes, None),
        ("another's signed URL", named(Kind::SignedUrl, OTHER), pod(), No, Some(Another)),
        ("a signed URL that names nobody", named(Kind::SignedUrl, ""), pod(), Unknown, None),
        ("a refresh token", Shown { person: true, ..named(Kind::Other, "") }, pod(), No, Some(Person)),
        ("a cookie", named(Kind::Other, ""), pod(), Unknown, None),
        ("a certificate of its own", named(Kind::ClientCertificate, "shop/agent"), pod(), Yes, None),
        ("some certificate", named(Kind::ClientCertificate, "CN=x"), pod(), Unknown, None),
    ];
    for (what, shown, workload, matches, finding) in cases {
        let judged = judge(&shown, None, None, false, &workload);
        assert_eq!((judged.matches, judged.finding), (matches, finding), "{what}: {}", judged.reason);
        assert!(!judged.reason.is_empty(), "{what}");
    }
}

#[test]
fn what_was_seen_being_issued_goes_before_what_a_token_says() {
    let issuance = Issuance { namespace: "shop".into(), pod_name: "a-1".into(), ..Issuance::default() };
    let owner = |inherits| Owner { key: b"a".to_vec(), issuance: issuance.clone(), inherits };
    let token = named(CredentialKind::OpaqueToken, "");
    let by = |owner: &Owner, own| judge(&token, Some((owner, own)), None, false, &pod());
    let clean = owner(None);
    assert_eq!(by(&clean, true).matches, CredentialMatch::Yes);
    let stolen = by(&clean, false);
    assert_eq!(stolen.matches, CredentialMatch::No);
    assert_eq!(stolen.finding, Some(CommandFinding::CredentialOfAnother));
    assert!(stolen.reason.contains("shop/a-1"), "{}", stolen.reason);
    let refreshed = by(&owner(Some(CommandFinding::CredentialOfAPerson)), true);
    assert_eq!(refreshed.matches, CredentialMatch::No);
    assert_eq!(refreshed.finding, Some(CommandFinding::CredentialOfAPerson));
    let own = judge(&own(AGENT, "RS256"), Some((&clean, true)), None, false, &pod());
    assert_eq!((own.matches, own.finding), (CredentialMatch::Yes, None), "signed by signJwt for this pod");
}

#[test]
fn what_the_issuer_was_asked_goes_before_nothing() {
    let token = named(CredentialKind::OpaqueToken, "");
    let told = |email: &str| Told { email: email.into(), ..Told::default() };
    let judge = |told: &Told| judge(&token, None, Some(told), false, &pod());
    assert_eq!(judge(&told(AGENT)).matches, CredentialMatch::Yes);
    assert_eq!(judge(&told(OTHER)).finding, Some(CommandFinding::CredentialOfAnother));
    assert_eq!(judge(&told("ada@example.com")).finding, Some(CommandFinding::CredentialOfAPerson));
    let number = Told { subject: "104213".into(), ..Told::default() };
    let unnamed = judge(&number);
    assert_eq!(
        (unnamed.matches, unnamed.finding),
        (CredentialMatch::Unknown, None),
        "an issuer's own number"
    );
    let nobody = judge(&told(""));
    assert_eq!((nobody.matches, nobody.source), (CredentialMatch::Unknown, CredentialSource::Tokeninfo));
}

#[test]
fn one_that_is_anothers_is_enough() {
    use CredentialMatch::{No, Unknown, Unspecified, Yes};
    for (all, expected) in
        [(&[][..], Unspecified), (&[Unknown], Unknown), (&[Unknown, Yes], Yes), (&[Yes, No, Unknown], No)]
    {
        assert_eq!(together(all.iter().copied()), expected);
    }
}

#[test]
fn a_workload_is_known_by_all_of_its_names_and_no_others() {
    let pod = pod();
    for name in
        [pod.principal, AGENT, "shop/agent", "system:serviceaccount:shop:agent", "p.svc.id.goog[shop/agent]"]
    {
        assert!(pod.is(name), "{name}");
    }
    for name in ["", "shop", "shop/", "/agent", "shop/agent2", "system:serviceaccount:bank:agent", OTHER] {
        assert!(!pod.is(name), "{name}");
    }
    assert!(!Workload::default().is("/"), "nobody is nobody");
}
