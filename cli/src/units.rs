//! Durations, sizes and times: one parser, one way to write each.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Units of durations in milliseconds, the longer spelling first where one begins with another.
const UNITS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

/// Nobody means more: ten years.
const LONGEST_MS: u64 = 3_650 * 86_400_000;

/// Reads `90s`, `5m`, `2h`, `1d`, `500ms`, `1h30m`. A bare number is seconds, as in pdsh and clush.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let trimmed = text.trim();
    if !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit()) {
        return total(trimmed, 1_000).and_then(limited);
    }
    let mut sum = 0u64;
    let mut rest = trimmed;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
        let (Some(scale), false) = (scale, number.is_empty()) else { return Err(not_one(text)) };
        sum = sum.saturating_add(total(number, scale)?);
        rest = after;
    }
    if trimmed.is_empty() { Err(not_one(text)) } else { limited(sum) }
}

/// The same, but not nothing.
pub(crate) fn parse_some_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("it must be longer than 0".into()),
        duration => Ok(duration),
    }
}

fn not_one(text: &str) -> String {
    format!("{text:?} is not a duration: write 90s, 5m, 2h, 1d, 500ms or 1h30m")
}

fn total(number: &str, scale: u64) -> Result<u64, String> {
    let number: u64 = number.parse().map_err(|_| format!("{number} is too long a duration"))?;
    Ok(number.saturating_mul(scale))
}

fn limited(ms: u64) -> Result<Duration, String> {
    match ms {
        ..=LONGEST_MS => Ok(Duration::from_millis(ms)),
        _ => Err("a duration is at most ten years".into()),
    }
}

/// Milliseconds, as the API wants them.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A span for people: `850 ms`, `2.1 s`, `3 m 20 s`, `5 h 2 m`, `12 d 4 h`.
pub(crate) fn show_duration(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3_600 => format!("{} m {} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {} m", s / 3_600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3_600 % 24),
    }
}

/// Reads `500`, `20K`, `1.5MiB`, `2g`: a number of bytes, in units of 1024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let not_one = || format!("{text:?} is not a size: write 4096, 500K, 20M or 1.5G");
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.to_ascii_lowercase();
    let letter = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    let exponent = ["", "k", "m", "g", "t"].iter().position(|known| *known == letter);
    let exponent = exponent.ok_or_else(not_one)?;
    let number: f64 = number.parse().map_err(|_| not_one())?;
    Ok((number * 1024f64.powi(exponent as i32)) as u64)
}

/// A size for people: `812 B`, `1.2 MiB`.
pub(crate) fn show_bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // One unit up as soon as rounding would show 1024.
    let mut exponent = (bytes.ilog2() / 10) as usize;
    let scaled = |exponent: usize| bytes as f64 / 1024f64.powi(exponent as i32);
    if scaled(exponent) >= 1023.95 && exponent < units.len() {
        exponent += 1;
    }
    format!("{:.1} {}", scaled(exponent), units[exponent - 1])
}

/// A count for people: `1,234,567`.
pub(crate) fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A moment as RFC 3339 in UTC, to the second.
pub(crate) fn show_time(unix_ms: u64) -> String {
    let s = unix_ms / 1_000;
    let (year, month, day) = civil(s / 86_400);
    let (h, m, s) = (s / 3_600 % 24, s / 60 % 60, s % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
}

/// How long ago a moment is.
pub(crate) fn since(unix_ms: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(unix_ms))
}

/// How far in the future a moment is.
pub(crate) fn until(unix_ms: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(unix_ms).saturating_sub(now)
}

/// Year, month and day of a day since 1970. Counts in years that begin in March, so that the
/// leap day is the last (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, ms: u64| {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        };
        check("90s", 90_000);
        check("5m", 300_000);
        check("2h", 7_200_000);
        check("1d", 86_400_000);
        check("500ms", 500);
        check("1h30m", 5_400_000);
        check("60", 60_000);
        check("0", 0);
        for wrong in ["", " ", "s", "5x", "1.5h", "-1s", "5 m", "99999999999999999999s", "9999w"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
        assert!(parse_some_duration("0s").is_err());
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("4096", 4_096), ("2k", 2_048), ("1.5MiB", 1_572_864), ("1GB", 1 << 30)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "K", "1x", "-1", "1 K", "1..2"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shows() {
        assert_eq!(show_duration(Duration::from_millis(850)), "850 ms");
        assert_eq!(show_duration(Duration::from_millis(2_140)), "2.1 s");
        assert_eq!(show_duration(Duration::from_secs(200)), "3 m 20 s");
        assert_eq!(show_duration(Duration::from_secs(90_000)), "1 d 1 h");
        assert_eq!(show_bytes(0), "0 B");
        assert_eq!(show_bytes(1_023), "1023 B");
        assert_eq!(show_bytes(1_258_291), "1.2 MiB");
        assert_eq!(show_bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(show_bytes(u64::MAX), "16.0 EiB");
        assert_eq!(show_count(7), "7");
        assert_eq!(show_count(1_234_567), "1,234,567");
        assert_eq!(show_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(show_time(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(show_time(1_763_832_896_999), "2025-11-22T17:34:56Z");
    }
}
