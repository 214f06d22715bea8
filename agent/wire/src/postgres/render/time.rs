//! Dates and timestamps: days and microseconds since 2000-01-01, proleptic Gregorian calendar.

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// Days from 0000-03-01, the beginning of a 400-year era, to 2000-01-01.
const EPOCH: i64 = 730_425;
const DAYS_PER_ERA: i64 = 146_097;

pub(super) fn date(days: i32) -> Option<String> {
    match days {
        i32::MAX => Some("infinity".to_owned()),
        i32::MIN => Some("-infinity".to_owned()),
        _ => {
            let (date, era) = civil(days.into())?;
            Some(format!("{date}{era}"))
        }
    }
}

pub(super) fn timestamp(micros: i64) -> Option<String> {
    match micros {
        i64::MAX => return Some("infinity".to_owned()),
        i64::MIN => return Some("-infinity".to_owned()),
        _ => {}
    }
    let (date, era) = civil(micros.div_euclid(MICROS_PER_DAY))?;
    let time = micros.rem_euclid(MICROS_PER_DAY);
    let seconds = time.div_euclid(MICROS_PER_SECOND);
    let fraction = time.rem_euclid(MICROS_PER_SECOND);
    let (hours, minutes, seconds) =
        (seconds.div_euclid(3600), seconds.div_euclid(60).rem_euclid(60), seconds.rem_euclid(60));
    let mut text = format!("{date} {hours:02}:{minutes:02}:{seconds:02}");
    if fraction != 0 {
        text.push_str(format!(".{fraction:06}").trim_end_matches('0'));
    }
    text.push_str(era);
    Some(text)
}

/// Date and suffix of the era. The year begins in March here, so that the leap day is its last.
fn civil(days: i64) -> Option<(String, &'static str)> {
    let days = days.checked_add(EPOCH)?;
    let era = days.div_euclid(DAYS_PER_ERA);
    let day = days.rem_euclid(DAYS_PER_ERA);
    let leaps = day
        .checked_sub(day.div_euclid(1460))?
        .checked_add(day.div_euclid(36_524))?
        .checked_sub(day.div_euclid(146_096))?;
    let year = leaps.div_euclid(365);
    let before = year.checked_mul(365)?.checked_add(year.div_euclid(4))?.checked_sub(year.div_euclid(100))?;
    let day_of_year = day.checked_sub(before)?;
    let month = day_of_year.checked_mul(5)?.checked_add(2)?.div_euclid(153);
    let first = month.checked_mul(153)?.checked_add(2)?.div_euclid(5);
    let day_of_month = day_of_year.checked_sub(first)?.checked_add(1)?;
    let calendar_month = month.checked_add(if month < 10 { 3 } else { -9 })?;
    let year = era.checked_mul(400)?.checked_add(year)?.checked_add(i64::from(calendar_month <= 2))?;
    let (year, suffix) = if year > 0 { (year, "") } else { (1i64.checked_sub(year)?, " BC") };
    Some((format!("{year:04}-{calendar_month:02}-{day_of_month:02}"), suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, "2000-01-01"),
            (-1, "1999-12-31"),
            (59, "2000-02-29"),
            (60, "2000-03-01"),
            (9_824, "2026-11-24"),
            (-10_957, "1970-01-01"),
            (-730_119, "0001-01-01"),
            (-730_120, "0001-12-31 BC"),
            (36_583, "2100-02-28"),
            (36_584, "2100-03-01"),
        ] {
            assert_eq!(date(days).as_deref(), Some(expected), "{days}");
        }
    }

    #[test]
    fn times_before_the_epoch_count_back() {
        assert_eq!(timestamp(-1).as_deref(), Some("1999-12-31 23:59:59.999999"));
        assert_eq!(timestamp(86_400_000_000).as_deref(), Some("2000-01-02 00:00:00"));
    }
}
