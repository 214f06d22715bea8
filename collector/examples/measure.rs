//! Measures what the collector is built around: acknowledgements under group commit, rows into the index,
//! answers over many records.
//!
//! `cargo run --release -p verbatim-collector --example measure -- [records] [folder]`

#![allow(clippy::print_stdout, reason = "a measurement speaks to its reader")]

#[path = "../tests/collector/support/node.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod node;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::transport::{Channel, Endpoint};
use verbatim_api::v1::{self, audit_client::AuditClient, ingest_client::IngestClient};
use verbatim_collector::config::{Address, Config};

use node::Node;

/// Records of a batch.
const BATCH: usize = 500;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let records: usize = arguments.next().map_or(Ok(2_000_000), |a| a.parse())?;
    let folder = match arguments.next() {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let place = |name: &str| Address::Unix(folder.path().join(name));
    let config = Config::embedded(folder.path().join("data"), place("ingest"), place("audit"), &[]);
    let collector = verbatim_collector::start(&config).await?;
    let mut audit = AuditClient::new(connect(&folder.path().join("audit")).await?);

    let mut sent = 0;
    for writers in [1, 4] {
        let each = records / 2 / writers / BATCH;
        let batches: Vec<Vec<v1::AppendRequest>> =
            (0..writers).map(|w| chain(w as u64 + sent, each)).collect();
        sent += writers as u64;
        let total: usize = batches.iter().flatten().map(|b| b.entries.len()).sum();
        let begun = Instant::now();
        let mut tasks = Vec::new();
        for batches in batches {
            tasks.push(tokio::spawn(write(folder.path().join("ingest"), batches)));
        }
        let mut waits = Vec::new();
        for task in tasks {
            waits.extend(task.await??);
        }
        let took = begun.elapsed();
        waits.sort();
        println!(
            "acknowledged, {writers} writer(s), {BATCH} a batch: {:.0} records/s; p50 {:.1} ms, p99 {:.1} ms",
            total as f64 / took.as_secs_f64(),
            millis(waits[waits.len() / 2]),
            millis(waits[waits.len() * 99 / 100]),
        );
    }
    wait(&mut audit).await?;
    let log = size(&folder.path().join("data/log"))?;
    let index = size(&folder.path().join("data"))? - log;
    println!("log {} B a record, index {} B a row", log / records as u64, index * 2 / records as u64);
    ask(&mut audit).await?;
    collector.shut_down().await?;

    std::fs::remove_file(folder.path().join("data/index.sqlite"))?;
    let begun = Instant::now();
    let collector = verbatim_collector::start(&config).await?;
    println!("start without an index: listening after {:.0} ms", millis(begun.elapsed()));
    let mut audit = AuditClient::new(connect(&folder.path().join("audit")).await?);
    wait(&mut audit).await?;
    let (took, busy) = (begun.elapsed().as_secs_f64(), cpu_seconds("indexer")?);
    let rows = records as f64 / 2.0;
    println!(
        "index made again: {rows:.0} rows in {took:.1} s, {:.0} rows/s; {busy:.1} s of CPU, {:.0} rows a CPU second",
        rows / took,
        rows / busy
    );
    collector.shut_down().await?;
    Ok(())
}

async fn connect(socket: &Path) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("unix:{}", socket.display()))?.connect().await?)
}

/// Batches of one node: commands of twenty principals, spread over ten hours.
fn chain(seed: u64, batches: usize) -> Vec<v1::AppendRequest> {
    let mut node = Node::new();
    let step = 36_000 * 1_000_000_000 / (batches * BATCH).max(1) as u64;
    (0..batches)
        .map(|batch| {
            for n in 0..BATCH as u64 / 2 {
                let number = batch as u64 * 250 + n;
                node.wall += 2 * step;
                node.workload.principal = format!("principal://pool/subject/ns/shop/sa/app{}", number % 20);
                let statement = format!(
                    "SELECT balance, owner FROM accounts{} WHERE id = {number} AND region = 'r{}' -- {seed}",
                    number % 50,
                    number % 1000
                );
                node.command(&[], &statement);
            }
            node.batch()
        })
        .collect()
}

/// Sends batches with eight under way; returns the time that each waited for its acknowledgement.
async fn write(socket: std::path::PathBuf, batches: Vec<v1::AppendRequest>) -> Result<Vec<Duration>> {
    let mut client = IngestClient::new(connect(&socket).await?);
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let (begun, mut begins) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        for batch in batches {
            if begun.send(Instant::now()).await.is_err() || sender.send(batch).await.is_err() {
                return;
            }
        }
    });
    let mut answers = client.append(ReceiverStream::new(receiver)).await?.into_inner();
    let mut waits = Vec::new();
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        anyhow::ensure!(answer.findings.is_empty(), "findings: {answer:?}");
        let begun: Instant = begins.recv().await.context("an answer too many")?;
        waits.push(begun.elapsed());
    }
    Ok(waits)
}

async fn wait(audit: &mut AuditClient<Channel>) -> Result<()> {
    loop {
        let request = v1::SearchRequest { page_size: 1, at_least_position: u64::MAX, ..Default::default() };
        match audit.search(request).await {
            Ok(_) => return Ok(()),
            Err(e) if e.code() == tonic::Code::DeadlineExceeded => {}
            Err(e) => return Err(e.into()),
        }
    }
}

async fn ask(audit: &mut AuditClient<Channel>) -> Result<()> {
    let hour = 3_600_000_000_000;
    let text = |text: &str| v1::Filter { text: text.to_owned(), ..v1::Filter::default() };
    let principal = "principal://pool/subject/ns/shop/sa/app7".to_owned();
    let questions = [
        ("newest 100", v1::Filter::default()),
        ("newest 100 with a common text", text("balance")),
        ("newest 100 with a text in 1 of 50", text("accounts17")),
        ("newest 100 with two texts, 1 of 1000", text("accounts17 r17")),
        ("newest 100 with a text that is nowhere", text("nowhere")),
        ("newest 100 of a principal", v1::Filter { principal: principal.clone(), ..Default::default() }),
        (
            "100 of a principal in one hour",
            v1::Filter {
                principal,
                from_wall_nanos: node::EPOCH + 3 * hour,
                to_wall_nanos: node::EPOCH + 4 * hour,
                ..Default::default()
            },
        ),
        (
            "errors (there are none)",
            v1::Filter { statuses: vec![v1::Status::Error.into()], ..Default::default() },
        ),
    ];
    for (name, filter) in questions {
        let mut times = Vec::new();
        let mut found = 0;
        for _ in 0..15 {
            let request = v1::SearchRequest { filter: Some(filter.clone()), ..Default::default() };
            let begun = Instant::now();
            found = audit.search(request).await?.into_inner().commands.len();
            times.push(begun.elapsed());
        }
        times.sort();
        println!("{name}: p50 {:.1} ms, worst {:.1} ms, {found} found", millis(times[7]), millis(times[14]));
    }
    Ok(())
}

/// CPU time of a thread of this process: what is left of a rate when others use the machine as well.
fn cpu_seconds(thread: &str) -> Result<f64> {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim() == thread {
            let stat = std::fs::read_to_string(task.join("stat"))?;
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            ticks += fields.get(11).context("utime")?.parse::<u64>()?
                + fields.get(12).context("stime")?.parse::<u64>()?;
        }
    }
    // USER_HZ is 100 on every architecture that Linux runs on here.
    Ok(ticks as f64 / 100.0)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn size(path: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        total += if entry.path().is_dir() { size(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(total)
}
