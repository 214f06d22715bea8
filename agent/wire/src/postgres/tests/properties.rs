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

fn encode(options: u8, utterances: &[(bool, Vec<u8>)], piece: usize) -> Vec<u8> {
    let opening = [(true, startup(&[("user", "u")])), (false, ready(b'I'))];
    let mut encoded = vec![options];
    for (client, bytes) in opening.iter().chain(utterances) {
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
    fn garbage_never_panics_and_passes_unchanged(options in 0u8..4, data in vec(any::<u8>(), 0..300)) {
        let mut input = vec![options];
        input.extend(data);
        fuzzing::decoder(&input);
    }

    #[test]
    fn detection_never_changes_its_mind(data in vec(any::<u8>(), 0..200)) {
        fuzzing::detect(&data);
    }
}
