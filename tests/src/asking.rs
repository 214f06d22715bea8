//! Questions to a collector's Audit service, wherever its socket is.

use std::path::PathBuf;

use anyhow::Result;
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, runtime::Runtime};
use tonic::transport::{Channel, Endpoint};
use verbatim_api::v1::{self, Filter, audit_client::AuditClient};

use crate::audit::Seen;

/// An Audit service behind a Unix socket.
#[derive(Debug)]
pub struct Audit {
    socket: PathBuf,
    runtime: Runtime,
}

impl Audit {
    /// For the service behind this socket, which need not be there yet.
    pub fn new(socket: PathBuf) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { socket, runtime })
    }

    async fn client(&self) -> Result<AuditClient<Channel>> {
        let path = self.socket.clone();
        // The address is a formality: the connector decides where to connect.
        let channel = Endpoint::from_static("http://collector.invalid")
            .connect_with_connector(tower::service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await?;
        Ok(AuditClient::new(channel).max_decoding_message_size(1 << 30))
    }

    fn search(&self, filter: Filter, page_size: u32) -> Result<Vec<v1::Command>> {
        self.runtime.block_on(async {
            let mut client = self.client().await?;
            let mut commands = Vec::new();
            let mut cursor = String::new();
            loop {
                let request = v1::SearchRequest {
                    filter: Some(filter.clone()),
                    page_size,
                    cursor,
                    oldest_first: true,
                    // Everything that the log holds now.
                    at_least_position: u64::MAX,
                };
                let answer = client.search(request).await?.into_inner();
                commands.extend(answer.commands);
                cursor = answer.next_cursor;
                if cursor.is_empty() {
                    return Ok(commands);
                }
            }
        })
    }

    /// Every command that it has, the oldest first, in the service's form.
    pub fn commands(&self) -> Result<Vec<v1::Command>> {
        self.search(Filter::default(), 1000)
    }

    /// Every command that it has, in a scenario's terms.
    pub fn seen(&self) -> Result<Vec<Seen>> {
        self.seen_by(Filter::default())
    }

    /// The commands that fit a filter.
    pub fn seen_by(&self, filter: Filter) -> Result<Vec<Seen>> {
        self.search(filter, 1000)?.iter().map(Seen::from_command).collect()
    }

    /// Every connection that it has.
    pub fn sessions(&self) -> Result<Vec<v1::Session>> {
        self.runtime.block_on(async {
            let mut client = self.client().await?;
            let mut sessions = Vec::new();
            let mut cursor = String::new();
            loop {
                let request = v1::SessionsRequest { page_size: 1000, cursor, ..Default::default() };
                let answer = client.sessions(request).await?.into_inner();
                sessions.extend(answer.sessions);
                cursor = answer.next_cursor;
                if cursor.is_empty() {
                    return Ok(sessions);
                }
            }
        })
    }

    /// What is wrong with the chains.
    pub fn findings(&self) -> Result<Vec<v1::Finding>> {
        self.runtime.block_on(async {
            let request = v1::FindingsRequest { page_size: 1000, cursor: String::new() };
            Ok(self.client().await?.findings(request).await?.into_inner().findings)
        })
    }

    /// One command with all its entries.
    pub fn get(&self, id: &[u8]) -> Result<v1::GetResponse> {
        self.runtime.block_on(async {
            Ok(self.client().await?.get(v1::GetRequest { id: id.to_vec() }).await?.into_inner())
        })
    }
}
