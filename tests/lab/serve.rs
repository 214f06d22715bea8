//! Unmodified clients in two pods under `serve`: everything they do is recorded, under their names.

use anyhow::{Context as _, Result, ensure};
use verbatim_api::v1::{Operation, Status};
use verbatim_tests::{
    cli,
    did::{self, Did},
    lab::{Lab, uid},
    network::{DATABASE_V6, Pod},
    parts::Part,
    process::Process,
};

use crate::scenario::{Scenario, usual};

const WITH_NODE: &[Part] =
    &[Part::Root, Part::Sandbox, Part::Binaries, Part::Postgres, Part::Python, Part::Node, Part::Bpf];

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        usual!(psycopg_simple_queries_are_recorded_from_two_pods_at_once),
        usual!(psycopg_extended_queries_cursors_and_pipelines_are_recorded),
        usual!(copy_in_both_directions_is_recorded_with_its_rows),
        usual!(cancelling_notifications_and_scram_work_and_are_recorded),
        usual!(asyncpg_portals_binary_values_and_copy_are_recorded),
        usual!(node_postgres_is_recorded).needing(WITH_NODE),
        usual!(psql_is_recorded_with_a_large_result),
        usual!(pgbench_is_recorded_once_per_transaction_in_every_mode),
        usual!(large_objects_are_recorded_as_function_calls),
        usual!(connections_over_ipv6_are_recorded),
        usual!(the_command_line_says_what_the_service_says),
        usual!(a_password_in_a_statement_is_nowhere_on_disk),
    ]
}

/// Waits for a script in each pod and joins what they did.
fn all(lab: &Lab, clients: Vec<(Pod, Process)>) -> Result<Vec<Did>> {
    let mut all = Vec::new();
    for (pod, client) in clients {
        let ended = client.finish()?;
        all.extend(did::read(&ended.text(), &lab.principal(pod))?);
    }
    ensure!(!all.is_empty(), "clients did nothing");
    Ok(all)
}

/// The same script in both pods at once.
fn python_in_both(lab: &Lab, script: &str) -> Result<Vec<Did>> {
    let clients = Pod::ALL
        .into_iter()
        .map(|pod| {
            let name = format!("{script}-{}", pod.letter());
            Ok((pod, lab.pod(pod).python(&name, &format!("{script}.py"), &[])?))
        })
        .collect::<Result<Vec<_>>>()?;
    all(lab, clients)
}

fn psycopg_simple_queries_are_recorded_from_two_pods_at_once(lab: &mut Lab) -> Result<()> {
    // Both pods insert the same keys: the table is each pod's own.
    lab.separate_databases()?;
    let did = python_in_both(lab, "psycopg_simple")?;
    lab.compare(&did)?;
    for one in lab.collector.commands()? {
        let workload = one.started.and_then(|started| started.workload).context("no workload")?;
        let pod = Pod::ALL.into_iter().find(|pod| uid(*pod) == workload.pod_uid).context("no pod's UID")?;
        ensure!(workload.pod_name == format!("pod-{}", pod.letter()), "{workload:?}");
        ensure!(workload.node == "lab-node" && !workload.container.is_empty(), "{workload:?}");
    }
    let notices: Vec<_> = lab.collector.seen()?.into_iter().flat_map(|one| one.notices).collect();
    ensure!(notices == ["00000", "00000"], "notices: {notices:?}");
    Ok(())
}

fn psycopg_extended_queries_cursors_and_pipelines_are_recorded(lab: &mut Lab) -> Result<()> {
    let script = lab.pod(Pod::A).python("extended", "psycopg_extended.py", &[])?;
    let did = all(lab, vec![(Pod::A, script)])?;
    lab.compare(&did)
}

fn copy_in_both_directions_is_recorded_with_its_rows(lab: &mut Lab) -> Result<()> {
    lab.separate_databases()?;
    let did = python_in_both(lab, "psycopg_copy")?;
    lab.compare(&did)?;
    for one in lab.collector.seen()?.iter().filter(|one| one.ids.iter().any(|id| id.ends_with("-in"))) {
        ensure!(one.bytes_sent > 500 * 15, "COPY's data is not counted: {one:?}");
    }
    Ok(())
}

fn cancelling_notifications_and_scram_work_and_are_recorded(lab: &mut Lab) -> Result<()> {
    let script = lab.pod(Pod::B).python("cancel", "psycopg_cancel.py", &[])?;
    let did = all(lab, vec![(Pod::B, script)])?;
    lab.compare(&did)?;
    let cancels = lab.collector.seen()?.into_iter().filter(|one| one.operation == Operation::Cancel).count();
    ensure!(cancels > 0, "the cancel request is not recorded");
    Ok(())
}

fn asyncpg_portals_binary_values_and_copy_are_recorded(lab: &mut Lab) -> Result<()> {
    let script = lab.pod(Pod::A).python("asyncpg", "asyncpg_commands.py", &[])?;
    let did = all(lab, vec![(Pod::A, script)])?;
    lab.compare(&did)
}

fn node_postgres_is_recorded(lab: &mut Lab) -> Result<()> {
    let script = lab.pod(Pod::A).node("node", "node_commands.mjs", &[])?;
    let did = all(lab, vec![(Pod::A, script)])?;
    lab.compare(&did)
}

fn psql_is_recorded_with_a_large_result(lab: &mut Lab) -> Result<()> {
    let template = verbatim_tests::clients::scripts().join("psql_commands.sql");
    let mut did = Vec::new();
    let mut running = Vec::new();
    for pod in Pod::ALL {
        let prefix = format!("{}-psql-", pod.letter());
        let script = std::fs::read_to_string(&template)?.replace('@', &prefix);
        let file = lab.ground.path(&format!("{prefix}commands.sql"));
        std::fs::write(&file, script)?;
        running.push(lab.pod(pod).psql(&format!("{prefix}run"), &["-f", &file.display().to_string()])?);
        did.extend(psql_did(&lab.principal(pod), &prefix));
    }
    for client in running {
        let ended = client.finish()?;
        ensure!(ended.stdout.len() > 200_000 * 100, "the large result is {} bytes", ended.stdout.len());
    }
    lab.compare(&did)
}

/// What psql sends of `psql_commands.sql`.
fn psql_did(principal: &str, prefix: &str) -> Vec<Did> {
    let id = |name: &str| format!("{prefix}{name}");
    let query = |name: &str, text: &str| Did::query(principal, &id(name), text.replace('@', prefix));
    vec![
        query("one", "SELECT 1 /* id:@one */;").rows(1),
        query("ten", "SELECT * FROM item WHERE id <= 10 /* id:@ten */;").rows(10),
        query("zero", "SELECT 1/0 /* id:@zero */;").failed("22012"),
        query("begin", "BEGIN /* id:@begin */;"),
        query("update", "UPDATE item SET name = 'x' WHERE id = 1 /* id:@update */;").rows(1),
        query("rollback", "ROLLBACK /* id:@rollback */;"),
        query("first", "SELECT 1 /* id:@first */;").rows(1),
        query("second", " SELECT 2 /* id:@second */;").rows(1),
        query("copy", "COPY item TO STDOUT /* id:@copy */;").rows(100),
        query("large", "SELECT generate_series(1, 200000), repeat('x', 100) /* id:@large */;").rows(200_000),
    ]
}

fn pgbench_is_recorded_once_per_transaction_in_every_mode(lab: &mut Lab) -> Result<()> {
    const CLIENTS: usize = 4;
    const EACH: usize = 100;
    let mut did = Vec::new();
    for (mode, operation) in
        [("simple", Operation::Query), ("extended", Operation::Execute), ("prepared", Operation::Execute)]
    {
        let id = format!("a-pgbench-{mode}");
        let file = lab.ground.path(&format!("{mode}.sql"));
        std::fs::write(
            &file,
            format!("\\set n random(1, 100)\nSELECT name FROM item WHERE id = :n /* vlab={id} */;\n"),
        )?;
        let (clients, each) = (CLIENTS.to_string(), EACH.to_string());
        let ended = lab
            .pod(Pod::A)
            .pgbench(
                &format!("pgbench-{mode}"),
                &[
                    "-n",
                    "-M",
                    mode,
                    "-c",
                    &clients,
                    "-j",
                    "2",
                    "-t",
                    &each,
                    "-f",
                    &file.display().to_string(),
                ],
            )?
            .finish()?;
        let expected = format!("number of transactions actually processed: {0}/{0}", CLIENTS * EACH);
        ensure!(ended.text().contains(&expected), "pgbench said {}", ended.text());
        let mut one = Did::query(&lab.principal(Pod::A), &id, "").rows(1).operation(operation);
        // In the simple mode the number is part of the text, in the others it is a parameter.
        one.statement = match operation {
            Operation::Execute => {
                Some(format!("SELECT name FROM item WHERE id = $1 /* vlab={id} */;").into())
            }
            _ => None,
        };
        did.extend(std::iter::repeat_n(one, CLIENTS * EACH));
    }
    lab.compare(&did)
}

fn large_objects_are_recorded_as_function_calls(lab: &mut Lab) -> Result<()> {
    let file = lab.ground.path("large-object");
    std::fs::write(&file, vec![7_u8; 100_000])?;
    let import = format!("\\lo_import {}", file.display());
    let ended = lab.pod(Pod::A).psql("lo_import", &["-c", &import])?.finish()?;
    ensure!(ended.text().contains("lo_import"), "psql said {}", ended.text());
    // All of it is libpq's own and carries no id; the server's log has each call by its OID.
    lab.compare(&[])?;
    let calls: Vec<_> =
        lab.collector.seen()?.into_iter().filter(|one| one.operation == Operation::FunctionCall).collect();
    ensure!(calls.len() > 4, "only {} function calls are recorded", calls.len());
    ensure!(calls.iter().all(|one| one.status == Status::Ok), "{calls:?}");
    let sent: u64 = calls.iter().map(|one| one.bytes_sent).sum();
    ensure!(sent > 100_000, "the calls' bytes are not counted: {sent}");
    Ok(())
}

fn connections_over_ipv6_are_recorded(lab: &mut Lab) -> Result<()> {
    let mut did = Vec::new();
    for pod in Pod::ALL {
        let id = format!("{}-v6", pod.letter());
        let text = format!("SELECT inet_server_addr() /* id:{id} */");
        let client = lab.pod(pod).with("PGHOST", DATABASE_V6);
        let ended = client.psql(&id, &["-Atc", &text])?.finish()?;
        ensure!(ended.text().trim() == DATABASE_V6, "connected to {}", ended.text());
        did.push(Did::query(&lab.principal(pod), &id, text).rows(1));
    }
    lab.compare(&did)?;
    for one in lab.collector.seen()? {
        ensure!(one.target.address == DATABASE_V6 && one.target.port == 5432, "{:?}", one.target);
    }
    Ok(())
}

fn the_command_line_says_what_the_service_says(lab: &mut Lab) -> Result<()> {
    let script = lab.pod(Pod::A).python("copy", "psycopg_copy.py", &[])?;
    let did = all(lab, vec![(Pod::A, script)])?;
    lab.agree(&did)?;
    let socket = lab.collector.audit_socket();
    let lines = cli::records(cli::Source::Socket(&socket))?;
    let seen = lab.collector.seen()?;
    ensure!(lines.len() == seen.len(), "{} lines for {} commands", lines.len(), seen.len());
    for (line, one) in lines.iter().zip(&seen) {
        let field =
            |name: &str| line.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        ensure!(field("principal") == one.principal, "{line}");
        ensure!(field("statement").as_bytes() == one.statement, "{line}");
        ensure!(
            field("status") == one.status.as_str_name().trim_start_matches("STATUS_").to_lowercase(),
            "{line}"
        );
        ensure!(line.get("rows").and_then(serde_json::Value::as_u64) == one.rows, "{line}");
    }
    let failed =
        cli::run(cli::Source::Socket(&socket), &["records", "--status", "error", "--output", "json"])?;
    let expected = did.iter().filter(|one| one.status == Status::Error).count();
    ensure!(failed.lines().count() == expected, "{expected} failures, but {failed}");
    let none = cli::run(
        cli::Source::Socket(&socket),
        &["records", "--principal", &lab.principal(Pod::B), "--output", "json"],
    )?;
    ensure!(none.is_empty(), "pod-b did nothing, but {none}");
    lab.compare(&did)
}

fn a_password_in_a_statement_is_nowhere_on_disk(lab: &mut Lab) -> Result<()> {
    const SECRET: &str = "correct-horse-battery";
    let text = format!("ALTER ROLE clerk PASSWORD '{SECRET}' /* id:a-password */");
    lab.pod(Pod::A).psql("password", &["-c", &text])?.finish()?;
    let mut did = Did::query(&lab.principal(Pod::A), "a-password", "");
    did.statement = None;
    lab.compare(&[did])?;
    let seen = lab.collector.seen()?;
    ensure!(seen.iter().all(|one| one.statement.starts_with(b"ALTER ROLE clerk PASSWORD ")), "{seen:?}");
    for folder in [lab.agent.spool(), lab.collector.folder().to_owned()] {
        let found = verbatim_tests::find::files_with(&folder, SECRET.as_bytes())?;
        ensure!(found.is_empty(), "the password is in {found:?}");
    }
    Ok(())
}
