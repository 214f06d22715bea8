//! `numeric`: digits of base 10000, a weight for the first of them, a sign and a display scale.

use crate::reader::Reader;

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const INFINITY: u16 = 0xd000;
const NEGATIVE_INFINITY: u16 = 0xf000;
/// What is written at most; a longer one is left to its bytes.
const MAX_DIGITS: i32 = 2_000;

pub(super) fn render(value: &[u8]) -> Option<String> {
    let mut reader = Reader::new(value);
    let count = reader.u16().ok()?;
    let weight = i32::from(reader.i16().ok()?);
    let sign = reader.u16().ok()?;
    let scale = i32::from(reader.u16().ok()?);
    let mut digits = Vec::with_capacity(count.min(1024).into());
    for _ in 0..count {
        digits.push(reader.u16().ok().filter(|digit| *digit < 10_000)?);
    }
    reader.end().ok()?;
    match sign {
        NAN => return Some("NaN".to_owned()),
        INFINITY => return Some("Infinity".to_owned()),
        NEGATIVE_INFINITY => return Some("-Infinity".to_owned()),
        0 | NEGATIVE => {}
        _ => return None,
    }
    if weight > MAX_DIGITS || scale > MAX_DIGITS {
        return None;
    }
    let digit = |position: i32| {
        let index = usize::try_from(weight.checked_sub(position)?).ok()?;
        digits.get(index).copied()
    };
    let mut whole = String::new();
    for position in (0..=weight).rev() {
        let digit = digit(position).unwrap_or(0);
        whole.push_str(&format!("{digit:04}"));
    }
    let whole = whole.trim_start_matches('0');
    let mut fraction = String::new();
    let mut position = -1i32;
    while fraction.len() < usize::try_from(scale).ok()? {
        let digit = digit(position).unwrap_or(0);
        fraction.push_str(&format!("{digit:04}"));
        position = position.checked_sub(1)?;
    }
    fraction.truncate(usize::try_from(scale).ok()?);
    let minus = if sign == NEGATIVE { "-" } else { "" };
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{minus}{whole}{point}{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(weight: i16, sign: u16, scale: u16, digits: &[u16]) -> Option<String> {
        let mut bytes = (digits.len() as u16).to_be_bytes().to_vec();
        bytes.extend(weight.to_be_bytes());
        for part in [sign, scale].iter().chain(digits) {
            bytes.extend(part.to_be_bytes());
        }
        render(&bytes)
    }

    #[test]
    fn numerics_are_written_with_their_scale() {
        assert_eq!(numeric(0, 0, 0, &[42]).as_deref(), Some("42"));
        assert_eq!(numeric(1, 0, 2, &[1, 2345, 6700]).as_deref(), Some("12345.67"));
        assert_eq!(numeric(-1, NEGATIVE, 3, &[10]).as_deref(), Some("-0.001"));
        assert_eq!(numeric(-2, 0, 6, &[1200]).as_deref(), Some("0.000012"));
        assert_eq!(numeric(1, 0, 0, &[1]).as_deref(), Some("10000"));
        assert_eq!(numeric(0, 0, 2, &[]).as_deref(), Some("0.00"));
        assert_eq!(numeric(0, NAN, 0, &[]).as_deref(), Some("NaN"));
        assert_eq!(numeric(0, 0, 0, &[10_000]), None);
        assert_eq!(numeric(i16::MAX, 0, 0, &[1]), None);
    }
}
