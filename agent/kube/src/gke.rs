//! What GKE's metadata server says of the project and the cluster.
//!
//! Owns the four questions and the form of their answers: whatever answers at that address without Google's own
//! header, or with anything but the form of a name, is not believed, for it would shape every principal.
//!
//! Source: Compute Engine, "About VM metadata" (`Metadata-Flavor: Google` in both directions); GKE, "Predefined
//! metadata keys" (`cluster-name`, `cluster-location`).

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{Request, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::names::is_label;

/// Where it is.
pub const ADDRESS: &str = "169.254.169.254:80";
/// Both sides must say it: no proxy and no other server does so by accident.
const FLAVOR: (&str, &str) = ("metadata-flavor", "Google");
/// Longest answer that is read, bytes.
const ANSWER: usize = 1024;
/// An answer takes no longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Names and numbers of this node's project and cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Project number, which IAM writes into principals.
    pub project_number: u64,
    /// Project id, e.g. `my-project` or `example.com:my-project`.
    pub project: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Region or zone of the cluster.
    pub location: String,
}

/// Why nothing was learned.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// It does not answer.
    #[error("metadata server {server}: {source}")]
    Unreachable {
        /// Address and port.
        server: String,
        /// Why.
        source: io::Error,
    },
    /// No HTTP, or none that can be read.
    #[error("metadata server {server}: {problem}")]
    Garbled {
        /// Address and port.
        server: String,
        /// What.
        problem: String,
    },
    /// Something else lives at that address.
    #[error("what answers at {server} does not say `Metadata-Flavor: Google`: it is not believed")]
    Stranger {
        /// Address and port.
        server: String,
    },
    /// e.g. on a virtual machine that is no GKE node.
    #[error("metadata server {server}: {status} for {path}")]
    Refused {
        /// Address and port.
        server: String,
        /// Of the answer.
        status: u16,
        /// What was asked for.
        path: &'static str,
    },
    /// The answer is not repeated: it may be anything.
    #[error("metadata server {server}: the answer for {path} has not the form of one")]
    Value {
        /// Address and port.
        server: String,
        /// What was asked for.
        path: &'static str,
    },
}

/// Asks; `server` is an address and a port.
///
/// # Errors
/// See [`MetadataError`]: then nothing is known, also of what was answered well.
pub async fn read(server: &str) -> Result<Platform, MetadataError> {
    let number = ask(server, "project/numeric-project-id", digits).await?;
    let project = ask(server, "project/project-id", |text| is_project(text).then(|| text.to_owned())).await?;
    let cluster = "instance/attributes/cluster-name";
    let cluster = ask(server, cluster, |text| is_label(text).then(|| text.to_owned())).await?;
    let location = "instance/attributes/cluster-location";
    let location = ask(server, location, |text| is_label(text).then(|| text.to_owned())).await?;
    Ok(Platform { project_number: number, project, cluster, location })
}

/// A positive number without anything around it.
fn digits(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

/// 6 to 30 lower-case letters, digits and `-`, after a letter; before it may stand `DOMAIN:`.
#[must_use]
pub fn is_project(text: &str) -> bool {
    let (domain, id) = text.split_once(':').map_or((None, text), |(domain, id)| (Some(domain), id));
    let named = domain.is_none_or(crate::names::is_subdomain);
    named
        && matches!(id.len(), 6..=30)
        && is_label(id)
        && id.starts_with(|first: char| first.is_ascii_lowercase())
}

async fn ask<T>(
    server: &str,
    path: &'static str,
    form: impl Fn(&str) -> Option<T>,
) -> Result<T, MetadataError> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let unreachable = |source| MetadataError::Unreachable { server: server.to_owned(), source };
    let answer = timeout(PATIENCE, answer(server, path)).await;
    let text = answer.map_err(|_elapsed| unreachable(late()))??;
    form(&text).ok_or_else(|| MetadataError::Value { server: server.to_owned(), path })
}

async fn answer(server: &str, path: &'static str) -> Result<String, MetadataError> {
    let unreachable = |source| MetadataError::Unreachable { server: server.to_owned(), source };
    let garbled = |problem: String| MetadataError::Garbled { server: server.to_owned(), problem };
    let socket = TcpStream::connect(server).await.map_err(unreachable)?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(socket)).await.map_err(|error| garbled(error.to_string()))?;
    let request = Request::get(format!("/computeMetadata/v1/{path}"))
        .header(HOST, "metadata.google.internal")
        .header(FLAVOR.0, FLAVOR.1)
        .body(Empty::<Bytes>::new())
        .map_err(|error| garbled(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| garbled(error.to_string()))?;
        if response.headers().get(FLAVOR.0).is_none_or(|flavor| flavor != FLAVOR.1) {
            return Err(MetadataError::Stranger { server: server.to_owned() });
        }
        let status = response.status().as_u16();
        if status != 200 {
            return Err(MetadataError::Refused { server: server.to_owned(), status, path });
        }
        let body = Limited::new(response.into_body(), ANSWER).collect().await;
        let body = body.map_err(|error| match error.downcast::<LengthLimitError>() {
            Ok(_) => garbled(format!("more than {ANSWER} bytes for {path}")),
            Err(error) => garbled(error.to_string()),
        })?;
        let bad = |_invalid| MetadataError::Value { server: server.to_owned(), path };
        String::from_utf8(body.to_bytes().to_vec()).map_err(bad)
    };
    tokio::select! {
        answer = exchange => answer,
        Err(error) = connection => Err(garbled(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_has_the_form_that_google_gives_it() {
        for good in ["my-project", "p12345", "example.com:my-project"] {
            assert!(is_project(good), "{good}");
        }
        for bad in ["", "short", "My-project", "1project", "my-project/x", "a:b:my-project", "my_project"] {
            assert!(!is_project(bad), "{bad}");
        }
        assert_eq!(digits("123456789012"), Some(123_456_789_012));
        for bad in ["", "0", "-1", "+1", " 1", "1\n", "0x1", "99999999999999999999999"] {
            assert_eq!(digits(bad), None, "{bad:?}");
        }
    }
}
