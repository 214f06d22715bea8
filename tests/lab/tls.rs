//! TLS is ended where trust is evidenced, and nowhere else: whoever does not trust us keeps working and is
//! recorded so.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use verbatim_api::v1::{Capture, OpaqueReason, Operation, Protocol, Session, Status};
use verbatim_tests::{
    agent::Options,
    audit::Seen,
    clients::Clients,
    front::Request,
    google::{
        self,
        names::{GOOGLE, MIRROR, OUTSIDE},
    },
    lab::Lab,
    network::Pod,
    parts::Part,
    process::Ended,
    wait,
};

use crate::scenario::{Scenario, needs, usual};

/// What scenarios with TLS need.
pub(crate) const NEEDS: &[Part] = needs!(Curl);
/// The same, with Node.
pub(crate) const WITH_NODE: &[Part] = needs!(Curl, Node);

pub(crate) fn scenarios() -> Vec<Scenario> {
    let ours = vec![
        usual!(tls_is_ended_on_both_legs_and_says_what_was_agreed_on),
        usual!(a_session_is_resumed_for_its_own_workload_only),
        usual!(a_name_outside_the_constraints_passes_and_is_recorded),
        usual!(a_connection_without_a_server_name_passes_and_is_recorded),
        usual!(a_request_for_another_host_than_the_certificates_is_a_finding),
        usual!(a_hello_in_single_bytes_is_understood),
        usual!(a_hello_without_end_costs_no_memory),
        usual!(a_client_that_wants_to_renegotiate_harms_nobody),
    ];
    let ours = ours.into_iter().map(|one| one.needing(NEEDS).with(trusted));
    let others = [
        usual!(a_pod_without_our_trust_works_and_is_recorded).needing(NEEDS).with(one_pod_trusts),
        usual!(a_pod_without_our_trust_is_refused_where_the_selector_says_so).needing(NEEDS).with(denied),
    ];
    ours.chain(others).collect()
}

/// Both pods trust us.
pub(crate) fn trusted() -> Options {
    Options { google: Some(google::Options::default()), ..Options::default() }
}

fn one_pod_trusts() -> Options {
    Options { trusting: &[Pod::A], ..trusted() }
}

pub(crate) fn denied() -> Options {
    Options { untrusted: "deny", ..one_pod_trusts() }
}

pub(crate) fn url(host: &str, id: &str) -> String {
    format!("https://{host}/echo/id:{id}")
}

/// Runs curl to its end, however that is.
pub(crate) fn curl(clients: &Clients, name: &str, arguments: &[&str]) -> Result<Ended> {
    clients.start(name, "curl", &[&["-sS", "--fail", "--max-time", "60"], arguments].concat())?.wait()
}

/// curl's exit code for a certificate that it does not accept (curl(1), EXIT CODES).
pub(crate) const NOT_ACCEPTED: i32 = 60;

/// Requests that the front has with an id.
pub(crate) fn arrived(lab: &Lab, id: &str) -> Result<Vec<Request>> {
    Ok(lab.google()?.requests()?.into_iter().filter(|one| one.ids.iter().any(|other| other == id)).collect())
}

/// Waits for the records of connections that were not decoded, to an address.
pub(crate) fn undecoded(lab: &Lab, address: &str, count: usize) -> Result<Vec<Seen>> {
    wait::until(&format!("{count} undecoded connection(s) to {address}"), || {
        let mut seen = lab.collector.seen()?;
        seen.retain(|one| one.operation == Operation::Connect && one.target.address == address);
        ensure!(seen.len() <= count, "too many: {seen:?}");
        Ok((seen.len() == count && seen.iter().all(|one| one.status != Status::Pending)).then_some(seen))
    })
    .with_context(|| format!("recorded: {:?}", lab.collector.seen()))
}

/// Waits until a connection to an address is recorded as ended.
pub(crate) fn sessions(lab: &Lab, address: &str, count: usize) -> Result<Vec<Session>> {
    wait::until(&format!("{count} session(s) to {address}"), || {
        let mut sessions = lab.collector.sessions()?;
        sessions.retain(|one| {
            one.closed_wall_nanos != 0 && one.target.as_ref().is_some_and(|target| target.address == address)
        });
        Ok((sessions.len() >= count).then_some(sessions))
    })
}

/// The record of the request with an id.
pub(crate) fn recorded(lab: &Lab, id: &str) -> Result<Seen> {
    wait::until(&format!("{id} to be recorded"), || {
        Ok(lab.collector.seen()?.into_iter().find(|one| one.ids == [id] && one.status != Status::Pending))
    })
}

/// Spliced or refused without a decoder: the client's principal, the name that it asked for, and why.
pub(crate) fn is_undecoded(lab: &Lab, one: &Seen, pod: Pod, host: &str, reason: OpaqueReason) -> Result<()> {
    ensure!(one.principal == lab.principal(pod), "principal: {one:?}");
    ensure!(one.capture == Capture::SeenNotDecoded && one.opaque_reason == reason, "{one:?}");
    ensure!(one.target.host == host, "the server's name is {:?}", one.target.host);
    Ok(())
}

fn tls_is_ended_on_both_legs_and_says_what_was_agreed_on(lab: &mut Lab) -> Result<()> {
    let clients = lab.google_pod(Pod::A)?;
    let cases = [
        ("h1", "--http1.1", "1.3", Protocol::Http1, "http/1.1", "TLSv1.3"),
        ("h2", "--http2", "1.3", Protocol::Http2, "h2", "TLSv1.3"),
        ("no-alpn", "--no-alpn", "1.3", Protocol::Http1, "", "TLSv1.3"),
        ("old", "--http2", "1.2", Protocol::Http2, "h2", "TLSv1.2"),
    ];
    for (name, flag, version, ..) in cases {
        let id = format!("a-{name}");
        let ended = curl(&clients, &id, &[flag, "--tls-max", version, &url(MIRROR, &id)])?;
        ensure!(ended.status.success(), "{name}: {}", ended.complaints());
        ensure!(arrived(lab, &id)?.len() == 1, "{name} did not arrive once");
    }
    lab.compare(&[])?;
    let all = lab.collector.sessions()?;
    for (name, _, _, protocol, alpn, version) in cases {
        let one = recorded(lab, &format!("a-{name}"))?;
        ensure!(one.principal == lab.principal(Pod::A), "{one:?}");
        ensure!(one.protocol == protocol && one.capture == Capture::Decoded, "{one:?}");
        ensure!(one.operation == Operation::HttpRequest && one.http_status == 200, "{one:?}");
        ensure!(one.target.host == MIRROR && one.target.address == GOOGLE, "{:?}", one.target);
        let session = all.iter().find(|session| session.flow_id == one.flow).context("no session")?;
        let tls = session.tls.clone().with_context(|| format!("no TLS: {session:?}"))?;
        let (client, server) = (tls.client.unwrap_or_default(), tls.server.unwrap_or_default());
        ensure!(tls.server_name == MIRROR, "{:?}", tls.server_name);
        ensure!(client.version == version && client.alpn == alpn, "{client:?}");
        // What the client offered is offered upstream: it gets what it would have had.
        ensure!(server.version == version && server.alpn == alpn, "{server:?}");
        ensure!(server.peer_certificate_sha256.len() == 32, "{server:?}");
    }
    Ok(())
}

fn a_session_is_resumed_for_its_own_workload_only(lab: &mut Lab) -> Result<()> {
    for (pod, id) in [(Pod::A, "a-first"), (Pod::A, "a-second"), (Pod::B, "b-first"), (Pod::B, "b-second")] {
        let ended = curl(&lab.google_pod(pod)?, id, &[&url(MIRROR, id)])?;
        ensure!(ended.status.success(), "{}", ended.complaints());
    }
    lab.compare(&[])?;
    for (id, resumed) in [("a-first", false), ("b-first", false)] {
        let arrived = arrived(lab, id)?;
        ensure!(arrived.iter().all(|one| one.resumed == resumed), "{id}: {arrived:?}");
    }
    let second = [arrived(lab, "a-second")?, arrived(lab, "b-second")?].concat();
    // Which shard a connection falls to is the kernel's choice; sessions are shared by all of them.
    ensure!(second.iter().all(|one| one.resumed), "{second:?}");
    Ok(())
}

/// The roots that a client has built in.
pub(crate) fn own_roots(lab: &Lab) -> Result<String> {
    Ok(lab.google()?.root().certificate().display().to_string())
}

/// A file with our roots and those of the servers: for clients that trust both.
pub(crate) fn both_roots(lab: &Lab) -> Result<PathBuf> {
    let file = lab.ground.path("both.pem");
    let ours = std::fs::read_to_string(lab.trust()?.bundle())?;
    std::fs::write(&file, ours + &std::fs::read_to_string(lab.google()?.root().certificate())?)?;
    Ok(file)
}

fn a_name_outside_the_constraints_passes_and_is_recorded(lab: &mut Lab) -> Result<()> {
    let roots = own_roots(lab)?;
    let clients = lab.google_pod(Pod::A)?;
    let ended = curl(&clients, "outside", &["--cacert", &roots, &url("api.lab.example", "a-outside")])?;
    ensure!(ended.status.success(), "{}", ended.complaints());
    ensure!(arrived(lab, "a-outside")?.len() == 1, "it did not arrive");
    let one = undecoded(lab, OUTSIDE, 1)?.remove(0);
    is_undecoded(lab, &one, Pod::A, "api.lab.example", OpaqueReason::NameOutsideConstraints)
}

fn a_connection_without_a_server_name_passes_and_is_recorded(lab: &mut Lab) -> Result<()> {
    let roots = own_roots(lab)?;
    // curl sends no name where it is given an address; the certificate's name is none of it.
    let arguments = ["--insecure", "--cacert", &roots, "-H", "Host: mirror.googleapis.com"];
    let ended =
        curl(&lab.google_pod(Pod::A)?, "unnamed", &[&arguments[..], &[&url(GOOGLE, "a-unnamed")]].concat())?;
    ensure!(ended.status.success(), "{}", ended.complaints());
    let arrived = arrived(lab, "a-unnamed")?;
    ensure!(arrived.len() == 1 && arrived.iter().all(|one| one.server_name.is_empty()), "{arrived:?}");
    let one = undecoded(lab, GOOGLE, 1)?.remove(0);
    is_undecoded(lab, &one, Pod::A, "", OpaqueReason::NameOutsideConstraints)
}

fn a_request_for_another_host_than_the_certificates_is_a_finding(lab: &mut Lab) -> Result<()> {
    let clients = lab.google_pod(Pod::A)?;
    let other = ["-H", "Host: storage.googleapis.com"];
    let ended = curl(&clients, "other", &[&other[..], &[&url(MIRROR, "a-other")]].concat())?;
    ensure!(ended.status.success(), "{}", ended.complaints());
    let ended = curl(&clients, "same", &[&url(MIRROR, "a-same")])?;
    ensure!(ended.status.success(), "{}", ended.complaints());
    lab.compare(&[])?;
    let findings = |id| Ok::<_, anyhow::Error>(recorded(lab, id)?.findings);
    let mismatch = verbatim_api::v1::CommandFinding::HostMismatch;
    ensure!(findings("a-other")?.contains(&mismatch), "{:?}", recorded(lab, "a-other")?);
    ensure!(findings("a-same")?.is_empty(), "{:?}", recorded(lab, "a-same")?);
    Ok(())
}

fn raw(lab: &Lab, what: &str, argument: &str) -> Result<String> {
    let clients = lab.google_pod(Pod::A)?.with("PGHOST", GOOGLE).with("PGPORT", "443");
    Ok(clients.python(what, "raw_tls.py", &[what, argument])?.finish()?.text())
}

fn a_hello_in_single_bytes_is_understood(lab: &mut Lab) -> Result<()> {
    raw(lab, "single_bytes", "a-slow")?;
    lab.compare(&[])?;
    let one = recorded(lab, "a-slow")?;
    ensure!(one.capture == Capture::Decoded && one.http_status == 200, "{one:?}");
    Ok(())
}

fn a_hello_without_end_costs_no_memory(lab: &mut Lab) -> Result<()> {
    let before = lab.agent.peak_kib()?;
    raw(lab, "endless", "")?;
    let session = sessions(lab, GOOGLE, 1)?.remove(0);
    ensure!(session.capture() == Capture::SeenNotDecoded, "{session:?}");
    ensure!(session.opaque_reason() != OpaqueReason::Unspecified, "{session:?}");
    let peak = lab.agent.peak_kib()?;
    ensure!(peak < before + 32 * 1024, "the agent's peak went from {before} to {peak} KiB");
    lab.compare(&[])
}

fn a_client_that_wants_to_renegotiate_harms_nobody(lab: &mut Lab) -> Result<()> {
    use std::io::Write as _;
    let bundle = lab.trust()?.bundle().display().to_string();
    let clients = lab.google_pod(Pod::A)?;
    let target = format!("{GOOGLE}:443");
    let arguments = ["s_client", "-connect", &target, "-servername", MIRROR, "-tls1_2", "-CAfile", &bundle];
    let mut client = clients.start("renegotiates", "openssl", &arguments)?;
    client.wait_for_output("Verify return code: 0")?;
    // A line that is just R asks for a new handshake (openssl-s_client(1)).
    let mut input = client.stdin().context("no standard input")?;
    input.write_all(b"R\n")?;
    drop(client.wait()?);
    drop(input);
    let ended = curl(&clients, "after", &[&url(MIRROR, "a-after")])?;
    ensure!(ended.status.success(), "{}", ended.complaints());
    lab.compare(&[])?;
    ensure!(sessions(lab, GOOGLE, 2)?.len() == 2, "a connection is missing");
    Ok(())
}

fn a_pod_without_our_trust_works_and_is_recorded(lab: &mut Lab) -> Result<()> {
    for pod in Pod::ALL {
        let id = format!("{}-echo", pod.letter());
        let ended = curl(&lab.google_pod(pod)?, &id, &[&url(MIRROR, &id)])?;
        ensure!(ended.status.success(), "{id}: {}", ended.complaints());
        ensure!(arrived(lab, &id)?.len() == 1, "{id} did not arrive");
    }
    ensure!(recorded(lab, "a-echo")?.capture == Capture::Decoded, "{:?}", recorded(lab, "a-echo")?);
    let one = undecoded(lab, GOOGLE, 1)?.remove(0);
    is_undecoded(lab, &one, Pod::B, MIRROR, OpaqueReason::TrustNotInjected)
}

fn a_pod_without_our_trust_is_refused_where_the_selector_says_so(lab: &mut Lab) -> Result<()> {
    let ended = curl(&lab.google_pod(Pod::B)?, "denied", &[&url(MIRROR, "b-denied")])?;
    ensure!(!ended.status.success(), "it was let through");
    ensure!(arrived(lab, "b-denied")?.is_empty(), "the request went on");
    let one = undecoded(lab, GOOGLE, 1)?.remove(0);
    is_undecoded(lab, &one, Pod::B, MIRROR, OpaqueReason::TrustNotInjected)?;
    lab.compare(&[])
}
