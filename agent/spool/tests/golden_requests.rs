//! The record format of requests over HTTP, frozen as `golden.rs` freezes the rest: one chain with a job, a request
//! that goes on with it, the job's end, and the connection's.
//! `VERBATIM_GOLDEN=write cargo test -p verbatim-spool --test golden_requests` writes the file anew.

#![allow(clippy::unwrap_used, reason = "helpers of a test fail it")]

mod fixed;

use std::{fs, path::Path};

use prost::Message;
use verbatim_api::{chain, v1};
use verbatim_spool::Draft;

fn attribute(name: &str, value: &str) -> v1::Attribute {
    v1::Attribute { name: name.to_owned(), value: value.into() }
}

fn envelope(kind: v1::RecordKind, operation: v1::Operation) -> v1::Envelope {
    v1::Envelope {
        kind: kind.into(),
        flow_id: (0..16).collect(),
        protocol: v1::Protocol::Http2.into(),
        operation: operation.into(),
        ..v1::Envelope::default()
    }
}

fn started(operation: v1::Operation, target: v1::Target) -> Draft {
    let envelope = v1::Envelope {
        capture: v1::Capture::Decoded.into(),
        decision: v1::Decision::Allowed.into(),
        status: v1::Status::Pending.into(),
        ..envelope(v1::RecordKind::Started, operation)
    };
    let target = v1::Target {
        service: "bigquery".into(),
        address: "199.36.153.8".into(),
        port: 443,
        host: "bigquery.googleapis.com".into(),
        ..target
    };
    Draft { envelope, content: Some(v1::Content { target: Some(target), ..v1::Content::default() }) }
}

fn job() -> Draft {
    let mut job = started(
        v1::Operation::Query,
        v1::Target {
            method: "bigquery.jobs.insert".into(),
            resource: "projects/shop/jobs/j1".into(),
            ..v1::Target::default()
        },
    );
    if let Some(content) = &mut job.content {
        content.statement = Some(v1::Statement {
            text: b"select * from orders where day = @day".to_vec(),
            full_length: 37,
            ..v1::Statement::default()
        });
        content.parameters = vec![v1::Parameter {
            format: v1::ParameterFormat::Text.into(),
            value: Some(b"2026-11-24".to_vec()),
            full_length: 10,
            name: "day".into(),
            type_name: "DATE".into(),
            ..v1::Parameter::default()
        }];
        content.attributes = vec![attribute("default_dataset", "shop.orders")];
    }
    job
}

fn rows_of(job: [u8; 16]) -> Draft {
    let target = v1::Target {
        method: "bigquery.jobs.getQueryResults".into(),
        resource: "projects/shop/jobs/j1".into(),
        ..v1::Target::default()
    };
    let mut rows = started(v1::Operation::ReadRows, target);
    rows.envelope.parent_command_id = job.to_vec();
    rows.envelope.findings = vec![v1::CommandFinding::HostMismatch.into()];
    rows
}

fn finished(command: [u8; 16], operation: v1::Operation, status: v1::Status) -> Draft {
    let envelope = v1::Envelope {
        command_id: command.to_vec(),
        status: status.into(),
        duration_nanos: 2_000_000,
        bytes_sent: 120,
        bytes_received: 80,
        http_status: 200,
        grpc_status: (operation == v1::Operation::ReadRows).then_some(0),
        ..envelope(v1::RecordKind::Finished, operation)
    };
    let attributes = vec![attribute("job", "shop:eu.j1")];
    Draft { envelope, content: Some(v1::Content { attributes, ..v1::Content::default() }) }
}

fn job_ended(command: [u8; 16]) -> Draft {
    let envelope = v1::Envelope {
        command_id: command.to_vec(),
        status: v1::Status::Ok.into(),
        duration_nanos: 9_000_000,
        rows: Some(3),
        ..envelope(v1::RecordKind::Progress, v1::Operation::Query)
    };
    let attributes = vec![attribute("bytes_billed", "10485760")];
    Draft { envelope, content: Some(v1::Content { attributes, ..v1::Content::default() }) }
}

fn closed() -> Draft {
    let leg = |certificate: u8| v1::TlsLeg {
        version: "TLSv1.3".into(),
        cipher_suite: "TLS13_AES_256_GCM_SHA384".into(),
        alpn: "h2".into(),
        peer_certificate_sha256: if certificate == 0 { Vec::new() } else { vec![certificate; 32] },
        resumed: certificate == 0,
        client_certificate_requested: certificate != 0,
    };
    let tls = v1::Tls {
        client: Some(leg(0)),
        server: Some(leg(7)),
        server_name: "bigquery.googleapis.com".into(),
        ..v1::Tls::default()
    };
    let envelope = v1::Envelope {
        status: v1::Status::Ok.into(),
        ..envelope(v1::RecordKind::Connection, v1::Operation::Unspecified)
    };
    Draft { envelope, content: Some(v1::Content { tls: Some(tls), ..v1::Content::default() }) }
}

/// One run of a node agent that is drained.
fn make() -> v1::AppendRequest {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = fixed::open(dir.path(), 0);
    let spool = opened.spools.remove(0);
    let job = spool.append(job()).unwrap().record_id;
    spool.append(finished(job, v1::Operation::Query, v1::Status::Accepted)).unwrap();
    let rows = spool.append(rows_of(job)).unwrap().record_id;
    spool.append(job_ended(job)).unwrap();
    spool.append(finished(rows, v1::Operation::ReadRows, v1::Status::Ok)).unwrap();
    spool.append(closed()).unwrap();
    spool.close();
    opened.outboxes[0].next_batch(100, 1 << 20).unwrap().unwrap()
}

#[test]
fn the_same_requests_give_the_same_bytes_as_ever_and_those_are_read_whole() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/record-format/requests-batch.bin");
    let bytes = make().encode_to_vec();
    if std::env::var_os("VERBATIM_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(&path, &bytes).unwrap();
    }
    let golden = fs::read(&path).unwrap();
    assert!(golden == bytes, "requests-batch.bin differs: the record format has changed");

    let batch = v1::AppendRequest::decode(&golden[..]).unwrap();
    let read: Vec<_> = batch
        .entries
        .iter()
        .map(|entry| {
            let envelope = v1::Envelope::decode(&entry.envelope[..]).unwrap();
            let content = v1::Content::decode(&entry.content[..]).unwrap();
            assert_eq!(envelope.encode_to_vec(), entry.envelope, "no field is unknown");
            assert_eq!(content.encode_to_vec(), entry.content, "no field is unknown");
            if !entry.content.is_empty() {
                assert_eq!(envelope.content_sha256, chain::content_commitment(&entry.content));
            }
            (envelope, content)
        })
        .collect();
    let of_kind = |kind| read.iter().filter(move |(envelope, _)| envelope.kind() == kind);
    let job = &of_kind(v1::RecordKind::Started).next().unwrap().0.record_id;
    let (child, _) = of_kind(v1::RecordKind::Started).nth(1).unwrap();
    assert_eq!(child.parent_command_id, *job);
    let (ended, _) = of_kind(v1::RecordKind::Progress).next().unwrap();
    assert_eq!((&ended.command_id, ended.status()), (job, v1::Status::Ok));
    let (_, connection) = of_kind(v1::RecordKind::Connection).next().unwrap();
    assert!(connection.tls.as_ref().unwrap().server.as_ref().unwrap().client_certificate_requested);
}
