//! From a method and its body to a command.
//!
//! Owns which field of the API becomes what. Knows no byte.

use super::{
    body::Said,
    names::{self, Job},
    parameters,
    route::Route,
};
use crate::{
    message::{
        headers::{Attributes, cut},
        json::{Kept, Value},
    },
    seam::{Command, Operation},
};

/// Bytes kept of one attribute.
const MAX_ATTRIBUTE: usize = 4096;
/// Bytes kept of a list: URIs, labels, functions.
const MAX_LIST: usize = 16 * 1024;

/// What of a request's JSON is kept as a tree.
pub(super) fn keep(path: &[&str]) -> Kept {
    match path {
        [] | ["configuration"] | ["configuration", "query" | "load" | "extract" | "copy"] => Kept::Value,
        ["query"] | ["configuration", "query", "query"] => Kept::Sql,
        ["rows"] => Kept::Count,
        [only] if has_reference(only) => Kept::All,
        ["configuration", "query" | "load" | "extract" | "copy", field] if is_wanted(field) => Kept::All,
        [field] | ["configuration", field] if is_wanted(field) => Kept::All,
        _ => Kept::Skip,
    }
}

fn has_reference(field: &str) -> bool {
    field.ends_with("reference")
}

/// By their names without `_` and in lower case.
fn is_wanted(field: &str) -> bool {
    const WANTED: &[&str] = &[
        "connectionproperties",
        "continuous",
        "createdisposition",
        "createsession",
        "defaultdataset",
        "destinationformat",
        "destinationtable",
        "destinationuri",
        "destinationuris",
        "dryrun",
        "ignoreunknownvalues",
        "jobcreationmode",
        "jobtimeoutms",
        "labels",
        "location",
        "maximumbytesbilled",
        "operationtype",
        "parametermode",
        "priority",
        "queryparameters",
        "requestid",
        "reservation",
        "skipinvalidrows",
        "sourceformat",
        "sourcemodel",
        "sourcetable",
        "sourcetables",
        "sourceuris",
        "tabledefinitions",
        "templatesuffix",
        "traceid",
        "uselegacysql",
        "userdefinedfunctionresources",
        "writedisposition",
    ];
    WANTED.contains(&field)
}

/// Fills in what the body says. The job that it names, where it is to begin one.
pub(super) fn complete(command: &mut Command, route: &Route, said: Said, limit: usize) -> Option<Job> {
    let root = said.tree.root();
    let mut facts = Facts { attributes: Vec::new(), project: &route.project };
    command.partly = said.partly;
    if let Some(why) = said.undecoded {
        facts.put("body_undecoded", Some(why.to_string().into_bytes()));
    }
    let (mut query, mut named) = (None, None);
    match route.method {
        "bigquery.jobs.query" => {
            query = Some(root);
            facts.field(root, "location");
            facts.common(root);
            facts.query(root);
        }
        "bigquery.jobs.insert" => {
            let configuration = root.get("configuration");
            named = facts.job_reference(root.get("jobReference"));
            facts.common(configuration);
            let job = configuration.get("query");
            if !job.is_absent() {
                command.operation = Operation::Query;
                query = Some(job);
                facts.query(job);
            }
            for (kind, operation, about) in [
                ("load", Operation::Load, "destinationTable"),
                ("extract", Operation::Extract, "sourceTable"),
                ("copy", Operation::Copy, "destinationTable"),
            ] {
                let job = configuration.get(kind);
                if job.is_absent() {
                    continue;
                }
                if query.is_none() {
                    command.operation = operation;
                    let named = names::resource(job.get(about), facts.project)
                        .or_else(|| names::resource(job.get("sourceModel"), facts.project));
                    command.resource = named.unwrap_or_else(|| std::mem::take(&mut command.resource));
                }
                facts.table_job(job);
            }
        }
        "bigquery.tabledata.insertAll" => {
            facts.put("rows", root.get("rows").count().map(|count| count.to_string().into_bytes()));
            for name in ["templateSuffix", "traceId", "skipInvalidRows", "ignoreUnknownValues"] {
                facts.field(root, name);
            }
        }
        _ => {
            let is_reference = |key: &[u8]| key.to_ascii_lowercase().ends_with(b"reference");
            let reference = root.entries().find(|(key, _)| is_reference(key));
            if command.operation == Operation::Create
                && let Some(named) = reference.and_then(|(_, value)| names::resource(value, facts.project))
            {
                command.resource = named;
            }
            facts.field(root, "location");
        }
    }
    command.attributes.append(&mut facts.attributes);
    let texts: Vec<&Value> = query.iter().flat_map(|query| query.all("query")).collect();
    match texts.as_slice() {
        [others @ .., Value::Text(text)] => {
            command.statement = text.captured.clone();
            command.redactions.clone_from(&text.redactions);
            for other in others {
                // Which of the two runs is the server's to say.
                let text = other.bytes().unwrap_or_default();
                command.attributes.push(("alternative_statement", text));
            }
        }
        _ if said.text.full_length > 0 => {
            command.statement = said.text;
            command.redactions = said.redactions;
        }
        _ => {}
    }
    if let Some(query) = query {
        command.parameters = parameters::parameters(query.get("queryParameters"), limit);
    }
    named
}

struct Facts<'a> {
    attributes: Attributes,
    project: &'a str,
}

impl Facts<'_> {
    fn put(&mut self, name: &'static str, value: Option<Vec<u8>>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.attributes.push((name, value));
        }
    }

    /// A field of a closed list, under the name of its attribute.
    fn field(&mut self, object: &Value, name: &'static str) {
        if let Some(attribute) = attribute(name) {
            self.put(attribute, object.get(name).bytes().map(|value| cut(&value, MAX_ATTRIBUTE)));
        }
    }

    fn job_reference(&mut self, reference: &Value) -> Option<Job> {
        let job = Job::of(reference, self.project);
        self.put("job_id", job.as_ref().map(|job| job.id.clone().into_bytes()));
        self.field(reference, "location");
        job
    }

    /// What a query's request has at its top and a job has in its configuration.
    fn common(&mut self, object: &Value) {
        for name in ["dryRun", "jobTimeoutMs", "reservation"] {
            self.field(object, name);
        }
        self.put("labels", labels(object.get("labels")));
    }

    fn query(&mut self, query: &Value) {
        for name in [
            "requestId",
            "useLegacySql",
            "maximumBytesBilled",
            "priority",
            "parameterMode",
            "createSession",
            "jobCreationMode",
            "continuous",
        ] {
            self.field(query, name);
        }
        let dataset = query.get("defaultDataset");
        self.put("default_dataset", names::resource(dataset, self.project).map(String::into_bytes));
        for property in query.get("connectionProperties").items() {
            if property.get("key").text().as_deref() == Some("session_id") {
                self.put("session_id", property.get("value").bytes().map(|value| cut(&value, MAX_ATTRIBUTE)));
            }
        }
        let mut functions = Vec::new();
        for function in query.get("userDefinedFunctionResources").items() {
            let text = function.get("inlineCode").bytes().or_else(|| function.get("resourceUri").bytes());
            lines(&mut functions, text);
        }
        self.put("user_defined_functions", Some(functions));
        let mut external = Vec::new();
        for (name, table) in query.get("tableDefinitions").entries() {
            for uri in table.get("sourceUris").items() {
                lines(&mut external, uri.bytes().map(|uri| [name, b"=", &uri].concat()));
            }
        }
        self.put("external_tables", Some(external));
        self.table_job(query);
    }

    /// Where data come from and where they go.
    fn table_job(&mut self, job: &Value) {
        for (name, field) in [("destination_table", "destinationTable"), ("source_model", "sourceModel")] {
            self.put(name, names::resource(job.get(field), self.project).map(String::into_bytes));
        }
        let mut sources = Vec::new();
        let single = std::slice::from_ref(job.get("sourceTable"));
        for table in single.iter().chain(job.get("sourceTables").items()) {
            lines(&mut sources, names::resource(table, self.project).map(String::into_bytes));
        }
        self.put("source_tables", Some(sources));
        for (name, list, one) in
            [("source_uris", "sourceUris", ""), ("destination_uris", "destinationUris", "destinationUri")]
        {
            let mut uris = Vec::new();
            lines(&mut uris, job.get(one).bytes());
            for uri in job.get(list).items() {
                lines(&mut uris, uri.bytes());
            }
            self.put(name, Some(uris));
        }
        for name in
            ["writeDisposition", "createDisposition", "sourceFormat", "destinationFormat", "operationType"]
        {
            self.field(job, name);
        }
    }
}

/// One more line of a list, as far as there is room.
fn lines(list: &mut Vec<u8>, line: Option<Vec<u8>>) {
    let Some(line) = line else { return };
    if list.len().saturating_add(line.len()) < MAX_LIST {
        if !list.is_empty() {
            list.push(b'\n');
        }
        list.extend_from_slice(&line);
    } else if !list.ends_with(b"\n...") {
        list.extend_from_slice(b"\n...");
    }
}

/// As a JSON object, in the order in which they were sent.
fn labels(labels: &Value) -> Option<Vec<u8>> {
    if labels.is_absent() {
        return None;
    }
    let mut text = b"{".to_vec();
    for (at, (name, value)) in labels.entries().enumerate() {
        if text.len() > MAX_LIST {
            break;
        }
        if at > 0 {
            text.extend_from_slice(b", ");
        }
        parameters::quoted(name, &mut text);
        text.extend_from_slice(b": ");
        parameters::quoted(&value.bytes().unwrap_or_default(), &mut text);
    }
    text.push(b'}');
    Some(text)
}

/// The attribute that a field becomes.
fn attribute(field: &str) -> Option<&'static str> {
    Some(match field {
        "continuous" => "continuous",
        "createDisposition" => "create_disposition",
        "createSession" => "create_session",
        "destinationFormat" => "destination_format",
        "dryRun" => "dry_run",
        "ignoreUnknownValues" => "ignore_unknown_values",
        "jobCreationMode" => "job_creation_mode",
        "jobTimeoutMs" => "job_timeout_ms",
        "location" => "location",
        "maximumBytesBilled" => "maximum_bytes_billed",
        "operationType" => "operation_type",
        "parameterMode" => "parameter_mode",
        "priority" => "priority",
        "requestId" => "request_id",
        "reservation" => "reservation",
        "skipInvalidRows" => "skip_invalid_rows",
        "sourceFormat" => "source_format",
        "templateSuffix" => "template_suffix",
        "traceId" => "trace_id",
        "useLegacySql" => "use_legacy_sql",
        "writeDisposition" => "write_disposition",
        _ => return None,
    })
}
