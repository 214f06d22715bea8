//! What is done about TLS: who trusts us, who does not, and what a command is given.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use libtest_mimic::Failed;
use serde_json::Value;

use super::cases;
use crate::{
    Outcome,
    support::{Bench, Guard, ended, ensure, signal, text, until},
    tls::{BODY, TlsServer},
};

cases!(
    what_curl_asks_over_tls_is_recorded_as_it_asks_it,
    a_command_keeps_what_it_trusted_and_is_given_what_clients_read,
    without_tls_nothing_is_given_and_everything_passes,
    a_client_that_refuses_us_loses_one_connection_and_is_recorded,
    a_client_that_refuses_us_is_denied_where_that_was_asked_for,
    a_server_that_cannot_be_verified_passes_and_is_recorded,
    a_name_outside_passes_and_is_told_with_what_adds_it,
    what_the_command_trusts_is_gone_when_the_agent_was_killed,
    a_name_that_is_none_is_refused_before_anything_runs,
);

/// The options of a run whose records stay, as nobody.
fn command(bench: &Bench, options: &[String], script: &str) -> std::process::Command {
    let data = bench.path("data").display().to_string();
    let mut all = vec!["--data", data.as_str(), "--live", "off"];
    all.extend(options.iter().map(String::as_str));
    let mut command = bench.script(&all, script);
    command.env("SUDO_UID", "65534").env("SUDO_GID", "65534");
    // As on a machine where nobody has set anything.
    for name in given().into_keys().chain(["SSL_CERT_DIR"]) {
        command.env_remove(name);
    }
    command
}

fn field<'a>(record: &'a Value, name: &str) -> &'a str {
    record.get(name).and_then(Value::as_str).unwrap_or("(absent)")
}

/// Variables that name a file or folder of ours, and those with a value of their own.
fn given() -> BTreeMap<&'static str, Option<&'static str>> {
    BTreeMap::from([
        ("SSL_CERT_FILE", None),
        ("REQUESTS_CA_BUNDLE", None),
        ("CURL_CA_BUNDLE", None),
        ("HTTPLIB2_CA_CERTS", None),
        ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", None),
        ("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", None),
        ("NODE_EXTRA_CA_CERTS", None),
        ("JAVA_TOOL_OPTIONS", None),
        ("PGCHANNELBINDING", Some("disable")),
        ("GOOGLE_CLOUD_DISABLE_DIRECT_PATH", Some("true")),
    ])
}

/// Why connections passed undecoded.
fn reasons(bench: &Bench) -> Result<Vec<String>, Failed> {
    let records = bench.records(&bench.path("data"))?;
    Ok(records.iter().map(|record| field(record, "opaqueReason").to_owned()).collect())
}

fn what_curl_asks_over_tls_is_recorded_as_it_asks_it() -> Outcome {
    let bench = Bench::new();
    let server = TlsServer::start(&bench, &["localhost"])?;
    let named = format!("https://localhost:{}/named?id=2", server.address.port());
    let script = format!("curl -sv --http1.1 {} {named}", server.url("/by-address?id=1"));
    let (code, stdout, stderr) = ended(&mut command(&bench, &server.trusted(), &script))?;
    ensure(code == Some(0) && stdout == BODY.repeat(2), || format!("{code:?}: {stdout}{stderr}"))?;
    let issuers: Vec<_> = stderr.lines().filter(|line| line.contains("issuer:")).collect();
    let ours = |line: &&str| line.contains("O=Verbatim") && line.contains("intermediate for databases");
    ensure(issuers.len() == 2 && issuers.iter().all(ours), || format!("issuers: {issuers:?}"))?;
    let records = bench.records(&bench.path("data"))?;
    let seen: Vec<_> = records
        .iter()
        .map(|record| {
            let status = record.get("httpStatus").and_then(Value::as_u64);
            (["host", "statement", "capture", "opaqueReason"].map(|name| field(record, name)), status)
        })
        .collect();
    let expected = [
        (["127.0.0.1", "GET /by-address?id=1", "decoded", ""], Some(200)),
        (["localhost", "GET /named?id=2", "decoded", ""], Some(200)),
    ];
    ensure(seen == expected, || format!("recorded: {seen:?}"))?;
    bench.assert_clean()
}

fn a_command_keeps_what_it_trusted_and_is_given_what_clients_read() -> Outcome {
    let bench = Bench::new();
    let server = TlsServer::start(&bench, &[])?;
    let script = r#"env; for file in "$(dirname "$SSL_CERT_FILE")" "$SSL_CERT_FILE" "$REQUESTS_CA_BUNDLE"; do
        test -w "$file" && echo "WRITABLE $file"; done; mkdir "$SSL_CERT_FILE.d" && echo WRITABLE;
        echo "OWNER $(stat -c '%U %a' "$(dirname "$SSL_CERT_FILE")" "$SSL_CERT_FILE" | tr '\n' ' ')";
        echo "OURS $(grep -c BEGIN "$REQUESTS_CA_BUNDLE")"; cat "$REQUESTS_CA_BUNDLE""#;
    let mut command = command(&bench, &server.trusted(), script);
    command.env("REQUESTS_CA_BUNDLE", &server.root).env("PGCHANNELBINDING", "require");
    command.env("JAVA_TOOL_OPTIONS", "-Xmx64m").env("UNRELATED", "stays").stderr(Stdio::null());
    let (code, stdout, stderr) = ended(&mut command)?;
    ensure(code == Some(0), || format!("{code:?}: {stdout}{stderr}"))?;
    let set: BTreeMap<_, _> = stdout.lines().filter_map(|line| line.split_once('=')).collect();
    let folder = Path::new(set.get("SSL_CERT_FILE").copied().unwrap_or_default()).parent();
    let folder = folder.ok_or("SSL_CERT_FILE names no file")?.display().to_string();
    for (name, value) in given() {
        let found = set.get(name).copied().unwrap_or("(absent)");
        let fits = match (name, value) {
            ("PGCHANNELBINDING", _) => found == "require",
            ("JAVA_TOOL_OPTIONS", _) => found.starts_with("-Xmx64m ") && found.contains(&folder),
            (_, Some(value)) => found == value,
            (_, None) => found.starts_with(&folder),
        };
        ensure(fits, || format!("{name} is {found}, with {folder}"))?;
    }
    ensure(set.get("UNRELATED") == Some(&"stays"), || "what was set is gone".into())?;
    ensure(!set.contains_key("PGSSLROOTCERT"), || "PGSSLROOTCERT would weaken libpq".into())?;
    ensure(!stdout.contains("WRITABLE"), || format!("the command can change whom it trusts: {stdout}"))?;
    ensure(stdout.contains("OWNER root 755 root 644"), || stdout.clone())?;
    // What it named itself, and ours; not the system's, which it had not trusted there.
    ensure(stdout.contains("\nOURS 3\n"), || stdout.clone())?;
    let own = fs::read_to_string(&server.root)?;
    let own: String = own.lines().filter(|line| !line.starts_with("--")).collect();
    ensure(stdout.replace('\n', "").contains(&own), || "what it trusted itself is not in the bundle".into())?;
    ensure(!Path::new(&folder).exists(), || format!("{folder} is left behind"))?;
    bench.assert_clean()
}

fn without_tls_nothing_is_given_and_everything_passes() -> Outcome {
    let bench = Bench::new();
    let server = TlsServer::start(&bench, &[])?;
    let script = format!("env; curl -sSv --cacert {} {}", server.root.display(), server.url("/"));
    let (code, stdout, stderr) = ended(&mut command(&bench, &["--no-tls".into()], &script))?;
    ensure(code == Some(0) && stdout.ends_with(BODY), || format!("{code:?}: {stdout}{stderr}"))?;
    ensure(stderr.contains("CN=Root of the test's server"), || format!("not the server's own: {stderr}"))?;
    for name in given().into_keys() {
        let set = stdout.lines().any(|line| line.split_once('=').is_some_and(|(set, _)| set == name));
        ensure(!set, || format!("{name} is set: {stdout}"))?;
    }
    let reasons = reasons(&bench)?;
    // Of TLS that nobody would look into, no more is said than that.
    ensure(reasons == ["tls"] || reasons == ["trust-not-injected"], || format!("recorded: {reasons:?}"))?;
    bench.assert_clean()
}

/// Asks twice with roots of its own and nothing of ours, then once with ours: exit codes and answers, and what the
/// agent said. The second asks when the agent has read that the first has refused it, which can be after its end.
fn refusing(bench: &Bench, server: &TlsServer, options: &[String]) -> Result<(String, String), Failed> {
    let (root, url, read) = (server.root.display(), server.url("/"), bench.path("open").join("read"));
    let untrusting = format!("env -i curl -sS --cacert {root} {url}");
    let script = format!(
        "{untrusting}; echo first $?; until [ -e '{}' ]; do sleep 0.05; done; \
         {untrusting}; echo second $?; curl -sS {url}; echo third $?",
        read.display()
    );
    let errors = bench.path("errors");
    let said = || fs::read_to_string(&errors).unwrap_or_default();
    let mut command = command(bench, options, &script);
    let agent = Guard(command.stdout(Stdio::piped()).stderr(fs::File::create(&errors)?).spawn()?);
    until("it is said that the client refused us", || said().contains("the client refused our certificate"))?;
    fs::write(&read, "")?;
    Ok((text(&agent.output()?.stdout), said()))
}

fn a_client_that_refuses_us_loses_one_connection_and_is_recorded() -> Outcome {
    let bench = Bench::new();
    let server = TlsServer::start(&bench, &[])?;
    let (stdout, stderr) = refusing(&bench, &server, &server.trusted())?;
    // 60: the certificate was not accepted. The third trusts us, but not the server, which it now sees.
    let expected = format!("first 60\n{BODY}second 0\nthird 60\n");
    ensure(stdout == expected, || format!("{stdout}{stderr}"))?;
    let reasons = reasons(&bench)?;
    let expected = vec!["client-does-not-trust-us"; 3];
    ensure(reasons == expected, || format!("recorded: {reasons:?}"))?;
    bench.assert_clean()
}

fn a_client_that_refuses_us_is_denied_where_that_was_asked_for() -> Outcome {
    let bench = Bench::new();
    let server = TlsServer::start(&bench, &[])?;
    let options = [&server.trusted()[..], &["--untrusted".into(), "deny".into()]].concat();
    let (stdout, stderr) = refusing(&bench, &server, &options)?;
    // 35: no handshake.
    let expected = "first 60\nsecond 35\nthird 35\n";
    ensure(stdout == expected, || format!("{stdout}{stderr}"))?;
    let reasons = reasons(&bench)?;
    ensure(reasons == vec!["client-does-not-trust-us"; 3], || format!("recorded: {reasons:?}"))
}

fn a_server_that_cannot_be_verified_passes_and_is_recorded() -> Outcome {
    let bench = Bench::new();
    let server = TlsServer::start(&bench, &[])?;
    let script = format!("curl -sS --cacert {} {}", server.root.display(), server.url("/"));
    let (code, stdout, stderr) = ended(&mut command(&bench, &[], &script))?;
    ensure(code == Some(0) && stdout == BODY, || format!("{code:?}: {stdout}{stderr}"))?;
    ensure(stderr.contains("the server's certificate was not accepted"), || stderr.clone())?;
    let reasons = reasons(&bench)?;
    ensure(reasons == ["server-not-trusted"], || format!("recorded: {reasons:?}"))?;
    bench.assert_clean()
}

fn a_name_outside_passes_and_is_told_with_what_adds_it() -> Outcome {
    for (options, added) in [(vec![], false), (vec!["--name".to_owned(), "example.test".to_owned()], true)] {
        let bench = Bench::new();
        let server = TlsServer::start(&bench, &["db.example.test"])?;
        let port = server.address.port();
        let script = format!(
            "curl -sSv --cacert \"${{CACERT:-$SSL_CERT_FILE}}\" --resolve db.example.test:{port}:127.0.0.1 \
             https://db.example.test:{port}/"
        );
        let options = [&server.trusted()[..], &options].concat();
        let mut command = command(&bench, &options, &script);
        if !added {
            command.env("CACERT", &server.root);
        }
        let (code, stdout, stderr) = ended(&mut command)?;
        ensure(code == Some(0) && stdout == BODY, || format!("{code:?}: {stdout}{stderr}"))?;
        let told = "TLS to db.example.test is not looked into: --name NAME adds a name";
        ensure(stderr.contains("O=Verbatim") == added, || format!("whose certificate? {stderr}"))?;
        ensure(stderr.contains(told) != added, || format!("what is told: {stderr}"))?;
        let passed = reasons(&bench)?.iter().any(|reason| reason == "name-outside-constraints");
        ensure(passed != added, || format!("recorded: {:?}", reasons(&bench)))?;
    }
    Ok(())
}

fn what_the_command_trusts_is_gone_when_the_agent_was_killed() -> Outcome {
    let bench = Bench::new();
    let told = bench.path("open").join("trust");
    let script =
        format!("dirname \"$SSL_CERT_FILE\" > '{0}.new'; mv '{0}.new' '{0}'; sleep 1000", told.display());
    let agent = Guard(bench.script(&[], &script).stderr(Stdio::piped()).spawn()?);
    until("the command runs", || told.exists())?;
    let folder = PathBuf::from(fs::read_to_string(&told)?.trim());
    let there = folder.join("bundle.pem").is_file() && folder.join("truststore.p12").is_file();
    signal(agent.0.id(), "KILL");
    let said = text(&agent.output()?.stderr);
    ensure(there, || format!("{} lacks a file", folder.display()))?;
    ensure(said.contains("nothing is left behind"), || said)?;
    ensure(!folder.exists(), || format!("{} is left behind", folder.display()))?;
    bench.assert_clean()
}

fn a_name_that_is_none_is_refused_before_anything_runs() -> Outcome {
    for (option, value, part) in [
        ("--name", "*.example.test", "`*.example.test`"),
        ("--name", "10.0.0.0/99", "10.0.0.0/99"),
        ("--upstream-ca", "/etc/passwd", "/etc/passwd holds no certificate"),
        ("--upstream-ca", "/nonexistent", "cannot read /nonexistent"),
    ] {
        let bench = Bench::new();
        let ran = bench.path("open").join("ran").display().to_string();
        let (code, _, stderr) = ended(&mut bench.agent(&["run", option, value, "--", "touch", &ran]))?;
        ensure(code == Some(125) && stderr.contains(part), || format!("{value}: {code:?}: {stderr}"))?;
        ensure(!Path::new(&ran).exists(), || format!("{value}: it ran"))?;
        ensure(fs::read_dir(bench.path("tmp"))?.count() == 0, || {
            format!("{value}: temporary files are left")
        })?;
    }
    Ok(())
}
