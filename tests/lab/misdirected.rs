//! Requests for another host than TLS was made for, where the selector denies them.

use anyhow::{Context as _, Result, ensure};
use verbatim_api::v1::{CommandFinding, Decision, Status};
use verbatim_tests::{agent::Options, audit::Seen, google, google::names::MIRROR, lab::Lab, network::Pod};

use crate::{
    http::{curl, named, requests},
    scenario::{Scenario, usual},
    tls::{NEEDS, arrived, url},
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    [
        usual!(a_misdirected_request_is_answered_421_where_the_selector_says_so),
        usual!(a_request_through_a_proxy_of_tls_is_misdirected_too),
        usual!(other_streams_go_on_beside_a_misdirected_request),
        usual!(a_misdirected_call_is_refused_in_trailers_only),
    ]
    .map(|one| one.needing(NEEDS).with(denied))
    .into()
}

fn denied() -> Options {
    let google = google::Options { grpc: true, ..Default::default() };
    Options { google: Some(google), misdirected: "deny", ..Options::default() }
}

fn is_refused(lab: &Lab, one: &Seen) -> Result<()> {
    ensure!(one.decision == Decision::Denied && one.status == Status::NotForwarded, "{one:?}");
    ensure!(one.findings == [CommandFinding::HostMismatch], "{one:?}");
    ensure!(one.principal == lab.principal(Pod::A), "{one:?}");
    let record = lab.collector.get(&one.record)?;
    let started = record.command.and_then(|command| command.started_content).context("no content")?;
    let reason = started.verdict.unwrap_or_default().reason;
    ensure!(reason.starts_with("misdirected: "), "the record's reason is {reason:?}");
    Ok(())
}

fn is_forwarded(one: &Seen) -> Result<()> {
    ensure!(
        one.decision == Decision::Allowed && one.http_status == 200 && one.findings.is_empty(),
        "{one:?}"
    );
    Ok(())
}

fn a_misdirected_request_is_answered_421_where_the_selector_says_so(lab: &mut Lab) -> Result<()> {
    // Refused while its body is still coming, too.
    let file = lab.ground.path("upload");
    std::fs::write(&file, vec![b'y'; 3_000_000])?;
    let upload = format!("@{}", file.display());
    for version in ["http1.1", "http2"] {
        let flag = format!("--{version}");
        let (other, sent) =
            (url(MIRROR, &format!("a-other-{version}")), url(MIRROR, &format!("a-sent-{version}")));
        let host = ["-H", "Host: storage.googleapis.com", "-w", "%{http_code}"];
        for (name, more) in
            [("other", &[&*other][..]), ("sent", &["-H", "Expect:", "--data-binary", &upload, &sent])]
        {
            let ended = curl(lab, name, &[&[&*flag], &host[..], more].concat())?.wait()?;
            let text = ended.text();
            ensure!(text.ends_with("421") && text.contains("\"code\":421"), "{version}: {ended:?}");
        }
        // However the same host is written; and what TLS was made for, wherever it is.
        let hosts = ["mirror.googleapis.com:443", "Mirror.GoogleAPIs.com", "mirror.googleapis.com."];
        for (number, host) in hosts.into_iter().enumerate() {
            let (host, same) = (format!("Host: {host}"), url(MIRROR, &format!("a-same-{version}-{number}")));
            curl(lab, "same", &[&flag, "--fail", "-H", &host, &same])?.finish()?;
        }
        let (to, elsewhere) =
            (format!("storage.googleapis.com:443:{MIRROR}:443"), format!("a-elsewhere-{version}"));
        let elsewhere = url("storage.googleapis.com", &elsewhere);
        curl(lab, "elsewhere", &[&flag, "--fail", "--connect-to", &to, &elsewhere])?.finish()?;
    }
    lab.compare(&[])?;
    let seen = requests(lab, 12)?;
    for version in ["http1.1", "http2"] {
        for id in ["a-other", "a-sent"] {
            let id = format!("{id}-{version}");
            is_refused(lab, named(&seen, &id)?)?;
            ensure!(arrived(lab, &id)?.is_empty(), "{id} went on");
        }
        for id in ["same", "elsewhere"] {
            let id = format!("a-{id}-{version}");
            for one in seen.iter().filter(|one| one.ids.iter().any(|other| other.starts_with(&id))) {
                is_forwarded(one)?;
            }
        }
    }
    Ok(())
}

/// Through a proxy that is reached by TLS: by a request's whole target, and by CONNECT.
fn a_request_through_a_proxy_of_tls_is_misdirected_too(lab: &mut Lab) -> Result<()> {
    let (proxy, roots) = (format!("https://{MIRROR}:443"), lab.trust()?.bundle().display().to_string());
    let through = ["-x", &proxy, "--proxy-cacert", &roots];
    let target = "http://storage.googleapis.com/echo/id:a-whole";
    let ended = curl(lab, "whole", &[&through[..], &["-w", "%{http_code}", target]].concat())?.wait()?;
    ensure!(ended.text().ends_with("421"), "{ended:?}");
    let ended =
        curl(lab, "connect", &[&through[..], &["https://storage.googleapis.com/echo/id:a-never"]].concat())?;
    let ended = ended.wait()?;
    ensure!(!ended.status.success() && ended.complaints().contains("421"), "{ended:?}");
    lab.compare(&[])?;
    for one in requests(lab, 2)? {
        is_refused(lab, &one)?;
    }
    ensure!(arrived(lab, "a-whole")?.is_empty() && arrived(lab, "a-never")?.is_empty(), "it went on");
    Ok(())
}

fn other_streams_go_on_beside_a_misdirected_request(lab: &mut Lab) -> Result<()> {
    lab.google_pod(Pod::A)?.python("httpx", "httpx_requests.py", &["misdirected"])?.finish()?;
    lab.compare(&[])?;
    let seen = requests(lab, 6)?;
    let id = "a-httpx_requests-misdirected";
    let refused = named(&seen, id)?;
    is_refused(lab, refused)?;
    ensure!(arrived(lab, id)?.is_empty(), "it went on");
    for one in seen.iter().filter(|one| one.record != refused.record) {
        is_forwarded(one)?;
        ensure!(one.flow == refused.flow, "another connection: {seen:?}");
    }
    Ok(())
}

fn a_misdirected_call_is_refused_in_trailers_only(lab: &mut Lab) -> Result<()> {
    lab.google_pod(Pod::A)?.python("grpc", "grpc_calls.py", &["misdirected"])?.finish()?;
    let seen = requests(lab, 4)?;
    for kind in ["unary", "stream", "bidi"] {
        is_refused(lab, named(&seen, &format!("a-grpc_calls-other-{kind}"))?)?;
    }
    ensure!(!lab.google()?.output("grpc").contains("a-grpc_calls-other"), "it went on");
    ensure!(named(&seen, "a-grpc_calls-after")?.grpc_status == Some(0), "{seen:?}");
    Ok(())
}
