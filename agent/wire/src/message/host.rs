//! Which host a request is for, and whether that is the one that TLS was made for.
//!
//! Owns how hosts are compared and which are BigQuery's. Knows no path and no method.

use http::{header, request};

use super::Peer;

/// Longest name that DNS has, bytes.
const MAX_NAME: usize = 255;

/// The host of a request: of its target (`:authority`, absolute form), else of its `Host` header. In lower
/// case, without port and without a dot at its end; empty where there is none.
pub(super) fn host(head: &request::Parts) -> String {
    match head.uri.authority() {
        Some(authority) => plain(authority.as_str()),
        None => header_host(head).unwrap_or_default(),
    }
}

fn header_host(head: &request::Parts) -> Option<String> {
    let value = head.headers.get(header::HOST)?;
    Some(plain(&String::from_utf8_lossy(value.as_bytes())))
}

/// Whether the request names another host than TLS did, or two.
pub(super) fn mismatch(head: &request::Parts, peer: Peer<'_>) -> bool {
    let host = host(head);
    let two = head.uri.authority().is_some() && header_host(head).is_some_and(|other| other != host);
    let other = peer.tls_name.is_some_and(|name| !host.is_empty() && plain(name) != host);
    two || other || head.headers.get_all(header::HOST).iter().count() > 1
}

/// `user@host:port` → `host`, in the form that is compared.
fn plain(authority: &str) -> String {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    host.chars().take(MAX_NAME).collect::<String>().to_ascii_lowercase()
}

/// Whether the host serves BigQuery's REST API and nothing else: the global name, its mutual-TLS name, a
/// region's, and names of Private Service Connect (`bigquery-ENDPOINT.p.googleapis.com`).
pub(super) fn is_bigquery(host: &str) -> bool {
    let Some(name) = host.strip_suffix(".googleapis.com") else { return false };
    match name {
        "bigquery" | "bigquery.mtls" => true,
        _ => {
            let single = |label: &str| !label.is_empty() && !label.contains('.');
            let part = |prefix, suffix| name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
            part("bigquery-", ".p").is_some_and(single)
                || part("bigquery.", ".rep").is_some_and(single)
                || name.strip_suffix("-bigquery").is_some_and(single)
        }
    }
}

/// Whether the host serves many of Google's APIs, told apart by their paths.
pub(super) fn is_shared(host: &str) -> bool {
    matches!(host, "www.googleapis.com" | "www.mtls.googleapis.com")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(uri: &str, host: &[&str]) -> request::Parts {
        let mut request = Request::get(uri);
        for host in host {
            request = request.header("host", *host);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn a_host_is_known_however_it_is_written() {
        assert_eq!(host(&head("/x", &["BigQuery.googleapis.com:443"])), "bigquery.googleapis.com");
        assert_eq!(host(&head("https://bigquery.googleapis.com./x", &[])), "bigquery.googleapis.com");
        assert_eq!(host(&head("http://[2001:db8::1]:80/x", &[])), "2001:db8::1");
        assert_eq!(host(&head("/x", &[])), "");
    }

    #[test]
    fn another_name_than_that_of_tls_is_a_mismatch() {
        let tls = |name| Peer { tls_name: name, destination: None };
        let a = head("/", &["a.example:443"]);
        assert!(!mismatch(&a, tls(Some("A.example."))));
        assert!(mismatch(&a, tls(Some("b.example"))));
        assert!(!mismatch(&a, tls(None)));
        assert!(!mismatch(&head("/", &[]), tls(Some("b.example"))));
        assert!(mismatch(&head("http://a.example/", &["b.example"]), tls(Some("a.example"))));
        assert!(mismatch(&head("/", &["a.example", "a.example"]), tls(Some("a.example"))));
    }

    #[test]
    fn bigquery_has_many_names_and_no_others() {
        let names = [
            "bigquery.googleapis.com",
            "bigquery.mtls.googleapis.com",
            "bigquery-lake.p.googleapis.com",
            "bigquery.europe-west3.rep.googleapis.com",
            "us-east4-bigquery.googleapis.com",
        ];
        assert!(names.iter().all(|name| is_bigquery(name)));
        let others = [
            "bigquerystorage.googleapis.com",
            "bigquery.googleapis.com.example",
            "bigquery-a.b.p.googleapis.com",
            "a.us-bigquery.googleapis.com",
            "bigqueryxrep.googleapis.com",
            "-bigquery.example",
        ];
        assert!(!others.iter().any(|name| is_bigquery(name)));
    }
}
