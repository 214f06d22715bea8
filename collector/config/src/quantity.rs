//! Sizes and times as people write them: `64MiB`, `30d`. Whether a key may be zero is the key's business.

use std::{str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};

/// Bytes: a number and B, KiB, MiB, GiB or TiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ByteSize(pub u64);

/// A span of time: a number and ms, s, m, h or d.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

/// Why text is no size or time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a size.
    #[error("`{0}` is no size: write a number with B, KiB, MiB, GiB or TiB, e.g. `64MiB`")]
    Size(String),
    /// Not a time.
    #[error("`{0}` is no time: write a number with ms, s, m, h or d, e.g. `30s`")]
    Span(String),
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    digits.parse().ok().map(|number| (number, unit.trim_start()))
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let bytes = split(text.trim()).and_then(|(number, unit)| {
            let shift = match unit {
                "B" => 0,
                "KiB" => 10,
                "MiB" => 20,
                "GiB" => 30,
                "TiB" => 40,
                _ => return None,
            };
            number.checked_mul(1 << shift)
        });
        bytes.map(Self).ok_or_else(|| QuantityError::Size(text.to_owned()))
    }
}

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let millis = split(text.trim()).and_then(|(number, unit)| {
            let millis = match unit {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            number.checked_mul(millis)
        });
        millis
            .map(|millis| Self(Duration::from_millis(millis)))
            .ok_or_else(|| QuantityError::Span(text.to_owned()))
    }
}

impl TryFrom<String> for ByteSize {
    type Error = QuantityError;

    fn try_from(text: String) -> Result<Self, QuantityError> {
        text.parse()
    }
}

impl TryFrom<String> for Span {
    type Error = QuantityError;

    fn try_from(text: String) -> Result<Self, QuantityError> {
        text.parse()
    }
}

/// What can be zero.
pub trait Quantity {
    /// Whether it is; what is absent is not.
    fn is_zero(&self) -> bool;
}

impl Quantity for ByteSize {
    fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl Quantity for Span {
    fn is_zero(&self) -> bool {
        self.0.is_zero()
    }
}

impl<T: Quantity> Quantity for Option<T> {
    fn is_zero(&self) -> bool {
        self.as_ref().is_some_and(Quantity::is_zero)
    }
}

/// For `#[serde(deserialize_with)]` of a key that zero makes no sense for.
///
/// # Errors
/// Where it is zero, beside what the type itself refuses.
pub fn positive<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Quantity,
{
    let quantity = T::deserialize(deserializer)?;
    if quantity.is_zero() {
        return Err(D::Error::custom("it must be more than zero here"));
    }
    Ok(quantity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_need_their_unit_and_do_not_overflow() {
        assert_eq!("64MiB".parse(), Ok(ByteSize(64 << 20)));
        assert_eq!("1 TiB".parse(), Ok(ByteSize(1 << 40)));
        assert_eq!("0B".parse(), Ok(ByteSize(0)));
        assert_eq!("30d".parse(), Ok(Span(Duration::from_secs(30 * 86_400))));
        assert_eq!(" 1500ms".parse(), Ok(Span(Duration::from_millis(1500))));
        for wrong in ["", "64", "64mb", "1MB", "MiB", "-1MiB", "99999999999TiB", "1.5GiB", "30s"] {
            assert_eq!(wrong.parse::<ByteSize>(), Err(QuantityError::Size(wrong.to_owned())), "{wrong}");
        }
        for wrong in ["", "30", "30 days", "-1s", "d", "999999999999999999d", "1B"] {
            assert_eq!(wrong.parse::<Span>(), Err(QuantityError::Span(wrong.to_owned())), "{wrong}");
        }
    }
}
