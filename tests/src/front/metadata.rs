//! The metadata server of one pod (Compute Engine's metadata protocol, version 1): plain HTTP/1.1 on
//! 169.254.169.254, as far as Google's own clients ask.

use std::{convert::Infallible, net::SocketAddr};

use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Bytes, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::announce;

/// What it tells about the pod.
#[derive(Clone, Debug)]
pub struct Account {
    /// Project id.
    pub project: String,
    /// Project number.
    pub number: u64,
    /// The service account's email.
    pub email: String,
    /// The access token; never to be seen in a record.
    pub token: String,
}

/// Runs one until it is killed; says `listening` when it does.
pub fn serve(address: SocketAddr, account: &Account) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        announce()?;
        loop {
            let (stream, _) = listener.accept().await?;
            let account = account.clone();
            let service = hyper::service::service_fn(move |request| {
                let answer = answer(&request, &account);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            let serving = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            // What clients do to their connections is their business.
            drop(tokio::spawn(serving));
        }
    })
}

fn answer<B>(request: &Request<B>, account: &Account) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    let recursive = query.split('&').any(|part| part.eq_ignore_ascii_case("recursive=true"));
    let found = find(request.uri().path(), recursive, account);
    let (status, kind, body) = match found {
        Some(Found::Text(text)) => (StatusCode::OK, "application/text", text),
        Some(Found::Json(value)) => (StatusCode::OK, "application/json", value.to_string()),
        None => (StatusCode::NOT_FOUND, "text/plain", "no such metadata\n".to_owned()),
    };
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert("metadata-flavor", header::HeaderValue::from_static("Google"));
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::SERVER, header::HeaderValue::from_static("Metadata Server for VM"));
    answer
}

enum Found {
    Text(String),
    Json(Value),
}

fn find(path: &str, recursive: bool, account: &Account) -> Option<Found> {
    let text = |value: &str| Some(Found::Text(value.to_owned()));
    let Some(path) = path.strip_prefix("/computeMetadata/v1") else {
        return (path == "/").then(|| Found::Text("computeMetadata/\n".into()));
    };
    let path = path.trim_matches('/');
    let all = || {
        json!({
            "aliases": ["default"], "email": account.email,
            "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
        })
    };
    if let Some(rest) = path.strip_prefix("instance/service-accounts/") {
        let (who, what) = rest.split_once('/').unwrap_or((rest, ""));
        if who != "default" && who != account.email {
            return None;
        }
        return match what {
            "" if recursive => Some(Found::Json(all())),
            "" => text("aliases\nemail\nidentity\nscopes\ntoken\n"),
            "email" => text(&account.email),
            "aliases" => text("default\n"),
            "scopes" => text("https://www.googleapis.com/auth/cloud-platform\n"),
            "token" => Some(Found::Json(
                json!({"access_token": account.token, "expires_in": 3599, "token_type": "Bearer"}),
            )),
            // Not signed by anybody: nobody in the lab verifies it.
            "identity" => text("eyJhbGciOiJub25lIn0.e30."),
            _ => None,
        };
    }
    match path {
        "" => text("instance/\nproject/\nuniverse/\n"),
        "instance" => text("id\nname\nservice-accounts/\nzone\n"),
        "instance/id" => text("4711"),
        "instance/name" => text("lab-node"),
        "instance/zone" => Some(Found::Text(format!("projects/{}/zones/europe-west1-b", account.number))),
        "instance/attributes/cluster-name" => text("lab"),
        "instance/attributes/cluster-location" => text("europe-west6"),
        "instance/service-accounts" if recursive => {
            Some(Found::Json(json!({"default": all(), account.email.as_str(): all()})))
        }
        "instance/service-accounts" => Some(Found::Text(format!("default/\n{}/\n", account.email))),
        "project/project-id" => text(&account.project),
        "project/numeric-project-id" => Some(Found::Text(account.number.to_string())),
        "universe/universe-domain" | "universe/universe_domain" => text("googleapis.com"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::{Account, answer};

    #[test]
    fn what_googles_clients_ask_for_is_there_with_and_without_a_slash() {
        let account = Account {
            project: "p".into(),
            number: 1,
            email: "a@p.iam.gserviceaccount.com".into(),
            token: "secret".into(),
        };
        for path in [
            "/",
            "/computeMetadata/v1/instance",
            "/computeMetadata/v1/instance/service-accounts",
            "/computeMetadata/v1/instance/service-accounts/",
            "/computeMetadata/v1/instance/service-accounts/default/?recursive=true",
            "/computeMetadata/v1/instance/service-accounts/a@p.iam.gserviceaccount.com/token?scopes=x",
            "/computeMetadata/v1/project/project-id",
            "/computeMetadata/v1/project/numeric-project-id",
            "/computeMetadata/v1/universe/universe-domain",
        ] {
            let answer = answer(&Request::get(path).body(()).unwrap(), &account);
            assert_eq!(answer.status(), 200, "{path}");
            assert_eq!(answer.headers()["metadata-flavor"], "Google", "{path}");
        }
        let other = "/computeMetadata/v1/instance/service-accounts/other@p/token";
        assert_eq!(answer(&Request::get(other).body(()).unwrap(), &account).status(), 404);
    }
}
