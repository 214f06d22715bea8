//! Clients that do not trust us, each in its own way: what that costs them, and that it opens no way around.

use anyhow::{Result, ensure};
use verbatim_api::v1::{Capture, OpaqueReason};
use verbatim_tests::{
    google::names::{GOOGLE, MIRROR},
    lab::Lab,
    network::Pod,
    parts::Part,
    process::Ended,
    shell,
};

use crate::{
    scenario::{Scenario, usual},
    tls::{
        NEEDS, WITH_NODE, arrived, both_roots, curl, denied, is_undecoded, own_roots, recorded, trusted,
        undecoded, url,
    },
};

const WITH_WGET: &[Part] = &[
    Part::Root,
    Part::Sandbox,
    Part::Binaries,
    Part::Postgres,
    Part::PythonGoogle,
    Part::Curl,
    Part::Openssl,
    Part::Wget,
    Part::Bpf,
];

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        usual!(a_client_with_roots_of_its_own_loses_one_connection_and_works_from_then_on)
            .needing(NEEDS)
            .with(trusted),
        usual!(a_client_that_pins_loses_one_connection_and_works_from_then_on)
            .needing(WITH_NODE)
            .with(trusted),
        usual!(a_client_that_pins_a_key_and_ends_in_good_order_loses_one_connection)
            .needing(NEEDS)
            .with(trusted),
        usual!(wget_that_verifies_after_the_handshake_loses_one_connection).needing(WITH_WGET).with(trusted),
        usual!(a_client_that_refuses_us_gets_nowhere_where_the_selector_says_so).needing(NEEDS).with(denied),
    ]
}

/// What the first connection of a client that refuses our certificate costs, and what comes after it. `get`
/// asks for a URL under a name of its own.
fn loses_one(lab: &mut Lab, get: impl Fn(&str, &str) -> Result<Ended>, alerts: &[&str]) -> Result<()> {
    let ended = get("first", &url(MIRROR, "a-lost"))?;
    ensure!(!ended.status.success(), "it took a certificate of ours: {ended:?}");
    let first = undecoded(lab, GOOGLE, 1)?.remove(0);
    is_undecoded(lab, &first, Pod::A, MIRROR, OpaqueReason::ClientDoesNotTrustUs)?;
    let refusal = first.tls.clone().unwrap_or_default().refusal;
    ensure!(alerts.contains(&refusal.as_str()), "refused by {refusal:?}: {first:?}");
    ensure!(arrived(lab, "a-lost")?.is_empty(), "the request went on");
    // From now on it works, also with an agent that was started anew.
    for id in ["a-second", "a-restarted"] {
        let ended = get(id, &url(MIRROR, id))?;
        ensure!(ended.status.success(), "{id}: {}", ended.complaints());
        ensure!(arrived(lab, id)?.len() == 1, "{id} did not arrive");
        if id == "a-second" {
            for one in undecoded(lab, GOOGLE, 2)? {
                is_undecoded(lab, &one, Pod::A, MIRROR, OpaqueReason::ClientDoesNotTrustUs)?;
            }
            lab.agent.stop()?;
            lab.agent.restart()?;
        }
    }
    // Another service of the same pod is captured as before.
    let id = "a-other";
    let ended = curl(&lab.google_pod(Pod::A)?, id, &[&url("storage.googleapis.com", id)])?;
    ensure!(ended.status.success(), "{}", ended.complaints());
    ensure!(recorded(lab, id)?.capture == Capture::Decoded, "{:?}", recorded(lab, id)?);
    lab.agent.stop()?;
    for one in undecoded(lab, GOOGLE, 3)? {
        is_undecoded(lab, &one, Pod::A, MIRROR, OpaqueReason::ClientDoesNotTrustUs)?;
    }
    Ok(())
}

fn a_client_with_roots_of_its_own_loses_one_connection_and_works_from_then_on(lab: &mut Lab) -> Result<()> {
    let roots = own_roots(lab)?;
    let clients = lab.google_pod(Pod::A)?;
    loses_one(lab, |name, url| curl(&clients, name, &["--cacert", &roots, url]), &["unknown_ca"])
}

/// It trusts whoever vouches, and then looks at the certificate itself: the handshake is over by then.
fn a_client_that_pins_loses_one_connection_and_works_from_then_on(lab: &mut Lab) -> Result<()> {
    let shown = lab.ground.path("google/google.pem").display().to_string();
    let fingerprint = shell::run("openssl", &["x509", "-in", &shown, "-noout", "-fingerprint", "-sha256"])?;
    let pin = fingerprint.trim().rsplit('=').next().unwrap_or_default().to_owned();
    let both = both_roots(lab)?.display().to_string();
    let clients = lab.google_pod(Pod::A)?.with("NODE_EXTRA_CA_CERTS", both).with("VLAB_PIN", pin);
    loses_one(lab, |name, url| clients.node(name, "pins.mjs", &[url])?.wait(), &["eof"])
}

/// The same with curl, which then ends TLS in good order, as if it had not needed the connection.
fn a_client_that_pins_a_key_and_ends_in_good_order_loses_one_connection(lab: &mut Lab) -> Result<()> {
    let shown = lab.ground.path("google/google.pem").display().to_string();
    let pin = lab.ground.path("pin.pem");
    std::fs::write(&pin, shell::run("openssl", &["x509", "-in", &shown, "-noout", "-pubkey"])?)?;
    let (both, pin) = (both_roots(lab)?.display().to_string(), pin.display().to_string());
    let clients = lab.google_pod(Pod::A)?;
    let get = |name: &str, url: &str| {
        curl(&clients, name, &["--http2", "--cacert", &both, "--pinnedpubkey", &pin, url])
    };
    loses_one(lab, get, &["close_notify"])
}

/// GnuTLS leaves it to its caller to look at the certificate, who then just closes.
fn wget_that_verifies_after_the_handshake_loses_one_connection(lab: &mut Lab) -> Result<()> {
    let roots = own_roots(lab)?;
    let clients = lab.google_pod(Pod::A)?;
    let get = |name: &str, url: &str| {
        clients.start(name, "wget", &["-q", "-O", "-", "-t", "1", "--ca-certificate", &roots, url])?.wait()
    };
    loses_one(lab, get, &["eof"])
}

/// Refusing our certificate opens no way around.
fn a_client_that_refuses_us_gets_nowhere_where_the_selector_says_so(lab: &mut Lab) -> Result<()> {
    let roots = own_roots(lab)?;
    let clients = lab.google_pod(Pod::A)?;
    for id in ["a-first", "a-second"] {
        let ended = curl(&clients, id, &["--cacert", &roots, &url(MIRROR, id)])?;
        ensure!(!ended.status.success(), "{id} was let through");
        ensure!(arrived(lab, id)?.is_empty(), "{id} got there");
    }
    for one in undecoded(lab, GOOGLE, 2)? {
        is_undecoded(lab, &one, Pod::A, MIRROR, OpaqueReason::ClientDoesNotTrustUs)?;
    }
    lab.compare(&[])
}
