//! How much content a link may carry at which time: a week, by the clocks of a place.
//!
//! Entries name days, times of the day and a rate; of those that hold at a moment the lowest rate
//! counts, and where none does there is no cap. What days and times are the crate `timing` says.

use std::time::SystemTime;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use protos::LEAST_RATE;
use serde::{Deserialize, Serialize};
use timing::{Week, WeekError};

/// The most entries of one calendar.
const ENTRIES: usize = 32;

/// One `[[cap]]` of the settings, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Days of the week, as `mon-fri,sun`; empty: all.
    #[serde(default)]
    pub days: String,
    /// Times of the day, as `08-18` or `08:30-12,22-06`; empty: all.
    #[serde(default)]
    pub hours: String,
    /// By whose clocks, as `Europe/Paris`.
    #[serde(default = "utc")]
    pub zone: String,
    /// Bits a second, as `500k` or `2M`.
    pub rate: String,
}

fn utc() -> String {
    "UTC".into()
}

/// Why a calendar says nothing. The operator is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// Days or times that are none.
    #[error("cap: {0}")]
    Week(#[from] WeekError),
    /// No place.
    #[error("cap: unknown time zone {0:?}: a name as in Europe/Berlin, known to this machine")]
    Zone(String),
    /// No rate.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// More than anybody needs.
    #[error("cap: {0} entries; at most {ENTRIES}")]
    Many(usize),
}

/// A text that is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a rate: write bits a second as 500k, 2M or 1G, at least 8k")]
pub struct RateError(String);

/// Reads `64000`, `500k`, `2M`, `1.5M`, `1G`: bits a second, in units of 1000.
pub fn parse_rate(text: &str) -> Result<u64, RateError> {
    let wrong = || RateError(text.into());
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = text.split_at(digits);
    let scale = match unit.to_ascii_lowercase().trim_end_matches("bit/s").trim() {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        _ => return Err(wrong()),
    };
    let rate = number.parse::<f64>().map_err(|_| wrong())? * scale;
    if rate >= LEAST_RATE as f64 && rate <= 1e12 { Ok(rate as u64) } else { Err(wrong()) }
}

/// `2 Mbit/s`
pub fn show_rate(rate: u64) -> String {
    let (scale, unit) = match rate {
        ..1_000_000 => (1e3, "kbit/s"),
        1_000_000..1_000_000_000 => (1e6, "Mbit/s"),
        _ => (1e9, "Gbit/s"),
    };
    let text = format!("{:.3}", rate as f64 / scale);
    format!("{} {unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A week of caps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calendar(Vec<Span>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    week: Week,
    zone: TimeZone,
    rate: u64,
}

impl Calendar {
    pub(crate) fn new(entries: &[Entry]) -> Result<Calendar, CalendarError> {
        if entries.len() > ENTRIES {
            return Err(CalendarError::Many(entries.len()));
        }
        entries.iter().map(Span::new).collect::<Result<_, _>>().map(Calendar)
    }

    /// The cap at a moment, in bits a second; none: as much as the link carries.
    pub(crate) fn rate(&self, now: SystemTime) -> Option<u64> {
        let now = Timestamp::try_from(now).ok()?;
        self.0.iter().filter(|span| span.holds(now)).map(|span| span.rate).min()
    }
}

impl Span {
    fn new(entry: &Entry) -> Result<Span, CalendarError> {
        let week = Week::new(&entry.days, &entry.hours)?;
        let zone = match entry.zone.as_str() {
            "UTC" => TimeZone::UTC,
            name => TimeZone::get(name).map_err(|_| CalendarError::Zone(name.into()))?,
        };
        Ok(Span { week, zone, rate: parse_rate(&entry.rate)? })
    }

    fn holds(&self, now: Timestamp) -> bool {
        self.week.holds(&Zoned::new(now, self.zone.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(days: &str, hours: &str, zone: &str, rate: &str) -> Entry {
        Entry { days: days.into(), hours: hours.into(), zone: zone.into(), rate: rate.into() }
    }

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().expect("a time").into()
    }

    #[track_caller]
    fn check(calendar: &[Entry], moments: &[(&str, Option<u64>)]) {
        let calendar = Calendar::new(calendar).expect("a calendar");
        for (moment, rate) in moments {
            assert_eq!(calendar.rate(at(moment)), *rate, "at {moment}");
        }
    }

    #[test]
    fn working_hours_by_the_clocks_of_the_site() {
        // 2026-11-26 is a Thursday; Paris is an hour ahead in winter, two in summer.
        check(
            &[entry("mon-fri", "08-18", "Europe/Paris", "2M"), entry("", "", "UTC", "10M")],
            &[
                ("2026-11-26T06:59:59Z", Some(10_000_000)),
                ("2026-11-26T07:00:00Z", Some(2_000_000)),
                ("2026-11-26T16:59:59Z", Some(2_000_000)),
                ("2026-11-26T17:00:00Z", Some(10_000_000)),
                ("2026-11-28T12:00:00Z", Some(10_000_000)),
                ("2026-07-30T06:00:00Z", Some(2_000_000)),
            ],
        );
    }

    #[test]
    fn nights_belong_to_the_day_on_which_they_begin() {
        check(
            &[entry("fri", "22-06", "UTC", "64k")],
            &[
                ("2026-11-27T21:59:00Z", None),
                ("2026-11-27T22:00:00Z", Some(64_000)),
                ("2026-11-28T05:59:00Z", Some(64_000)),
                ("2026-11-28T06:00:00Z", None),
                ("2026-11-27T05:00:00Z", None),
            ],
        );
        check(
            &[entry("sat-mon", "12:30-13,20-24", "UTC", "1G")],
            &[
                ("2026-11-29T12:30:00Z", Some(1_000_000_000)),
                ("2026-11-29T13:00:00Z", None),
                ("2026-11-30T23:59:59Z", Some(1_000_000_000)),
                ("2026-12-01T20:30:00Z", None),
            ],
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |entry| Calendar::new(&[entry]).expect_err("it is wrong").to_string();
        for days in ["monday", "mon-", "1-5"] {
            assert!(error(entry(days, "", "UTC", "1M")).contains(days));
        }
        for hours in ["8", "8-25", "18-18", "8-", "+8-18", "08:61-09", "24-3", "8-18-20"] {
            assert!(error(entry("", hours, "UTC", "1M")).contains(hours));
        }
        assert!(error(entry("", "", "Europe/Atlantis", "1M")).contains("Atlantis"));
        for rate in ["", "2", "fast", "-2M", "2T", "7999", "1e9M", "NaN"] {
            assert!(error(entry("", "", "UTC", rate)).contains(&format!("{rate:?}")), "{rate}");
        }
        assert!(Calendar::new(&vec![entry("", "", "UTC", "1M"); ENTRIES + 1]).is_err());
    }

    #[test]
    fn rates_are_shown_as_they_are_read() {
        for text in ["64 kbit/s", "2 Mbit/s", "1.5 Mbit/s", "1 Gbit/s"] {
            let bare = text.replace(" ", "");
            assert_eq!(show_rate(parse_rate(&bare).expect("a rate")), text);
        }
    }
}
