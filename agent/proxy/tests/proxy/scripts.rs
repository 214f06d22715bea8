//! Any edit script, carried out over real sockets, gives the output that it says.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use proptest::{collection::vec, prelude::*};
use verbatim_api::v1;
use verbatim_proxy::{Detected, Protocols};
use verbatim_wire::seam::*;

use crate::support::{Options, World};

/// A direction's script and what it makes of its input.
#[derive(Clone, Debug)]
struct Plan {
    edits: Vec<Edit>,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Says an edit as soon as the input that it disposes of was seen.
struct Planned {
    plans: [Plan; 2],
    fed: [u64; 2],
    said: [u64; 2],
}

impl Planned {
    fn say(&mut self, direction: Direction, sink: &mut dyn Sink) {
        let way = usize::from(direction == Direction::ToClient);
        while let Some(edit) = self.plans[way].edits.first() {
            let disposes = match edit {
                Edit::Forward(n) | Edit::Drop(n) => *n,
                Edit::Insert(_) | Edit::Close => 0,
            };
            if self.said[way] + disposes > self.fed[way] {
                return;
            }
            self.said[way] += disposes;
            sink.edit(direction, self.plans[way].edits.remove(0));
        }
    }
}

impl Decoder for Planned {
    fn feed(&mut self, direction: Direction, bytes: &[u8], sink: &mut dyn Sink) -> usize {
        self.fed[usize::from(direction == Direction::ToClient)] += bytes.len() as u64;
        self.say(direction, sink);
        bytes.len()
    }
    fn decide(&mut self, _: UnitId, _: &Decision, _: &mut dyn Sink) {}
    fn finish(&mut self, direction: Direction, sink: &mut dyn Sink) {
        self.say(direction, sink);
    }
    fn outstanding(&self) -> bool {
        false
    }
    fn opaque(&self) -> bool {
        false
    }
}

struct OnePlan(Mutex<Option<[Plan; 2]>>);

impl Protocols for OnePlan {
    fn detect(&self, _: &[u8]) -> Detected {
        let plans = self.0.lock().unwrap().take().expect("one connection");
        let decoder = Box::new(Planned { plans, fed: [0; 2], said: [0; 2] });
        Detected::Decode { protocol: v1::Protocol::Unknown, service: "plan", decoder }
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    let edit = (0..3_u8, prop_oneof![1..40_usize, 1..50_000_usize]);
    (vec(edit, 1..24), any::<u8>()).prop_map(|(edits, seed)| {
        let mut plan = Plan { edits: Vec::new(), input: vec![seed], output: vec![seed] };
        plan.edits.push(Edit::Forward(1));
        for (which, n) in edits {
            let bytes: Vec<u8> = (0..n).map(|at| (at as u8).wrapping_mul(31) ^ seed ^ which).collect();
            match which {
                0 => {
                    plan.input.extend_from_slice(&bytes);
                    plan.output.extend_from_slice(&bytes);
                    plan.edits.push(Edit::Forward(n as u64));
                }
                1 => {
                    plan.input.extend_from_slice(&bytes);
                    plan.edits.push(Edit::Drop(n as u64));
                }
                _ => {
                    plan.output.extend_from_slice(&bytes);
                    plan.edits.push(Edit::Insert(bytes));
                }
            }
        }
        plan
    })
}

fn send(mut stream: TcpStream, input: Vec<u8>, part: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for part in input.chunks(part) {
            stream.write_all(part).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
    })
}

fn receive(mut stream: TcpStream) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut output = Vec::new();
        stream.read_to_end(&mut output).unwrap();
        output
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_script_gives_the_output_that_it_says(
        up in plan(),
        down in plan(),
        parts in (1..70_000_usize, 1..70_000_usize),
    ) {
        let protocols = Arc::new(OnePlan(Mutex::new(Some([up.clone(), down.clone()]))));
        let world = World::start(Options { protocols, ..Options::default() });
        let (client, server) = world.connect();
        let copy = |stream: &TcpStream| stream.try_clone().unwrap();
        let first = send(copy(&client.stream), up.input, parts.0);
        // Not first: a server that speaks first is another case.
        let mut byte = [0];
        prop_assert_eq!(server.stream.peek(&mut byte).unwrap(), 1);
        let at_server = receive(copy(&server.stream));
        let second = send(copy(&server.stream), down.input, parts.1);
        let at_client = receive(copy(&client.stream));
        first.join().unwrap();
        second.join().unwrap();
        prop_assert!(at_server.join().unwrap() == up.output);
        prop_assert!(at_client.join().unwrap() == down.output);
        let injected = |plan: &[Edit]| plan.iter().any(|edit| matches!(edit, Edit::Insert(_)));
        let expected = injected(&up.edits) || injected(&down.edits);
        let recorded = !world.spool().of_kind(v1::RecordKind::Injected).is_empty();
        prop_assert_eq!(recorded, expected);
    }
}
