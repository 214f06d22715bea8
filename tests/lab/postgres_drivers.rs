//! Drivers of PostgreSQL in other languages, and TLS without asking for it, as far as they go beyond what libpq and
//! those on top of it do: each over TLS on both legs, and without.

use anyhow::{Context as _, Result, ensure};
use verbatim_api::v1::{Capture, OpaqueReason, Operation};
use verbatim_tests::{
    agent::Options,
    did::{self, Did},
    find, google,
    lab::Lab,
    network::Pod,
    parts::Part,
    postgres::{self, Offers},
    process::Process,
    wait,
};

use crate::{
    postgres_tls::{SECRET, client, mine, over_tls, sessions},
    scenario::{Scenario, needs, usual},
};

const WITH_PGX: &[Part] = needs!(Pgx);
pub(crate) const WITH_JDBC: &[Part] = needs!(Java, Jdbc);
const WITH_NEWER: &[Part] = needs!(Python, NewerPostgres);
const JDBC_WITH_NEWER: &[Part] = needs!(NewerPostgres, Java, Jdbc);

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        usual!(everything_that_pgx_does_is_recorded_over_tls).needing(WITH_PGX).with(over_tls),
        usual!(everything_that_jdbc_does_is_recorded_over_tls).needing(WITH_JDBC).with(over_tls),
        usual!(pgx_that_trusts_only_the_servers_root_loses_one_connection).needing(WITH_PGX).with(over_tls),
        usual!(jdbc_that_trusts_only_the_servers_root_loses_one_connection).needing(WITH_JDBC).with(over_tls),
        usual!(direct_tls_of_libpq_is_recorded).needing(WITH_NEWER).with(directly),
        usual!(direct_tls_of_jdbc_is_recorded).needing(JDBC_WITH_NEWER).with(directly),
    ]
}

fn directly() -> Options {
    Options { google: Some(google::Options::default()), database: Offers::DirectTls, ..Options::default() }
}

/// Reads what a client did, and compares. No password may be anywhere.
fn agrees(lab: &mut Lab, output: &str) -> Result<Vec<Did>> {
    let did = did::read(output, &lab.principal(Pod::A))?;
    ensure!(!did.is_empty(), "the client did nothing");
    lab.compare(&did)?;
    for folder in [lab.agent.spool(), lab.collector.folder().to_owned()] {
        let found = find::files_with(&folder, SECRET.as_bytes())?;
        ensure!(found.is_empty(), "the password is in {found:?}");
    }
    Ok(did)
}

fn cancels(lab: &Lab) -> Result<usize> {
    Ok(lab.collector.seen()?.into_iter().filter(|one| one.operation == Operation::Cancel).count())
}

/// pgx asks to cancel on a connection without TLS: toward the server it has TLS all the same.
fn everything_that_pgx_does_is_recorded_over_tls(lab: &mut Lab) -> Result<()> {
    let ended = client(lab, "prefer")?.pgx("pgx", &[])?.finish()?;
    agrees(lab, &ended.text())?;
    ensure!(cancels(lab)? > 0, "no cancelling is recorded");
    Ok(())
}

fn everything_that_jdbc_does_is_recorded_over_tls(lab: &mut Lab) -> Result<()> {
    let ended = client(lab, "prefer")?.jdbc("jdbc", &[])?.finish()?;
    agrees(lab, &ended.text())?;
    ensure!(cancels(lab)? > 0, "no cancelling is recorded");
    Ok(())
}

fn pgx_that_trusts_only_the_servers_root_loses_one_connection(lab: &mut Lab) -> Result<()> {
    let clients = client(lab, "verify-full")?;
    loses_one(lab, |name, arguments| clients.pgx(name, arguments), &["bad_certificate"]).map(drop)
}

fn jdbc_that_trusts_only_the_servers_root_loses_one_connection(lab: &mut Lab) -> Result<()> {
    let clients = client(lab, "verify-full")?;
    loses_one(lab, |name, arguments| clients.jdbc(name, arguments), &["certificate_unknown"]).map(drop)
}

/// `asks` runs a client with the server's own root and a statement; any of `refusals` may be how it refuses ours. What
/// it says the second time.
pub(crate) fn loses_one(
    lab: &mut Lab,
    asks: impl Fn(&str, &[&str]) -> Result<Process>,
    refusals: &[&str],
) -> Result<String> {
    let root = lab.google()?.root().certificate().display().to_string();
    let lost = asks("first", &[&root, "SELECT 1 /* id:a-first */"])?.wait()?;
    ensure!(!lost.status.success(), "it took a certificate of ours");
    let recorded = |count: usize| {
        wait::until(&format!("{count} connection(s) to be recorded"), || {
            let mut seen = lab.collector.seen()?;
            seen.retain(|one| one.operation == Operation::Connect);
            Ok((seen.len() == count).then_some(seen))
        })
    };
    // How it refuses us can be read after its end, and another shard may have the second.
    recorded(1)?;
    let text = "SELECT 2 /* id:a-second */";
    let second = asks("second", &[&root, text])?.finish()?.text();
    let seen = recorded(2)?;
    for one in &seen {
        ensure!(one.opaque_reason == OpaqueReason::ClientDoesNotTrustUs, "{one:?}");
        ensure!(one.capture == Capture::SeenNotDecoded, "{one:?}");
        ensure!(one.principal == lab.principal(Pod::A), "{one:?}");
    }
    let first = seen.first().and_then(|one| one.tls.clone()).context("no TLS")?;
    ensure!(refusals.contains(&&*first.refusal), "{first:?}");
    let logged: Vec<String> = lab.server.complete_log()?.into_iter().map(|one| one.text).collect();
    ensure!(logged.iter().any(|one| one == text), "the server's log has {logged:?}");
    ensure!(!logged.iter().any(|one| one.contains("a-first")), "the server's log has {logged:?}");
    Ok(second)
}

fn direct_tls_of_libpq_is_recorded(lab: &mut Lab) -> Result<()> {
    let clients = client(lab, "require")?;
    let mut output = clients.python("direct", "direct_tls.py", &[])?.finish()?.text();
    let newer = postgres::newer().context("there is no newer PostgreSQL")?;
    let text = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid() /* id:a-psql */";
    let ended =
        clients.with("PGSSLNEGOTIATION", "direct").psql_with(&newer, "psql", &["-Atc", text])?.finish()?;
    ensure!(ended.text().trim() == "t", "psql said {}", ended.text());
    output.push('\n');
    let mut did = did::read(&output, &lab.principal(Pod::A))?;
    did.push(mine(lab, "a-psql", text).rows(1));
    lab.compare(&did)?;
    ensure!(cancels(lab)? > 1, "cancelling is not recorded for either version of the protocol");
    alpn_on_both_legs(lab)
}

fn direct_tls_of_jdbc_is_recorded(lab: &mut Lab) -> Result<()> {
    let ended = client(lab, "require")?.jdbc("direct", &["direct"])?.finish()?;
    agrees(lab, &ended.text())?;
    alpn_on_both_legs(lab)
}

/// Direct TLS must name its protocol (PostgreSQL manual, 54.2.11): what says that there was no SSLRequest.
fn alpn_on_both_legs(lab: &Lab) -> Result<()> {
    for one in sessions(lab, 1)? {
        let tls = one.tls.clone().with_context(|| format!("no TLS: {one:?}"))?;
        for leg in [tls.client, tls.server] {
            ensure!(leg.unwrap_or_default().alpn == "postgresql", "{one:?}");
        }
    }
    Ok(())
}
