//! Services that issue tokens: STS, IAM Credentials and OAuth 2.0, as far as answers go. Every token holds the word
//! by which it is searched for.

use anyhow::Result;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Response,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    http::request,
};
use serde_json::{Value, json};

use super::{
    log::Line,
    serve::{Body, read},
};

/// `None`: not for a service that issues tokens.
pub(super) fn reply(host: &str, path: &str) -> Option<Value> {
    let token = |name: &str| format!("ya29.lab-secret-of-{name}");
    let answer = match (host, path) {
        ("sts.googleapis.com", "/v1/token") => {
            json!({"access_token": token("sts"), "expires_in": 3600, "token_type": "Bearer"})
        }
        ("oauth2.googleapis.com", "/token") => json!({"access_token": token("oauth2"), "expires_in": 3599}),
        ("iamcredentials.googleapis.com", path) if path.ends_with(":generateAccessToken") => {
            json!({"accessToken": token("iam"), "expireTime": "2100-01-01T00:00:00Z"})
        }
        ("iamcredentials.googleapis.com", path) if path.ends_with(":signJwt") => {
            json!({"keyId": "k", "signedJwt": "eyJhbGciOiJSUzI1NiJ9.e30.lab-secret-of-signjwt"})
        }
        _ => return None,
    };
    Some(answer)
}

pub(super) async fn answer(
    _: request::Parts,
    body: Incoming,
    mut line: Line,
    reply: &Value,
) -> Result<Response<Body>> {
    line.request.status = 200;
    read(body, &mut line.request).await?;
    let text = Full::new(Bytes::from(reply.to_string())).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(text);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}
