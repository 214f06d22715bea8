//! What servers bring along to TLS: certificates that nobody should accept, and wishes for a client's.

use anyhow::{Result, ensure};
use verbatim_api::v1::{Capture, OpaqueReason};
use verbatim_tests::{
    google::names::{ASKING, EXPIRED, INSISTING, SELF_SIGNED, WRONG_NAME},
    lab::Lab,
    network::Pod,
    process::Ended,
};

use crate::{
    scenario::{Scenario, usual},
    tls::{
        NEEDS, NOT_ACCEPTED, arrived, both_roots, curl, denied, is_undecoded, own_roots, recorded, sessions,
        trusted, undecoded, url,
    },
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        usual!(a_server_with_a_bad_certificate_is_not_vouched_for_and_recorded).needing(NEEDS).with(trusted),
        usual!(a_server_with_a_bad_certificate_is_refused_where_the_selector_says_so)
            .needing(NEEDS)
            .with(denied),
        usual!(a_server_that_asks_for_a_certificate_is_captured_without_one).needing(NEEDS).with(trusted),
        usual!(a_client_with_a_certificate_that_is_asked_for_passes_from_the_second_connection_on)
            .needing(NEEDS)
            .with(trusted),
        usual!(a_server_that_insists_on_a_certificate_passes_from_the_first_connection_on)
            .needing(NEEDS)
            .with(trusted),
        usual!(a_server_that_insists_on_a_certificate_is_refused_where_the_selector_says_so)
            .needing(NEEDS)
            .with(denied),
    ]
}

const INSISTS: &str = "insisting.googleapis.com";

const BAD: [(&str, &str); 3] =
    [("expired", EXPIRED), ("wrong-name", WRONG_NAME), ("self-signed", SELF_SIGNED)];

/// Nobody vouches for it toward the client; what the client makes of it is its own business.
fn a_server_with_a_bad_certificate_is_not_vouched_for_and_recorded(lab: &mut Lab) -> Result<()> {
    let roots = own_roots(lab)?;
    let clients = lab.google_pod(Pod::A)?;
    for (name, address) in BAD {
        let host = format!("{name}.googleapis.com");
        let ended = curl(&clients, name, &["--cacert", &roots, &url(&host, &format!("a-{name}"))])?;
        ensure!(ended.status.code() == Some(NOT_ACCEPTED), "{name}: {ended:?}");
        ensure!(arrived(lab, &format!("a-{name}"))?.is_empty(), "{name} got the request");
        // A client that looks at nothing gets there, as it would without us, and is recorded.
        let id = format!("a-careless-{name}");
        let ended = curl(&clients, &id, &["--insecure", &url(&host, &id)])?;
        ensure!(ended.status.success(), "{name}: {}", ended.complaints());
        for one in undecoded(lab, address, 2)? {
            is_undecoded(lab, &one, Pod::A, &host, OpaqueReason::ServerNotTrusted)?;
            ensure!(!one.note.is_empty(), "nothing says what is wrong with the certificate: {one:?}");
        }
    }
    Ok(())
}

fn a_server_with_a_bad_certificate_is_refused_where_the_selector_says_so(lab: &mut Lab) -> Result<()> {
    let clients = lab.google_pod(Pod::A)?;
    for (name, address) in BAD {
        let host = format!("{name}.googleapis.com");
        let ended = curl(&clients, name, &["--insecure", &url(&host, &format!("a-{name}"))])?;
        ensure!(!ended.status.success(), "{name} was let through");
        ensure!(arrived(lab, &format!("a-{name}"))?.is_empty(), "{name} got the request");
        let one = undecoded(lab, address, 1)?.remove(0);
        is_undecoded(lab, &one, Pod::A, &host, OpaqueReason::ServerNotTrusted)?;
    }
    lab.compare(&[])
}

fn a_server_that_asks_for_a_certificate_is_captured_without_one(lab: &mut Lab) -> Result<()> {
    let ended = curl(&lab.google_pod(Pod::A)?, "asking", &[&url("asking.googleapis.com", "a-asking")])?;
    ensure!(ended.status.success(), "{}", ended.complaints());
    lab.compare(&[])?;
    ensure!(recorded(lab, "a-asking")?.capture == Capture::Decoded, "{:?}", recorded(lab, "a-asking")?);
    let session = sessions(lab, ASKING, 1)?.remove(0);
    let server = session.tls.unwrap_or_default().server.unwrap_or_default();
    ensure!(server.client_certificate_requested, "{server:?}");
    Ok(())
}

/// Asks a server with a certificate of the client's own.
fn certified(lab: &Lab, host: &'static str) -> Result<impl Fn(&str) -> Result<Ended> + use<>> {
    let shown = lab.google()?.root().issue("client", &["client.lab.example"])?;
    let (certificate, key) = (shown.certificate.display().to_string(), shown.key.display().to_string());
    let both = both_roots(lab)?.display().to_string();
    let clients = lab.google_pod(Pod::A)?;
    let with = move |id: &str| {
        let arguments = ["--cacert", &both, "--cert", &certificate, "--key", &key];
        let url = url(host, id);
        curl(&clients, id, &[&arguments[..], &[&url]].concat())
    };
    Ok(with)
}

/// The server does without one, but who it takes the client for may depend on it.
fn a_client_with_a_certificate_that_is_asked_for_passes_from_the_second_connection_on(
    lab: &mut Lab,
) -> Result<()> {
    let with = certified(lab, "asking.googleapis.com")?;
    for id in ["a-first", "a-second"] {
        let ended = with(id)?;
        ensure!(ended.status.success(), "{id}: {}", ended.complaints());
        ensure!(arrived(lab, id)?.len() == 1, "{id} did not arrive");
    }
    ensure!(recorded(lab, "a-first")?.capture == Capture::Decoded, "{:?}", recorded(lab, "a-first")?);
    let one = undecoded(lab, ASKING, 1)?.remove(0);
    is_undecoded(lab, &one, Pod::A, "asking.googleapis.com", OpaqueReason::ClientCertificateRequired)?;
    // One without a certificate is captured as before.
    let url = url("asking.googleapis.com", "b-without");
    let ended = curl(&lab.google_pod(Pod::B)?, "without", &[&url])?;
    ensure!(ended.status.success(), "{}", ended.complaints());
    ensure!(recorded(lab, "b-without")?.capture == Capture::Decoded, "{:?}", recorded(lab, "b-without")?);
    Ok(())
}

fn a_server_that_insists_on_a_certificate_passes_from_the_first_connection_on(lab: &mut Lab) -> Result<()> {
    let with = certified(lab, INSISTS)?;
    for id in ["a-first", "a-second"] {
        let ended = with(id)?;
        ensure!(ended.status.success(), "{id}: {}", ended.complaints());
        ensure!(arrived(lab, id)?.len() == 1, "{id} did not arrive");
    }
    for one in undecoded(lab, INSISTING, 2)? {
        let reason = OpaqueReason::ClientCertificateRequired;
        is_undecoded(lab, &one, Pod::A, INSISTS, reason)?;
    }
    Ok(())
}

/// Also its first connection: a name that nobody asked for before is not a way around.
fn a_server_that_insists_on_a_certificate_is_refused_where_the_selector_says_so(lab: &mut Lab) -> Result<()> {
    let with = certified(lab, INSISTS)?;
    for id in ["a-first", "a-second"] {
        ensure!(!with(id)?.status.success(), "{id} was let through");
        ensure!(arrived(lab, id)?.is_empty(), "{id} got there");
    }
    for one in undecoded(lab, INSISTING, 2)? {
        let reason = OpaqueReason::ClientCertificateRequired;
        is_undecoded(lab, &one, Pod::A, INSISTS, reason)?;
    }
    lab.compare(&[])
}
