//! What a call's head says: service and method, the resource that it is about, its deadline.

use http::request;

use crate::{
    message::{headers, http as plain, target},
    seam::{Command, Finding, Limits, Operation},
};

/// Header and the attribute that it becomes.
const KEPT: &[(&str, &str)] = &[
    ("grpc-timeout", "grpc_timeout"),
    ("grpc-encoding", "grpc_encoding"),
    ("x-goog-request-params", "request_params"),
    ("google-cloud-resource-prefix", "resource_prefix"),
    ("x-goog-spanner-request-id", "spanner_request_id"),
];

/// Whether a content type is gRPC's. gRPC-Web's is another protocol.
pub(in crate::message) fn is_grpc(head: &request::Parts) -> bool {
    let Some(value) = head.headers.get(http::header::CONTENT_TYPE) else { return false };
    let value = value.as_bytes().to_ascii_lowercase();
    let rest = value.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// The command that a call is.
pub(super) fn command(head: &request::Parts, host: &str, findings: Vec<Finding>, limits: Limits) -> Command {
    let mut command = plain::command(head, host, findings, limits);
    command.operation = Operation::GrpcCall;
    let path = head.uri.path();
    command.method = path.strip_prefix('/').unwrap_or(path).chars().take(512).collect();
    for (header, attribute) in KEPT {
        command.attributes.extend(headers::value(&head.headers, header).map(|value| (*attribute, value)));
    }
    command.resource = resource(head).unwrap_or_default();
    command
}

/// The resource by Google's routing headers: the first that is a name of one, else the first.
fn resource(head: &request::Parts) -> Option<String> {
    let text = |name: &str| {
        headers::value(&head.headers, name).map(|value| String::from_utf8_lossy(&value).into_owned())
    };
    if let Some(prefix) = text("google-cloud-resource-prefix") {
        return Some(prefix);
    }
    let parameters = text("x-goog-request-params")?;
    let values: Vec<String> = parameters
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(_, value)| target::decoded(value))
        .filter(|value| !value.is_empty())
        .collect();
    let named = values.iter().find(|value| value.starts_with("projects/"));
    named.or(values.first()).cloned()
}
