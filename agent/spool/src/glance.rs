//! Reads the few envelope fields that the spool itself needs, without allocating.

use verbatim_api::v1;

/// Part of an envelope; absent fields are empty or zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Glance<'a> {
    pub(crate) record_id: &'a [u8],
    pub(crate) chain_id: &'a [u8],
    pub(crate) sequence: u64,
    kind: i32,
    pub(crate) wall_nanos: u64,
    pub(crate) flow_id: &'a [u8],
    pub(crate) command_id: &'a [u8],
    decision: i32,
    status: i32,
}

impl<'a> Glance<'a> {
    /// `None`: the bytes are no protocol buffer.
    pub(crate) fn parse(mut bytes: &'a [u8]) -> Option<Self> {
        let mut glance = Self::default();
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            match (key >> 3, key & 7) {
                (2, 2) => glance.record_id = delimited(&mut bytes)?,
                (3, 2) => glance.chain_id = delimited(&mut bytes)?,
                (4, 0) => glance.sequence = varint(&mut bytes)?,
                (5, 0) => glance.kind = enumeration(&mut bytes)?,
                (6, 1) => glance.wall_nanos = fixed64(&mut bytes)?,
                (9, 2) => glance.flow_id = delimited(&mut bytes)?,
                (10, 2) => glance.command_id = delimited(&mut bytes)?,
                (17, 0) => glance.decision = enumeration(&mut bytes)?,
                (20, 0) => glance.status = enumeration(&mut bytes)?,
                (_, 0) => drop(varint(&mut bytes)?),
                (_, 1) => drop(fixed64(&mut bytes)?),
                (_, 2) => drop(delimited(&mut bytes)?),
                (_, 5) => drop(take(&mut bytes, 4)?),
                _ => return None,
            }
        }
        Some(glance)
    }

    pub(crate) fn kind(&self) -> v1::RecordKind {
        self.kind.try_into().unwrap_or_default()
    }

    pub(crate) fn decision(&self) -> v1::Decision {
        self.decision.try_into().unwrap_or_default()
    }

    pub(crate) fn status(&self) -> v1::Status {
        self.status.try_into().unwrap_or_default()
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// An enum's number: 64 bits, of which the lower half counts.
fn enumeration(bytes: &mut &[u8]) -> Option<i32> {
    let [a, b, c, d, ..] = varint(bytes)?.to_le_bytes();
    Some(i32::from_le_bytes([a, b, c, d]))
}

fn fixed64(bytes: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?))
}

fn delimited<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(bytes)?).ok()?;
    take(bytes, length)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    #[test]
    fn a_glance_reads_what_prost_wrote() {
        let envelope = v1::Envelope {
            schema_version: 1,
            record_id: vec![1; 16],
            chain_id: vec![2; 16],
            sequence: 1 << 40,
            kind: v1::RecordKind::Decided.into(),
            wall_nanos: 77,
            content_sha256: vec![9; 32],
            flow_id: vec![3; 16],
            command_id: vec![4; 16],
            workload: Some(v1::Workload { namespace: "n".into(), ..Default::default() }),
            decision: v1::Decision::Denied.into(),
            status: v1::Status::Error.into(),
            rows: Some(5),
            ..Default::default()
        };
        let bytes = envelope.encode_to_vec();
        let glance = Glance::parse(&bytes).unwrap();
        assert_eq!((glance.record_id, glance.chain_id), (&[1; 16][..], &[2; 16][..]));
        assert_eq!((glance.flow_id, glance.command_id), (&[3; 16][..], &[4; 16][..]));
        assert_eq!((glance.sequence, glance.wall_nanos), (1 << 40, 77));
        assert_eq!(glance.kind(), v1::RecordKind::Decided);
        assert_eq!((glance.decision(), glance.status()), (v1::Decision::Denied, v1::Status::Error));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _read = Glance::parse(&bytes);
        }
    }
}
