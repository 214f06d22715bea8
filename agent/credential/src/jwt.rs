//! What a JSON Web Token says of itself (RFC 7519 in the compact form of RFC 7515): read, never believed.
//!
//! Owns the bounds. Whether a token was signed by whom it names is not asked here.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use crate::text::{cut, is_service_account};

/// Longest token that is read, bytes.
const MOST_BYTES: usize = 16 * 1024;
/// Longest name that is kept of one, bytes.
const MOST_NAME: usize = 512;
/// Audiences that are kept.
const MOST_AUDIENCES: usize = 8;
const NANOS: u64 = 1_000_000_000;

/// The claims and header parameters that tell whose a token is. Texts are cut at 512 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jwt {
    /// `alg` of the header.
    pub algorithm: String,
    /// `kid` of the header.
    pub key_id: String,
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// `email`.
    pub email: String,
    /// `aud`: one text or a list of them.
    pub audiences: Vec<String>,
    /// `exp`, nanoseconds since 1970; 0 where it has none.
    pub expires_wall_nanos: u64,
    /// `jti`.
    pub id: String,
    /// `cnf`: the token is bound to a key or certificate of its holder (RFC 7800, RFC 8705).
    pub bound: bool,
    /// Namespace and name of a Kubernetes service account that it names.
    pub service_account: Option<(String, String)>,
}

impl Jwt {
    /// Reads a token. `None`: it is none, or longer than is read.
    #[must_use]
    pub fn read(token: &[u8]) -> Option<Self> {
        if token.len() > MOST_BYTES {
            return None;
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let (header, claims) = (object(header)?, object(claims)?);
        let algorithm = text(&header, "alg");
        if algorithm.is_empty() {
            return None;
        }
        let subject = text(&claims, "sub");
        Some(Self {
            algorithm,
            key_id: text(&header, "kid"),
            issuer: text(&claims, "iss"),
            service_account: service_account(&claims, &subject),
            subject,
            email: text(&claims, "email"),
            audiences: audiences(&claims),
            expires_wall_nanos: seconds(claims.get("exp")).saturating_mul(NANOS),
            id: text(&claims, "jti"),
            bound: claims.get("cnf").is_some_and(Value::is_object),
        })
    }

    /// Whether a service account's own key has signed it
    /// (<https://developers.google.com/identity/protocols/oauth2/service-account#jwt-auth>): issuer and subject
    /// are the account, and so is the e-mail, where there is one.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        let subject = if self.subject.is_empty() { &self.issuer } else { &self.subject };
        is_service_account(&self.issuer)
            && *subject == self.issuer
            && (self.email.is_empty() || self.email == self.issuer)
    }

    /// Whether anything but a secret that both sides know, or nothing at all, can have signed it.
    #[must_use]
    pub fn is_signed_by_a_key(&self) -> bool {
        let algorithm = self.algorithm.to_ascii_uppercase();
        algorithm != "NONE" && !algorithm.starts_with("HS")
    }

    /// Whom it names, best first.
    #[must_use]
    pub fn names(&self) -> &str {
        [&self.email, &self.subject, &self.issuer]
            .into_iter()
            .find(|name| !name.is_empty())
            .map_or("", |name| name)
    }
}

/// A part of a token. Padding is not allowed (RFC 7515 section 2).
fn object(part: &[u8]) -> Option<Map<String, Value>> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    match serde_json::from_slice(&bytes).ok()? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

fn text(object: &Map<String, Value>, name: &str) -> String {
    object.get(name).and_then(Value::as_str).map(kept).unwrap_or_default()
}

/// What a claim says goes into records: a token inside of the token does not.
fn kept(text: &str) -> String {
    cut(&verbatim_wire::text_without_tokens(text), MOST_NAME)
}

fn audiences(claims: &Map<String, Value>) -> Vec<String> {
    match claims.get("aud") {
        Some(Value::String(one)) => vec![kept(one)],
        Some(Value::Array(several)) => {
            let texts = several.iter().filter_map(Value::as_str);
            texts.take(MOST_AUDIENCES).map(kept).collect()
        }
        _ => Vec::new(),
    }
}

/// A NumericDate (RFC 7519 section 2), which may have a fraction.
fn seconds(value: Option<&Value>) -> u64 {
    let number = value.and_then(Value::as_f64).filter(|seconds| *seconds > 0.0);
    // Saturates.
    number.map_or(0, |seconds| seconds as u64)
}

/// `system:serviceaccount:NAMESPACE:NAME` and the claim `kubernetes.io` of a projected token
/// (<https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>).
fn service_account(claims: &Map<String, Value>, subject: &str) -> Option<(String, String)> {
    let of_subject = subject.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    if let Some((namespace, name)) = of_subject {
        return Some((namespace.to_owned(), name.to_owned()));
    }
    let kubernetes = claims.get("kubernetes.io")?.as_object()?;
    let account = kubernetes.get("serviceaccount")?.as_object()?;
    Some((text(kubernetes, "namespace"), text(account, "name")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    pub(crate) fn token(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2lnbmF0dXJl", part(header), part(claims))
    }

    #[test]
    fn a_self_signed_token_is_told_from_one_of_an_identity_provider() {
        let header = json!({"alg": "RS256", "kid": "k1", "typ": "JWT"});
        let account = "a@p.iam.gserviceaccount.com";
        let own =
            token(&header, &json!({"iss": account, "sub": account, "aud": "https://x/", "exp": 1700000000}));
        let own = Jwt::read(own.as_bytes()).expect("a token");
        assert!(own.is_self_signed() && own.is_signed_by_a_key() && !own.bound);
        assert_eq!((own.names(), own.key_id.as_str()), (account, "k1"));
        assert_eq!((own.expires_wall_nanos, own.audiences.len()), (1_700_000_000 * NANOS, 1));

        let other =
            json!({"iss": "https://accounts.google.com", "sub": "1", "email": account, "aud": ["x", 7, "y"]});
        let other = Jwt::read(token(&header, &other).as_bytes()).expect("a token");
        assert!(!other.is_self_signed());
        assert_eq!((other.names(), &*other.audiences), (account, &["x".to_owned(), "y".to_owned()][..]));
        let lies = json!({"iss": account, "sub": account, "email": "b@p.iam.gserviceaccount.com"});
        assert!(!Jwt::read(token(&header, &lies).as_bytes()).expect("a token").is_self_signed());
    }

    #[test]
    fn a_kubernetes_account_and_a_binding_are_read() {
        let header = json!({"alg": "none"});
        let subject =
            json!({"sub": "system:serviceaccount:shop:agent", "cnf": {"x5t#S256": "x"}, "exp": 1.5});
        let read = Jwt::read(token(&header, &subject).as_bytes()).expect("a token");
        assert_eq!(read.service_account, Some(("shop".into(), "agent".into())));
        assert!(read.bound && !read.is_signed_by_a_key());
        let claim = json!({"kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "agent"}}});
        let read = Jwt::read(token(&header, &claim).as_bytes()).expect("a token");
        assert_eq!(read.service_account, Some(("shop".into(), "agent".into())));
    }

    #[test]
    fn a_token_inside_of_a_token_is_not_read_out_of_it() {
        let header = json!({"alg": "RS256"});
        let inside = token(&header, &json!({"sub": "ada@example.com"}));
        let claims = json!({"sub": inside, "iss": inside, "email": format!("for {inside}"), "aud": [inside], "jti": inside});
        let read = Jwt::read(token(&header, &claims).as_bytes()).expect("a token");
        for text in [&read.subject, &read.issuer, &read.email, &read.audiences[0], &read.id] {
            assert!(!text.contains("c2lnbmF0dXJl") && text.ends_with("[redacted]"), "{text}");
        }
    }

    #[test]
    fn what_is_no_token_is_none_and_texts_are_bounded() {
        for bad in [
            "",
            "a.b.c",
            "e30.e30",
            "e30.e30.x",
            "eyJhbGciOiJSUzI1NiJ9.W10.x",
            "eyJhbGciOiJSUzI1NiJ9.e30.x.y",
        ] {
            assert_eq!(Jwt::read(bad.as_bytes()), None, "{bad}");
        }
        let long = token(&json!({"alg": "RS256"}), &json!({"sub": "ä".repeat(1000)}));
        assert_eq!(Jwt::read(long.as_bytes()).expect("a token").subject.len(), MOST_NAME);
        let longer = token(&json!({"alg": "RS256"}), &json!({"sub": "a".repeat(MOST_BYTES)}));
        assert_eq!(Jwt::read(longer.as_bytes()), None);
        let deep = token(&json!({"alg": "RS256"}), &json!({}));
        let deep = deep.replace("e30", &URL_SAFE_NO_PAD.encode("[".repeat(5000)));
        assert_eq!(Jwt::read(deep.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_stop_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let read = Jwt::read(&bytes);
            prop_assert!(read.is_none_or(|jwt| jwt.subject.len() <= MOST_NAME));
        }
    }
}
