//! From method and path to a method of BigQuery's REST API v2, by its discovery document.
//!
//! Knows no body.

use http::{Method, request};

use crate::{message::target, seam::Operation};

/// How the command comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// It is all in the head.
    None,
    /// As JSON.
    Json,
    /// As the JSON part of `multipart/related`; data follow, which are not waited for.
    Multipart,
    /// As JSON that begins an upload; data follow in requests of their own.
    Resumable,
    /// An upload that an earlier request began.
    Continued,
    /// Several requests in one body.
    Batch,
}

/// What a request does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// e.g. `bigquery.jobs.query`.
    pub(super) method: &'static str,
    pub(super) operation: Operation,
    /// e.g. `projects/P/datasets/D/tables/T`.
    pub(super) resource: String,
    pub(super) body: Body,
    pub(super) project: String,
    /// The job in the path.
    pub(super) job: Option<String>,
}

/// Whether the path lies under BigQuery's prefixes, for hosts that serve other APIs as well.
pub(in crate::message) fn is_below(path: &str) -> bool {
    rest_of(&target::segments(path)).is_some() || path.starts_with(BATCH)
}

/// Below it, and on BigQuery's own hosts at its first segment, several requests come in one.
const BATCH: &str = "/batch/bigquery/";

/// `None`: no method that is known.
pub(super) fn route(head: &request::Parts) -> Option<Route> {
    let method = effective(head);
    let path = head.uri.path();
    if method == Method::POST && (path.starts_with(BATCH) || path == "/batch") {
        return Some(Route {
            method: "bigquery.batch",
            operation: Operation::HttpRequest,
            resource: String::new(),
            body: Body::Batch,
            project: String::new(),
            job: None,
        });
    }
    let segments = target::segments(path);
    let (upload, rest) = rest_of(&segments)?;
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let body = if upload { upload_body(head) } else { Body::Json };
    let mut route = match rest.as_slice() {
        // Whichever method it is: data, a question how far it is, the end of it.
        ["projects", _, "jobs"] if body == Body::Continued => {
            Some(made("bigquery.jobs.insert", Operation::Upload, body))
        }
        ["projects", _, "jobs"] if upload && method == Method::POST => {
            Some(made("bigquery.jobs.insert", Operation::Load, body))
        }
        ["projects"] => plain(&method, Method::GET, "bigquery.projects.list", Operation::List),
        ["projects", _, rest @ ..] => below_project(&method, rest),
        _ => None,
    }?;
    name(&mut route, &rest);
    Some(route)
}

/// Names what the path names.
fn name(route: &mut Route, rest: &[&str]) {
    // A project's name may have a colon, a verb comes after the third segment at the earliest.
    let names: Vec<&str> =
        rest.iter().enumerate().map(|(at, name)| if at > 2 { without_verb(name).0 } else { name }).collect();
    route.project = names.get(1).copied().unwrap_or_default().to_owned();
    if let ["projects", project, "queries" | "jobs", job, ..] = names.as_slice() {
        route.job = Some((*job).to_owned());
        route.resource = format!("projects/{project}/jobs/{job}");
        return;
    }
    // Kinds and names take turns. A kind without a name is a collection, or what is done with the resource
    // before it (`insertAll`): the resource is what it is in.
    let whole = names.len().saturating_sub(names.len() % 2);
    route.resource = names.get(..whole).unwrap_or_default().join("/");
}

/// `X-HTTP-Method-Override` is obeyed by Google's servers on POST.
fn effective(head: &request::Parts) -> Method {
    let named = head.headers.get("x-http-method-override").filter(|_| head.method == Method::POST);
    let named = named.and_then(|name| Method::from_bytes(&name.as_bytes().to_ascii_uppercase()).ok());
    named.unwrap_or_else(|| head.method.clone())
}

fn rest_of(segments: &[String]) -> Option<(bool, &[String])> {
    let names: Vec<&str> = segments.iter().map(String::as_str).take(4).collect();
    let (upload, skip) = match names.as_slice() {
        ["bigquery", "v2", ..] => (false, 2),
        ["upload", "bigquery", "v2", ..] => (true, 3),
        ["resumable", "upload", "bigquery", "v2"] => (true, 4),
        _ => return None,
    };
    segments.get(skip..).map(|rest| (upload, rest))
}

/// By `uploadType` (older: `upload_protocol`), or the headers that mean the same.
fn upload_body(head: &request::Parts) -> Body {
    if target::parameter(head, "upload_id").is_some() {
        return Body::Continued;
    }
    let kind = target::parameter(head, "uploadType").or_else(|| target::parameter(head, "upload_protocol"));
    let protocol = || {
        let value = head.headers.get("x-goog-upload-protocol")?;
        Some(String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase())
    };
    match kind.or_else(protocol).as_deref() {
        Some("resumable") => Body::Resumable,
        // Nothing but data.
        Some("media" | "raw") => Body::None,
        _ => Body::Multipart,
    }
}

fn without_verb(segment: &str) -> (&str, &str) {
    const VERBS: [&str; 5] =
        ["undelete", "getIamPolicy", "setIamPolicy", "testIamPermissions", "batchDelete"];
    match segment.rsplit_once(':') {
        Some((name, verb)) if VERBS.contains(&verb) => (name, verb),
        _ => (segment, ""),
    }
}

fn plain(is: &Method, must_be: Method, method: &'static str, operation: Operation) -> Option<Route> {
    (*is == must_be)
        .then(|| made(method, operation, if must_be == Method::GET { Body::None } else { Body::Json }))
}

fn made(method: &'static str, operation: Operation, body: Body) -> Route {
    Route { method, operation, resource: String::new(), body, project: String::new(), job: None }
}

/// Methods of a kind of resource that is made, looked at, changed and deleted.
struct Kind {
    list: &'static str,
    insert: &'static str,
    get: &'static str,
    patch: &'static str,
    update: &'static str,
    delete: &'static str,
}

macro_rules! kind {
    ($name:literal) => {
        Kind {
            list: concat!("bigquery.", $name, ".list"),
            insert: concat!("bigquery.", $name, ".insert"),
            get: concat!("bigquery.", $name, ".get"),
            patch: concat!("bigquery.", $name, ".patch"),
            update: concat!("bigquery.", $name, ".update"),
            delete: concat!("bigquery.", $name, ".delete"),
        }
    };
}

impl Kind {
    fn collection(&self, method: &Method) -> Option<Route> {
        match *method {
            Method::GET => Some(made(self.list, Operation::List, Body::None)),
            Method::POST => Some(made(self.insert, Operation::Create, Body::Json)),
            _ => None,
        }
    }

    fn one(&self, method: &Method) -> Option<Route> {
        match *method {
            Method::GET => Some(made(self.get, Operation::Get, Body::None)),
            Method::PATCH => Some(made(self.patch, Operation::Update, Body::Json)),
            Method::PUT => Some(made(self.update, Operation::Update, Body::Json)),
            Method::DELETE => Some(made(self.delete, Operation::Delete, Body::None)),
            _ => None,
        }
    }
}

const DATASETS: Kind = kind!("datasets");
const TABLES: Kind = kind!("tables");
const MODELS: Kind = kind!("models");
const ROUTINES: Kind = kind!("routines");
const POLICIES: Kind = kind!("rowAccessPolicies");

fn below_project(is: &Method, rest: &[&str]) -> Option<Route> {
    match rest {
        ["queries"] => plain(is, Method::POST, "bigquery.jobs.query", Operation::Query),
        ["queries", _] => plain(is, Method::GET, "bigquery.jobs.getQueryResults", Operation::ReadRows),
        ["jobs"] => plain(is, Method::GET, "bigquery.jobs.list", Operation::List)
            // What kind of job it is says the body.
            .or_else(|| plain(is, Method::POST, "bigquery.jobs.insert", Operation::Create)),
        ["jobs", _] => plain(is, Method::GET, "bigquery.jobs.get", Operation::Get),
        ["jobs", _, "cancel"] => plain(is, Method::POST, "bigquery.jobs.cancel", Operation::Cancel),
        ["jobs", _, "delete"] => {
            (*is == Method::DELETE).then(|| made("bigquery.jobs.delete", Operation::Delete, Body::None))
        }
        ["serviceAccount"] => plain(is, Method::GET, "bigquery.projects.getServiceAccount", Operation::Get),
        ["datasets"] => DATASETS.collection(is),
        ["datasets", dataset] => match without_verb(dataset).1 {
            "" => DATASETS.one(is),
            "undelete" => plain(is, Method::POST, "bigquery.datasets.undelete", Operation::Create),
            _ => None,
        },
        ["datasets", _, "tables", rest @ ..] => below_tables(is, rest),
        ["datasets", _, "models"] => MODELS.collection(is).filter(|route| route.operation == Operation::List),
        ["datasets", _, "models", _] => MODELS.one(is).filter(|route| route.method != MODELS.update),
        ["datasets", _, "routines"] => ROUTINES.collection(is),
        ["datasets", _, "routines", routine] => match without_verb(routine).1 {
            "" => ROUTINES.one(is).filter(|route| route.method != ROUTINES.patch),
            "getIamPolicy" => plain(is, Method::POST, "bigquery.routines.getIamPolicy", Operation::Get),
            "setIamPolicy" => plain(is, Method::POST, "bigquery.routines.setIamPolicy", Operation::Update),
            "testIamPermissions" => {
                plain(is, Method::POST, "bigquery.routines.testIamPermissions", Operation::Get)
            }
            _ => None,
        },
        _ => None,
    }
}

fn below_tables(is: &Method, rest: &[&str]) -> Option<Route> {
    match rest {
        [] => TABLES.collection(is),
        [_, "insertAll"] => plain(is, Method::POST, "bigquery.tabledata.insertAll", Operation::InsertRows),
        [_, "data"] => plain(is, Method::GET, "bigquery.tabledata.list", Operation::ReadRows),
        [table] => match without_verb(table).1 {
            "" => TABLES.one(is),
            "getIamPolicy" => plain(is, Method::POST, "bigquery.tables.getIamPolicy", Operation::Get),
            "setIamPolicy" => plain(is, Method::POST, "bigquery.tables.setIamPolicy", Operation::Update),
            "testIamPermissions" => {
                plain(is, Method::POST, "bigquery.tables.testIamPermissions", Operation::Get)
            }
            _ => None,
        },
        [_, "rowAccessPolicies"] => POLICIES.collection(is),
        [_, "rowAccessPolicies:batchDelete"] => {
            plain(is, Method::POST, "bigquery.rowAccessPolicies.batchDelete", Operation::Delete)
        }
        [_, "rowAccessPolicies", policy] => match without_verb(policy).1 {
            "" => POLICIES.one(is).filter(|route| route.method != POLICIES.patch),
            "getIamPolicy" => {
                plain(is, Method::POST, "bigquery.rowAccessPolicies.getIamPolicy", Operation::Get)
            }
            "testIamPermissions" => {
                plain(is, Method::POST, "bigquery.rowAccessPolicies.testIamPermissions", Operation::Get)
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests;
