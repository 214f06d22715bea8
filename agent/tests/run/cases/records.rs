//! What is recorded: real clients on real servers.

use std::{fs, path::Path};

use serde_json::Value;

use super::cases;
use crate::{
    Outcome,
    collector::{Collector, Manner, socket},
    postgres::{Postgres, echo_server},
    support::{Bench, ended, ensure},
    workload::{WORKLOAD, program},
};

cases!(
    psql_is_recorded_under_the_persons_name_and_shown_live,
    a_service_account_is_recorded_as_a_federated_principal,
    a_connection_of_no_known_protocol_works_and_is_recorded_as_such,
    without_its_collector_the_records_stay_and_the_next_run_sends_them,
    nobody_elses_connections_are_recorded,
);

fn field<'a>(record: &'a Value, name: &str) -> &'a str {
    record.get(name).and_then(Value::as_str).unwrap_or("(absent)")
}

fn quoted(arguments: &[String]) -> String {
    arguments
        .iter()
        .map(|argument| format!("'{}'", argument.replace('\'', "'\\''")))
        .collect::<Vec<_>>()
        .join(" ")
}

fn psql_is_recorded_under_the_persons_name_and_shown_live() -> Outcome {
    let bench = Bench::new();
    let server = Postgres::start(&bench)?;
    let (data, live) = (bench.path("data"), bench.path("live"));
    let options = ["--data", &data.display().to_string(), "--live", &live.display().to_string()];
    let good = quoted(&server.arguments("select 40 + 2"));
    let bad = quoted(&server.arguments("select * from no_such_table"));
    let mut command = bench.script(&options, &format!("psql {good}; psql {bad}"));
    command.env("SUDO_UID", "65534").env("SUDO_GID", "65534");
    let (code, stdout, stderr) = ended(&mut command)?;
    ensure(code == Some(1) && stdout == "42\n", || format!("{code:?}: {stdout}{stderr}"))?;

    let records = bench.records(&data)?;
    let host = verbatim_sys::process::host_name();
    let seen: Vec<_> = records
        .iter()
        .map(|record| {
            ["principal", "statement", "decision", "status", "user"].map(|name| field(record, name))
        })
        .collect();
    let person = format!("local:{host}/nobody");
    let expected = [
        [person.as_str(), "select 40 + 2", "allowed", "ok", "tester"],
        [person.as_str(), "select * from no_such_table", "allowed", "error", "tester"],
    ];
    ensure(seen == expected, || format!("recorded: {seen:?}"))?;
    ensure(records.iter().all(|record| field(record, "principalKind") == "local"), || {
        format!("{records:?}")
    })?;

    let live = fs::read_to_string(live)?;
    let lines: Vec<&str> = live.lines().collect();
    ensure(lines.len() == 2, || format!("shown: {live}"))?;
    ensure(
        lines[0].contains(&format!(" {person} postgresql query allowed "))
            && lines[0].ends_with("  select 40 + 2"),
        || format!("shown: {}", lines[0]),
    )?;
    ensure(lines[1].contains(" allowed/error ") && lines[1].contains("no_such_table"), || lines[1].into())?;
    ensure(stderr.contains("2 commands recorded"), || stderr.clone())?;
    bench.assert_clean()
}

fn a_service_account_is_recorded_as_a_federated_principal() -> Outcome {
    let bench = Bench::new();
    let server = Postgres::start(&bench)?;
    let data = bench.path("data");
    let folder = data.display().to_string();
    let account = ["--as", "shop/checkout", "--project-number", "123", "--pool", "p.svc.id.goog"];
    let options = [&["--data", &folder, "--live", "off"], &account[..]].concat();
    let psql = quoted(&server.arguments("select 1"));
    let (code, _, stderr) = ended(&mut bench.script(&options, &format!("psql {psql}")))?;
    ensure(code == Some(0), || format!("{code:?}: {stderr}"))?;
    let records = bench.records(&data)?;
    let expected = "principal://iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/p.svc.id.goog\
                    /subject/ns/shop/sa/checkout";
    ensure(records.len() == 1 && field(&records[0], "principal") == expected, || format!("{records:?}"))?;
    ensure(field(&records[0], "namespace") == "shop", || format!("{records:?}"))?;
    ensure(!stderr.contains("select 1"), || format!("--live off shows nothing: {stderr}"))
}

fn a_connection_of_no_known_protocol_works_and_is_recorded_as_such() -> Outcome {
    let bench = Bench::new();
    let address = echo_server()?.to_string();
    let data = bench.path("data");
    let mut command = bench.agent(&["run", "--data"]);
    command.arg(&data).args(["--", &program(), WORKLOAD, "echo", &address]);
    let (code, stdout, stderr) = ended(&mut command)?;
    ensure(code == Some(0), || format!("{code:?}: {stdout}{stderr}"))?;
    ensure(stdout.contains(&format!("peer {address}")), || format!("it sees another peer: {stdout}"))?;
    let records = bench.records(&data)?;
    let seen: Vec<_> = records
        .iter()
        .map(|record| ["operation", "capture", "opaqueReason"].map(|name| field(record, name)))
        .collect();
    ensure(seen.len() == 1 && seen[0][0] == "connect", || format!("recorded: {records:?}"))?;
    ensure(seen[0][2].contains("unknown"), || format!("recorded: {seen:?}"))?;
    ensure(stderr.contains("1 connections recorded that could not be decoded"), || stderr.clone())
}

fn without_its_collector_the_records_stay_and_the_next_run_sends_them() -> Outcome {
    let bench = Bench::new();
    let address = echo_server()?.to_string();
    let path = socket(&bench.path("open"));
    let options = ["--collector".to_owned(), format!("unix:{}", path.display())];
    let run = |bench: &Bench, data: Option<&Path>| {
        let mut command = bench.agent(&["run"]);
        command.args(&options).args(data.into_iter().flat_map(|data| [Path::new("--data"), data]));
        ended(command.args(["--", &program(), WORKLOAD, "echo", &address]))
    };
    let data = bench.path("data");
    let (code, _, stderr) = run(&bench, Some(&data))?;
    ensure(code == Some(0), || format!("the command is not the collector's: {code:?}: {stderr}"))?;
    ensure(stderr.contains(&format!("{}/spool", data.display())), || format!("it says where: {stderr}"))?;
    ensure(stderr.contains("has not acknowledged"), || stderr.clone())?;

    let collector = Collector::start(&path, Manner::Good, None);
    let (code, _, stderr) = run(&bench, Some(&data))?;
    ensure(code == Some(0) && stderr.contains("all are with the collector"), || {
        format!("{code:?}: {stderr}")
    })?;
    let connections = |chain: &std::collections::BTreeMap<u64, Vec<u8>>| {
        let envelopes = chain.values().filter_map(|bytes| prost::Message::decode(bytes.as_slice()).ok());
        envelopes
            .filter(|envelope: &verbatim_api::v1::Envelope| {
                envelope.kind() == verbatim_api::v1::RecordKind::Connection
                    && envelope.status() != verbatim_api::v1::Status::Pending
            })
            .count()
    };
    let recorded: usize = collector.kept().values().map(connections).sum();
    ensure(recorded == 2, || format!("{recorded} connections of 2 arrived"))?;

    // Where nothing was to be kept, what nobody has is kept all the same.
    drop(collector);
    let (_, _, stderr) = run(&bench, None)?;
    let kept = bench.private()?.join("data/spool");
    ensure(stderr.contains(&kept.display().to_string()) && kept.is_dir(), || format!("{kept:?}: {stderr}"))
}

fn nobody_elses_connections_are_recorded() -> Outcome {
    let bench = Bench::new();
    let address = echo_server()?;
    let data = bench.path("data");
    let go = bench.path("open").join("go");
    let script = format!("touch '{0}.up'; while [ ! -e '{0}' ]; do sleep 0.05; done", go.display());
    let agent = bench
        .script(&["--data", &data.display().to_string()], &script)
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let agent = crate::support::Guard(agent);
    let up = format!("{}.up", go.display());
    crate::support::until("the command runs", || Path::new(&up).exists())?;
    // Ours, while the programs are attached.
    let mut outside = std::process::Command::new(program());
    let (code, stdout, _) = ended(outside.args([WORKLOAD, "echo", &address.to_string()]))?;
    ensure(code == Some(0), || stdout)?;
    fs::write(&go, "")?;
    agent.output()?;
    let records = bench.records(&data)?;
    ensure(records.is_empty(), || format!("recorded: {records:?}"))
}
