//! Values as people read them.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};

/// What stands for a null.
pub const NULL: &str = "-";

/// Milliseconds since the epoch as `2026-01-02T03:04:05.678Z`; `None` where no calendar
/// reaches (about 260,000 years).
pub fn timestamp(millis: i64) -> Option<String> {
    DateTime::from_timestamp_millis(millis).map(|time| iso(time, SecondsFormat::Millis))
}

/// The same of a moment of this host's clock.
pub fn moment(time: SystemTime) -> Option<String> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    timestamp(i64::try_from(since.as_millis()).ok()?)
}

/// A time in UTC, with the digits that its unit has.
pub fn iso(time: DateTime<Utc>, digits: SecondsFormat) -> String {
    time.to_rfc3339_opts(digits, true)
}

/// Bytes with three digits or so: `512B`, `1.5GiB`.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub fn size(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    if value.abs() < 1024.0 {
        return format!("{bytes}B");
    }
    let mut unit = "";
    for next in UNITS {
        if value.abs() < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1}{unit}")
}

/// A duration with the precision that its length deserves.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => {
            let text = format!("{:.3}", time.as_secs_f64());
            let text = text.trim_end_matches('0').trim_end_matches('.');
            format!("{text} s")
        }
        60..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Text for one cell or one line: control characters are escaped, so that no value moves
/// the cursor, and an empty text can be seen.
pub fn printable(text: &str) -> String {
    if text.is_empty() {
        return "\"\"".to_owned();
    }
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if char.is_control() {
            out.extend(char.escape_default());
        } else {
            out.push(char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_never_show_1024_of_a_unit() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0KiB"),
            (1536, "1.5KiB"),
            ((1 << 20) - 1, "1.0MiB"),
            (1 << 40, "1.0TiB"),
            (-2048, "-2.0KiB"),
            (i64::MAX, "8.0EiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn timestamps_are_iso_8601_in_utc_to_the_millisecond() {
        for (millis, text) in [
            (1_767_323_045_678, "2026-01-02T03:04:05.678Z"),
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(timestamp(millis).as_deref(), Some(text), "{millis}");
        }
        assert_eq!(timestamp(i64::MAX), None);
    }

    #[test]
    fn no_text_moves_the_cursor() {
        assert_eq!(printable("a\x1b[2J\nb\u{85}"), "a\\u{1b}[2J\\nb\\u{85}");
        assert_eq!(printable("Größe"), "Größe");
        assert_eq!(printable(""), "\"\"");
    }

    #[test]
    fn durations_keep_the_digits_that_matter() {
        for (millis, text) in [
            (0, "0 s"),
            (1500, "1.5 s"),
            (90_000, "1 min"),
            (864_000_000, "10 days"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text, "{millis}");
        }
    }
}
