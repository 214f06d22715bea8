//! curl over both versions, through the pair, against hyper and h2 as servers.

mod support;

use std::{path::Path, process::ExitCode, rc::Rc, time::Duration};

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use libtest_mimic::{Arguments, Trial};
use support::{Recorder, run};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{spawn_blocking, spawn_local},
};
use verbatim_http::{HttpConfig, Version, serve};

const CURL: &str = "/usr/bin/curl";

/// Answers with the body that came.
async fn echo(request: http::Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let bytes = request.into_body().collect().await?.to_bytes();
    Ok(Response::new(Full::new(bytes)))
}

/// Listens, and pairs each connection with one to a server of its own.
async fn listen(version: Version, recorder: Rc<Recorder>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listener");
    let server = TcpListener::bind("127.0.0.1:0").await.expect("listener");
    let (port, to) = (listener.local_addr().expect("address").port(), server.local_addr().expect("address"));
    spawn_local(async move {
        while let Ok((stream, _)) = server.accept().await {
            let service = hyper::service::service_fn(echo);
            spawn_local(async move {
                let stream = TokioIo::new(stream);
                match version {
                    Version::Http1 => {
                        drop(
                            hyper::server::conn::http1::Builder::new()
                                .serve_connection(stream, service)
                                .await,
                        );
                    }
                    Version::Http2 => {
                        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        drop(builder.serve_connection(stream, service).await);
                    }
                }
            });
        }
    });
    spawn_local(async move {
        while let Ok((client, _)) = listener.accept().await {
            let upstream = TcpStream::connect(to).await.expect("connected");
            let recorder = Rc::clone(&recorder);
            spawn_local(async move {
                drop(
                    serve(
                        client,
                        upstream,
                        version,
                        &HttpConfig::default(),
                        recorder,
                        std::future::pending(),
                    )
                    .await,
                );
            });
        }
    });
    port
}

async fn curl(arguments: Vec<String>) -> Vec<u8> {
    let output = spawn_blocking(move || std::process::Command::new(CURL).args(arguments).output());
    let output = output.await.expect("no panic").expect("curl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn carries(version: Version, flag: &'static str) {
    run(async move {
        let recorder = Rc::new(Recorder::default());
        let port = listen(version, Rc::clone(&recorder)).await;
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("body");
        let body: Vec<u8> = (0..3_000_000_u32).map(|byte| byte as u8).collect();
        std::fs::write(&file, &body).expect("written");
        let mut asked = 0;
        for path in ["/", "/pieces"] {
            // Longer than a megabyte, so that curl asks for a 100 first over HTTP/1.1.
            let mut arguments = vec![
                "--silent".into(),
                "--show-error".into(),
                "--max-time".into(),
                Duration::from_secs(30).as_secs().to_string(),
                flag.into(),
                "--data-binary".into(),
                format!("@{}", file.display()),
                format!("http://127.0.0.1:{port}{path}"),
            ];
            if version == Version::Http1 {
                // Once more over the same connection. With prior knowledge of HTTP/2, curl 7.88 fails at that
                // against any server.
                arguments.push(format!("http://127.0.0.1:{port}{path}?again"));
                asked += 1;
            }
            asked += 1;
            let got = curl(arguments).await;
            assert!(got.len() % body.len() == 0 && !got.is_empty());
            assert!(got.chunks(body.len()).all(|part| part == body));
        }
        assert_eq!(recorder.count(), asked);
        let whole = (0..asked)
            .map(|index| recorder.seen(index))
            .all(|seen| seen.response_ended && seen.cut.is_none());
        assert!(whole);
        assert!(recorder.violations.borrow().is_empty());
    });
}

fn main() -> ExitCode {
    let absent = !Path::new(CURL).exists();
    let trial = |name: &str, version, flag| {
        Trial::test(name.to_owned(), move || {
            carries(version, flag);
            Ok(())
        })
        // There is no curl on this machine.
        .with_ignored_flag(absent)
    };
    let trials = vec![
        trial("curl_is_carried_over_http_1_1", Version::Http1, "--http1.1"),
        trial("curl_is_carried_over_http_2", Version::Http2, "--http2-prior-knowledge"),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
