//! Which method of BigQuery's API (REST, version 2) a request is, by its path: written down here a second
//! time, so that the product's own table has something to be held against.

/// Segments that stand for a name.
fn is(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some("*"), Some(name)) if !name.is_empty() => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// The method's name, e.g. `bigquery.jobs.query`; `None` for what is not of this API.
#[must_use]
pub fn method(verb: &str, path: &str) -> Option<&'static str> {
    const PREFIXES: [&str; 3] =
        ["/bigquery/v2/projects", "/upload/bigquery/v2/projects", "/resumable/upload/bigquery/v2/projects"];
    let upload = !path.starts_with(PREFIXES[0]);
    let rest = PREFIXES.iter().find_map(|prefix| path.strip_prefix(prefix))?;
    let table: &[(&str, &str, &str)] = &[
        ("GET", "", "bigquery.projects.list"),
        ("GET", "/*/serviceAccount", "bigquery.projects.getServiceAccount"),
        ("POST", "/*/queries", "bigquery.jobs.query"),
        ("GET", "/*/queries/*", "bigquery.jobs.getQueryResults"),
        ("POST", "/*/jobs", "bigquery.jobs.insert"),
        ("GET", "/*/jobs", "bigquery.jobs.list"),
        ("GET", "/*/jobs/*", "bigquery.jobs.get"),
        ("POST", "/*/jobs/*/cancel", "bigquery.jobs.cancel"),
        ("DELETE", "/*/jobs/*/delete", "bigquery.jobs.delete"),
        ("GET", "/*/datasets", "bigquery.datasets.list"),
        ("POST", "/*/datasets", "bigquery.datasets.insert"),
        ("GET", "/*/datasets/*", "bigquery.datasets.get"),
        ("PATCH", "/*/datasets/*", "bigquery.datasets.patch"),
        ("PUT", "/*/datasets/*", "bigquery.datasets.update"),
        ("DELETE", "/*/datasets/*", "bigquery.datasets.delete"),
        ("GET", "/*/datasets/*/tables", "bigquery.tables.list"),
        ("POST", "/*/datasets/*/tables", "bigquery.tables.insert"),
        ("GET", "/*/datasets/*/tables/*", "bigquery.tables.get"),
        ("PATCH", "/*/datasets/*/tables/*", "bigquery.tables.patch"),
        ("PUT", "/*/datasets/*/tables/*", "bigquery.tables.update"),
        ("DELETE", "/*/datasets/*/tables/*", "bigquery.tables.delete"),
        ("POST", "/*/datasets/*/tables/*/insertAll", "bigquery.tabledata.insertAll"),
        ("GET", "/*/datasets/*/tables/*/data", "bigquery.tabledata.list"),
        ("GET", "/*/datasets/*/routines", "bigquery.routines.list"),
        ("POST", "/*/datasets/*/routines", "bigquery.routines.insert"),
        ("GET", "/*/datasets/*/routines/*", "bigquery.routines.get"),
        ("PUT", "/*/datasets/*/routines/*", "bigquery.routines.update"),
        ("DELETE", "/*/datasets/*/routines/*", "bigquery.routines.delete"),
        ("GET", "/*/datasets/*/models", "bigquery.models.list"),
        ("GET", "/*/datasets/*/models/*", "bigquery.models.get"),
        ("PATCH", "/*/datasets/*/models/*", "bigquery.models.patch"),
        ("DELETE", "/*/datasets/*/models/*", "bigquery.models.delete"),
    ];
    if upload && verb == "PUT" {
        // A part of what began with this method.
        return Some("bigquery.jobs.insert");
    }
    table.iter().find(|(other, pattern, _)| *other == verb && is(pattern, rest)).map(|(_, _, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::method;

    #[test]
    fn a_path_is_its_method_and_nothing_else_is() {
        let of = |verb, rest: &str| method(verb, &format!("/bigquery/v2/projects{rest}"));
        assert_eq!(of("POST", "/p/queries"), Some("bigquery.jobs.query"));
        assert_eq!(of("GET", "/p/queries/j"), Some("bigquery.jobs.getQueryResults"));
        assert_eq!(of("GET", "/p/queries/"), None);
        assert_eq!(of("POST", "/p/datasets/d/tables/t/insertAll"), Some("bigquery.tabledata.insertAll"));
        assert_eq!(method("POST", "/upload/bigquery/v2/projects/p/jobs"), Some("bigquery.jobs.insert"));
        assert_eq!(method("PUT", "/upload/bigquery/v2/projects/p/jobs"), Some("bigquery.jobs.insert"));
        assert_eq!(method("GET", "/storage/v1/b"), None);
    }
}
