//! The table of bad tokens, and the few that hold.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use serde_json::{Value, json};
use verbatim_api::v1::PrincipalKind;

use super::*;

const NOW: u64 = 1_800_000_000;

enum Signing {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signing {
    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).expect("signed");
                signature
            }
            Self::Ec(key) => key.sign(&random, message.as_bytes()).expect("signed").as_ref().to_vec(),
            Self::Ed(key) => key.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn jwk(&self, id: &str) -> Value {
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(key) => {
                // RSAPublicKey (RFC 8017 appendix A.1.1): two headers, a zero, 256 bytes of modulus.
                let modulus = &key.public_key().as_ref()[9..265];
                json!({"kty": "RSA", "kid": id, "n": encoded(modulus), "e": "AQAB", "alg": "RS256"})
            }
            Self::Ec(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "kid": id, "crv": "P-256", "x": encoded(&point[1..33]), "y": encoded(&point[33..])})
            }
            Self::Ed(key) => {
                json!({"kty": "OKP", "kid": id, "crv": "Ed25519", "x": encoded(key.public_key().as_ref())})
            }
        }
    }
}

fn ec() -> Signing {
    Signing::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
}

fn ed() -> Signing {
    Signing::Ed(Ed25519KeyPair::generate().expect("a key"))
}

fn verifier(keys: &[Value]) -> Verifier {
    let keys = KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).expect("keys");
    let issuer = Issuer {
        issuer: "https://login.example".into(),
        audiences: vec!["verbatim".into()],
        workload_claim: "workload".into(),
        keys: Arc::new(ArcSwapOption::from_pointee(keys)),
    };
    Verifier::new(vec![issuer])
}

fn pod() -> Workload<'static> {
    Workload {
        kind: PrincipalKind::Federated,
        principal: "principal://p",
        namespace: "shop",
        service_account: "agent",
        impersonated: "",
    }
}

fn claims() -> Value {
    json!({"iss": "https://login.example", "sub": "ada@example.com", "aud": "verbatim", "exp": NOW + 60,
           "nbf": NOW - 60, "workload": "shop/agent", "jti": "t1"})
}

fn with(change: Value) -> Value {
    let mut claims = claims();
    let object = claims.as_object_mut().expect("an object");
    for (name, value) in change.as_object().expect("an object") {
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.clone(), value.clone());
        }
    }
    claims
}

fn header(algorithm: &str) -> Value {
    json!({"alg": algorithm, "kid": "k"})
}

#[test]
fn a_token_of_each_algorithm_holds_for_the_workload_that_it_was_given_to() {
    let rsa = Signing::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"));
    for (key, algorithm) in [(rsa, "RS256"), (ec(), "ES256"), (ed(), "EdDSA")] {
        let verifier = verifier(&[key.jwk("k")]);
        let token = key.sign(&header(algorithm), &with(json!({"workload": ["bank/x", "shop/agent"]})));
        for _ in 0..2 {
            let verified = verifier.verify(token.as_bytes(), &pod(), NOW).expect("holds");
            assert_eq!((verified.jwt.subject.as_str(), verified.jwt.id.as_str()), ("ada@example.com", "t1"));
        }
        let elsewhere = Workload { namespace: "bank", ..pod() };
        assert_eq!(
            verifier.verify(token.as_bytes(), &elsewhere, NOW),
            Err(Rejection::Workload),
            "{algorithm}"
        );
        // Also what is remembered ends.
        assert_eq!(
            verifier.verify(token.as_bytes(), &pod(), NOW + 120),
            Err(Rejection::Expired),
            "{algorithm}"
        );
    }
}

#[test]
fn a_token_that_does_not_hold_is_rejected_for_its_reason() {
    use Rejection as R;
    let key = ec();
    let verifier = verifier(&[key.jwk("k")]);
    let signed = |claims: &Value| key.sign(&header("ES256"), claims);
    let unsigned = |algorithm: &str| {
        let token = key.sign(&header(algorithm), &claims());
        let dot = token.rfind('.').expect("a signature");
        token[..=dot].to_owned()
    };
    let changed = {
        let token = signed(&claims());
        let other = signed(&with(json!({"sub": "eve@example.com"})));
        let signature = token.rfind('.').expect("a signature");
        let dot = other.rfind('.').expect("a signature");
        format!("{}{}", &other[..dot], &token[signature..])
    };
    let cases = [
        ("garbage", "garbage".to_owned(), R::Malformed),
        ("forged with another key", ec().sign(&header("ES256"), &claims()), R::Signature),
        ("changed after it was signed", changed, R::Signature),
        ("without signature", format!("{}!", unsigned("ES256")), R::Malformed),
        ("alg none", unsigned("none"), R::Algorithm),
        ("alg None", unsigned("None"), R::Algorithm),
        ("a shared secret", unsigned("HS256"), R::Algorithm),
        ("another algorithm than the key's", key.sign(&header("RS256"), &claims()), R::Algorithm),
        (
            "a key that is not published",
            key.sign(&json!({"alg": "ES256", "kid": "x"}), &claims()),
            R::UnknownKey,
        ),
        (
            "critical parameters",
            key.sign(&json!({"alg": "ES256", "kid": "k", "crit": ["b64"], "b64": false}), &claims()),
            R::Critical,
        ),
        ("an issuer that is not believed", signed(&with(json!({"iss": "https://evil.example"}))), R::Issuer),
        ("expired", signed(&with(json!({"exp": NOW - 31}))), R::Expired),
        ("expires at a word", signed(&with(json!({"exp": "never"}))), R::Expired),
        ("without expiry", signed(&with(json!({"exp": null}))), R::NoExpiry),
        ("not valid yet", signed(&with(json!({"nbf": NOW + 31}))), R::Immature),
        ("valid from a word on", signed(&with(json!({"nbf": "now"}))), R::Immature),
        ("for another audience", signed(&with(json!({"aud": ["x", "verbatim.example"]}))), R::Audience),
        ("without audience", signed(&with(json!({"aud": null}))), R::Audience),
        ("that names nobody", signed(&with(json!({"sub": null}))), R::NoSubject),
        ("for another workload", signed(&with(json!({"workload": "shop/other"}))), R::Workload),
        ("for no workload", signed(&with(json!({"workload": null}))), R::Workload),
        ("for every workload", signed(&with(json!({"workload": true}))), R::Workload),
    ];
    for (what, token, rejection) in cases {
        assert_eq!(verifier.verify(token.as_bytes(), &pod(), NOW), Err(rejection), "{what}");
    }
    let nobody = Workload::default();
    assert_eq!(verifier.verify(signed(&claims()).as_bytes(), &nobody, NOW), Err(R::Workload));
}

#[test]
fn clocks_may_differ_a_little() {
    let key = ed();
    let verifier = verifier(&[key.jwk("k")]);
    let token = key.sign(&header("EdDSA"), &with(json!({"exp": NOW - 29, "nbf": NOW + 29})));
    assert!(verifier.verify(token.as_bytes(), &pod(), NOW).is_ok());
}

#[test]
fn without_keys_nothing_can_be_checked_and_new_keys_are_asked_again() {
    let (old, new) = (ec(), ec());
    let verifier = verifier(&[old.jwk("k")]);
    let token = old.sign(&header("ES256"), &claims());
    assert!(verifier.verify(token.as_bytes(), &pod(), NOW).is_ok());
    let set = json!({"keys": [new.jwk("k")]}).to_string();
    let keys = KeySet::parse(set.as_bytes()).expect("keys");
    verifier.issuers[0].keys.store(Some(Arc::new(keys)));
    assert_eq!(
        verifier.verify(token.as_bytes(), &pod(), NOW),
        Err(Rejection::Signature),
        "its key was taken back"
    );
    verifier.issuers[0].keys.store(None);
    assert_eq!(verifier.verify(token.as_bytes(), &pod(), NOW), Err(Rejection::KeysAway));
    assert_eq!(Verifier::new(Vec::new()).verify(token.as_bytes(), &pod(), NOW), Err(Rejection::Issuer));
}
