//! Which service a request asks for a token, for which account, and whether its answer is to be believed.

use std::net::IpAddr;

use http::{Method, request};

use crate::{
    message::{Peer, target},
    seam::{Operation, TokenIssuer},
};

/// Longest name of an account, characters.
const MOST_ACCOUNT: usize = 256;

/// Where a request leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) service: &'static str,
    pub(super) method: &'static str,
    pub(super) operation: Operation,
    pub(super) issuer: Option<TokenIssuer>,
    /// That the token is for, as the request names it.
    pub(super) account: String,
    pub(super) has_body: bool,
    /// The answer's body is the token itself.
    pub(super) answers_text: bool,
    /// The token is bound to a certificate of the client's.
    pub(super) bound: bool,
    /// Nobody but the service itself can have answered: the address is the metadata server's, or TLS was ended here
    /// and the server has shown that it is who it was asked for.
    pub(super) genuine: bool,
}

impl Route {
    /// Whether the answer is read for tokens.
    pub(super) fn issues(&self) -> bool {
        self.issuer.is_some() && self.genuine
    }

    fn new(service: &'static str, method: &'static str, issuer: Option<TokenIssuer>, genuine: bool) -> Self {
        Self {
            service,
            method,
            operation: Operation::Create,
            issuer,
            account: String::new(),
            has_body: true,
            answers_text: false,
            bound: false,
            genuine,
        }
    }
}

/// `None`: no service that issues tokens.
pub(super) fn route(head: &request::Parts, host: &str, peer: Peer<'_>) -> Option<Route> {
    if peer.tls_name.is_none() && peer.destination.is_some_and(|to| is_metadata_server(to.ip())) {
        return Some(metadata(head));
    }
    let genuine = peer.tls_name.is_some_and(|name| name.eq_ignore_ascii_case(host));
    let path = head.uri.path();
    let post = head.method == Method::POST;
    match (host, path) {
        (
            "sts.googleapis.com" | "sts.mtls.googleapis.com",
            "/v1/token" | "/v1beta/token" | "/v1/oauthtoken",
        ) if post => Some(Route::new("sts", "sts.token", Some(TokenIssuer::Sts), genuine)),
        ("oauth2.googleapis.com" | "oauth2.mtls.googleapis.com", "/token")
        | ("www.googleapis.com", "/oauth2/v4/token")
        | ("accounts.google.com", "/o/oauth2/token")
            if post =>
        {
            Some(Route::new("oauth2", "oauth2.token", Some(TokenIssuer::Oauth2), genuine))
        }
        ("iamcredentials.googleapis.com" | "iamcredentials.mtls.googleapis.com", path) if post => {
            credentials(path, genuine)
        }
        _ => None,
    }
}

/// 169.254.169.254, and its IPv6 address
/// (<https://cloud.google.com/compute/docs/metadata/querying-metadata#query-ipv6>).
fn is_metadata_server(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets() == [169, 254, 169, 254],
        IpAddr::V6(v6) => v6.segments() == [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254],
    }
}

fn metadata(head: &request::Parts) -> Route {
    let mut route = Route {
        has_body: false,
        operation: Operation::Get,
        ..Route::new("metadata", "metadata.get", None, true)
    };
    let segments = target::segments(head.uri.path());
    let segments: Vec<&str> =
        segments.iter().map(String::as_str).filter(|segment| !segment.is_empty()).collect();
    let [_, _, "instance", "service-accounts", account, what] = segments.as_slice() else { return route };
    route.account = account.chars().take(MOST_ACCOUNT).collect();
    route.bound = target::parameter(head, "bindCertificateFingerprint").is_some();
    match *what {
        "token" => route.method = "metadata.token",
        "identity" => {
            route.method = "metadata.identity";
            route.answers_text = true;
        }
        _ => return route,
    }
    route.issuer = Some(TokenIssuer::MetadataServer);
    route
}

/// `/v1/projects/-/serviceAccounts/EMAIL:METHOD`.
fn credentials(path: &str, genuine: bool) -> Option<Route> {
    let segments = target::segments(path);
    let [_version, projects, _, accounts, last] = segments.as_slice() else { return None };
    if projects != "projects" || accounts != "serviceAccounts" {
        return None;
    }
    let (account, method) = last.rsplit_once(':')?;
    let (method, issues) = match method {
        "generateAccessToken" => ("iamcredentials.generateAccessToken", true),
        "generateIdToken" => ("iamcredentials.generateIdToken", true),
        "signJwt" => ("iamcredentials.signJwt", true),
        "signBlob" => ("iamcredentials.signBlob", false),
        _ => return None,
    };
    let issuer = issues.then_some(TokenIssuer::IamCredentials);
    let account = account.chars().take(MOST_ACCOUNT).collect();
    Some(Route { account, ..Route::new("iamcredentials", method, issuer, genuine) })
}
