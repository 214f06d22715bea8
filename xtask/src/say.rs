//! How this program talks to a person: headings, progress, durations. Knows nothing of what is done.

use std::{
    io::IsTerminal,
    sync::OnceLock,
    time::{Duration, Instant},
};

/// A part of the work begins.
pub(crate) fn heading(text: &str) {
    println!("\n{}", paint("1", text));
}

/// One thing within a part.
pub(crate) fn line(text: &str) {
    println!("  {text}");
}

/// Something went another way than a person would expect, and the work goes on.
pub(crate) fn note(text: &str) {
    println!("  {} {text}", paint("33", "note:"));
}

/// A command as it could be typed.
pub(crate) fn command(text: &str) {
    println!("  {}", paint("36", &format!("$ {text}")));
}

pub(crate) fn red(text: &str) -> String {
    paint("31;1", text)
}

pub(crate) fn green(text: &str) -> String {
    paint("32", text)
}

fn paint(code: &str, text: &str) -> String {
    static COLOUR: OnceLock<bool> = OnceLock::new();
    if *COLOUR.get_or_init(|| std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()) {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// How long something took, as a person reads it.
pub(crate) fn took(since: Instant) -> String {
    duration(since.elapsed())
}

/// `0.4 s`, `12 s`, `3 min 05 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 {
        format!("{seconds:.1} s")
    } else if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else {
        format!("{} min {:02} s", duration.as_secs() / 60, duration.as_secs() % 60)
    }
}

/// Parses `30s`, `10m`, `2h` or plain seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("`{text}` has the unit `{unit}`; write 30s, 10m or 2h")),
    };
    let number: u64 =
        number.parse().map_err(|error| format!("`{text}` is no duration such as 30s: {error}"))?;
    Ok(Duration::from_secs(number * factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_seconds_minutes_and_hours() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        assert!(parse_duration("2 days").is_err_and(|e| e.contains("30s, 10m or 2h")));
        assert!(parse_duration("m").is_err());
    }

    #[test]
    fn durations_are_written_for_a_person() {
        assert_eq!(duration(Duration::from_millis(430)), "0.4 s");
        assert_eq!(duration(Duration::from_secs(42)), "42 s");
        assert_eq!(duration(Duration::from_secs(185)), "3 min 05 s");
    }
}
