//! Promises that hold for every input.

use proptest::{collection::vec, prelude::*};

use super::fuzzing;

/// Something that a client or server may say, or nearly.
fn utterance() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let json = prop_oneof![
        "\\{\"query\": \"[a-z' ]{0,30}\"\\}",
        "\\{\"configuration\": \\{\"(load|query|copy)\": \\{\"[a-z]{0,5}\": [0-9]{0,3}\\}\\}\\}",
        "\\{\"rows\": \\[\\{\\}, [0-9]{1,3}\\], \"insertErrors\": \\[\\{\"index\": 1\\}\\]\\}",
        "\\{\"jobReference\": \\{\"jobId\": \"j\"\\}, \"jobComplete\": (true|false), \"rows\": \\[\\[\\]\\]\\}",
        "--b\r\n\r\n\\{\\}\r\n--b\r\n\r\nda",
    ];
    let json = json.prop_map(String::into_bytes);
    let message = ("[ab ]?[\u{1}\u{0}]", vec(any::<u8>(), 0..30))
        .prop_map(|(_, body)| [&[0, 0, 0, 0, body.len() as u8][..], &body].concat());
    let end = Just(Vec::new());
    let noise = vec(any::<u8>(), 1..20);
    (any::<bool>(), prop_oneof![4 => json, 4 => message, 1 => end, 1 => noise])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(800) })]

    /// Nothing passes that was not consumed, nothing passes after a refusal, and every command ends once:
    /// with any request, limits, decisions, and whatever the other side says.
    #[test]
    fn promises_are_kept_in_any_exchange(
        kind in any::<u8>(),
        options in 0u8..16,
        utterances in vec(utterance(), 0..12),
        piece in 1usize..120,
    ) {
        let mut input = vec![kind, options];
        for (server, bytes) in &utterances {
            let side = if *server { 0x80 } else { 0 };
            if bytes.is_empty() {
                input.push(side);
            }
            for part in bytes.chunks(piece) {
                input.push(part.len() as u8 | side);
                input.extend(part);
            }
        }
        fuzzing::exchange(&input);
    }

    #[test]
    fn garbage_in_an_exchange_never_panics(data in vec(any::<u8>(), 0..400)) {
        fuzzing::exchange(&data);
    }
}
