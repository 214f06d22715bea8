//! gRPC: its calls are recorded with their method, resource and status, whatever their messages are.

use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use verbatim_api::v1::{Decision, Operation, Protocol, Status};
use verbatim_tests::{agent::Options, google, lab::Lab, network::Pod, wait};

use crate::{
    http::{named, requests},
    scenario::{Scenario, usual},
    tls::NEEDS,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    [
        usual!(grpc_calls_of_every_kind_are_recorded_with_their_status),
        usual!(a_denied_call_is_answered_in_trailers_only_and_the_channel_goes_on),
        usual!(a_call_that_its_client_cancels_is_recorded),
    ]
    .map(|one| one.needing(NEEDS).with(grpc))
    .into()
}

fn grpc() -> Options {
    Options { google: Some(google::Options { grpc: true, ..Default::default() }), ..Options::default() }
}

fn grpc_calls_of_every_kind_are_recorded_with_their_status(lab: &mut Lab) -> Result<()> {
    lab.google_pod(Pod::A)?.python("grpc", "grpc_calls.py", &["all"])?.finish()?;
    let seen = requests(lab, 8)?;
    let expected = [
        ("unary", "Unary", 0),
        ("large", "Unary", 0),
        ("stream", "ServerStream", 0),
        ("client", "ClientStream", 0),
        ("bidi", "Bidi", 0),
        ("fail", "Fail", 9),
        ("late", "FailLate", 15),
        ("nothing", "Nothing", 12),
    ];
    for (name, method, status) in expected {
        let one = named(&seen, &format!("a-grpc_calls-{name}"))?;
        ensure!(one.operation == Operation::GrpcCall && one.protocol == Protocol::Http2, "{one:?}");
        ensure!(one.method == format!("lab.v1.Echo/{method}"), "method: {one:?}");
        ensure!(one.grpc_status == Some(status), "gRPC status: {one:?}");
        ensure!(one.status == if status == 0 { Status::Ok } else { Status::Error }, "{one:?}");
        ensure!(one.principal == lab.principal(Pod::A), "{one:?}");
    }
    // The service's own word: each call once, with what came before it.
    let output = lab.google()?.output("grpc");
    for (name, method, _) in expected.iter().filter(|(name, ..)| *name != "nothing") {
        let id = format!("id:a-grpc_calls-{name}\"");
        let lines: Vec<_> = output.lines().filter(|line| line.contains(&id)).collect();
        ensure!(lines.len() == 1 && lines[0].contains(&format!("\"{method}\"")), "{name}: {output}");
    }
    for folder in [lab.agent.spool(), lab.collector.folder().to_owned()] {
        let found = verbatim_tests::find::files_with(&folder, b"Bearer secret")?;
        ensure!(found.is_empty(), "the credential is in {found:?}");
    }
    Ok(())
}

fn a_denied_call_is_answered_in_trailers_only_and_the_channel_goes_on(lab: &mut Lab) -> Result<()> {
    lab.google_pod(Pod::A)?.python("grpc", "grpc_calls.py", &["denied"])?.finish()?;
    let seen = requests(lab, 2)?;
    let denied = named(&seen, "a-grpc_calls-denied")?;
    ensure!(denied.decision == Decision::Denied && denied.status == Status::NotForwarded, "{denied:?}");
    ensure!(named(&seen, "a-grpc_calls-after")?.flow == denied.flow, "another connection: {seen:?}");
    ensure!(!lab.google()?.output("grpc").contains("a-grpc_calls-denied"), "it went on");
    Ok(())
}

fn a_call_that_its_client_cancels_is_recorded(lab: &mut Lab) -> Result<()> {
    let mut client = lab.google_pod(Pod::A)?.python("grpc", "grpc_calls.py", &["cancelled"])?;
    wait::until("the call to be under way", || {
        let seen = lab.collector.seen()?;
        Ok(seen.iter().any(|one| one.ids == ["a-grpc_calls-wait"]).then_some(()))
    })?;
    client.stdin().context("no standard input")?.write_all(b"give up\n")?;
    client.finish()?;
    let seen = requests(lab, 2)?;
    ensure!(named(&seen, "a-grpc_calls-wait")?.status == Status::OutcomeUnknown, "{seen:?}");
    wait::until("the service to hear of it", || {
        let output = lab.google()?.output("grpc");
        Ok((output.contains("a-grpc_calls-wait") && output.contains("cancelled")).then_some(()))
    })
}
