//! What appending costs: nanoseconds per record, in process mode, with a started and a finished record per
//! command, while a shipper reads and acknowledges. And what a start costs after a crash that left as many.
//!
//! `cargo run --release -p verbatim-spool --example append [RECORDS]`

#![allow(clippy::print_stdout, reason = "an example prints what it found")]

use std::time::{Duration, Instant};

use verbatim_api::v1;
use verbatim_spool::{AppendError, Draft, SpoolConfig, SyncMode, WhenFull};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let records: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |n| n.parse())?;
    let directory = std::env::temp_dir().join(format!("verbatim-append-{}", std::process::id()));
    let mut opened = verbatim_spool::open(&config(&directory), 1)?;
    let mut outbox = opened.outboxes.remove(0);
    let shipper = std::thread::spawn(move || {
        let mut shipped = 0;
        while !outbox.drained() {
            match outbox.next_batch(1000, 1 << 20) {
                Ok(Some(batch)) => {
                    shipped += batch.entries.len();
                    let last = batch.first_sequence + batch.entries.len() as u64 - 1;
                    outbox.acknowledge(&batch.chain_id, last);
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("{error}"),
            }
        }
        shipped
    });
    let spool = opened.spools.remove(0);
    let mut command = vec![7; 16];
    let before = Spent::now();
    for n in 0..records {
        drop(std::hint::black_box(draft(n, &command)));
    }
    let building = before.until_now();
    let (mut slowest, mut waited) = (Duration::ZERO, 0_u64);
    let before = Spent::now();
    for n in 0..records {
        let mut again = draft(n, &command);
        loop {
            let at = Instant::now();
            match spool.append(again) {
                Ok(appended) => {
                    slowest = slowest.max(at.elapsed());
                    command.copy_from_slice(&appended.record_id);
                    break;
                }
                Err(AppendError::Full) => {
                    waited += 1;
                    again = draft(n, &command);
                    std::thread::sleep(Duration::from_micros(200));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    let all = before.until_now();
    spool.close();
    let shipped = shipper.join().map_err(|_panic| "the shipper panicked")?;
    drop(opened);
    std::fs::remove_dir_all(&directory)?;
    let per = |duration: Duration| duration.as_nanos() / u128::from(records);
    let appending = all.cpu.saturating_sub(building.cpu);
    println!(
        "processor time of the shard's thread, per record: append {} ns, build a draft {} ns",
        per(appending),
        per(building.cpu)
    );
    println!("elapsed, per record: {} ns in all; slowest append {slowest:?}", per(all.elapsed));
    println!("both clocks: {} ns", clocks().as_nanos());
    println!("{records} records, waited for room {waited} times, shipped {shipped}");
    recovery(&directory, records)
}

/// Leaves everything behind unshipped, and starts again.
fn recovery(directory: &std::path::Path, records: u64) -> Result<(), Box<dyn std::error::Error>> {
    let opened = verbatim_spool::open(&config(directory), 1)?;
    for n in 0..records {
        opened.spools[0].append(draft(n, &[7; 16]))?;
    }
    drop(opened);
    let at = Instant::now();
    let opened = verbatim_spool::open(&config(directory), 1)?;
    println!("start after a crash: {:?}, {:?}", at.elapsed(), opened.recovered);
    drop(opened);
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

fn clocks() -> Duration {
    let before = Spent::now();
    for _ in 0..1_000_000 {
        std::hint::black_box((verbatim_sys::clock::wall_nanos(), verbatim_sys::clock::boottime_nanos()));
    }
    before.until_now().cpu / 1_000_000
}

/// Time, by the clock and by the processor.
#[derive(Clone, Copy)]
struct Spent {
    elapsed: Duration,
    cpu: Duration,
}

impl Spent {
    fn now() -> Self {
        let nanos = |clock| {
            let time = rustix::time::clock_gettime(clock);
            Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
        };
        use rustix::time::ClockId;
        Self { elapsed: nanos(ClockId::Monotonic), cpu: nanos(ClockId::ThreadCPUTime) }
    }

    fn until_now(self) -> Self {
        let now = Self::now();
        Self { elapsed: now.elapsed - self.elapsed, cpu: now.cpu - self.cpu }
    }
}

fn draft(n: u64, command: &[u8]) -> Draft {
    if n.is_multiple_of(2) { started() } else { finished(command) }
}

fn config(directory: &std::path::Path) -> SpoolConfig {
    SpoolConfig {
        directory: directory.to_owned(),
        sync: SyncMode::Process,
        segment_bytes: 8 << 20,
        limit_bytes: 1 << 30,
        when_full: WhenFull::Stop,
        head_interval: Duration::from_millis(100),
        node: "node-1".into(),
    }
}

fn started() -> Draft {
    Draft {
        envelope: v1::Envelope {
            kind: v1::RecordKind::Started.into(),
            flow_id: vec![5; 16],
            workload: Some(v1::Workload {
                principal_kind: v1::PrincipalKind::Local.into(),
                pod_name: "pgbench-0".into(),
                namespace: "shop".into(),
                service_account: "orders".into(),
                node: "node-1".into(),
                cgroup_id: 4711,
                ..Default::default()
            }),
            protocol: v1::Protocol::Postgresql.into(),
            operation: v1::Operation::Query.into(),
            capture: v1::Capture::Decoded.into(),
            decision: v1::Decision::Allowed.into(),
            status: v1::Status::Pending.into(),
            ..Default::default()
        },
        content: Some(v1::Content {
            statement: Some(v1::Statement {
                text: b"SELECT abalance FROM pgbench_accounts WHERE aid = 4711;".to_vec(),
                full_length: 55,
                ..Default::default()
            }),
            target: Some(v1::Target {
                service: "postgresql".into(),
                address: "10.0.0.5".into(),
                port: 5432,
                database: "bench".into(),
                user: "postgres".into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
    }
}

fn finished(command: &[u8]) -> Draft {
    Draft {
        envelope: v1::Envelope {
            kind: v1::RecordKind::Finished.into(),
            flow_id: vec![5; 16],
            command_id: command.to_vec(),
            status: v1::Status::Ok.into(),
            rows: Some(1),
            duration_nanos: 100_000,
            bytes_sent: 60,
            bytes_received: 80,
            ..Default::default()
        },
        content: Some(v1::Content { command_tag: "SELECT 1".into(), ..Default::default() }),
    }
}
