use proptest::{collection::vec, prelude::*};

use super::bytes::*;
use crate::fuzzing;

/// Something that a client or server may say, or nearly.
fn utterance() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let client = prop_oneof![
        "[a-c;' ]{0,40}".prop_map(|text| query(&text)),
        ("[ab]?", "[a-c;' ]{0,40}").prop_map(|(name, text)| parse(&name, &text, &[])),
        ("[pq]?", "[ab]?", vec(any::<u8>(), 0..30))
            .prop_map(|(portal, name, value)| { bind(&portal, &name, &[], &[Some(&value), None]) }),
        ("[pq]?", 0..3i32).prop_map(|(portal, rows)| execute(&portal, rows)),
        "[ab]?".prop_map(|name| describe(b'S', &name)),
        "[pq]?".prop_map(|name| close(b'P', &name)),
        Just(sync()),
        Just(message(b'H', b"")),
        Just(message(b'd', b"data")),
        Just(message(b'c', b"")),
        Just(message(b'F', b"\0\0\0\x01\0\0\0\0\0\0")),
        Just(message(b'X', b"")),
    ];
    let server = prop_oneof![
        Just(PARSED.to_vec()),
        Just(BOUND.to_vec()),
        Just(CLOSED.to_vec()),
        Just(NO_DATA.to_vec()),
        Just(ROWS.to_vec()),
        Just(SUSPENDED.to_vec()),
        Just(EMPTY.to_vec()),
        Just(row("x")),
        Just(notice("n")),
        Just(complete("SELECT 1")),
        Just(error("42601", "e")),
        Just(ready(b'I')),
        Just(ready(b'T')),
        Just(b"G\0\0\0\x07\0\0\0".to_vec()),
        Just(message(b'V', b"\xff\xff\xff\xff")),
    ];
    let noise = vec(any::<u8>(), 1..12);
    prop_oneof![
        10 => client.prop_map(|bytes| (true, bytes)),
        10 => server.prop_map(|bytes| (false, bytes)),
        1 => (any::<bool>(), noise),
    ]
}

/// Something that is said about encryption or authentication, or nearly.
fn beginning() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let authentication = |code: u32, rest: &[u8]| message(b'R', &[&code.to_be_bytes()[..], rest].concat());
    let client = prop_oneof![
        Just(request(80_877_103)),
        Just(request(80_877_104)),
        Just(startup(&[("user", "u")])),
        Just(vec![0x16, 3, 1, 0, 5]),
        Just(message(b'p', b"SCRAM-SHA-256-PLUS\0\0\0\0\x03n,,")),
        Just(message(b'p', b"SCRAM-SHA-256\0\0\0\0\x03n,,")),
        Just(message(b'p', b"password\0")),
        Just(message(b'p', b"no end")),
    ];
    let server = prop_oneof![
        Just(b"S".to_vec()),
        Just(b"N".to_vec()),
        Just(b"G".to_vec()),
        Just(authentication(0, b"")),
        Just(authentication(3, b"")),
        Just(authentication(5, b"salt")),
        Just(authentication(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")),
        Just(authentication(10, b"SCRAM-SHA-256-PLUS\0\0")),
        Just(authentication(10, b"SCRAM")),
        // Our nonce, and another.
        Just(authentication(11, b"r=AAAAAAAAAAAAAAAAAAAAAAAAx,s=AAAA,i=1")),
        Just(authentication(11, b"r=BBBBBBBBBBBBBBBBBBBBBBBBx,s=AAAA,i=1")),
        Just(authentication(12, b"v=AAAA")),
        Just(error("28P01", "no")),
        Just(ready(b'I')),
    ];
    prop_oneof![client.prop_map(|bytes| (true, bytes)), server.prop_map(|bytes| (false, bytes))]
}

fn encode(options: u8, utterances: &[(bool, Vec<u8>)], piece: usize) -> Vec<u8> {
    let opening = [(true, startup(&[("user", "u")])), (false, ready(b'I'))];
    encode_all(options, &[&opening[..], utterances].concat(), piece)
}

fn encode_all(options: u8, utterances: &[(bool, Vec<u8>)], piece: usize) -> Vec<u8> {
    let mut encoded = vec![options];
    for (client, bytes) in utterances {
        for part in bytes.chunks(piece) {
            encoded.push(part.len() as u8 | if *client { 0 } else { 0x80 });
            encoded.extend(part);
        }
    }
    encoded
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    /// No byte is lost or made up, edits are in order, and every command ends once: with any limits, any
    /// decisions, and whatever the other side says. With everything allowed the output is the input.
    #[test]
    fn promises_are_kept_in_any_conversation(
        options in 0u8..4,
        utterances in vec(utterance(), 0..40),
        piece in 1usize..120,
    ) {
        fuzzing::decoder(&encode(options, &utterances, piece));
    }

    #[test]
    fn promises_are_kept_with_any_encryption(
        options in 0u8..24,
        beginning in vec(beginning(), 0..8),
        utterances in vec(utterance(), 0..10),
        piece in 1usize..120,
    ) {
        fuzzing::decoder(&encode_all(options, &[beginning, utterances].concat(), piece));
    }

    #[test]
    fn garbage_never_panics_and_passes_unchanged(options in 0u8..24, data in vec(any::<u8>(), 0..300)) {
        let mut input = vec![options];
        input.extend(data);
        fuzzing::decoder(&input);
    }

    #[test]
    fn detection_never_changes_its_mind(data in vec(any::<u8>(), 0..200)) {
        fuzzing::detect(&data);
    }
}
