//! What a peer says before it goes is heard, and what the other side is owed of it arrives.

mod support;

use std::{io::ErrorKind, rc::Rc, time::Duration};

use support::{
    Recorder,
    frames::{
        DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, frame, request,
    },
    run,
    scripted::Scripted,
};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, spawn_local},
};
use verbatim_http::{Ended, HttpConfig, Version, seam::Cut, serve};

const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// `:status: 200` of the static table (RFC 7541 appendix A).
const OK: &[u8] = &[0x88];

/// A pair between two legs that do as they are told.
struct Pair {
    client: Scripted,
    server: Scripted,
    recorder: Rc<Recorder>,
    ended: JoinHandle<Ended<Scripted, Scripted>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Pair {
    fn new(version: Version) -> Self {
        // The least that can be: what waits for it does so as if it were long over.
        let config = HttpConfig { linger: Duration::from_millis(1), ..HttpConfig::default() };
        let (client, server) = (Scripted::default(), Scripted::default());
        let recorder = Rc::new(Recorder::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let (legs, exchanges) = ((client.clone(), server.clone()), Rc::clone(&recorder));
        let ended = spawn_local(async move {
            let stop = async move {
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            serve(legs.0, legs.1, version, &config, exchanges, stop).await
        });
        Self { client, server, recorder, ended, stop: Some(stop) }
    }

    /// An HTTP/2 pair whose settings have been said.
    fn http2(settings: &[u8]) -> Self {
        let pair = Self::new(Version::Http2);
        pair.client.say(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat());
        pair.server.say(&frame(SETTINGS, 0, 0, &[]));
        pair
    }

    fn ask(&self, stream: u32) {
        self.client.say(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/")));
    }

    /// Waits until the server was asked so often.
    async fn asked(&self, times: usize) {
        until(|| frames(&self.server.written(), PREFACE.len(), HEADERS).len() == times).await;
    }

    /// The frames of a kind that the client was sent.
    fn to_client(&self, kind: u8) -> Vec<Frame> {
        frames(&self.client.written(), 0, kind)
    }

    /// The bytes that the client was sent of a stream.
    fn body(&self, stream: u32) -> Vec<u8> {
        let frames = self.to_client(DATA);
        frames.into_iter().filter(|frame| frame.stream == stream).flat_map(|frame| frame.payload).collect()
    }

    /// Whether the client has the whole answer of a stream.
    fn answered(&self, stream: u32) -> bool {
        let [heads, data] = [HEADERS, DATA].map(|kind| self.to_client(kind));
        let ends = |frame: &Frame| frame.stream == stream && frame.flags & END_STREAM != 0;
        heads.iter().chain(&data).any(ends)
    }

    /// The code with which a stream of the client's was reset.
    fn reset(&self, stream: u32) -> Option<u32> {
        let resets = self.to_client(RST_STREAM);
        resets.iter().find(|frame| frame.stream == stream).map(Frame::code)
    }

    /// Reads the client's part to the end, as a client does: it answers the last PING.
    async fn ended(self) -> (Ended<Scripted, Scripted>, Rc<Recorder>) {
        let client = self.client.clone();
        let pongs = spawn_local(async move {
            until(|| !frames(&client.written(), 0, PING).is_empty()).await;
            for ping in frames(&client.written(), 0, PING) {
                client.say(&frame(PING, 1, 0, &ping.payload));
            }
        });
        let ended = self.ended.await.expect("no panic");
        pongs.abort();
        (ended, self.recorder)
    }
}

/// Waits until something is so.
async fn until(so: impl Fn() -> bool) {
    while !so() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The frames of a kind in what was written, behind so many bytes of a preface.
fn frames(bytes: &[u8], preface: usize, kind: u8) -> Vec<Frame> {
    let mut rest = bytes.get(preface..).unwrap_or_default();
    let mut all = Vec::new();
    while let Some(([l0, l1, l2, kind, flags, s0, s1, s2, s3], behind)) = rest.split_first_chunk() {
        let length = u32::from_be_bytes([0, *l0, *l1, *l2]) as usize;
        let Some((payload, behind)) = behind.split_at_checked(length) else { break };
        let stream = u32::from_be_bytes([*s0, *s1, *s2, *s3]);
        all.push(Frame { kind: *kind, flags: *flags, stream, payload: payload.to_vec() });
        rest = behind;
    }
    all.retain(|frame| frame.kind == kind);
    all
}

/// A whole answer of so many bytes.
fn answer(stream: u32, bytes: usize) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, stream, OK);
    [head, frame(DATA, END_STREAM, stream, &vec![b'a'; bytes])].concat()
}

/// A connection's last word: streams above `last` were not looked at.
fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

fn window(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// SETTINGS_INITIAL_WINDOW_SIZE.
fn initial_window(bytes: u32) -> Vec<u8> {
    [&[0, 4], &bytes.to_be_bytes()[..]].concat()
}

#[test]
fn what_a_server_says_before_a_write_to_it_fails_is_heard() {
    run(async {
        let pair = Pair::http2(&[]);
        pair.ask(1);
        pair.asked(1).await;
        // The answer and the GOAWAY are there, and nobody has looked.
        let last_words = [answer(1, 10), goaway(1, NO_ERROR)].concat();
        pair.server.go(ErrorKind::ConnectionReset, &last_words, None);
        pair.ask(3);
        until(|| pair.answered(1) && pair.reset(3).is_some()).await;
        // It may be sent again.
        assert_eq!(pair.reset(3), Some(REFUSED_STREAM));
        assert_eq!(pair.body(1).len(), 10);
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Closed), "it has said that it goes: {ended:?}");
        assert!(recorder.seen(0).response_ended && recorder.seen(0).cut.is_none());
        assert_eq!(recorder.seen(1).cut, Some(Cut::Server));
    });
}

#[test]
fn a_client_that_closes_in_order_does_so_also_where_a_write_notices_it() {
    run(async {
        for (fails, end, in_order) in [
            (ErrorKind::BrokenPipe, None, true),
            // TLS that ends without saying so.
            (ErrorKind::BrokenPipe, Some(ErrorKind::UnexpectedEof), true),
            (ErrorKind::ConnectionReset, None, false),
            (ErrorKind::ConnectionReset, Some(ErrorKind::UnexpectedEof), false),
        ] {
            let pair = Pair::http2(&[]);
            pair.ask(1);
            pair.asked(1).await;
            pair.server.say(&answer(1, 10));
            until(|| pair.answered(1)).await;
            pair.client.go(fails, &[], end);
            // What is answered at once.
            pair.client.say(&frame(PING, 0, 0, &[0; 8]));
            let ended = pair.ended.await.expect("no panic");
            assert_eq!(matches!(ended, Ended::Closed), in_order, "{fails}, {end:?}: {ended:?}");
        }
    });
}

#[test]
fn a_write_that_fails_on_a_connection_that_never_ends_ends_it() {
    run(async {
        let pair = Pair::http2(&[]);
        pair.ask(1);
        pair.asked(1).await;
        pair.server.fail(ErrorKind::OutOfMemory);
        pair.ask(3);
        until(|| pair.reset(1).is_some() && pair.reset(3).is_some()).await;
        let (ended, _) = pair.ended().await;
        assert!(matches!(ended, Ended::Server(_)), "{ended:?}");
    });
}

#[test]
fn an_answer_right_before_a_goaway_with_an_error_arrives() {
    run(async {
        let pair = Pair::http2(&[]);
        pair.ask(1);
        pair.asked(1).await;
        pair.server.say(&[answer(1, 1000), goaway(1, ENHANCE_YOUR_CALM)].concat());
        pair.server.end();
        until(|| pair.answered(1)).await;
        assert_eq!(pair.body(1).len(), 1000);
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Server(_)), "{ended:?}");
        assert!(recorder.seen(0).response_ended && recorder.seen(0).cut.is_none());
    });
}

#[test]
fn an_answer_arrives_although_its_neighbour_is_lost_with_the_server() {
    run(async {
        let pair = Pair::http2(&[]);
        pair.ask(1);
        pair.ask(3);
        pair.asked(2).await;
        pair.server.say(&answer(1, 1000));
        pair.server.end();
        until(|| pair.answered(1) && pair.reset(3).is_some()).await;
        assert_eq!(pair.body(1).len(), 1000);
        let (ended, recorder) = pair.ended().await;
        assert!(matches!(ended, Ended::Server(_)), "{ended:?}");
        assert!(recorder.seen(0).cut.is_none());
        assert_eq!(recorder.seen(1).cut, Some(Cut::Server));
    });
}

/// Ends of a server behind a whole answer, and whether they are ends in order.
fn ends() -> [(Vec<u8>, bool); 3] {
    [(Vec::new(), true), (goaway(1, NO_ERROR), true), (goaway(1, ENHANCE_YOUR_CALM), false)]
}

#[test]
fn a_client_that_takes_its_time_gets_the_whole_answer_of_a_server_that_has_ended() {
    run(async {
        for (end, in_order) in ends() {
            let pair = Pair::http2(&initial_window(10));
            pair.ask(1);
            pair.asked(1).await;
            pair.server.say(&[answer(1, 1000), end].concat());
            pair.server.end();
            // It is told that the server is gone, and much longer than a goodbye may take nothing happens.
            until(|| !pair.to_client(GOAWAY).is_empty()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            pair.client.say(&window(1, 1000));
            until(|| pair.answered(1)).await;
            assert_eq!(pair.body(1).len(), 1000);
            let (ended, recorder) = pair.ended().await;
            assert_eq!(matches!(ended, Ended::Closed), in_order, "{ended:?}");
            assert!(recorder.seen(0).response_ended && recorder.seen(0).cut.is_none());
        }
    });
}

#[test]
fn a_client_that_never_takes_its_answer_is_left_when_the_pair_is_told_to_stop() {
    run(async {
        for (end, _) in ends() {
            let mut pair = Pair::http2(&initial_window(10));
            pair.ask(1);
            pair.asked(1).await;
            pair.server.say(&[answer(1, 1000), end].concat());
            pair.server.end();
            pair.recorder.until(|recorder| recorder.seen(0).response_ended).await;
            until(|| !pair.to_client(GOAWAY).is_empty()).await;
            pair.stop.take().expect("not stopped").send(()).expect("served");
            pair.ended.await.expect("no panic");
        }
    });
}

/// It answers no PING, as one that reads only while it waits for an answer.
#[test]
fn a_client_that_is_owed_nothing_is_not_waited_for_when_its_server_has_ended() {
    run(async {
        for (asks, (end, _)) in [false, true].into_iter().flat_map(|asks| ends().map(|end| (asks, end))) {
            let pair = Pair::http2(&[]);
            if asks {
                pair.ask(1);
                pair.asked(1).await;
                pair.server.say(&answer(1, 1000));
                until(|| pair.answered(1)).await;
            }
            pair.server.say(&end);
            pair.server.end();
            pair.ended.await.expect("no panic");
        }
    });
}

/// Nothing of it is read any more, its end neither.
#[test]
fn a_client_that_floods_while_it_is_owed_an_answer_is_not_waited_for() {
    run(async {
        for (end, _) in ends() {
            let pair = Pair::http2(&[]);
            pair.ask(1);
            pair.asked(1).await;
            pair.client.stall(true);
            pair.server.say(&[answer(1, 1000), end].concat());
            pair.server.end();
            pair.recorder.until(|recorder| recorder.seen(0).response_ended).await;
            // Much longer than a goodbye may take.
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(!pair.ended.is_finished(), "it is owed an answer");
            pair.client.say(&frame(PRIORITY, 0, 1, &[0; 5]).repeat(10_000));
            pair.client.end();
            pair.ended.await.expect("no panic");
        }
    });
}

#[test]
fn an_answer_to_an_upload_over_http_2_is_heard_where_the_connection_ends_behind_it() {
    run(async {
        for (words, end) in [
            (answer(1, 1000), None),
            (answer(1, 1000), Some(ErrorKind::ConnectionReset)),
            ([answer(1, 1000), goaway(1, NO_ERROR)].concat(), None),
            ([answer(1, 1000), goaway(1, ENHANCE_YOUR_CALM)].concat(), None),
        ] {
            let pair = Pair::http2(&[]);
            pair.client.say(&frame(HEADERS, END_HEADERS, 1, &request("POST", "/pieces")));
            pair.client.say(&frame(DATA, 0, 1, &[b'a'; 1000]));
            pair.asked(1).await;
            pair.server.say(&words);
            pair.server.ends(end);
            until(|| pair.answered(1)).await;
            assert_eq!(pair.body(1).len(), 1000);
            let (ended, recorder) = pair.ended().await;
            assert_eq!(
                matches!(ended, Ended::Closed),
                end.is_none() && words.last() != Some(&11),
                "{ended:?}"
            );
            let seen = recorder.seen(0);
            assert_eq!((seen.response.len(), seen.response_ended), (1000, true));
        }
    });
}

#[test]
fn an_answer_that_is_there_when_its_client_goes_is_shown() {
    run(async {
        for parts in [1, 3] {
            for goes in ["resets", "closes"] {
                let pair = Pair::http2(&[]);
                pair.ask(1);
                pair.asked(1).await;
                // Both in one turn.
                match goes {
                    "resets" => pair.client.say(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
                    _ => pair.client.end(),
                }
                let mut all = frame(HEADERS, END_HEADERS, 1, OK);
                for part in 1..=parts {
                    let ends = if part == parts { END_STREAM } else { 0 };
                    all.extend(frame(DATA, ends, 1, b"ok"));
                }
                pair.server.say(&all);
                pair.recorder.until(|recorder| recorder.seen(0).response_ended).await;
                let seen = pair.recorder.seen(0);
                assert_eq!(
                    (seen.status, seen.response.len(), seen.cut),
                    (Some(200), 2 * parts, None),
                    "{goes}"
                );
                pair.client.end();
                let (ended, _) = pair.ended().await;
                assert_eq!(matches!(ended, Ended::Closed), goes == "resets", "{ended:?}");
            }
        }
    });
}

#[test]
fn what_has_come_of_an_answer_when_its_client_goes_is_shown_and_cut() {
    run(async {
        let pair = Pair::http2(&[]);
        pair.ask(1);
        pair.asked(1).await;
        pair.client.say(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
        pair.server.say(&[frame(HEADERS, END_HEADERS, 1, OK), frame(DATA, 0, 1, b"some")].concat());
        pair.recorder.until(|recorder| recorder.seen(0).cut.is_some()).await;
        let seen = pair.recorder.seen(0);
        assert_eq!((seen.status, &seen.response[..], seen.cut), (Some(200), &b"some"[..], Some(Cut::Client)));
    });
}

#[test]
fn a_request_whose_server_has_gone_before_it_was_sent_is_told_so_and_may_be_sent_again() {
    run(async {
        for (last_words, code) in [
            (Vec::new(), REFUSED_STREAM),
            (goaway(0, NO_ERROR), REFUSED_STREAM),
            (goaway(0, ENHANCE_YOUR_CALM), ENHANCE_YOUR_CALM),
        ] {
            let pair = Pair::http2(&[]);
            pair.client.say(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", "/hold")));
            pair.recorder.until(|recorder| recorder.count() == 1).await;
            pair.server.say(&last_words);
            pair.server.end();
            until(|| !pair.to_client(GOAWAY).is_empty()).await;
            // Nobody is asked about it in vain.
            until(|| pair.reset(1).is_some()).await;
            assert_eq!((pair.reset(1), pair.recorder.seen(0).cut), (Some(code), Some(Cut::Unsent)));
            pair.asked(0).await;
        }
    });
}

#[test]
fn a_request_over_http_1_whose_server_has_gone_before_it_was_sent_is_told_so() {
    run(async {
        for (again, in_one_turn) in [(false, false), (false, true), (true, false), (true, true)] {
            let pair = Pair::new(Version::Http1);
            if again {
                pair.client.say(b"GET / HTTP/1.1\r\nHost: example.test\r\n\r\n");
                until(|| !pair.server.written().is_empty()).await;
                pair.server.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                until(|| pair.client.written().ends_with(b"ok")).await;
            }
            let written = pair.server.written().len();
            pair.client.say(b"GET /hold HTTP/1.1\r\nHost: example.test\r\n\r\n");
            pair.recorder.until(|recorder| recorder.count() == 1 + usize::from(again)).await;
            pair.server.end();
            if !in_one_turn {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            pair.recorder.release();
            let ended = pair.ended.await.expect("no panic");
            assert!(matches!(ended, Ended::Server(_)), "{ended:?}");
            assert_eq!(pair.recorder.seen(usize::from(again)).cut, Some(Cut::Unsent));
            assert_eq!(pair.server.written().len(), written);
        }
    });
}

/// What a client sends of an upload that has more to come.
const UPLOAD: &str = "POST /pieces HTTP/1.1\r\nHost: example.test\r\nContent-Length: 1000000\r\n\r\n";

/// Answers to an upload that is not wanted: with a length, chunked, and with an end in order; by what comes behind
/// the head, and what of it the client gets.
fn refusals() -> [(Vec<u8>, ErrorKind); 3] {
    let head = "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n";
    let body = "x".repeat(100_000);
    let length = format!("{head}Content-Length: 100000\r\n\r\n{body}");
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n186a0\r\n{body}\r\n0\r\n\r\n");
    let closed = format!("{head}\r\n{body}");
    [
        (length.into(), ErrorKind::ConnectionReset),
        (chunked.into(), ErrorKind::ConnectionReset),
        (closed.into(), ErrorKind::BrokenPipe),
    ]
}

/// How many bytes of the body of a refusal there are.
fn refused(answer: &[u8]) -> usize {
    answer.iter().filter(|&&byte| byte == b'x').count()
}

/// An HTTP/1.1 pair in the middle of a large upload.
async fn uploading() -> Pair {
    let pair = Pair::new(Version::Http1);
    pair.client.say(UPLOAD.as_bytes());
    pair.client.say(&[b'a'; 1000]);
    until(|| pair.server.written().ends_with(b"aaaa")).await;
    pair
}

#[test]
fn an_answer_to_an_upload_is_heard_where_writing_on_fails_before_it_is_read() {
    run(async {
        for (answer, fails) in refusals() {
            let pair = uploading().await;
            pair.server.go(fails, &answer, None);
            pair.client.say(&[b'a'; 1000]);
            until(|| refused(&pair.client.written()) == 100_000).await;
            assert!(pair.client.written().starts_with(b"HTTP/1.1 413 "));
            pair.client.end();
            pair.ended.await.expect("no panic");
            let seen = pair.recorder.seen(0);
            assert_eq!((seen.status, seen.response.len()), (Some(413), 100_000));
            assert!(seen.response_ended && !seen.request_ended);
            assert!(pair.server.written().len() < 1500, "what fails was not sent");
        }
    });
}

#[test]
fn an_answer_to_an_upload_is_heard_where_writing_on_fails_while_it_is_read() {
    run(async {
        for (answer, fails) in refusals() {
            let pair = uploading().await;
            // Both in one turn: the first of the answer is read, and there is more of the upload.
            let (first, rest) = answer.split_at(1000);
            pair.server.say(first);
            pair.server.go(fails, rest, None);
            pair.client.say(&[b'a'; 1000]);
            until(|| refused(&pair.client.written()) == 100_000).await;
            pair.client.end();
            pair.ended.await.expect("no panic");
            assert!(pair.recorder.seen(0).response_ended);
        }
    });
}

#[test]
fn an_answer_that_a_reset_cuts_is_cut() {
    run(async {
        let pair = uploading().await;
        let answer = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\ntoo lar";
        pair.server.go(ErrorKind::ConnectionReset, answer, None);
        pair.client.say(&[b'a'; 1000]);
        let ended = pair.ended.await.expect("no panic");
        assert!(matches!(ended, Ended::Server(_)), "{ended:?}");
        let seen = pair.recorder.seen(0);
        assert_eq!((&seen.response[..], seen.cut), (&b"too lar"[..], Some(Cut::Server)));
    });
}

#[test]
fn an_answer_over_http_1_that_is_there_when_its_client_goes_is_shown() {
    run(async {
        let asked = b"POST / HTTP/1.1\r\nHost: example.test\r\nContent-Length: 3\r\n\r\nsql";
        for end in [None, Some(ErrorKind::ConnectionReset)] {
            let pair = Pair::new(Version::Http1);
            pair.client.say(asked);
            until(|| pair.server.written().ends_with(b"sql")).await;
            // Both in one turn.
            pair.client.ends(end);
            pair.server.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
            pair.ended.await.expect("no panic");
            let seen = pair.recorder.seen(0);
            assert_eq!(
                (seen.status, &seen.response[..], seen.cut),
                (Some(200), &b"done"[..], None),
                "{end:?}"
            );
            assert!(seen.response_ended);
        }
    });
}

#[test]
fn a_client_over_http_1_that_takes_its_time_gets_the_whole_answer_of_a_server_that_has_ended() {
    run(async {
        for head in ["Connection: close\r\nContent-Length: 1000\r\n", "Content-Length: 1000\r\n", ""] {
            for stops in [false, true] {
                let mut pair = Pair::new(Version::Http1);
                pair.client.say(b"GET / HTTP/1.1\r\nHost: example.test\r\n\r\n");
                until(|| !pair.server.written().is_empty()).await;
                pair.client.stall(true);
                pair.server.say(format!("HTTP/1.1 200 OK\r\n{head}\r\n{}", "x".repeat(1000)).as_bytes());
                pair.server.end();
                pair.recorder.until(|recorder| recorder.seen(0).response_ended).await;
                // Much longer than a goodbye may take nothing happens.
                tokio::time::sleep(Duration::from_millis(50)).await;
                if stops {
                    pair.stop.take().expect("not stopped").send(()).expect("served");
                    assert!(matches!(pair.ended.await.expect("no panic"), Ended::Stopped));
                    continue;
                }
                pair.client.stall(false);
                until(|| refused(&pair.client.written()) == 1000).await;
                pair.client.end();
                let ended = pair.ended.await.expect("no panic");
                assert!(matches!(ended, Ended::Closed), "{ended:?}");
            }
        }
    });
}
