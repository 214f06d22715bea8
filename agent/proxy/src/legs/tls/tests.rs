use std::{
    future::poll_fn,
    io::Write,
    net::{TcpListener, TcpStream as Blocking},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use verbatim_wire::seam::Limits;

use super::*;

/// What a client does once it has the server's certificate.
#[derive(Clone, Copy, Debug)]
struct Last {
    /// Something within TLS.
    word: bool,
    /// TLS's own end.
    end: bool,
    /// RST, else FIN.
    reset: bool,
}

/// A leg toward a client that has sent its hello, and the client, which goes on by itself; `until`: what it waits for
/// between the handshake and its last words.
fn legs(last: Last, until: Option<mpsc::Receiver<()>>) -> (TlsLeg, JoinHandle<()>) {
    let made = rcgen::generate_simple_self_signed(["db.example".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let server =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = Blocking::connect(listener.local_addr().unwrap()).unwrap();
    let client = thread::spawn(move || leave(socket, client, last, until));
    let (accepted, _) = listener.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    let session = ServerConnection::new(Arc::new(server)).unwrap();
    let socket = TcpStream::from_std(accepted).unwrap();
    let pool = Rc::new(Pool::new(&Limits::default()));
    (TlsLeg::new(socket, session.into(), pool, Buffer::default()), client)
}

/// Sends its part of the handshake and its last words in one go, and is gone.
fn leave(mut socket: Blocking, config: ClientConfig, last: Last, until: Option<mpsc::Receiver<()>>) {
    let mut session = ClientConnection::new(Arc::new(config), "db.example".try_into().unwrap()).unwrap();
    while session.is_handshaking() {
        if session.wants_write() {
            session.write_tls(&mut socket).unwrap();
        }
        session.read_tls(&mut socket).unwrap();
        session.process_new_packets().unwrap();
    }
    if let Some(until) = until {
        session.write_tls(&mut socket).unwrap();
        until.recv().unwrap();
    }
    if last.word {
        session.writer().write_all(b"a word").unwrap();
    }
    if last.end {
        session.send_close_notify();
    }
    let mut words = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut words).unwrap();
    }
    socket.write_all(&words).unwrap();
    if last.reset {
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// Shakes hands with a client that is gone by the time that its part is read. Over loopback all that it sent is
/// there when it is.
async fn shake(leg: &mut TlsLeg, client: JoinHandle<()>) -> io::Result<()> {
    let mut client = Some(client);
    poll_fn(|cx| {
        let shaken = leg.poll_handshake(cx);
        if shaken.is_pending()
            && leg.session().negotiated_cipher_suite().is_some()
            && let Some(client) = client.take()
        {
            client.join().unwrap();
            // What came is not in the socket's readiness yet.
            cx.waker().wake_by_ref();
        }
        shaken
    })
    .await
}

#[test]
fn a_client_that_was_gone_before_its_tickets_is_known_by_its_last_words() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (word, end, reset) in (0..8).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0)) {
        let last = Last { word, end, reset };
        runtime.block_on(async {
            let (mut leg, client) = legs(last, None);
            shake(&mut leg, client).await.unwrap();
            // With FIN alone the first write is still taken, and answered by RST.
            let written = poll_fn(|cx| {
                drop(leg.poll_put(b"one", cx));
                leg.poll_put(b"two", cx)
            });
            assert!(written.await.is_err(), "{last:?}");
            let watch = leg.watch();
            assert_eq!(watch.spoke(), word, "{last:?}");
            assert_eq!(watch.ended(), end && !word, "{last:?}");
            assert_eq!(watch.truncated() || watch.reset(), !end && !word, "{last:?}");
            assert!(watch.failure().is_none(), "{last:?}");
        });
    }
}

#[test]
fn a_write_that_fails_since_we_are_done_ends_nothing_of_the_peers() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut leg, client) = legs(Last { word: true, end: false, reset: false }, None);
        poll_fn(|cx| leg.poll_handshake(cx)).await.unwrap();
        poll_fn(|cx| leg.poll_shut(false, cx)).await.unwrap();
        assert!(poll_fn(|cx| leg.poll_put(b"late", cx)).await.is_err());
        let mut word = [0; 6];
        assert_eq!(poll_fn(|cx| leg.poll_take(&mut word, cx)).await.unwrap(), 6);
        assert!(!leg.watch().reset() && !leg.watch().ended());
        client.join().unwrap();
    });
}

#[test]
fn a_reset_behind_the_end_of_tls_cuts_off_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (word, end) in [(false, false), (false, true), (true, false), (true, true)] {
        runtime.block_on(async {
            let (go, until) = mpsc::channel();
            let (mut leg, client) = legs(Last { word, end, reset: true }, Some(until));
            poll_fn(|cx| leg.poll_handshake(cx)).await.unwrap();
            go.send(()).unwrap();
            client.join().unwrap();
            let failed = poll_fn(|cx| leg.poll_put(b"late", cx)).await.unwrap_err().kind();
            let expected = if end { io::ErrorKind::BrokenPipe } else { io::ErrorKind::ConnectionReset };
            assert_eq!(failed, expected, "{word} {end}");
        });
    }
}
