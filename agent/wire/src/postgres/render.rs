//! Writes bound values as a person would: by type OID and format.
//!
//! Owns the binary layouts of the common types (PostgreSQL source, the types' `*send` functions). What
//! it does not know, or what does not have the length of its type, is `None`, never a guess.

mod numeric;
mod time;

use core::fmt::Write as _;

use crate::{reader::Reader, seam::ParameterFormat};

const BOOL: u32 = 16;
const BYTEA: u32 = 17;
const NAME: u32 = 19;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const OID: u32 = 26;
const JSON: u32 = 114;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const BPCHAR: u32 = 1042;
const VARCHAR: u32 = 1043;
const DATE: u32 = 1082;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const NUMERIC: u32 = 1700;
const UUID: u32 = 2950;
const JSONB: u32 = 3802;

/// The value as a person would write it, where type and encoding are known.
pub(super) fn render(type_oid: u32, format: ParameterFormat, value: &[u8]) -> Option<String> {
    match format {
        ParameterFormat::Text => text(type_oid, value),
        ParameterFormat::Binary => binary(type_oid, value),
    }
}

fn text(type_oid: u32, value: &[u8]) -> Option<String> {
    match type_oid {
        BOOL => match value {
            b"t" => Some("true".to_owned()),
            b"f" => Some("false".to_owned()),
            _ => utf8(value),
        },
        BYTEA | NAME | INT8 | INT2 | INT4 | TEXT | OID | JSON | FLOAT4 | FLOAT8 | BPCHAR | VARCHAR | DATE
        | TIMESTAMP | TIMESTAMPTZ | NUMERIC | UUID | JSONB => utf8(value),
        _ => None,
    }
}

fn binary(type_oid: u32, value: &[u8]) -> Option<String> {
    let mut reader = Reader::new(value);
    let rendered = match type_oid {
        TEXT | VARCHAR | BPCHAR | NAME | JSON => return utf8(value),
        BYTEA => return Some(hex(value)),
        JSONB => {
            let (1, json) = value.split_first()? else { return None };
            return utf8(json);
        }
        NUMERIC => return numeric::render(value),
        UUID => return uuid(value),
        BOOL => match reader.u8().ok()? {
            0 => "false".to_owned(),
            1 => "true".to_owned(),
            _ => return None,
        },
        INT2 => reader.i16().ok()?.to_string(),
        INT4 => reader.i32().ok()?.to_string(),
        INT8 => reader.i64().ok()?.to_string(),
        OID => reader.u32().ok()?.to_string(),
        FLOAT4 => f32::from_bits(reader.u32().ok()?).to_string(),
        FLOAT8 => f64::from_bits(reader.i64().ok()?.cast_unsigned()).to_string(),
        DATE => time::date(reader.i32().ok()?)?,
        TIMESTAMP => time::timestamp(reader.i64().ok()?)?,
        TIMESTAMPTZ => with_zone(time::timestamp(reader.i64().ok()?)?),
        _ => return None,
    };
    reader.end().ok()?;
    Some(rendered)
}

/// Binary timestamps with time zone are in UTC.
fn with_zone(mut timestamp: String) -> String {
    if !timestamp.ends_with("infinity") {
        timestamp.push_str("+00");
    }
    timestamp
}

fn utf8(value: &[u8]) -> Option<String> {
    std::str::from_utf8(value).ok().map(str::to_owned)
}

fn hex(value: &[u8]) -> String {
    let mut out = String::with_capacity(value.len().saturating_mul(2).saturating_add(2));
    out.push_str("\\x");
    push_hex(&mut out, value);
    out
}

fn push_hex(out: &mut String, value: &[u8]) {
    for byte in value {
        for nibble in [byte >> 4, byte & 15] {
            out.extend(char::from_digit(nibble.into(), 16));
        }
    }
}

fn uuid(value: &[u8]) -> Option<String> {
    let value: [u8; 16] = value.try_into().ok()?;
    let mut out = String::with_capacity(36);
    for (index, byte) in value.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        write!(out, "{byte:02x}").ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bin(oid: u32, value: &[u8]) -> Option<String> {
        render(oid, ParameterFormat::Binary, value)
    }

    #[test]
    fn binary_values_are_written_as_a_person_would() {
        for (oid, value, expected) in [
            (BOOL, &[1u8][..], "true"),
            (INT2, &(-2i16).to_be_bytes(), "-2"),
            (INT4, &42i32.to_be_bytes(), "42"),
            (INT8, &i64::MIN.to_be_bytes(), "-9223372036854775808"),
            (OID, &4_000_000_000u32.to_be_bytes(), "4000000000"),
            (FLOAT4, &1.5f32.to_be_bytes(), "1.5"),
            (FLOAT8, &(-0.1f64).to_be_bytes(), "-0.1"),
            (TEXT, "gr\u{fc}n".as_bytes(), "gr\u{fc}n"),
            (BYTEA, &[0xde, 0xad], "\\xdead"),
            (JSONB, b"\x01{}", "{}"),
            (DATE, &0i32.to_be_bytes(), "2000-01-01"),
            (TIMESTAMPTZ, &1_500_000i64.to_be_bytes(), "2000-01-01 00:00:01.5+00"),
            (TIMESTAMPTZ, &i64::MAX.to_be_bytes(), "infinity"),
            (UUID, &[0xab; 16], "abababab-abab-abab-abab-abababababab"),
        ] {
            assert_eq!(bin(oid, value).as_deref(), Some(expected), "OID {oid}");
        }
    }

    #[test]
    fn what_does_not_fit_its_type_is_not_rendered() {
        assert_eq!(bin(INT4, &[0; 8]), None);
        assert_eq!(bin(INT8, &[0; 4]), None);
        assert_eq!(bin(BOOL, &[7]), None);
        assert_eq!(bin(TEXT, &[0xff]), None);
        assert_eq!(bin(UUID, &[0; 15]), None);
        assert_eq!(bin(JSONB, b"\x02{}"), None);
        assert_eq!(bin(0, &[1]), None);
    }

    #[test]
    fn text_values_of_known_types_are_themselves() {
        assert_eq!(render(INT4, ParameterFormat::Text, b"42").as_deref(), Some("42"));
        assert_eq!(render(BOOL, ParameterFormat::Text, b"t").as_deref(), Some("true"));
        assert_eq!(render(0, ParameterFormat::Text, b"42"), None);
    }
}
