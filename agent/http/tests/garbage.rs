//! Bytes changed at random, on either side: nothing panics, nothing hangs, and whatever began is told its end.

mod support;

use std::rc::Rc;

use support::{
    PATIENCE, Paired,
    frames::{
        DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE, field, frame, request,
    },
    run,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_local,
};
use verbatim_http::Version;

/// Numbers that look random and are the same each time (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most as u64) as usize
    }

    /// Changes, drops, doubles or moves a few bytes.
    fn spoil(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len().max(1));
            match self.below(5) {
                _ if bytes.is_empty() => {}
                0 => bytes[at] = self.below(256) as u8,
                1 => bytes[at] ^= 1 << self.below(8),
                2 => drop(bytes.remove(at)),
                3 => bytes.insert(at, b"\r\n \t:,;0\x00\xff"[self.below(10)]),
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes
    }
}

/// Sends bytes, then says that there are no more, and reads whatever comes.
async fn play(stream: TcpStream, bytes: Vec<u8>) -> Vec<u8> {
    let (mut read, mut write) = stream.into_split();
    spawn_local(async move {
        // The peer may close before it has read all.
        drop(write.write_all(&bytes).await);
        // Whoever ends is gone: the other side has a moment before.
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        drop(write.shutdown().await);
    });
    let mut all = Vec::new();
    drop(read.read_to_end(&mut all).await);
    all
}

async fn rounds(version: Version, from_client: &[u8], from_server: &[u8], spoil_client: bool) {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in 0..400 {
        let mut pair = Paired::new(version).await;
        let client = if spoil_client { numbers.spoil(from_client) } else { from_client.to_vec() };
        let server = if spoil_client { from_server.to_vec() } else { numbers.spoil(from_server) };
        let shown = client.clone();
        let client = spawn_local(play(pair.client(), client));
        let server = spawn_local(play(pair.server(), server));
        let recorder = Rc::clone(&pair.recorder);
        // What is told its end is checked where an exchange is dropped.
        let ended = tokio::time::timeout(PATIENCE / 2, pair.ended()).await;
        assert!(ended.is_ok(), "round {round} hangs: {}", shown.escape_ascii());
        for index in 0..recorder.count() {
            let seen = recorder.seen(index);
            assert!(seen.cut.is_some() || (seen.request_ended && seen.response_ended), "{seen:?}");
        }
        client.await.expect("no panic");
        server.await.expect("no panic");
    }
}

fn frames_of_a_client() -> Vec<u8> {
    [
        PREFACE.to_vec(),
        frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0]),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", "/")),
        frame(HEADERS, END_HEADERS, 3, &[request("POST", "/whole"), field("content-length", b"8")].concat()),
        frame(DATA, 0, 3, b"half"),
        frame(HEADERS, END_HEADERS, 5, &request("POST", "/pieces")),
        frame(DATA, END_STREAM, 3, b"half"),
        frame(DATA, 0, 5, b"message"),
        frame(HEADERS, END_HEADERS | END_STREAM, 5, &field("grpc-status", b"0")),
    ]
    .concat()
}

fn frames_of_a_server() -> Vec<u8> {
    [
        frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
        frame(SETTINGS, 1, 0, &[]),
        frame(HEADERS, END_HEADERS, 1, &[0x88]),
        frame(DATA, END_STREAM, 1, b"answer"),
        frame(HEADERS, END_HEADERS, 3, &[vec![0x88], field("content-length", b"6")].concat()),
        frame(DATA, 0, 3, b"ans"),
        frame(DATA, END_STREAM, 3, b"wer"),
        frame(HEADERS, END_HEADERS, 5, &[0x88]),
        frame(HEADERS, END_HEADERS | END_STREAM, 5, &field("grpc-status", b"0")),
    ]
    .concat()
}

const REQUESTS: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n\
    POST /whole HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
    POST /pieces HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n\
    GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

const ANSWERS: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\
    HTTP/1.1 100 Continue\r\n\r\n\
    HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n\
    HTTP/1.1 204 No Content\r\n\r\n\
    HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok";

#[test]
fn requests_changed_at_random_hang_nothing() {
    run(rounds(Version::Http1, REQUESTS, ANSWERS, true));
}

#[test]
fn answers_changed_at_random_hang_nothing() {
    run(rounds(Version::Http1, REQUESTS, ANSWERS, false));
}

#[test]
fn a_clients_frames_changed_at_random_hang_nothing() {
    let (client, server) = (frames_of_a_client(), frames_of_a_server());
    run(async move { rounds(Version::Http2, &client, &server, true).await });
}

#[test]
fn a_servers_frames_changed_at_random_hang_nothing() {
    let (client, server) = (frames_of_a_client(), frames_of_a_server());
    run(async move { rounds(Version::Http2, &client, &server, false).await });
}
