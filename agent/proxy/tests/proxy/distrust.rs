//! TLS that does not come about: servers that we do not trust, clients that do not trust us, servers that want
//! a certificate.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use rcgen::KeyPair;
use rustls::{
    ClientConfig, ClientConnection, ServerConfig,
    version::{TLS12, TLS13},
};
use verbatim_api::v1;

use crate::support::{
    World, eventually,
    tls::{
        Client, Lab, Server, alpn, close_client, close_server, connect, expect, params, say, serve,
        server_config, shake, shake_server,
    },
};

pub(crate) fn closing(world: &World) -> (v1::Envelope, v1::Content) {
    let record = eventually("the closing record", || world.spool().closing());
    (record.envelope, record.content.unwrap())
}

/// Servers that must not be believed, and what the record says of each.
fn bad_servers(lab: &Lab) -> Vec<(ServerConfig, &'static str)> {
    let key = KeyPair::generate().unwrap();
    let mut expired = params(&["db.example"]);
    expired.not_before = rcgen::date_time_ymd(2001, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let stranger = Lab::new();
    let self_signed = params(&["db.example"]).self_signed(&key).unwrap();
    vec![
        (server_config(lab.signed(&expired, &key), &key), "it has expired"),
        (server_config(lab.signed(&params(&["other.example"]), &key), &key), "it is for another name"),
        (server_config(self_signed.into(), &key), "its issuer is not among the trusted roots"),
        (server_config(stranger.signed(&params(&["db.example"]), &key), &key), "its issuer"),
    ]
}

#[test]
fn a_server_that_is_not_verified_is_an_alert_for_the_client_and_never_our_leaf() {
    let lab = Lab::new();
    for (server, why) in bad_servers(&lab) {
        for versions in [&[&TLS12][..], &[&TLS13]] {
            let world = lab.world();
            let serving = serve(&world, server.clone());
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(lab.authority.roots());
            let client = ClientConfig::builder_with_protocol_versions(versions)
                .with_root_certificates(roots)
                .with_no_client_auth();
            let error = shake(&world, client, "db.example").unwrap_err();
            assert!(error.to_string().contains("HandshakeFailure"), "{error}");
            // Of TLS 1.3, the server is done before it reads our alert.
            drop(serving.join().unwrap());
            let (envelope, content) = closing(&world);
            assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::ServerNotTrusted);
            assert_eq!(envelope.status(), v1::Status::Error);
            assert!(content.note.contains(why), "{}", content.note);
            assert!(content.note.contains("db.example"), "{}", content.note);
            let tls = content.tls.unwrap();
            assert_eq!(tls.client, None, "nothing was agreed on with the client");
        }
    }
}

#[test]
fn a_server_that_is_not_verified_is_passed_on_where_trust_says_so() {
    let lab = Lab::new();
    lab.trust.splices_all.store(true, Ordering::Relaxed);
    let world = lab.world();
    let key = KeyPair::generate().unwrap();
    let certificate = params(&["db.example"]).self_signed(&key).unwrap();
    let server = server_config(certificate.der().clone(), &key);
    let listener = world.server.try_clone().unwrap();
    let config = Arc::new(server);
    let serving = thread::spawn(move || {
        // The proxy's own try, then the client's hello on a connection of its own.
        let (first, _) = listener.accept().unwrap();
        drop(shake_server(first, Arc::clone(&config)));
        let (second, _) = listener.accept().unwrap();
        shake_server(second, config).unwrap()
    });
    let client = crate::support::tls::client_config(&[certificate.der().clone()]);
    let mut client = shake(&world, client, "db.example").unwrap();
    let mut server = serving.join().unwrap();
    say(&mut client, b"secret\n");
    expect(&mut server, b"secret\n");
    drop((client, server));
    let (envelope, content) = closing(&world);
    assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::ServerNotTrusted);
    assert_eq!(envelope.capture(), v1::Capture::SeenNotDecoded);
    assert!(content.note.contains("trusted roots"), "{}", content.note);
}

#[test]
fn a_client_that_refuses_our_leaf_loses_one_connection_and_the_next_is_passed_on() {
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let lab = Lab::new();
        let world = lab.world();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(lab.root.der().clone()).unwrap();
        let pinning = ClientConfig::builder_with_protocol_versions(versions)
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = lab.server(&["db.example"]);
        let serving = serve(&world, server.clone());
        let error = shake(&world, pinning.clone(), "db.example").unwrap_err();
        assert!(error.to_string().contains("UnknownIssuer"), "{error}");
        drop(serving.join().unwrap());
        let (envelope, content) = closing(&world);
        assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::ClientDoesNotTrustUs);
        assert_eq!(content.tls.unwrap().refusal, "unknown_ca");
        assert!(content.note.contains("unknown_ca"), "{}", content.note);
        let refused = lab.trust.refused.lock().unwrap().clone();
        assert_eq!(refused, [(Some("db.example".to_owned()), "unknown_ca".to_owned())]);

        let (mut client, mut server) = connect(&world, pinning, "db.example", server);
        say(&mut client, b"secret\n");
        expect(&mut server, b"secret\n");
        drop((client, server));
        eventually("the end", || (world.shards.stats().open == 0).then_some(()));
        assert_eq!(closing(&world).0.opaque_reason(), v1::OpaqueReason::ClientDoesNotTrustUs);
        assert_eq!(world.shards.stats().spliced.get(v1::OpaqueReason::ClientDoesNotTrustUs), 2);
    }
}

/// Goes away upon our certificate, without a word.
fn leave(world: &World, config: ClientConfig, reset: bool) {
    let mut socket = world.client().stream;
    let mut session = ClientConnection::new(Arc::new(config), "db.example".try_into().unwrap()).unwrap();
    session.write_tls(&mut socket).unwrap();
    let mut answer = [0; 5];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer[0], 0x16, "a handshake record");
    if reset {
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

#[test]
fn a_client_that_goes_away_upon_our_certificate_without_a_word_has_refused_it() {
    for reset in [false, true] {
        let lab = Lab::new();
        let world = lab.world();
        let serving = serve(&world, lab.server(&["db.example"]));
        leave(&world, lab.client(), reset);
        drop(serving.join().unwrap());
        let (envelope, content) = closing(&world);
        assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::ClientDoesNotTrustUs);
        assert_eq!(content.tls.unwrap().refusal, "eof");
        assert_eq!(lab.trust.refused.lock().unwrap().len(), 1);
    }
}

/// A server that takes its time loses clients, none of which has seen our certificate.
#[test]
fn a_client_that_goes_away_before_it_is_answered_has_refused_nothing() {
    for reset in [false, true] {
        let lab = Lab::new();
        let world = lab.world();
        let mut socket = world.client().stream;
        let mut session =
            ClientConnection::new(Arc::new(lab.client()), "db.example".try_into().unwrap()).unwrap();
        session.write_tls(&mut socket).unwrap();
        let server = world.accept();
        if reset {
            socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(socket);
        // It had the client's end before the server's first byte.
        drop(shake_server(server.stream, Arc::new(lab.server(&["db.example"]))));
        let (envelope, content) = closing(&world);
        assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::TlsHandshakeFailed);
        assert!(content.note.contains("before it was answered"), "{}", content.note);
        assert!(lab.trust.refused.lock().unwrap().is_empty());
    }
}

#[test]
fn a_client_that_has_spoken_before_may_go_away_in_the_handshake() {
    for reset in [false, true] {
        let lab = Lab::new();
        let world = lab.world();
        let (mut client, mut server) =
            connect(&world, lab.client(), "db.example", lab.server(&["db.example"]));
        say(&mut client, b"one\n");
        expect(&mut server, b"one\n");
        let serving = serve(&world, lab.server(&["db.example"]));
        leave(&world, lab.client(), reset);
        drop(serving.join().unwrap());
        let (envelope, content) = closing(&world);
        assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::TlsHandshakeFailed);
        assert!(content.note.contains("the client's TLS handshake failed"), "{}", content.note);
        assert!(lab.trust.refused.lock().unwrap().is_empty());
    }
}

/// As a pool does that opens connections in advance, whose server has no patience.
#[test]
fn a_client_whose_server_ended_first_has_refused_nothing() {
    for clean in [false, true] {
        let lab = Lab::new();
        let world = lab.world();
        for _ in 0..2 {
            let (mut client, mut server) =
                connect(&world, lab.client(), "db.example", lab.server(&["db.example"]));
            match clean {
                true => close_server(&mut server),
                false => server.sock.shutdown(std::net::Shutdown::Write).unwrap(),
            }
            assert_eq!(client.read(&mut [0; 8]).is_ok_and(|n| n == 0), clean, "the server's end, as it was");
            drop(client);
            assert!(server.read(&mut [0; 8]).is_err(), "the client's end, as it was");
        }
        let ended = eventually("the closing records", || {
            let mut records = world.spool().of_kind(v1::RecordKind::Connection);
            records.retain(|record| record.envelope.status() != v1::Status::Pending);
            (records.len() == 2).then_some(records)
        });
        for record in ended {
            assert_eq!(record.envelope.opaque_reason(), v1::OpaqueReason::Silent);
        }
        assert!(lab.trust.refused.lock().unwrap().is_empty());
    }
}

/// The client first: the server goes when it was told, for whose end is read first says who has ended the connection.
fn leaves(client: Client, mut server: Server) {
    drop(client);
    drop(server.read_to_end(&mut Vec::new()));
}

#[test]
fn a_client_that_verifies_only_after_the_handshake_and_goes_away_has_refused_our_leaf() {
    let lab = Lab::new();
    let world = lab.world();
    let (client, server) = connect(&world, lab.client(), "db.example", lab.server(&["db.example"]));
    // FIN without TLS's end, as Node has it.
    client.sock.shutdown(std::net::Shutdown::Both).unwrap();
    leaves(client, server);
    let (envelope, content) = closing(&world);
    assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::ClientDoesNotTrustUs);
    assert_eq!(content.tls.unwrap().refusal, "eof");
}

#[test]
fn a_client_that_goes_away_in_good_order_and_never_says_a_word_has_refused_our_leaf_the_second_time() {
    let lab = Lab::new();
    let world = lab.world();
    for (before, reason) in
        [v1::OpaqueReason::Silent, v1::OpaqueReason::ClientDoesNotTrustUs].into_iter().enumerate()
    {
        let (mut client, server) = connect(&world, lab.client(), "db.example", lab.server(&["db.example"]));
        client.conn.send_close_notify();
        client.flush().unwrap();
        client.sock.shutdown(std::net::Shutdown::Write).unwrap();
        leaves(client, server);
        let ended = eventually("the closing record", || {
            let mut records = world.spool().of_kind(v1::RecordKind::Connection);
            records.retain(|record| record.envelope.status() != v1::Status::Pending);
            (records.len() > before).then(|| records.pop()).flatten()
        });
        assert_eq!(ended.envelope.opaque_reason(), reason);
    }
    assert_eq!(lab.trust.refused.lock().unwrap().len(), 1);
}

/// Its protocol has every client speak at once, so one that does not has not opened the connection in advance.
#[test]
fn a_client_of_a_protocol_in_which_it_speaks_at_once_and_does_not_has_refused_our_leaf_the_first_time() {
    for protocol in ["h2", "postgresql", "http/1.1"] {
        let lab = Lab::new();
        let world = lab.real_world(1);
        let (mut client, mut server) = (lab.client(), lab.server(&["db.example"]));
        client.alpn_protocols = alpn(&[protocol]);
        server.alpn_protocols = alpn(&[protocol]);
        let (mut client, server) = connect(&world, client, "db.example", server);
        close_client(&mut client);
        leaves(client, server);
        let (envelope, content) = closing(&world);
        let at_once = protocol != "http/1.1";
        let expected =
            if at_once { v1::OpaqueReason::ClientDoesNotTrustUs } else { v1::OpaqueReason::Silent };
        assert_eq!(envelope.opaque_reason(), expected, "{protocol}");
        assert_eq!(content.tls.unwrap().refusal, if at_once { "close_notify" } else { "" });
        assert_eq!(lab.trust.refused.lock().unwrap().len(), usize::from(at_once));
    }
}

/// It is gone before it could be answered: whether its going or our answer is noticed first says nothing of it.
#[test]
fn a_client_that_ends_in_good_order_and_is_gone_at_once_is_known_by_its_protocol_alone() {
    for round in 0..40 {
        for (protocol, expected) in
            [("h2", v1::OpaqueReason::ClientDoesNotTrustUs), ("http/1.1", v1::OpaqueReason::Silent)]
        {
            let lab = Lab::new();
            let world = lab.real_world(1);
            let (mut client, mut server) = (lab.client(), lab.server(&["db.example"]));
            client.alpn_protocols = alpn(&[protocol]);
            server.alpn_protocols = alpn(&[protocol]);
            let serving = serve(&world, server);
            leave_in_good_order(&world, client);
            drop(serving.join().unwrap());
            let (envelope, _) = closing(&world);
            assert_eq!(envelope.opaque_reason(), expected, "{protocol}, round {round}");
        }
    }
}

/// Sends its part of the handshake and TLS's own end in one go, and resets.
fn leave_in_good_order(world: &World, config: ClientConfig) {
    let mut socket = world.client().stream;
    let mut session = ClientConnection::new(Arc::new(config), "db.example".try_into().unwrap()).unwrap();
    while session.is_handshaking() {
        if session.wants_write() {
            session.write_tls(&mut socket).unwrap();
        }
        session.read_tls(&mut socket).unwrap();
        session.process_new_packets().unwrap();
    }
    session.send_close_notify();
    let mut last = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut last).unwrap();
    }
    socket.write_all(&last).unwrap();
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_client_that_has_spoken_before_may_open_a_connection_and_close_it_unused() {
    let lab = Lab::new();
    let world = lab.world();
    let (mut client, mut server) = connect(&world, lab.client(), "db.example", lab.server(&["db.example"]));
    say(&mut client, b"one\n");
    expect(&mut server, b"one\n");
    let (unused, its_server) = connect(&world, lab.client(), "db.example", lab.server(&["db.example"]));
    unused.sock.shutdown(std::net::Shutdown::Both).unwrap();
    leaves(unused, its_server);
    let (envelope, _) = closing(&world);
    assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::Silent);
    assert!(lab.trust.refused.lock().unwrap().is_empty());
}

#[test]
fn a_server_that_breaks_the_handshake_off_is_dialled_again_with_the_clients_own_hello() {
    let lab = Lab::new();
    let world = lab.world();
    let config = Arc::new(lab.server(&["db.example"]));
    let listener = world.server.try_clone().unwrap();
    let serving = thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        // A server that goes away before it was told anything has not broken a handshake off.
        first.read_exact(&mut [0; 5]).unwrap();
        drop(first);
        let (second, _) = listener.accept().unwrap();
        shake_server(second, config).unwrap()
    });
    let mut client = shake(&world, lab.pinning_client(), "db.example").unwrap();
    let mut server = serving.join().unwrap();
    say(&mut client, b"secret\n");
    expect(&mut server, b"secret\n");
    drop((client, server));
    let (envelope, content) = closing(&world);
    assert_eq!(envelope.opaque_reason(), v1::OpaqueReason::TlsHandshakeFailed);
    assert!(content.note.contains("TLS with the server failed"), "{}", content.note);
    assert_eq!(world.shards.stats().dialled, 2);
}

#[test]
fn renegotiation_is_not_done_and_the_connection_goes_on_or_is_recorded_as_broken() {
    if !verbatim_missing::has("openssl") {
        return;
    }
    let lab = Lab::new();
    let world = lab.world();
    let serving = serve(&world, lab.server(&["db.example"]));
    let port = world.proxies[0].port().to_string();
    let mut openssl = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-legacy_renegotiation", "-servername", "db.example", "-connect"])
        .arg(format!("127.0.0.1:{port}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut server = serving.join().unwrap().unwrap();
    let mut input = openssl.stdin.take().unwrap();
    input.write_all(b"one\n").unwrap();
    expect(&mut server, b"one\n");
    // A command of s_client's: begin a new handshake.
    input.write_all(b"R\n").unwrap();
    let _told = input.write_all(b"two\n");
    drop(input);
    let mut rest = Vec::new();
    let _cut_off = server.read_to_end(&mut rest);
    openssl.wait().unwrap();
    drop(server);
    let (_, content) = closing(&world);
    let went_on = rest == b"two\n";
    assert!(went_on || content.note.contains("TLS with the workload broke"), "{rest:?}: {}", content.note);
}
