//! The record format of who, with what proof, and on whose behalf, frozen as `golden.rs` freezes the rest: one
//! command of a pod that uses another's token, on behalf of two people.
//! `VERBATIM_GOLDEN=write cargo test -p verbatim-spool --test golden_evidence` writes the file anew.

#![allow(clippy::unwrap_used, reason = "helpers of a test fail it")]

mod fixed;

use std::{fs, path::Path};

use prost::Message;
use verbatim_api::{chain, v1};
use verbatim_spool::Draft;

const WALL: u64 = 1_764_000_000_000_000_000;

fn workload() -> v1::Workload {
    v1::Workload {
        principal_kind: v1::PrincipalKind::Federated.into(),
        principal: "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/subject/ns/shop/sa/agent".into(),
        namespace: "shop".into(),
        service_account: "agent".into(),
        pod_name: "agent-0".into(),
        pod_uid: "8a6c3f6e-0000-4000-8000-000000000001".into(),
        container: "app".into(),
        node: "node-1".into(),
        cgroup_id: 4711,
        impersonated_service_account: "agent@p.iam.gserviceaccount.com".into(),
        cluster: "projects/p/locations/europe-west3/clusters/c".into(),
        container_kind: v1::ContainerKind::Sidecar.into(),
        resolution: v1::Resolution::Pod.into(),
        container_id: "ab".repeat(32),
    }
}

fn pod() -> v1::Pod {
    v1::Pod {
        owners: vec![v1::Owner {
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            name: "agent".into(),
            uid: "8a6c3f6e-0000-4000-8000-000000000002".into(),
        }],
        image: "agent:1".into(),
        image_digest: format!("sha256:{}", "cd".repeat(32)),
        labels: vec![v1::Attribute { name: "team".into(), value: b"data".to_vec() }],
        host_network: true,
        static_pod: true,
    }
}

fn credential() -> v1::Credential {
    v1::Credential {
        kind: v1::CredentialKind::OpaqueToken.into(),
        place: "header authorization".into(),
        fingerprint: vec![7; 32],
        fingerprint_key_id: "0011223344556677".into(),
        subject: "other@p.iam.gserviceaccount.com".into(),
        issuer: "https://accounts.google.com".into(),
        audiences: vec!["https://bigquery.googleapis.com/".into()],
        expires_wall_nanos: WALL + 3_600_000_000_000,
        key_id: "k1".into(),
        issuance: Some(v1::Issuance {
            issuer: v1::TokenIssuer::MetadataServer.into(),
            issued_wall_nanos: WALL,
            namespace: "shop".into(),
            service_account: "other".into(),
            pod_uid: "8a6c3f6e-0000-4000-8000-000000000003".into(),
            pod_name: "other-0".into(),
            container: "app".into(),
            account: "default".into(),
            command_id: (16..32).collect(),
        }),
        matches_principal: v1::CredentialMatch::No.into(),
        reason: "issued to pod shop/other-0 of service account other".into(),
        source: v1::CredentialSource::Issuance.into(),
    }
}

fn people() -> Vec<v1::OnBehalfOf> {
    let verified = v1::OnBehalfOf {
        subject: "ada@example.com".into(),
        evidence: "baggage".into(),
        kind: v1::BehalfKind::Verified.into(),
        issuer: "https://login.example.com".into(),
        audiences: vec!["verbatim".into()],
        expires_wall_nanos: WALL + 60_000_000_000,
        key_id: "k2".into(),
        token_id: "t1".into(),
        rejection: String::new(),
    };
    let rejected = v1::OnBehalfOf {
        subject: "eve@example.com".into(),
        evidence: "sqlcommenter".into(),
        kind: v1::BehalfKind::Asserted.into(),
        rejection: "expired".into(),
        ..v1::OnBehalfOf::default()
    };
    vec![verified, rejected]
}

fn started() -> Draft {
    let envelope = v1::Envelope {
        kind: v1::RecordKind::Started.into(),
        flow_id: (0..16).collect(),
        workload: Some(workload()),
        protocol: v1::Protocol::Http2.into(),
        operation: v1::Operation::Query.into(),
        capture: v1::Capture::Decoded.into(),
        decision: v1::Decision::Allowed.into(),
        status: v1::Status::Pending.into(),
        findings: vec![
            v1::CommandFinding::CredentialOfAnother.into(),
            v1::CommandFinding::OnBehalfOfRejected.into(),
        ],
        credential_match: v1::CredentialMatch::No.into(),
        on_behalf_of_kind: v1::BehalfKind::Verified.into(),
        ..v1::Envelope::default()
    };
    let trace = v1::Trace {
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
        tracestate: "congo=t61rcWkgMzE".into(),
        session_id: "s1".into(),
        task_id: "t1".into(),
        tool_id: "search".into(),
        places: vec!["header traceparent".into(), "baggage".into()],
    };
    let content = v1::Content {
        pod: Some(pod()),
        credentials: vec![credential()],
        on_behalf_of: people(),
        trace: Some(trace),
        ..v1::Content::default()
    };
    Draft { envelope, content: Some(content) }
}

/// One run of a node agent that is drained.
fn make() -> v1::AppendRequest {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = fixed::open(dir.path(), 0);
    let spool = opened.spools.remove(0);
    let command = spool.append(started()).unwrap().record_id;
    let envelope = v1::Envelope {
        kind: v1::RecordKind::Finished.into(),
        command_id: command.to_vec(),
        status: v1::Status::Ok.into(),
        ..v1::Envelope::default()
    };
    spool.append(Draft { envelope, content: None }).unwrap();
    spool.close();
    opened.outboxes[0].next_batch(100, 1 << 20).unwrap().unwrap()
}

#[test]
fn the_same_evidence_gives_the_same_bytes_as_ever_and_those_are_read_whole() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/record-format/evidence-batch.bin");
    let bytes = make().encode_to_vec();
    if std::env::var_os("VERBATIM_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(&path, &bytes).unwrap();
    }
    let golden = fs::read(&path).unwrap();
    assert!(golden == bytes, "evidence-batch.bin differs: the record format has changed");

    let batch = v1::AppendRequest::decode(&golden[..]).unwrap();
    let mut seen = false;
    for entry in &batch.entries {
        let envelope = v1::Envelope::decode(&entry.envelope[..]).unwrap();
        let content = v1::Content::decode(&entry.content[..]).unwrap();
        assert_eq!(envelope.encode_to_vec(), entry.envelope, "no field is unknown");
        assert_eq!(content.encode_to_vec(), entry.content, "no field is unknown");
        if envelope.kind() == v1::RecordKind::Started {
            assert_eq!(envelope.content_sha256, chain::content_commitment(&entry.content));
            assert_eq!(envelope.workload, Some(workload()));
            assert_eq!((content.pod, content.on_behalf_of), (Some(pod()), people()));
            assert_eq!(content.credentials, [credential()]);
            seen = true;
        }
    }
    assert!(seen);
}
