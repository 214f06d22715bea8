//! What vouching for a name costs: a new leaf, one from the cache, and both handshakes of a first connection to a
//! known name, each beside the floor that the machine sets.
//!
//! `cargo run --release -p verbatim-tls --example leaf`

#![allow(clippy::print_stdout, reason = "it is run for what it prints")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use verbatim_tls::{
    Authority, Downstream, LeafName, Offer, Upstream, UpstreamRoots,
    rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, pki_types::ServerName},
};

type Failure = Box<dyn std::error::Error>;

/// Rounds of each, of which the median counts.
const ROUNDS: usize = 500;

fn main() -> Result<(), Failure> {
    let authority = Authority::for_run(&[])?;
    let downstream = Downstream::new()?;
    // What the upstream is to us, we are to the client: both trust the same roots here.
    let trust = UpstreamRoots { system: false, extra_pem: vec![authority.roots_pem().into_bytes()] };
    let upstream = Upstream::new(&trust)?;
    let offer = Offer { alpn: vec![b"h2".to_vec()], tls12: true, tls13: true };
    let known = LeafName::parse("bigquery.googleapis.com")?;
    authority.leaf(&known)?;

    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref())?;
    let signature = median(|_| Ok(key.sign(&SystemRandom::new(), &[7; 300])?))?;
    let leaf = median(|round| {
        let name = LeafName::parse(&format!("h{round}.googleapis.com"))?;
        Ok(authority.leaf(&name)?)
    })?;
    let cached = median(|_| Ok(authority.leaf(&known)?))?;
    let configured = median(|_| Ok(downstream.config(authority.leaf(&known)?, Some(b"h2".to_vec()))))?;
    println!("one P-256 signature              {signature:>10.1?}   the floor of a leaf");
    println!("a new leaf                       {leaf:>10.1?}   {:.1} x", ratio(leaf, signature));
    println!("a known leaf                     {cached:>10.1?}");
    println!("a known leaf and a configuration {configured:>10.1?}");

    // The proxy's own work: the client's half of one handshake and the server's half of another.
    let mut halves = Vec::new();
    let mut resumed = Vec::new();
    for round in 0..ROUNDS {
        let workload = format!("w{round}");
        for spent in [&mut halves, &mut resumed] {
            let client = upstream.config(&workload, &offer);
            let server = downstream.config(authority.leaf(&known)?, Some(b"h2".to_vec()));
            let [as_client, as_server] = shake(client, known.server_name(), server)?;
            spent.push(as_client + as_server);
        }
    }
    halves.sort();
    resumed.sort();
    let (full, again) = (halves[ROUNDS / 2], resumed[ROUNDS / 2]);
    println!("both handshakes, full            {full:>10.1?}   {:.1} x a signature", ratio(full, signature));
    println!("both handshakes, resumed         {again:>10.1?}   {:.2} x full", ratio(again, full));
    Ok(())
}

fn ratio(of: Duration, to: Duration) -> f64 {
    of.as_secs_f64() / to.as_secs_f64()
}

fn median<T>(mut step: impl FnMut(usize) -> Result<T, Failure>) -> Result<Duration, Failure> {
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let start = Instant::now();
        let made = step(round)?;
        times.push(start.elapsed());
        drop(made);
    }
    times.sort();
    Ok(times[ROUNDS / 2])
}

/// One handshake in memory; the time that each end spent.
fn shake(
    client: Arc<ClientConfig>,
    name: ServerName<'static>,
    server: Arc<ServerConfig>,
) -> Result<[Duration; 2], Failure> {
    let mut spent = [Duration::ZERO; 2];
    let mut client = clocked(&mut spent[0], || ClientConnection::new(client, name))?;
    let mut server = clocked(&mut spent[1], || ServerConnection::new(server))?;
    loop {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut to_server)?;
        }
        while server.wants_write() {
            server.write_tls(&mut to_client)?;
        }
        if to_server.is_empty() && to_client.is_empty() {
            return Ok(spent);
        }
        let mut bytes = to_server.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes)?;
            clocked(&mut spent[1], || server.process_new_packets())?;
        }
        let mut bytes = to_client.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes)?;
            clocked(&mut spent[0], || client.process_new_packets())?;
        }
    }
}

fn clocked<T>(spent: &mut Duration, step: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let output = step();
    *spent += start.elapsed();
    output
}
