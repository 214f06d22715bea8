//! Sizes and ages as people write them: `64MiB`, `30d`.

use std::{str::FromStr, time::Duration};

use serde::Deserialize;

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(pub u64);

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Age(pub Duration);

/// Why text is no size or age.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HumanError {
    /// Not a size.
    #[error("`{0}` is no size: write a number with B, KiB, MiB, GiB or TiB, e.g. 64MiB")]
    Size(String),
    /// Not an age.
    #[error("`{0}` is no time: write a number with ms, s, m, h or d, e.g. 30d")]
    Age(String),
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    digits.parse().ok().map(|number| (number, unit.trim_start()))
}

impl FromStr for Size {
    type Err = HumanError;

    fn from_str(text: &str) -> Result<Self, HumanError> {
        let size = split(text.trim()).and_then(|(number, unit)| {
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
        size.filter(|s| *s > 0).map(Self).ok_or_else(|| HumanError::Size(text.to_owned()))
    }
}

impl FromStr for Age {
    type Err = HumanError;

    fn from_str(text: &str) -> Result<Self, HumanError> {
        let age = split(text.trim()).and_then(|(number, unit)| {
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
        age.filter(|a| *a > 0)
            .map(|millis| Self(Duration::from_millis(millis)))
            .ok_or_else(|| HumanError::Age(text.to_owned()))
    }
}

impl TryFrom<String> for Size {
    type Error = HumanError;

    fn try_from(text: String) -> Result<Self, HumanError> {
        text.parse()
    }
}

impl TryFrom<String> for Age {
    type Error = HumanError;

    fn try_from(text: String) -> Result<Self, HumanError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_need_their_unit() {
        assert_eq!("64MiB".parse(), Ok(Size(64 << 20)));
        assert_eq!("1 GiB".parse(), Ok(Size(1 << 30)));
        assert_eq!("30d".parse(), Ok(Age(Duration::from_secs(30 * 86_400))));
        for wrong in ["", "64", "64mb", "MiB", "-1MiB", "0B", "99999999999TiB", "1.5GiB"] {
            assert_eq!(wrong.parse::<Size>(), Err(HumanError::Size(wrong.to_owned())), "{wrong}");
        }
        for wrong in ["30", "30 days", "0s", "d"] {
            assert_eq!(wrong.parse::<Age>(), Err(HumanError::Age(wrong.to_owned())), "{wrong}");
        }
    }
}
