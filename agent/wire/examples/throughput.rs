//! What decoding costs: conversations as pgbench -S has them, simple and prepared, and rows in bulk.
//!
//! `cargo run --release -p verbatim-wire --example throughput`. Prints, asserts nothing.
#![allow(
    clippy::print_stdout,
    clippy::arithmetic_side_effects,
    reason = "an example that prints, with small numbers"
)]

use std::{hint::black_box, time::Instant};

use verbatim_wire::{
    postgres::PostgresDecoder,
    seam::{Decision, Decoder, Direction, Edit, Event, Limits, Sink, UnitId},
};

const ROUNDS: u32 = 300_000;

#[derive(Default)]
struct Count {
    waiting: Option<UnitId>,
    edits: u64,
    finished: u64,
}

impl Sink for Count {
    fn event(&mut self, event: Event) {
        match black_box(event) {
            Event::Started { unit, .. } | Event::Prefix { unit, .. } => self.waiting = Some(unit),
            Event::Finished { .. } => self.finished += 1,
            _ => {}
        }
    }
    fn edit(&mut self, _: Direction, edit: Edit) {
        black_box(edit);
        self.edits += 1;
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn feed(decoder: &mut PostgresDecoder, sink: &mut Count, direction: Direction, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let consumed = decoder.feed(direction, bytes, sink);
        bytes = bytes.get(consumed..).unwrap_or_default();
        if let Some(unit) = sink.waiting.take() {
            decoder.decide(unit, &Decision::Allow, sink);
        }
    }
}

fn session(setup: &[u8]) -> (PostgresDecoder, Count) {
    let mut decoder = PostgresDecoder::new(Limits::default());
    let mut sink = Count::default();
    let startup = b"\0\0\0\x14\0\x03\0\0user\0bench\0\0";
    feed(&mut decoder, &mut sink, Direction::ToServer, startup);
    feed(&mut decoder, &mut sink, Direction::ToClient, b"Z\0\0\0\x05I");
    feed(&mut decoder, &mut sink, Direction::ToServer, setup);
    if !setup.is_empty() {
        feed(&mut decoder, &mut sink, Direction::ToClient, b"1\0\0\0\x04Z\0\0\0\x05I");
    }
    (decoder, sink)
}

fn run(name: &str, setup: &[u8], client: &[u8], server: &[u8]) {
    let (mut decoder, mut sink) = session(setup);
    let start = Instant::now();
    for _ in 0..ROUNDS {
        feed(&mut decoder, &mut sink, Direction::ToServer, client);
        feed(&mut decoder, &mut sink, Direction::ToClient, server);
    }
    let nanos = start.elapsed().as_nanos() / u128::from(ROUNDS);
    let edits = sink.edits / u64::from(ROUNDS);
    println!("{name:<10} {nanos:>6} ns a command, {edits} edits, {} finished", sink.finished);
}

fn main() {
    let text = b"SELECT abalance FROM pgbench_accounts WHERE aid = 4711;\0";
    let description =
        message(b'T', b"\0\x01abalance\0\0\0\x40\x02\0\x03\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0");
    let row = message(b'D', b"\0\x01\0\0\0\x01\x30");
    let end = [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();

    let server = [description.clone(), row.clone(), end.clone()].concat();
    run("simple", b"", &message(b'Q', text), &server);

    let sync = message(b'S', b"");
    let parse = [message(b'P', &[b"P0_1\0", &text[..], &[0, 0]].concat()), sync.clone()].concat();
    let client = [
        message(b'B', b"\0P0_1\0\0\0\0\x01\0\0\0\x044711\0\x01\0\0"),
        message(b'D', b"P\0"),
        message(b'E', b"\0\0\0\0\0"),
        sync,
    ];
    let server = [message(b'2', b""), description, row.clone(), end.clone()].concat();
    run("prepared", &parse, &client.concat(), &server);

    let (mut decoder, mut sink) = session(b"");
    feed(&mut decoder, &mut sink, Direction::ToServer, &message(b'Q', text));
    let rows = message(b'D', &[&[0, 1, 0, 0, 0, 100][..], &[b'x'; 100]].concat()).repeat(600);
    let start = Instant::now();
    let mut bytes = 0u64;
    for _ in 0..2_000 {
        feed(&mut decoder, &mut sink, Direction::ToClient, &rows);
        bytes += rows.len() as u64;
    }
    let seconds = start.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "for a person to read")]
    let gigabytes = bytes as f64 / 1e9 / seconds;
    println!("rows       {gigabytes:>6.2} GB/s in rows of 111 bytes");
    feed(&mut decoder, &mut sink, Direction::ToClient, &end);

    let (mut decoder, mut sink) = session(b"");
    let length = 100_000_000u32;
    let start = Instant::now();
    feed(&mut decoder, &mut sink, Direction::ToServer, &[&b"Q"[..], &(length + 5).to_be_bytes()].concat());
    let chunk = b"insert into t values ('some text', 42);\n".repeat(1_600);
    let mut left = length as usize;
    while left > 0 {
        let part = chunk.get(..left.min(chunk.len())).unwrap_or_default();
        feed(&mut decoder, &mut sink, Direction::ToServer, part);
        left -= part.len();
    }
    feed(&mut decoder, &mut sink, Direction::ToServer, b"\0");
    println!("statement  {:>6} ms for 100 MB", start.elapsed().as_millis());
}
