//! What is steered and not decoded passes unharmed, and is recorded as just that.

use anyhow::{Context as _, Result, ensure};
use verbatim_api::v1::{Capture, OpaqueReason, Operation, Protocol, Session};
use verbatim_tests::{
    audit::Seen,
    did::Did,
    lab::Lab,
    network::{DATABASE, OTHER, Pod},
    parts::Part,
    peers, postgres, shell, wait,
};

use crate::scenario::{Scenario, usual};

const WITH_OPENSSL: &[Part] =
    &[Part::Root, Part::Sandbox, Part::Binaries, Part::Postgres, Part::Python, Part::Openssl, Part::Bpf];

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        usual!(tls_passes_and_its_server_name_is_recorded).needing(WITH_OPENSSL),
        usual!(a_protocol_whose_server_speaks_first_passes_and_is_recorded),
        usual!(a_postgresql_connection_that_asks_for_tls_passes_and_is_recorded).needing(WITH_OPENSSL),
        usual!(a_replication_connection_passes_and_is_recorded),
        usual!(a_connection_that_says_nothing_is_recorded),
        usual!(a_dial_that_is_refused_is_recorded_and_fails_for_the_client),
        usual!(a_server_that_closes_its_side_still_gets_everything),
        usual!(what_is_not_selected_is_not_steered),
    ]
}

/// Runs a raw client against a server beside the database.
fn raw(lab: &Lab, what: &str, host: &str, port: u16, argument: &str) -> Result<String> {
    let client = lab.pod(Pod::B).with("PGHOST", host).with("PGPORT", port.to_string());
    let ended = client.python(&format!("raw-{what}"), "raw.py", &[what, argument])?.finish()?;
    ensure!(ended.text().contains("done"), "{what}: {}", ended.text());
    Ok(ended.text())
}

/// Waits until the connections to a port are recorded as ended; returns the commands that stand for them.
pub(crate) fn connects(
    lab: &Lab,
    address: &str,
    port: u16,
    count: usize,
) -> Result<(Vec<Seen>, Vec<Session>)> {
    wait::until(&format!("{count} connection(s) to {address}:{port} in the records"), || {
        let there =
            |target: &verbatim_api::v1::Target| target.address == address && target.port == u32::from(port);
        let seen: Vec<Seen> = lab
            .collector
            .seen()?
            .into_iter()
            .filter(|one| one.operation == Operation::Connect && there(&one.target))
            .collect();
        let sessions: Vec<Session> = lab
            .collector
            .sessions()?
            .into_iter()
            .filter(|one| one.target.as_ref().is_some_and(there) && one.closed_wall_nanos != 0)
            .collect();
        ensure!(seen.len() <= count && sessions.len() <= count, "too many: {seen:?} {sessions:?}");
        Ok((seen.len() == count && sessions.len() == count).then_some((seen, sessions)))
    })
    .with_context(|| format!("recorded: {:?} {:?}", lab.collector.seen(), lab.collector.sessions()))
}

fn opaque(
    lab: &mut Lab,
    address: &str,
    port: u16,
    protocol: Protocol,
    reason: OpaqueReason,
) -> Result<(Seen, Session)> {
    let (mut seen, mut sessions) = connects(lab, address, port, 1)?;
    let (one, session) = (seen.remove(0), sessions.remove(0));
    ensure!(one.principal == lab.principal(Pod::B), "principal: {one:?}");
    ensure!(one.capture == Capture::SeenNotDecoded, "capture: {one:?}");
    ensure!(one.protocol == protocol, "protocol: {one:?}");
    ensure!(one.opaque_reason == reason, "reason: {one:?}");
    ensure!(session.principal == one.principal && session.opaque_reason() == reason, "{session:?}");
    lab.compare(&[])?;
    Ok((one, session))
}

fn tls_passes_and_its_server_name_is_recorded(lab: &mut Lab) -> Result<()> {
    let file = lab.ground.path("server.pem").display().to_string();
    let own = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=api.lab.example"];
    shell::run("openssl", &[&own[..], &["-keyout", &file, "-out", &format!("{file}.crt")]].concat())?;
    let both = std::fs::read_to_string(&file)? + &std::fs::read_to_string(format!("{file}.crt"))?;
    std::fs::write(&file, both)?;
    let _server = peers::start(&lab.ground, "tls", OTHER, 443, &file)?;
    raw(lab, "tls", OTHER, 443, "api.lab.example")?;
    let (one, _) = opaque(lab, OTHER, 443, Protocol::Tls, OpaqueReason::Tls)?;
    ensure!(one.target.host == "api.lab.example", "the server's name is {:?}", one.target.host);
    Ok(())
}

fn a_protocol_whose_server_speaks_first_passes_and_is_recorded(lab: &mut Lab) -> Result<()> {
    let _server = peers::start(&lab.ground, "banner", OTHER, 25, "")?;
    raw(lab, "banner", OTHER, 25, "")?;
    opaque(lab, OTHER, 25, Protocol::Unknown, OpaqueReason::ServerFirst).map(drop)
}

fn a_postgresql_connection_that_asks_for_tls_passes_and_is_recorded(lab: &mut Lab) -> Result<()> {
    let options = postgres::Options { tls: true, ..Default::default() };
    let server = lab.ground.postgres("postgres-tls", OTHER, options)?;
    let client = lab.pod(Pod::B).with("PGHOST", OTHER).with("PGSSLMODE", "require");
    let text = "SELECT 'over tls' /* id:b-tls */";
    let ended = client.psql("tls", &["-Atc", text])?.finish()?;
    ensure!(ended.text().trim() == "over tls", "psql said {}", ended.text());
    ensure!(server.complete_log()?.iter().any(|one| one.text == text), "the server did not see it");
    opaque(lab, OTHER, 5432, Protocol::Postgresql, OpaqueReason::Tls).map(drop)
}

fn a_replication_connection_passes_and_is_recorded(lab: &mut Lab) -> Result<()> {
    let client = lab.pod(Pod::B);
    let ended = client
        .psql("replication", &["-Atc", "IDENTIFY_SYSTEM", "dbname=shop replication=database"])?
        .finish()?;
    ensure!(ended.text().contains("shop"), "psql said {}", ended.text());
    let (_, session) = {
        let (mut seen, mut sessions) = connects(lab, DATABASE, 5432, 1)?;
        (seen.remove(0), sessions.remove(0))
    };
    ensure!(session.opaque_reason() == OpaqueReason::Replication, "{session:?}");
    ensure!(session.capture() == Capture::SeenNotDecoded, "{session:?}");
    Ok(())
}

fn a_connection_that_says_nothing_is_recorded(lab: &mut Lab) -> Result<()> {
    let _server = peers::start(&lab.ground, "echo", OTHER, 7, "")?;
    raw(lab, "silent", OTHER, 7, "")?;
    opaque(lab, OTHER, 7, Protocol::Unknown, OpaqueReason::Silent).map(drop)
}

fn a_dial_that_is_refused_is_recorded_and_fails_for_the_client(lab: &mut Lab) -> Result<()> {
    // An address in the VPC where nobody listens.
    raw(lab, "refused", OTHER, 5999, "")?;
    // Nothing was exchanged: there is no protocol to speak of.
    opaque(lab, OTHER, 5999, Protocol::Unspecified, OpaqueReason::DialFailed).map(drop)
}

fn a_server_that_closes_its_side_still_gets_everything(lab: &mut Lab) -> Result<()> {
    let mut server = peers::start(&lab.ground, "half_close", OTHER, 26, "")?;
    raw(lab, "server_half_closes", OTHER, 26, "")?;
    server.wait_for_output("counted 100000")?;
    opaque(lab, OTHER, 26, Protocol::Unknown, OpaqueReason::ServerFirst).map(drop)
}

/// The database's own processes are in the same tree and network; what they connect to is their business.
fn what_is_not_selected_is_not_steered(lab: &mut Lab) -> Result<()> {
    let text = "SELECT 1 /* id:a-selected */";
    lab.server.admin("shop", "SELECT 'not selected'")?;
    lab.pod(Pod::A).psql("selected", &["-c", text])?.finish()?;
    lab.compare(&[Did::query(&lab.principal(Pod::A), "a-selected", text).rows(1)])?;
    let sessions = lab.collector.sessions()?;
    ensure!(sessions.len() == 1, "{sessions:?}");
    Ok(())
}
