use std::{collections::HashMap, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use verbatim_kube::gke::{MetadataError, Platform, read};

const NUMBER: &str = "/computeMetadata/v1/project/numeric-project-id";
const PROJECT: &str = "/computeMetadata/v1/project/project-id";
const CLUSTER: &str = "/computeMetadata/v1/instance/attributes/cluster-name";
const LOCATION: &str = "/computeMetadata/v1/instance/attributes/cluster-location";

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Asks a server that answers these paths so; an empty answer is a hang-up.
async fn ask(replaced: &str, answer: String) -> Result<Platform, MetadataError> {
    let mut answers: HashMap<&str, String> = HashMap::from([
        (NUMBER, ok("123456789012")),
        (PROJECT, ok("my-project")),
        (CLUSTER, ok("shop")),
        (LOCATION, ok("europe-west6-a")),
    ]);
    if let Some(one) = answers.get_mut(replaced) {
        *one = answer;
    }
    let answers: HashMap<String, String> =
        answers.into_iter().map(|(path, answer)| (path.to_owned(), answer)).collect();
    let answers = Arc::new(answers);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address").to_string();
    let serving = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answers = Arc::clone(&answers);
            tokio::spawn(async move {
                let mut request = Vec::new();
                let mut buffer = [0; 1024];
                while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                    match socket.read(&mut buffer).await {
                        Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
                        _ => return,
                    }
                }
                let request = String::from_utf8_lossy(&request).to_ascii_lowercase();
                assert!(request.contains("\r\nmetadata-flavor: google\r\n"), "{request}");
                let path = request.split(' ').nth(1).unwrap_or_default();
                let answer = answers.iter().find(|(known, _)| known.to_ascii_lowercase() == path);
                let answer = answer.map(|(_, answer)| answer.clone()).unwrap_or_default();
                socket.write_all(answer.as_bytes()).await.ok();
            });
        }
    });
    let read = read(&address).await;
    serving.abort();
    read
}

#[tokio::test]
async fn project_and_cluster_are_what_the_metadata_server_says() {
    let platform = Platform {
        project_number: 123_456_789_012,
        project: "my-project".into(),
        cluster: "shop".into(),
        location: "europe-west6-a".into(),
    };
    assert_eq!(ask("", String::new()).await.expect("read"), platform);
}

/// What is said of whatever else answers there; nothing of it comes back but an error.
#[tokio::test]
async fn garbage_from_the_metadata_server_shapes_no_principal() {
    let unflavoured = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n123456789012";
    let endless = ok(&"1".repeat(5000));
    for (path, answer, part) in [
        (NUMBER, unflavoured.to_owned(), "does not say `Metadata-Flavor: Google`"),
        (NUMBER, ok("12/locations/global/workloadIdentityPools/evil"), "has not the form"),
        (NUMBER, ok("-1"), "has not the form"),
        (NUMBER, ok(""), "has not the form"),
        (NUMBER, endless, "more than 1024 bytes"),
        (NUMBER, String::new(), "metadata server"),
        (NUMBER, "SSH-2.0-OpenSSH\r\n".to_owned(), "metadata server"),
        (PROJECT, ok("my-project/subject/ns/x"), "has not the form"),
        (PROJECT, ok("My Project"), "has not the form"),
        (CLUSTER, ok("shop\nforged"), "has not the form"),
        (
            CLUSTER,
            "HTTP/1.1 404 Not Found\r\nMetadata-Flavor: Google\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "404 for instance/attributes/cluster-name",
        ),
        (
            LOCATION,
            "HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\nContent-Length: 1\r\n\r\n\u{fffd}".to_owned(),
            "metadata server",
        ),
    ] {
        let error = ask(path, answer.clone()).await.expect_err(&answer).to_string();
        assert!(error.contains(part), "{answer:?}: {error}");
        assert!(!error.contains("evil") && !error.contains("forged"), "an answer is not repeated: {error}");
    }
}

#[tokio::test]
async fn a_metadata_server_that_is_not_there_is_an_error_in_time() {
    // Bound and not listening: refused at once, and nobody else is there.
    let socket = tokio::net::TcpSocket::new_v4().expect("socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("bind");
    let address = socket.local_addr().expect("address").to_string();
    assert!(matches!(read(&address).await, Err(MetadataError::Unreachable { .. })));
}
