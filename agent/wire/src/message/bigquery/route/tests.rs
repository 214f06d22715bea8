use http::Request;

use super::*;

fn head(method: &str, path: &str) -> request::Parts {
    Request::builder().method(method).uri(path).body(()).expect("a request").into_parts().0
}

#[track_caller]
fn is(method: &str, path: &str, name: &str, operation: Operation, resource: &str) -> Route {
    let route =
        route(&head(method, &format!("/bigquery/v2/{path}"))).unwrap_or_else(|| panic!("{method} {path}"));
    assert_eq!(
        (route.method, route.operation, route.resource.as_str()),
        (name, operation, resource),
        "{path}"
    );
    route
}

#[test]
fn every_method_of_the_discovery_document_is_known() {
    let t = "projects/p/datasets/d/tables/t";
    let methods: [(&str, &str, &str, Operation, &str); 46] = [
        ("GET", "projects", "projects.list", Operation::List, ""),
        ("GET", "projects/p/serviceAccount", "projects.getServiceAccount", Operation::Get, "projects/p"),
        ("POST", "projects/p/queries", "jobs.query", Operation::Query, "projects/p"),
        ("GET", "projects/p/queries/j", "jobs.getQueryResults", Operation::ReadRows, "projects/p/jobs/j"),
        ("POST", "projects/p/jobs", "jobs.insert", Operation::Create, "projects/p"),
        ("GET", "projects/p/jobs", "jobs.list", Operation::List, "projects/p"),
        ("GET", "projects/p/jobs/j", "jobs.get", Operation::Get, "projects/p/jobs/j"),
        ("POST", "projects/p/jobs/j/cancel", "jobs.cancel", Operation::Cancel, "projects/p/jobs/j"),
        ("DELETE", "projects/p/jobs/j/delete", "jobs.delete", Operation::Delete, "projects/p/jobs/j"),
        ("GET", "projects/p/datasets", "datasets.list", Operation::List, "projects/p"),
        ("POST", "projects/p/datasets", "datasets.insert", Operation::Create, "projects/p"),
        ("GET", "projects/p/datasets/d", "datasets.get", Operation::Get, "projects/p/datasets/d"),
        ("PATCH", "projects/p/datasets/d", "datasets.patch", Operation::Update, "projects/p/datasets/d"),
        ("PUT", "projects/p/datasets/d", "datasets.update", Operation::Update, "projects/p/datasets/d"),
        ("DELETE", "projects/p/datasets/d", "datasets.delete", Operation::Delete, "projects/p/datasets/d"),
        (
            "POST",
            "projects/p/datasets/d:undelete",
            "datasets.undelete",
            Operation::Create,
            "projects/p/datasets/d",
        ),
        ("GET", "projects/p/datasets/d/tables", "tables.list", Operation::List, "projects/p/datasets/d"),
        ("POST", "projects/p/datasets/d/tables", "tables.insert", Operation::Create, "projects/p/datasets/d"),
        ("GET", t, "tables.get", Operation::Get, t),
        ("PATCH", t, "tables.patch", Operation::Update, t),
        ("PUT", t, "tables.update", Operation::Update, t),
        ("DELETE", t, "tables.delete", Operation::Delete, t),
        ("POST", "projects/p/datasets/d/tables/t:getIamPolicy", "tables.getIamPolicy", Operation::Get, t),
        ("POST", "projects/p/datasets/d/tables/t:setIamPolicy", "tables.setIamPolicy", Operation::Update, t),
        (
            "POST",
            "projects/p/datasets/d/tables/t:testIamPermissions",
            "tables.testIamPermissions",
            Operation::Get,
            t,
        ),
        ("POST", "projects/p/datasets/d/tables/t/insertAll", "tabledata.insertAll", Operation::InsertRows, t),
        ("GET", "projects/p/datasets/d/tables/t/data", "tabledata.list", Operation::ReadRows, t),
        (
            "GET",
            "projects/p/datasets/d/tables/t/rowAccessPolicies",
            "rowAccessPolicies.list",
            Operation::List,
            t,
        ),
        (
            "POST",
            "projects/p/datasets/d/tables/t/rowAccessPolicies",
            "rowAccessPolicies.insert",
            Operation::Create,
            t,
        ),
        (
            "POST",
            "projects/p/datasets/d/tables/t/rowAccessPolicies:batchDelete",
            "rowAccessPolicies.batchDelete",
            Operation::Delete,
            t,
        ),
        (
            "GET",
            "projects/p/datasets/d/tables/t/rowAccessPolicies/r",
            "rowAccessPolicies.get",
            Operation::Get,
            "projects/p/datasets/d/tables/t/rowAccessPolicies/r",
        ),
        (
            "PUT",
            "projects/p/datasets/d/tables/t/rowAccessPolicies/r",
            "rowAccessPolicies.update",
            Operation::Update,
            "projects/p/datasets/d/tables/t/rowAccessPolicies/r",
        ),
        (
            "DELETE",
            "projects/p/datasets/d/tables/t/rowAccessPolicies/r",
            "rowAccessPolicies.delete",
            Operation::Delete,
            "projects/p/datasets/d/tables/t/rowAccessPolicies/r",
        ),
        (
            "POST",
            "projects/p/datasets/d/tables/t/rowAccessPolicies/r:getIamPolicy",
            "rowAccessPolicies.getIamPolicy",
            Operation::Get,
            "projects/p/datasets/d/tables/t/rowAccessPolicies/r",
        ),
        (
            "POST",
            "projects/p/datasets/d/tables/t/rowAccessPolicies/r:testIamPermissions",
            "rowAccessPolicies.testIamPermissions",
            Operation::Get,
            "projects/p/datasets/d/tables/t/rowAccessPolicies/r",
        ),
        ("GET", "projects/p/datasets/d/models", "models.list", Operation::List, "projects/p/datasets/d"),
        (
            "GET",
            "projects/p/datasets/d/models/m",
            "models.get",
            Operation::Get,
            "projects/p/datasets/d/models/m",
        ),
        (
            "PATCH",
            "projects/p/datasets/d/models/m",
            "models.patch",
            Operation::Update,
            "projects/p/datasets/d/models/m",
        ),
        (
            "DELETE",
            "projects/p/datasets/d/models/m",
            "models.delete",
            Operation::Delete,
            "projects/p/datasets/d/models/m",
        ),
        ("GET", "projects/p/datasets/d/routines", "routines.list", Operation::List, "projects/p/datasets/d"),
        (
            "POST",
            "projects/p/datasets/d/routines",
            "routines.insert",
            Operation::Create,
            "projects/p/datasets/d",
        ),
        (
            "GET",
            "projects/p/datasets/d/routines/r",
            "routines.get",
            Operation::Get,
            "projects/p/datasets/d/routines/r",
        ),
        (
            "PUT",
            "projects/p/datasets/d/routines/r",
            "routines.update",
            Operation::Update,
            "projects/p/datasets/d/routines/r",
        ),
        (
            "DELETE",
            "projects/p/datasets/d/routines/r",
            "routines.delete",
            Operation::Delete,
            "projects/p/datasets/d/routines/r",
        ),
        (
            "POST",
            "projects/p/datasets/d/routines/r:getIamPolicy",
            "routines.getIamPolicy",
            Operation::Get,
            "projects/p/datasets/d/routines/r",
        ),
        (
            "POST",
            "projects/p/datasets/d/routines/r:setIamPolicy",
            "routines.setIamPolicy",
            Operation::Update,
            "projects/p/datasets/d/routines/r",
        ),
    ];
    for (method, path, name, operation, resource) in methods {
        is(method, path, &format!("bigquery.{name}"), operation, resource);
    }
}

#[test]
fn names_are_decoded_and_what_is_unknown_stays_unknown() {
    let route_ = is(
        "GET",
        "projects/example.com%3Ap/queries/j?location=US",
        "bigquery.jobs.getQueryResults",
        Operation::ReadRows,
        "projects/example.com:p/jobs/j",
    );
    assert_eq!((route_.project.as_str(), route_.job.as_deref()), ("example.com:p", Some("j")));
    for (method, path) in [
        ("POST", "/bigquery/v2/projects/p/datasets/d/tables/t/data"),
        ("GET", "/bigquery/v2/projects/p/new/things"),
        ("GET", "/bigquery/v3/projects/p/jobs"),
        ("GET", "/bigquery/v2/"),
        ("POST", "/bigquery/v2/projects/p/datasets/d/models"),
    ] {
        assert_eq!(route(&head(method, path)), None, "{method} {path}");
    }
}

#[test]
fn an_upload_is_told_by_its_kind() {
    let body = |method, path| route(&head(method, path)).map(|route| (route.method, route.body));
    let insert = "bigquery.jobs.insert";
    assert_eq!(
        body("POST", "/upload/bigquery/v2/projects/p/jobs?uploadType=multipart"),
        Some((insert, Body::Multipart))
    );
    assert_eq!(
        body("POST", "/resumable/upload/bigquery/v2/projects/p/jobs?uploadType=resumable"),
        Some((insert, Body::Resumable))
    );
    assert_eq!(
        body("PUT", "/upload/bigquery/v2/projects/p/jobs?uploadType=resumable&upload_id=x"),
        Some((insert, Body::Continued))
    );
    assert_eq!(
        body("DELETE", "/upload/bigquery/v2/projects/p/jobs?upload_id=x"),
        Some((insert, Body::Continued))
    );
    assert_eq!(body("PUT", "/bigquery/v2/projects/p/jobs"), None);
}

#[test]
fn a_method_in_a_header_counts() {
    let mut get = head("POST", "/bigquery/v2/projects/p/jobs/j");
    assert_eq!(route(&get), None);
    get.headers.insert("x-http-method-override", http::HeaderValue::from_static("get"));
    assert_eq!(route(&get).map(|route| route.method), Some("bigquery.jobs.get"));
}

#[test]
fn a_batch_is_not_mistaken_for_one_request() {
    let batch = route(&head("POST", "/batch/bigquery/v2")).expect("a route");
    assert_eq!((batch.method, batch.body), ("bigquery.batch", Body::Batch));
    assert!(
        is_below("/batch/bigquery/v2")
            && is_below("/upload/bigquery/v2/x")
            && !is_below("/storage/v1/b")
            && !is_below("/batch")
    );
}
