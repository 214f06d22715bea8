//! Serialises a record, once: what the spool adds is written by hand in front of what the proxy built,
//! so that no field is allocated for it, and what many records have in common comes between as it is. Without that
//! the bytes are those that prost would write for the whole message.

use prost::{Message, encoding::encode_varint};
use verbatim_api::chain::{ChainId, content_commitment};

use crate::{Common, Draft};

/// Version of the record's format.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// What the spool adds to an envelope.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) record_id: [u8; 16],
    pub(crate) chain_id: ChainId,
    pub(crate) sequence: u64,
    pub(crate) wall_nanos: u64,
    pub(crate) boottime_nanos: u64,
    /// First in the content, where there is one.
    pub(crate) salt: [u8; 16],
}

/// The serialised parts of one record after the other.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    pub(crate) envelope: Vec<u8>,
    pub(crate) content: Vec<u8>,
}

/// Beyond this a buffer is given back after use: one large statement must not stay resident.
const KEEP_BYTES: usize = 64 * 1024;

impl Encoder {
    /// Serialises the draft. Its own values of the stamped fields are cleared.
    pub(crate) fn encode(&mut self, draft: &mut Draft, common: &Common, stamp: &Stamp) {
        let commitment = self.encode_content(draft, common, stamp).then(|| content_commitment(&self.content));
        let envelope = &mut draft.envelope;
        let kind = envelope.kind;
        envelope.schema_version = 0;
        envelope.record_id.clear();
        envelope.chain_id.clear();
        envelope.sequence = 0;
        envelope.kind = 0;
        envelope.wall_nanos = 0;
        envelope.boottime_nanos = 0;
        envelope.content_sha256.clear();
        let out = &mut self.envelope;
        reset(out);
        varint(out, 1, u64::from(SCHEMA_VERSION));
        bytes(out, 2, &stamp.record_id);
        bytes(out, 3, &stamp.chain_id);
        varint(out, 4, stamp.sequence);
        // As protocol buffers encode an enum: sign-extended.
        varint(out, 5, i64::from(kind).cast_unsigned());
        fixed64(out, 6, stamp.wall_nanos);
        fixed64(out, 7, stamp.boottime_nanos);
        if let Some(commitment) = commitment {
            bytes(out, 8, &commitment);
        }
        out.extend_from_slice(&common.envelope);
        append(envelope, out);
        // The draft stays as it was for whoever tries again.
        envelope.kind = kind;
    }

    fn encode_content(&mut self, draft: &mut Draft, common: &Common, stamp: &Stamp) -> bool {
        let out = &mut self.content;
        reset(out);
        let Some(content) = &mut draft.content else { return false };
        content.salt.clear();
        bytes(out, 1, &stamp.salt);
        out.extend_from_slice(&common.content);
        append(content, out);
        true
    }
}

fn reset(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEEP_BYTES {
        buffer.shrink_to(KEEP_BYTES);
    }
}

fn append(message: &impl Message, out: &mut Vec<u8>) {
    let result = message.encode(out);
    debug_assert!(result.is_ok(), "a vector grows");
}

fn varint(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        encode_varint(u64::from(field << 3), out);
        encode_varint(value, out);
    }
}

fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        encode_varint(u64::from(field << 3 | 1), out);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    encode_varint(u64::from(field << 3 | 2), out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use verbatim_api::v1;

    use super::*;

    fn stamp(sequence: u64) -> Stamp {
        Stamp {
            record_id: [7; 16],
            chain_id: [9; 16],
            sequence,
            wall_nanos: 1_700_000_000_123_456_789,
            boottime_nanos: 42,
            salt: [3; 16],
        }
    }

    fn draft() -> Draft {
        Draft {
            envelope: v1::Envelope {
                kind: v1::RecordKind::Started.into(),
                flow_id: vec![1; 16],
                protocol: v1::Protocol::Postgresql.into(),
                rows: Some(0),
                workload: Some(v1::Workload { namespace: "shop".into(), ..Default::default() }),
                detail: Some(v1::envelope::Detail::Gap(v1::Gap { count: 3, ..Default::default() })),
                // Overwritten.
                record_id: vec![0xff; 3],
                chain_id: vec![0xff; 300],
                sequence: 99,
                ..Default::default()
            },
            content: Some(v1::Content {
                salt: vec![0xff; 16],
                statement: Some(v1::Statement { text: b"select 1".to_vec(), ..Default::default() }),
                note: "n".into(),
                ..Default::default()
            }),
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_whole_message() {
        for sequence in [0, 1, 127, 128, u64::MAX] {
            let stamp = stamp(sequence);
            let mut encoder = Encoder::default();
            encoder.encode(&mut draft(), &Common::default(), &stamp);
            let content = v1::Content { salt: stamp.salt.to_vec(), ..draft().content.unwrap() };
            assert_eq!(encoder.content, content.encode_to_vec());
            assert_eq!(encoder.content[..18], [&[0x0a, 16][..], &stamp.salt].concat(), "salt first");
            let envelope = v1::Envelope {
                schema_version: 1,
                record_id: stamp.record_id.to_vec(),
                chain_id: stamp.chain_id.to_vec(),
                sequence,
                wall_nanos: stamp.wall_nanos,
                boottime_nanos: stamp.boottime_nanos,
                content_sha256: content_commitment(&encoder.content).to_vec(),
                ..draft().envelope
            };
            assert_eq!(encoder.envelope, envelope.encode_to_vec());
        }
    }

    #[test]
    fn what_is_common_is_part_of_the_record() {
        let target = |host: &str, user: &str| v1::Target {
            host: host.into(),
            user: user.into(),
            ..v1::Target::default()
        };
        let common = Common::new(
            &v1::Envelope {
                workload: Some(v1::Workload { pod_name: "p".into(), ..Default::default() }),
                ..Default::default()
            },
            &v1::Content { target: Some(target("common", "u")), ..Default::default() },
        );
        let mut draft = draft();
        if let Some(content) = &mut draft.content {
            content.target = Some(target("own", ""));
        }
        let mut encoder = Encoder::default();
        encoder.encode(&mut draft, &common, &stamp(4));
        let envelope = v1::Envelope::decode(&encoder.envelope[..]).unwrap();
        let workload = envelope.workload.as_ref().unwrap();
        assert_eq!((workload.namespace.as_str(), workload.pod_name.as_str()), ("shop", "p"));
        assert_eq!(envelope.content_sha256, content_commitment(&encoder.content));
        let content = v1::Content::decode(&encoder.content[..]).unwrap();
        assert_eq!(content.target, Some(target("own", "u")));
        let joined = common.join(&draft).unwrap();
        assert_eq!(
            (joined.envelope.workload, joined.content.unwrap().target),
            (envelope.workload, content.target)
        );
    }

    #[test]
    fn a_record_without_content_has_no_commitment() {
        let mut encoder = Encoder::default();
        encoder.encode(&mut Draft { content: None, ..draft() }, &Common::default(), &stamp(1));
        assert!(encoder.content.is_empty());
        let envelope = v1::Envelope::decode(&encoder.envelope[..]).unwrap();
        assert!(envelope.content_sha256.is_empty());
    }

    #[test]
    fn encoding_again_gives_the_same_record() {
        let mut draft = draft();
        let mut encoder = Encoder::default();
        encoder.encode(&mut draft, &Common::default(), &stamp(5));
        let first = encoder.envelope.clone();
        encoder.encode(&mut draft, &Common::default(), &stamp(5));
        assert_eq!(encoder.envelope, first);
    }

    #[test]
    fn a_large_record_does_not_keep_its_buffer() {
        let mut large = draft();
        if let Some(content) = &mut large.content {
            content.note = "x".repeat(1 << 20);
        }
        let mut encoder = Encoder::default();
        encoder.encode(&mut large, &Common::default(), &stamp(1));
        encoder.encode(&mut draft(), &Common::default(), &stamp(2));
        assert!(encoder.content.capacity() <= KEEP_BYTES);
    }
}
