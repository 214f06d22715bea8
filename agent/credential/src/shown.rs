//! Where credentials stand in a request's head and in a session's start, and what each says of itself.
//!
//! Owns the places that are looked at. The credential itself is borrowed, and goes no further than into its
//! fingerprint.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, request};
use verbatim_api::v1::CredentialKind;
use zeroize::Zeroizing;

use crate::{
    jwt::Jwt,
    text::{is_person, is_service_account, lossy, percent_decoded},
};

/// Credentials kept of one request; a head holds many more only where somebody tries something.
const MOST: usize = 16;
/// Longest name, bytes.
const MOST_NAME: usize = 512;

/// One credential and what can be read of it.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// What it is.
    pub kind: CredentialKind,
    /// Where it stood, e.g. `header authorization`.
    pub place: Cow<'static, str>,
    /// Itself, for the fingerprint; empty where it is only a name. Never shown.
    pub secret: Zeroizing<Vec<u8>>,
    /// Whom it names.
    pub subject: String,
    /// What it says of itself, where it is a JWT.
    pub jwt: Option<Jwt>,
    /// It names a person.
    pub person: bool,
}

impl Shown {
    fn new(kind: CredentialKind, place: impl Into<Cow<'static, str>>, secret: &[u8]) -> Self {
        Self { kind, place: place.into(), secret: Zeroizing::new(secret.to_vec()), ..Self::default() }
    }

    /// The name goes into records: where somebody has put a token, it does not.
    fn named(mut self, subject: &str) -> Self {
        self.person = is_person(subject);
        self.subject = verbatim_wire::text_without_tokens(subject);
        self
    }
}

/// A token whose form says what it is: an access token (opaque), a JWT of either kind, or one that is bound to a
/// certificate.
fn token(place: impl Into<Cow<'static, str>>, token: &[u8]) -> Shown {
    let Some(jwt) = Jwt::read(token) else { return Shown::new(CredentialKind::OpaqueToken, place, token) };
    let kind = match () {
        () if jwt.bound => CredentialKind::BoundToken,
        () if jwt.is_self_signed() => CredentialKind::SelfSignedJwt,
        () => CredentialKind::IdToken,
    };
    let mut shown = Shown::new(kind, place, token).named(jwt.names());
    shown.jwt = Some(jwt);
    shown
}

/// A credential that stood in a body, by the name of its place.
#[must_use]
pub fn of_secret(place: &'static str, secret: &[u8]) -> Shown {
    match place {
        // A person has signed in for it (RFC 6749 section 1.5).
        "form refresh_token" => Shown { person: true, ..Shown::new(CredentialKind::Other, place, secret) },
        "form client_secret" | "form password" => Shown::new(CredentialKind::Password, place, secret),
        _ => token(place, secret),
    }
}

/// All that a request's head shows: headers first, then the query. `host`: in lower case, without port.
#[must_use]
pub fn of_head(head: &request::Parts, host: &str) -> Vec<Shown> {
    let mut shown = Vec::new();
    of_headers(&head.headers, &mut shown);
    if let Some(query) = head.uri.query() {
        of_query(query, &mut shown);
    }
    shown.truncate(MOST);
    // Names that are for clients which prove themselves by a certificate (AIP-4114).
    if host.ends_with(".mtls.googleapis.com") {
        for shown in shown.iter_mut().filter(|shown| shown.kind == CredentialKind::OpaqueToken) {
            shown.kind = CredentialKind::BoundToken;
        }
    }
    shown
}

fn of_headers(headers: &HeaderMap, shown: &mut Vec<Shown>) {
    for (name, place) in
        [("authorization", "header authorization"), ("proxy-authorization", "header proxy-authorization")]
    {
        let values = headers.get_all(name).iter().take(MOST);
        shown.extend(values.map(|value| authorization(place, value.as_bytes())));
    }
    let mut each = |name: &'static str, make: fn(&'static str, &[u8]) -> Shown| {
        let values = headers.get_all(name).iter().take(MOST);
        shown.extend(values.map(|value| make(name, value.as_bytes())));
    };
    each("x-goog-iam-authorization-token", |_, value| token("header x-goog-iam-authorization-token", value));
    each("x-goog-api-key", |_, value| Shown::new(CredentialKind::ApiKey, "header x-goog-api-key", value));
    each("cookie", |_, value| Shown::new(CredentialKind::Other, "header cookie", value));
}

/// RFC 9110 section 11.4. A scheme that is not known is not named: it may be the credential itself.
fn authorization(place: &'static str, value: &[u8]) -> Shown {
    let value = value.trim_ascii();
    let at = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
    let (scheme, rest) = value.split_at(at);
    let rest = rest.trim_ascii();
    match scheme.to_ascii_lowercase().as_slice() {
        b"bearer" if !rest.is_empty() => token(place, rest),
        b"basic" if !rest.is_empty() => basic(place, rest),
        b"digest" | b"negotiate" | b"ntlm" | b"scram-sha-256" => {
            Shown::new(CredentialKind::Password, place, value)
        }
        _ => Shown::new(CredentialKind::Other, place, value),
    }
}

/// RFC 7617.
fn basic(place: &'static str, encoded: &[u8]) -> Shown {
    let decoded = STANDARD.decode(encoded).map(Zeroizing::new).unwrap_or_default();
    let Some(colon) = decoded.iter().position(|byte| *byte == b':') else {
        return Shown::new(CredentialKind::Password, place, encoded);
    };
    let (user, password) = decoded.split_at(colon);
    let password = password.get(1..).unwrap_or_default();
    match user {
        // Google's way to show an access token where only Basic is taken
        // (<https://cloud.google.com/artifact-registry/docs/docker/authentication>).
        b"oauth2accesstoken" => token(place, password),
        // Where nothing stands for a password, the name does.
        _ if password.is_empty() => Shown::new(CredentialKind::Password, place, user),
        _ => Shown::new(CredentialKind::Password, place, password).named(&lossy(user, MOST_NAME)),
    }
}

fn of_query(query: &str, shown: &mut Vec<Shown>) {
    let mut signature = None;
    let mut signer = String::new();
    for pair in query.split('&') {
        if shown.len() >= MOST {
            break;
        }
        let Some((name, value)) = pair.split_once('=').filter(|(_, value)| !value.is_empty()) else {
            continue;
        };
        let name = percent_decoded(name.as_bytes()).to_ascii_lowercase();
        let value = Zeroizing::new(percent_decoded(value.as_bytes()));
        match name.as_slice() {
            b"key" | b"api_key" | b"apikey" => {
                shown.push(Shown::new(CredentialKind::ApiKey, place_of(&name), &value));
            }
            b"access_token" | b"oauth_token" | b"id_token" => shown.push(token(place_of(&name), &value)),
            b"x-goog-signature" | b"signature" | b"x-amz-signature" | b"sig" => {
                signature = Some((name, value))
            }
            // EMAIL/DATE/LOCATION/SERVICE/goog4_request
            // (<https://cloud.google.com/storage/docs/authentication/signatures>).
            b"x-goog-credential" | b"x-amz-credential" => {
                signer = lossy(value.split(|byte| *byte == b'/').next().unwrap_or_default(), MOST_NAME);
            }
            b"googleaccessid" => signer = lossy(&value, MOST_NAME),
            _ => {}
        }
    }
    if let Some((name, signature)) = signature {
        shown.push(Shown::new(CredentialKind::SignedUrl, place_of(&name), &signature).named(&signer));
    }
}

/// Names come from the closed list above.
fn place_of(name: &[u8]) -> Cow<'static, str> {
    format!("query {}", String::from_utf8_lossy(name)).into()
}

/// What the start of a database session shows: its user. Cloud SQL and AlloyDB write IAM principals as e-mail
/// addresses, service accounts without `.gserviceaccount.com`
/// (<https://cloud.google.com/sql/docs/postgres/iam-logins>). `None`: nobody was named.
#[must_use]
pub fn of_session(user: &str) -> Option<Shown> {
    if user.is_empty() {
        return None;
    }
    let user = crate::text::cut(user, MOST_NAME);
    let iam =
        user.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && domain.ends_with(".iam"));
    let (kind, subject) = match () {
        () if iam => (CredentialKind::DatabaseIamUser, format!("{user}.gserviceaccount.com")),
        () if is_service_account(&user) || is_person(&user) => (CredentialKind::DatabaseIamUser, user),
        () => (CredentialKind::DatabaseUser, user),
    };
    Some(Shown::new(kind, "startup user", b"").named(&subject))
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use http::Request;

    use super::*;

    fn head(uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn jwt(claims: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#), URL_SAFE_NO_PAD.encode(claims))
    }

    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], CredentialKind, &'a str, &'a str);

    #[test]
    fn every_place_has_its_kind() {
        let own = jwt(r#"{"iss":"a@p.iam.gserviceaccount.com","sub":"a@p.iam.gserviceaccount.com"}"#);
        let id = jwt(r#"{"iss":"https://accounts.google.com","sub":"1","email":"ada@example.com"}"#);
        let bound = jwt(r#"{"iss":"x","sub":"y","cnf":{"x5t#S256":"z"}}"#);
        let bearer = |token: &str| format!("Bearer {token}");
        let cases: &[Case<'_>] = &[
            (
                "/",
                &[("authorization", "Bearer ya29.abc")],
                CredentialKind::OpaqueToken,
                "header authorization",
                "",
            ),
            (
                "/",
                &[("authorization", &bearer(&own))],
                CredentialKind::SelfSignedJwt,
                "header authorization",
                "a@p.iam.gserviceaccount.com",
            ),
            (
                "/",
                &[("authorization", &bearer(&id))],
                CredentialKind::IdToken,
                "header authorization",
                "ada@example.com",
            ),
            (
                "/",
                &[("authorization", &bearer(&bound))],
                CredentialKind::BoundToken,
                "header authorization",
                "y",
            ),
            (
                "/",
                &[("authorization", "Basic YWRhOnMzY3JldA==")],
                CredentialKind::Password,
                "header authorization",
                "ada",
            ),
            (
                "/",
                &[("authorization", "basic b2F1dGgyYWNjZXNzdG9rZW46eWEyOS5h")],
                CredentialKind::OpaqueToken,
                "header authorization",
                "",
            ),
            // `ya29.a0secret:` and `s3cret:`: the name is the credential.
            (
                "/",
                &[("authorization", "Basic eWEyOS5hMHNlY3JldDo=")],
                CredentialKind::Password,
                "header authorization",
                "",
            ),
            (
                "/",
                &[("authorization", "Basic czNjcmV0Og==")],
                CredentialKind::Password,
                "header authorization",
                "",
            ),
            ("/", &[("authorization", "s3cret")], CredentialKind::Other, "header authorization", ""),
            (
                "/",
                &[("proxy-authorization", "Digest x")],
                CredentialKind::Password,
                "header proxy-authorization",
                "",
            ),
            ("/", &[("x-goog-api-key", "AIza")], CredentialKind::ApiKey, "header x-goog-api-key", ""),
            (
                "/",
                &[("x-goog-iam-authorization-token", "t")],
                CredentialKind::OpaqueToken,
                "header x-goog-iam-authorization-token",
                "",
            ),
            ("/", &[("cookie", "a=b")], CredentialKind::Other, "header cookie", ""),
            ("/?a=b&key=AIza", &[], CredentialKind::ApiKey, "query key", ""),
            ("/?access%5Ftoken=ya29.x", &[], CredentialKind::OpaqueToken, "query access_token", ""),
            (
                "/o?X-Goog-Credential=a%40p.iam.gserviceaccount.com%2F2026&X-Goog-Signature=ab",
                &[],
                CredentialKind::SignedUrl,
                "query x-goog-signature",
                "a@p.iam.gserviceaccount.com",
            ),
            (
                "/o?GoogleAccessId=a@p.iam.gserviceaccount.com&Signature=ab",
                &[],
                CredentialKind::SignedUrl,
                "query signature",
                "a@p.iam.gserviceaccount.com",
            ),
        ];
        for (uri, headers, kind, place, subject) in cases {
            let shown = of_head(&head(uri, headers), "api.example");
            assert_eq!(shown.len(), 1, "{uri} {headers:?}");
            assert_eq!(
                (shown[0].kind, &*shown[0].place, shown[0].subject.as_str()),
                (*kind, *place, *subject)
            );
            assert!(!shown[0].secret.is_empty());
        }
        assert!(of_head(&head("/?q=key&keys=1&key=", &[("user-agent", "x")]), "api.example").is_empty());
    }

    #[test]
    fn a_token_for_a_mutual_tls_name_is_taken_for_bound() {
        let shown =
            of_head(&head("/", &[("authorization", "Bearer ya29.abc")]), "bigquery.mtls.googleapis.com");
        assert_eq!(shown[0].kind, CredentialKind::BoundToken);
    }

    #[test]
    fn a_hundred_headers_are_a_few_credentials() {
        let many: Vec<_> = (0..100).map(|_| ("authorization", "Bearer x")).collect();
        assert_eq!(of_head(&head("/?key=a", &many), "").len(), MOST);
    }

    #[test]
    fn database_users_that_stand_for_accounts_are_known() {
        let of = |user| of_session(user).map(|shown| (shown.kind, shown.subject, shown.person));
        assert_eq!(of(""), None);
        assert_eq!(of("app"), Some((CredentialKind::DatabaseUser, "app".into(), false)));
        let account = "agent@p.iam.gserviceaccount.com".to_owned();
        assert_eq!(of("agent@p.iam"), Some((CredentialKind::DatabaseIamUser, account.clone(), false)));
        assert_eq!(of(&account), Some((CredentialKind::DatabaseIamUser, account.clone(), false)));
        assert_eq!(
            of("ada@example.com"),
            Some((CredentialKind::DatabaseIamUser, "ada@example.com".into(), true))
        );
    }
}
