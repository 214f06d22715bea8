//! What is spoken on a connection, layer by layer: sniffed, decoded, its TLS ended, sniffed again.

use std::{
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
};

use verbatim_api::v1;
use verbatim_http::Version;
use verbatim_wire::seam::{Decoder, Encryption, ServerTls, StartTls, Upgrade, Verifiers};

use crate::{
    Records,
    buffer::Buffer,
    cancel::Address,
    connection::undecoded,
    control::Control,
    dial::dial,
    guard::catch,
    http::{self, HttpEnd},
    journal::Journal,
    legs::{End, Leg, Legs, Side},
    protocols::Detected,
    relay::{Relay, Relayed},
    replay::Replay,
    seam::{Termination, Tls},
    shard::Shard,
    sniff::{First, sniff},
    splicing::{self, Input},
    terminate::{Inside, Outcome, Request, secure_server},
};

/// Where a layer leads.
enum Next {
    /// To another one within it, whose first bytes may have been read.
    Layer(First),
    /// To the end of what is decoded.
    Pass([Input; 2]),
}

/// One connection.
struct Speech<'a, R: Records> {
    shard: &'a Rc<Shard<R>>,
    legs: &'a mut Legs,
    journal: &'a mut Journal<R>,
    control: &'a Control,
    connection: Address,
    /// TLS was agreed on in the protocol's own way and comes next.
    start: Option<StartTls>,
    /// TLS that ended here.
    inside: Option<Box<Inside>>,
}

/// Dials, finds out what is spoken, and carries it until it ends.
pub(crate) async fn speak<R: Records>(
    shard: &Rc<Shard<R>>,
    legs: &mut Legs,
    journal: &mut Journal<R>,
    control: &Control,
    connection: Address,
) -> End {
    match dial(shard, &journal.facts.flow, control).await {
        Ok(server) => legs.server = Some(Leg::Plain(server)),
        Err(end) => return end,
    }
    let mut speech = Speech { shard, legs, journal, control, connection, start: None, inside: None };
    let end = speech.carry().await;
    match speech.inside.take() {
        Some(inside) => Box::pin(speech.look_back(&inside, end)).await,
        None => end,
    }
}

impl<R: Records> Speech<'_, R> {
    async fn carry(&mut self) -> End {
        let mut first = First::default();
        let inputs = loop {
            match self.layer(first).await {
                Ok(Next::Layer(next)) => first = next,
                Ok(Next::Pass(inputs)) => break inputs,
                Err(end) => return end,
            }
        };
        splicing::run(self.shard, self.legs, inputs, self.control, &mut self.journal.bytes).await
    }

    async fn layer(&mut self, mut first: First) -> Result<Next, End> {
        let Self { shard, control, .. } = *self;
        if self.inside.as_ref().is_some_and(|inside| inside.alpn.as_deref() == Some(b"h2"))
            && shard.decoders.is_some()
        {
            // A server of HTTP/2 may speak first: nothing is to be told by that.
            return self.http(first, Version::Http2).await;
        }
        let detected = sniff(self.legs, &mut first, &shard.pool, &*shard.protocols, control).await?;
        if self.inside.is_some() && !first.buffer.is_empty() {
            shard.known.spoke(&self.journal.facts.flow);
        }
        let host = self.inside.as_ref().and_then(|inside| inside.server_name.clone());
        match detected {
            Detected::Decode { .. } | Detected::NeedMore if self.start.is_some() => {
                self.pass(first, v1::OpaqueReason::Malformed).await
            }
            Detected::NeedMore => Err(End::Stuck("the protocol cannot be told")),
            Detected::Decode { protocol, service, decoder } => {
                self.journal.facts.detected(protocol, service, host);
                self.decode(decoder, first).await
            }
            Detected::Pass { protocol, reason, service, host: asked } => {
                let tls = shard.deps.tls.as_ref().filter(|_| self.inside.is_none());
                if self.start.is_none() {
                    self.journal.facts.detected(protocol, service, host.or_else(|| asked.clone()));
                }
                match (protocol, tls) {
                    (v1::Protocol::Tls, Some(tls)) => self.end_tls(&Arc::clone(tls), asked, first).await,
                    (v1::Protocol::Http1, _) if self.speaks_http() => self.http(first, Version::Http1).await,
                    (v1::Protocol::Http2, _) if self.speaks_http() => self.http(first, Version::Http2).await,
                    _ => self.pass(first, self.reason(reason)).await,
                }
            }
        }
    }

    fn speaks_http(&self) -> bool {
        self.shard.decoders.is_some() && self.start.is_none()
    }

    /// Why it is not decoded, as seen from outside of TLS.
    fn reason(&self, reason: v1::OpaqueReason) -> v1::OpaqueReason {
        match reason {
            v1::OpaqueReason::Silent => reason,
            _ if self.inside.is_some() => v1::OpaqueReason::UnknownProtocolInTls,
            reason => reason,
        }
    }

    async fn pass(&mut self, first: First, reason: v1::OpaqueReason) -> Result<Next, End> {
        undecoded(self.journal, self.control, reason).await?;
        Ok(passing(first))
    }

    async fn end_tls(
        &mut self,
        tls: &Tls,
        server_name: Option<String>,
        mut first: First,
    ) -> Result<Next, End> {
        let request =
            Request { shard: self.shard, tls, control: self.control, server_name, start: self.start.take() };
        match Box::pin(request.serve(self.legs, &mut first, self.journal)).await? {
            Outcome::Terminated(inside) => {
                self.inside = Some(inside);
                Ok(Next::Layer(First::default()))
            }
            Outcome::Passes => Ok(passing(first)),
        }
    }

    async fn decode(&mut self, mut decoder: Box<dyn Decoder>, first: First) -> Result<Next, End> {
        let start = decoder.start_tls();
        let tls = self.shard.deps.tls.clone();
        if let Some(tls) = &tls {
            decoder.encryption(self.encryption(tls)?);
        }
        let relay = Relay::new(self.shard, self.control, self.connection, decoder, first);
        match Box::pin(relay.run(self.legs, self.journal)).await {
            Relayed::Ended(end) => Err(end),
            Relayed::Opaque(mut inputs) => {
                if self.journal.agreed_on_tls() {
                    self.name(&mut inputs).await?;
                }
                Ok(Next::Pass(inputs))
            }
            Relayed::Upgraded(upgrade, [client, server]) => {
                let first = First { buffer: client.buffer, ended: client.ended };
                match (upgrade, tls, start) {
                    (Upgrade::Both, _, start) if server.buffer.is_empty() => {
                        self.start = start;
                        Ok(Next::Layer(first))
                    }
                    (Upgrade::Both, ..) => {
                        Err(End::Stuck("the server went on in plaintext after it agreed on TLS"))
                    }
                    (Upgrade::Server, Some(tls), Some(start)) => {
                        let Self { shard, control, .. } = *self;
                        let secured = secure_server(shard, &tls, start, self.legs, self.journal, control);
                        Box::pin(secured).await?;
                        Ok(Next::Layer(first))
                    }
                    (Upgrade::Server, ..) => {
                        Err(End::Stuck("TLS is required toward the server, and not to be had"))
                    }
                }
            }
        }
    }

    /// What the decoder is told of TLS around it.
    fn encryption(&self, tls: &Tls) -> Result<Encryption, End> {
        let (shard, facts) = (self.shard, &self.journal.facts);
        let server = self.legs.server.as_ref().and_then(Leg::tls);
        let certificate = |leg: &crate::legs::TlsLeg| {
            let chain = leg.session().peer_certificates().unwrap_or_default();
            chain.first().map(|certificate| certificate.to_vec()).unwrap_or_default()
        };
        let client = self.legs.client.as_ref().is_some_and(|client| client.tls().is_some());
        let plain = !client && server.is_none();
        let asked = catch(|| {
            let ends = plain && tls.trust.judge(&facts.identity, &facts.flow, None) == Termination::Terminate;
            (ends, plain && tls.trust.upstream_tls_required(&facts.identity, &facts.flow))
        });
        let (declines_others, required) = asked.map_err(|panicked| End::Panicked(panicked.0))?;
        Ok(Encryption {
            client,
            certificate: self.inside.as_ref().map(|inside| inside.certificate.clone()).unwrap_or_default(),
            server: server.map(|leg| ServerTls { certificate: certificate(leg) }),
            ends_here: plain,
            declines_others,
            server_required: required || (plain && shard.known.tls_name(&facts.flow).is_some()),
            ask_password: client && shard.known.binds_channel(&facts.flow),
            verifiers: client.then(|| self.verifiers(tls)),
            nonce: rand::random(),
        })
    }

    /// What is known of the passwords of the server's roles.
    fn verifiers(&self, tls: &Tls) -> Verifiers {
        let (known, destination) = (Arc::clone(&tls.verifiers), self.journal.facts.flow.destination);
        let name = self.inside.as_ref().and_then(|inside| inside.server_name.clone());
        Verifiers(Arc::new(move |user: &[u8]| known.find(destination, name.as_deref(), user)))
    }

    async fn http(&mut self, first: First, version: Version) -> Result<Next, End> {
        let Self { shard, control, .. } = *self;
        let (Some(client), Some(server)) = (self.legs.client.take(), self.legs.server.take()) else {
            return Err(End::Stuck("a leg is missing"));
        };
        let heard = self.inside.is_some().then(|| {
            let (known, flow) = (Arc::clone(&shard.known), self.journal.facts.flow.clone());
            Box::new(move || known.spoke(&flow)) as Box<dyn FnOnce()>
        });
        let client = Replay::new(first.buffer, client, &shard.pool, heard);
        let name = self.inside.as_ref().map(|inside| inside.name.to_string());
        match Box::pin(http::serve(shard, client, server, version, name, self.journal, control)).await {
            HttpEnd::Over(end) => Err(end),
            HttpEnd::Upgraded { client, from_client, server, from_server } => {
                let (unread, client) = client.into_parts();
                self.legs.client = Some(client);
                self.legs.server = Some(server);
                let from_client = Buffer::holding(&[&from_client, unread.all()].concat());
                let from_server = Buffer::holding(&from_server);
                Ok(Next::Pass([from_client, from_server].map(|buffer| Input { buffer, ended: None })))
            }
        }
    }

    /// TLS was agreed on within another protocol and does not end here: takes the name from the ClientHello that
    /// follows.
    async fn name(&mut self, inputs: &mut [Input; 2]) -> Result<(), End> {
        let [from_client, to_client] = inputs;
        // The client waits for the server's consent before it says hello.
        self.journal.bytes[1] += flush(self.legs, &mut to_client.buffer, self.control).await?;
        let mut first = First { buffer: std::mem::take(&mut from_client.buffer), ended: from_client.ended };
        let shard = self.shard;
        let detected = sniff(self.legs, &mut first, &shard.pool, &*shard.protocols, self.control).await;
        *from_client = Input { buffer: first.buffer, ended: first.ended };
        if let Detected::Pass { host: Some(host), .. } = detected? {
            self.journal.facts.target.host = host;
        }
        Ok(())
    }

    /// What the end of a connection says of its TLS.
    async fn look_back(&mut self, inside: &Inside, end: End) -> End {
        match Box::pin(inside.look_back(self.shard, self.journal, self.control)).await {
            Ok(()) => end,
            Err(end) => end,
        }
    }
}

fn passing(first: First) -> Next {
    Next::Pass([Input { buffer: first.buffer, ended: first.ended }, Input::default()])
}

/// Writes to the client what was read already. How much that was.
async fn flush(legs: &mut Legs, buffer: &mut Buffer, control: &Control) -> Result<u64, End> {
    let all = buffer.all().len() as u64;
    poll_fn(|cx| {
        while !buffer.is_empty() {
            if control.poll_killed(cx).is_ready() {
                return Poll::Ready(Err(End::Killed));
            }
            let Some(client) = &mut legs.client else { break };
            let Ok(n) = ready!(client.poll_put(buffer.all(), cx)) else {
                return Poll::Ready(Err(End::Reset(Side::Client)));
            };
            buffer.dispose(n);
        }
        Poll::Ready(Ok(all))
    })
    .await
}
