//! The record format, frozen: the same records give the same bytes as ever, and the bytes of ever are read.
//! `docs/record-format.md` explains them. `VERBATIM_GOLDEN=write cargo test -p verbatim-spool --test golden`
//! writes the files anew: a change of them is a change of the format.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of a test fail it, and it says what it skips"
)]

mod fixed;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use prost::Message;
use verbatim_api::{chain, v1};
use verbatim_spool::Draft;

use fixed::open;

fn started() -> Draft {
    Draft {
        envelope: v1::Envelope {
            kind: v1::RecordKind::Started.into(),
            flow_id: (0..16).collect(),
            workload: Some(v1::Workload {
                principal_kind: v1::PrincipalKind::Federated.into(),
                principal: "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/subject/ns/shop/sa/orders".into(),
                namespace: "shop".into(),
                service_account: "orders".into(),
                pod_name: "orders-0".into(),
                pod_uid: "8a6c3f6e-0000-4000-8000-000000000001".into(),
                container: "app".into(),
                node: "node-1".into(),
                cgroup_id: 4711,
            ..v1::Workload::default()
            }),
            protocol: v1::Protocol::Postgresql.into(),
            operation: v1::Operation::Execute.into(),
            capture: v1::Capture::Decoded.into(),
            decision: v1::Decision::Held.into(),
            policy_mode: v1::PolicyMode::Enforce.into(),
            policy_version: "7".into(),
            status: v1::Status::Pending.into(),
            transaction_state: v1::TransactionState::InTransaction.into(),
            ..Default::default()
        },
        content: Some(v1::Content {
            statement: Some(v1::Statement {
                text: b"delete from orders where id = $1".to_vec(),
                full_length: 32,
                statement_name: b"s1".to_vec(),
                ..Default::default()
            }),
            parameters: vec![v1::Parameter {
                type_oid: 23,
                format: v1::ParameterFormat::Binary.into(),
                value: Some(vec![0, 0, 0, 42]),
                rendered: "42".into(),
                full_length: 4,
                ..Default::default()
            }],
            target: Some(v1::Target {
                service: "postgresql".into(),
                address: "10.0.0.5".into(),
                port: 5432,
                database: "shop".into(),
                user: "orders".into(),
                ..Default::default()
            }),
            client: Some(v1::Client { pid: 4242, uid: 1000, comm: "app".into(), ..Default::default() }),
            attributes: vec![v1::Attribute { name: "application_name".into(), value: b"orders".to_vec() }],
            ..Default::default()
        }),
    }
}

fn decided(command: [u8; 16]) -> Draft {
    Draft {
        envelope: v1::Envelope {
            kind: v1::RecordKind::Decided.into(),
            command_id: command.to_vec(),
            decision: v1::Decision::Allowed.into(),
            policy_mode: v1::PolicyMode::Enforce.into(),
            policy_version: "7".into(),
            ..Default::default()
        },
        content: Some(v1::Content {
            verdict: Some(v1::Verdict {
                policies: vec!["deletes-need-approval".into()],
                reason: "ticket 17".into(),
                approval_id: "a-1".into(),
                approver: "alice@example.com".into(),
            }),
            ..Default::default()
        }),
    }
}

fn finished(command: [u8; 16]) -> Draft {
    Draft {
        envelope: v1::Envelope {
            kind: v1::RecordKind::Finished.into(),
            command_id: command.to_vec(),
            status: v1::Status::Ok.into(),
            duration_nanos: 2_000_000,
            rows: Some(1),
            bytes_sent: 71,
            bytes_received: 20,
            ..Default::default()
        },
        content: Some(v1::Content { command_tag: "DELETE 1".into(), ..Default::default() }),
    }
}

/// Two runs: one that dies with a command under way, and its successor, which is drained.
fn make() -> BTreeMap<&'static str, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("shard-0");
    let first = open(dir.path(), 0);
    let spool = &first.spools[0];
    let command = spool.append(started()).unwrap().record_id;
    spool.append(decided(command)).unwrap();
    spool.append(finished(command)).unwrap();
    spool.sign();
    spool.append(started()).unwrap();
    let dead = spool.chain_id();
    drop(first);

    let mut second = open(dir.path(), 1);
    let successor = second.spools[0].chain_id();
    second.spools.remove(0).close();
    let segment = |chain: &[u8]| fs::read(folder.join(format!("{}-00000000.seg", hex(chain)))).unwrap();
    let mut files = BTreeMap::new();
    files.insert("dead.seg", segment(&dead));
    files.insert("dead.heads", fs::read(folder.join(format!("{}.heads", hex(&dead)))).unwrap());
    files.insert("successor.seg", segment(&successor));
    let mut batches = Vec::new();
    while let Some(batch) = second.outboxes[0].next_batch(5, 1 << 20).unwrap() {
        batches.push(batch);
    }
    let [signed, rest, drained] = &batches[..] else { panic!("{} batches", batches.len()) };
    files.insert("batch.bin", signed.encode_to_vec());
    files.insert("recovered-batch.bin", rest.encode_to_vec());
    files.insert("successor-batch.bin", drained.encode_to_vec());
    // Opening and key come first.
    let entry = &signed.entries[2];
    files.insert("envelope.bin", entry.envelope.to_vec());
    files.insert("content.bin", entry.content.to_vec());
    files.insert("frame.bin", frame_with(&files["dead.seg"], &entry.envelope));
    files
}

/// The frame that holds an envelope.
fn frame_with(segment: &[u8], envelope: &[u8]) -> Vec<u8> {
    let at = segment.windows(envelope.len()).position(|window| window == envelope).unwrap() - 16;
    let length = u32::from_be_bytes(segment[at..at + 4].try_into().unwrap()) as usize;
    segment[at..at + (12 + length).next_multiple_of(4)].to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/record-format")
}

/// What the files say, for a reader and for programs in other languages.
fn describe(files: &BTreeMap<&str, Vec<u8>>) -> String {
    let batch = v1::AppendRequest::decode(&files["batch.bin"][..]).unwrap();
    let rest = v1::AppendRequest::decode(&files["recovered-batch.bin"][..]).unwrap();
    let head = batch.head.unwrap();
    let recovery = rest.head.unwrap();
    let lines = [
        ("chain_id", hex(&batch.chain_id)),
        ("key_seed", hex(&[1; 32])),
        ("public_key", hex(&head.public_key)),
        ("successor_key_seed", hex(&[2; 32])),
        ("successor_public_key", hex(&recovery.public_key)),
        (
            "h_before_first",
            hex(&chain::open(&batch.chain_id.clone().try_into().unwrap(), &chain::NO_PREDECESSOR)),
        ),
        ("head_hash", hex(&head.hash)),
        ("head_signature", hex(&head.signature)),
        ("recovery_head_hash", hex(&recovery.hash)),
        ("recovery_head_signature", hex(&recovery.signature)),
        ("envelope_sha256_of_content", hex(&chain::content_commitment(&files["content.bin"]))),
    ];
    let numbers = [
        ("head_sequence", head.sequence),
        ("head_wall_nanos", head.wall_nanos),
        ("recovery_head_sequence", recovery.sequence),
        ("recovery_head_wall_nanos", recovery.wall_nanos),
    ];
    let mut fields: Vec<_> = lines.iter().map(|(name, value)| format!("  \"{name}\": \"{value}\"")).collect();
    fields.extend(numbers.iter().map(|(name, value)| format!("  \"{name}\": {value}")));
    format!("{{\n{}\n}}\n", fields.join(",\n"))
}

#[test]
fn the_same_records_give_the_same_bytes_as_ever() {
    let mut files = make();
    files.insert("golden.json", describe(&files).into_bytes());
    for (name, bytes) in &files {
        let path = folder().join(name);
        if std::env::var_os("VERBATIM_GOLDEN").is_some_and(|value| value == "write") {
            fs::write(&path, bytes).unwrap();
        }
        let golden = fs::read(&path).unwrap();
        assert!(golden == *bytes, "{name} differs: the record format has changed");
    }
}

#[test]
fn the_bytes_of_ever_are_read_and_verified() {
    let read = |name: &str| fs::read(folder().join(name)).unwrap();
    let envelope = v1::Envelope::decode(&read("envelope.bin")[..]).unwrap();
    assert_eq!(envelope.encode_to_vec(), read("envelope.bin"), "no field is unknown");
    assert_eq!(envelope.content_sha256, chain::content_commitment(&read("content.bin")));
    let content = v1::Content::decode(&read("content.bin")[..]).unwrap();
    assert_eq!(content.encode_to_vec(), read("content.bin"));
    assert_eq!(content.statement.unwrap().text, b"delete from orders where id = $1");

    let mut hash = None;
    for name in ["batch.bin", "recovered-batch.bin", "successor-batch.bin"] {
        let batch = v1::AppendRequest::decode(&read(name)[..]).unwrap();
        let id = batch.chain_id.clone().try_into().unwrap();
        if batch.first_sequence == 0 {
            hash = Some(chain::open(&id, &hash.unwrap_or(chain::NO_PREDECESSOR)));
        }
        for entry in &batch.entries {
            hash = hash.map(|previous| chain::link(&previous, &entry.envelope));
        }
        let head = batch.head.unwrap();
        assert_eq!(hash.unwrap()[..], head.hash, "{name}");
        let message = chain::head_message(&id, head.sequence, &hash.unwrap(), head.wall_nanos);
        UnparsedPublicKey::new(&ED25519, &head.public_key).verify(&message, &head.signature).unwrap();
        assert_eq!(head.recovery, name == "recovered-batch.bin");
    }
}

#[test]
fn a_spool_of_ever_is_recovered() {
    let dir = tempfile::tempdir().unwrap();
    let shard = dir.path().join("shard-0");
    fs::create_dir(&shard).unwrap();
    let golden = fs::read(folder().join("dead.seg")).unwrap();
    let chain = hex(&golden[12..28]);
    fs::write(shard.join(format!("{chain}-00000000.seg")), golden).unwrap();
    let mut opened = open(dir.path(), 1);
    assert_eq!((opened.recovered.chains, opened.recovered.ended), (1, 1));
    let batch = opened.outboxes[0].next_batch(5, 1 << 20).unwrap().unwrap();
    assert_eq!(batch.encode_to_vec(), fs::read(folder().join("batch.bin")).unwrap());
    let batch = opened.outboxes[0].next_batch(5, 1 << 20).unwrap().unwrap();
    assert_eq!(batch.encode_to_vec(), fs::read(folder().join("recovered-batch.bin")).unwrap());
}

/// The documentation's own program, on the documentation's own files.
#[test]
fn the_documented_formulas_lead_to_the_golden_heads() {
    let text = fs::read_to_string(folder().join("../record-format.md")).unwrap();
    let program = text.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    if !verbatim_missing::has("python3") {
        return;
    }
    let run = |name: &str| Command::new("python3").arg("-c").arg(program).arg(folder().join(name)).output();
    let output = run("dead.seg").unwrap();
    let golden = describe_file();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("head 4 {}", golden["head_hash"])), "{text}");
    assert!(text.contains(&format!("last 5 {}", golden["recovery_head_hash"])), "{text}");

    let damaged = tempfile::NamedTempFile::new().unwrap();
    let mut bytes = fs::read(folder().join("dead.seg")).unwrap();
    bytes[200] ^= 1;
    fs::write(damaged.path(), bytes).unwrap();
    let output = run(damaged.path().to_str().unwrap()).unwrap();
    assert!(!String::from_utf8(output.stdout).unwrap().contains("head 4"), "the program believes anything");
}

fn describe_file() -> BTreeMap<String, String> {
    let text = fs::read_to_string(folder().join("golden.json")).unwrap();
    let fields = text.lines().filter_map(|line| line.trim().trim_end_matches(',').split_once(": "));
    fields
        .map(|(name, value)| (name.trim_matches('"').to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}
