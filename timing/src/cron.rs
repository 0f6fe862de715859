//! When a frequency is due: five fields as cron has them, by the clocks of a place.
//!
//! Fields are numbers, `*`, ranges and steps with commas between them; months and days of the week
//! may be names. If both the day of the month and that of the week are restricted, either will do.
//! When clocks are put forward, what falls into the gap is due right after it; when they are put
//! back, a time that comes twice is due once. What is due every hour is due every hour, whatever
//! clocks show.

use jiff::civil::{Date, Weekday, date};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan, Zoned};

use crate::Times;

/// By how many days from the first of January 2026 on pauses are measured.
const MEASURED: usize = 60;
/// How far ahead the next time is looked for: long enough for any 29th of February.
const DAYS: u32 = 366 * 9;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// When something is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Days of the month and of the week are both restricted.
    either: bool,
    zone: TimeZone,
}

/// Why a text says no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Not five fields.
    #[error("cron {text:?}: {found} fields instead of 5: minute hour day month weekday")]
    Fields {
        /// The line.
        text: String,
        /// How many it has.
        found: usize,
    },
    /// A field that is none.
    #[error("cron {text:?}: {part:?} is no {field} of {first} to {last}")]
    Field {
        /// The line.
        text: String,
        /// What is wrong in it.
        part: String,
        /// Which field that is.
        field: &'static str,
        /// Its least number.
        first: u32,
        /// Its greatest.
        last: u32,
    },
    /// No day is ever meant.
    #[error("cron {0:?}: no day is ever meant")]
    Never(String),
    /// A place that nobody knows.
    #[error("unknown time zone {0:?}: a name as in Europe/Berlin, known to this machine, or UTC")]
    Zone(String),
}

struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, names: &[] },
    Field { name: "hour", first: 0, last: 23, names: &[] },
    Field { name: "day of the month", first: 1, last: 31, names: &[] },
    Field { name: "month", first: 1, last: 12, names: &MONTHS },
    Field { name: "weekday", first: 0, last: 7, names: &WEEKDAYS },
];

impl Cron {
    /// As a frequency says it.
    pub fn new(times: &Times) -> Result<Cron, CronError> {
        let Times { cron: text, zone, .. } = times;
        let parts: Vec<&str> = text.split_whitespace().collect();
        if parts.len() != FIELDS.len() {
            return Err(CronError::Fields { text: text.clone(), found: parts.len() });
        }
        let mut bits = [0; 5];
        for ((bits, part), field) in bits.iter_mut().zip(&parts).zip(&FIELDS) {
            for item in part.split(',') {
                *bits |= item_bits(item, field).ok_or_else(|| CronError::Field {
                    text: text.clone(),
                    part: item.into(),
                    field: field.name,
                    first: field.first,
                    last: field.last,
                })?;
            }
        }
        let [minutes, hours, days, months, mut weekdays] = bits;
        // Sunday is 0 and 7.
        weekdays |= weekdays >> 7;
        let zone = match zone.as_str() {
            "UTC" => TimeZone::UTC,
            name => TimeZone::get(name).map_err(|_| CronError::Zone(name.into()))?,
        };
        let either = !parts[2].starts_with('*') && !parts[4].starts_with('*');
        Ok(Cron { minutes, hours, days, months, weekdays, either, zone })
    }

    /// The same, unless no day is ever meant.
    pub fn check(times: &Times) -> Result<Cron, CronError> {
        let cron = Cron::new(times)?;
        match cron.next(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(cron),
            None => Err(CronError::Never(times.cron.clone())),
        }
    }

    /// The first time after this one.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let now = Zoned::new(after, self.zone.clone());
        // Put-back clocks may show yesterday's date once more.
        let mut date = now.date().yesterday().ok()?;
        for _ in 0..DAYS {
            let next = self.on(date).into_iter().find(|time| *time > after);
            if next.is_some() {
                return next;
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// How often it was due after `from` and until `to`, at most so often.
    pub fn count(&self, from: Timestamp, to: Timestamp, most: usize) -> usize {
        let date = |time| Zoned::new(time, self.zone.clone()).date();
        let (Ok(mut day), Ok(end)) = (date(from).yesterday(), date(to).tomorrow()) else {
            return 0;
        };
        let mut count = 0;
        while day <= end && count < most {
            let times = self.on(day).into_iter();
            count += times.filter(|time| *time > from && *time <= to).count();
            let Ok(next) = day.tomorrow() else { break };
            day = next;
        }
        count.min(most)
    }

    /// When it was due last, at or before this time.
    pub fn last(&self, to: Timestamp) -> Option<Timestamp> {
        let mut date = Zoned::new(to, self.zone.clone()).date().tomorrow().ok()?;
        for _ in 0..DAYS {
            let before = date.yesterday().ok()?;
            // Put-back clocks may show yesterday's date once more.
            let times = self.on(date).into_iter().chain(self.on(before));
            let last = times.filter(|time| *time <= to).max();
            if last.is_some() {
                return last;
            }
            date = before;
        }
        None
    }

    /// The shortest and the longest time between two times that it is due, in milliseconds, by two
    /// months of a year. What is not due twice in these is longer than any of them.
    pub fn pauses(&self) -> (u64, u64) {
        let days: Vec<Date> = date(2026, 1, 1).series(1.day()).take(MEASURED).collect();
        let midnight =
            |date: &Date| self.zone.to_ambiguous_zoned(date.at(0, 0, 0, 0)).compatible().ok();
        let edge = |date: Option<&Date>| date.and_then(midnight).map(|time| time.timestamp());
        let due: Vec<Timestamp> = days.iter().flat_map(|date| self.on(*date)).collect();
        let pause = |(from, to): (&Timestamp, &Timestamp)| {
            u64::try_from(to.as_millisecond() - from.as_millisecond()).unwrap_or(0)
        };
        let shortest = due.iter().zip(due.iter().skip(1)).map(pause).min();
        // Before the first and after the last it is at least as long as it is there.
        let (first, last) = (edge(days.first()), edge(days.last()));
        let all: Vec<Timestamp> = first.into_iter().chain(due).chain(last).collect();
        let longest = all.iter().zip(all.iter().skip(1)).map(pause).max();
        (shortest.unwrap_or(u64::MAX), longest.unwrap_or(u64::MAX))
    }

    /// All times on a day, in their sequence.
    fn on(&self, date: Date) -> Vec<Timestamp> {
        let mut times = Vec::new();
        if !self.is_day(date) {
            return times;
        }
        let every_hour = self.hours == (1 << 24) - 1;
        for hour in (0..24_i8).filter(|hour| self.hours >> hour & 1 == 1) {
            for minute in (0..60_i8).filter(|minute| self.minutes >> minute & 1 == 1) {
                let ambiguous = self.zone.to_ambiguous_zoned(date.at(hour, minute, 0, 0));
                let offset = ambiguous.offset();
                let twice = ambiguous.clone();
                match offset {
                    AmbiguousOffset::Gap { .. } if every_hour => {}
                    AmbiguousOffset::Fold { .. } if every_hour => {
                        times.extend(ambiguous.earlier().ok().map(|time| time.timestamp()));
                        times.extend(twice.later().ok().map(|time| time.timestamp()));
                    }
                    _ => times.extend(ambiguous.compatible().ok().map(|time| time.timestamp())),
                }
            }
        }
        times.sort_unstable();
        times.dedup();
        times
    }

    fn is_day(&self, date: Date) -> bool {
        let weekday = match date.weekday() {
            Weekday::Sunday => 0,
            other => other.to_monday_one_offset(),
        };
        let day = self.days >> date.day() & 1 == 1;
        let weekday = self.weekdays >> weekday & 1 == 1;
        let fits = if self.either { day || weekday } else { day && weekday };
        fits && self.months >> date.month() & 1 == 1
    }
}

/// The numbers that one item of a field means.
fn item_bits(item: &str, field: &Field) -> Option<u64> {
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, step.parse::<u32>().ok().filter(|step| *step > 0)?),
        None => (item, 1),
    };
    let number = |text: &str| -> Option<u32> {
        let named = |name: &&str| text.eq_ignore_ascii_case(name);
        let by_name = field.names.iter().position(named).and_then(|n| u32::try_from(n).ok());
        let number = by_name.map(|n| n + u32::from(field.first == 1));
        let digits = || text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok());
        let number = number.or_else(|| digits().flatten())?;
        (field.first..=field.last).contains(&number).then_some(number)
    };
    let (first, last) = match (range, range.split_once('-')) {
        ("*", _) => (field.first, field.last - u32::from(field.last == 7)),
        (_, Some((first, last))) => (number(first)?, number(last)?),
        (one, None) if item.contains('/') => (number(one)?, field.last),
        (one, None) => (number(one)?, number(one)?),
    };
    let numbers = (first..=last).step_by(usize::try_from(step).ok()?);
    (first <= last).then(|| numbers.fold(0, |bits, n| bits | 1 << n))
}

/// A time in words, by UTC.
pub fn text(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| "?".into(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// A moment as jiff has it.
pub fn moment(ms: u64) -> Timestamp {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.unwrap_or_else(|| Timestamp::MAX - 1.second())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frequency(cron: &str, zone: &str) -> Times {
        Times::new(cron, zone)
    }

    #[track_caller]
    fn check_next(cron: &str, zone: &str, after: &str, expected: &[&str]) {
        let cron = Cron::new(&frequency(cron, zone)).expect(cron);
        let mut at: Timestamp = after.parse().expect(after);
        for expected in expected {
            at = cron.next(at).expect("a time");
            assert_eq!(at, expected.parse::<Timestamp>().expect(expected), "{cron:?}");
        }
    }

    #[test]
    fn the_usual_ones() {
        check_next("0 * * * *", "UTC", "2026-01-01T00:00:00Z", &["2026-01-01T01:00:00Z"]);
        check_next("0 3 * * *", "UTC", "2026-01-01T03:00:00Z", &["2026-01-02T03:00:00Z"]);
        // 2026-01-04 is a Sunday.
        check_next("0 4 * * 0", "UTC", "2026-01-01T00:00:00Z", &["2026-01-04T04:00:00Z"]);
        check_next("0 4 * * sun", "UTC", "2026-01-01T00:00:00Z", &["2026-01-04T04:00:00Z"]);
        check_next("0 4 * * 7", "UTC", "2026-01-01T00:00:00Z", &["2026-01-04T04:00:00Z"]);
        let quarters = ["2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"];
        check_next("*/15 * * * *", "UTC", "2026-01-01T00:00:00Z", &quarters);
        check_next("0 0 29 2 *", "UTC", "2026-03-01T00:00:00Z", &["2028-02-29T00:00:00Z"]);
        // Either the 13th or a Friday.
        let either = ["2026-02-06T00:00:00Z", "2026-02-13T00:00:00Z"];
        check_next("0 0 13 * fri", "UTC", "2026-02-01T00:00:00Z", &either);
        check_next("30 8-9 * jun 1-5", "UTC", "2026-01-01T00:00:00Z", &["2026-06-01T08:30:00Z"]);
    }

    #[test]
    fn clocks_that_are_put_forward_and_back() {
        let zone = "Europe/Berlin";
        if TimeZone::get(zone).is_err() {
            eprintln!("skipped: this machine knows no time zones");
            return;
        }
        // At 2026-03-29 02:00 it is 03:00.
        let spring = ["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"];
        check_next("30 2 * * *", zone, "2026-03-28T02:00:00Z", &spring);
        let hours = ["2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"];
        check_next("0 * * * *", zone, "2026-03-28T23:00:00Z", &hours);
        // At 2026-10-25 03:00 it is 02:00 once more.
        let autumn = ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"];
        check_next("30 2 * * *", zone, "2026-10-24T12:00:00Z", &autumn);
        let hours = ["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"];
        check_next("0 * * * *", zone, "2026-10-24T23:00:00Z", &hours);
    }

    #[test]
    fn the_last_time_is_looked_for_backwards() {
        let check = |line: &str, zone: &str, to: &str, expected: &str| {
            let cron = Cron::new(&frequency(line, zone)).expect(line);
            let last = cron.last(to.parse().expect(to));
            assert_eq!(last, expected.parse().ok(), "{line} {to}");
        };
        check("* * * * *", "UTC", "2026-01-01T00:00:59Z", "2026-01-01T00:00:00Z");
        check("0 3 * * *", "UTC", "2026-01-01T03:00:00Z", "2026-01-01T03:00:00Z");
        check("0 3 * * *", "UTC", "2026-01-01T02:59:59Z", "2025-12-31T03:00:00Z");
        check("0 0 29 2 *", "UTC", "2028-02-28T00:00:00Z", "2024-02-29T00:00:00Z");
        // 02:30 comes twice, and is due once.
        check("30 2 * * *", "Europe/Berlin", "2026-10-25T02:00:00Z", "2026-10-25T00:30:00Z");
        check("0 * * * *", "Europe/Berlin", "2026-10-25T01:59:00Z", "2026-10-25T01:00:00Z");
    }

    #[test]
    fn how_long_it_is_from_one_time_to_the_next() {
        const HOUR: u64 = 3600 * 1000;
        let pauses = |line: &str| Cron::new(&frequency(line, "UTC")).expect(line).pauses();
        assert_eq!(pauses("0 * * * *"), (HOUR, HOUR));
        assert_eq!(pauses("0 3 * * *"), (24 * HOUR, 24 * HOUR));
        assert_eq!(pauses("0 8,9 * * *"), (HOUR, 23 * HOUR));
        assert_eq!(pauses("0 4 * * sun"), (7 * 24 * HOUR, 7 * 24 * HOUR));
        assert_eq!(pauses("0 0 1 1 *"), (u64::MAX, 59 * 24 * HOUR));
        assert_eq!(pauses("0 0 29 2 *"), (u64::MAX, 59 * 24 * HOUR));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |cron: &str, zone: &str, says: &str| {
            let error = Cron::check(&frequency(cron, zone)).expect_err(cron).to_string();
            assert!(error.contains(says), "{cron}: {error}");
        };
        check("0 * * *", "UTC", "4 fields instead of 5");
        check("60 * * * *", "UTC", "\"60\" is no minute of 0 to 59");
        check("0 * * * 8", "UTC", "weekday");
        check("5-1 * * * *", "UTC", "minute");
        check("*/0 * * * *", "UTC", "minute");
        check("+5 * * * *", "UTC", "minute");
        check("0 0 31 2 *", "UTC", "no day is ever meant");
        check("0 0 * * *", "Middle/Earth", "unknown time zone");
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "\\PC{0,40}") {
            Cron::new(&frequency(&text, "UTC")).ok();
        }

        /// The next time is after, and nothing lies between that would have been one.
        #[test]
        fn the_next_time_is_the_first(
            minute in 0..60_u32, hour in 0..24_u32, start in 0_i64..4_000_000_000,
        ) {
            let daily = frequency(&format!("{minute} {hour} * * *"), "UTC");
            let cron = Cron::new(&daily).expect("right");
            let after = Timestamp::from_second(start).expect("in range");
            let next = cron.next(after).expect("a time");
            prop_assert_eq!(cron.last(next), Some(next));
            prop_assert_eq!(cron.count(after, next, 9), 1);
            let days = jiff::SignedDuration::from_hours(20 * 24);
            prop_assert_eq!(cron.count(after, after + days, 90), 20);
            prop_assert!(cron.last(after) <= Some(after));
            let wait = next.as_second() - start;
            prop_assert!(wait > 0 && wait <= 24 * 3600, "{wait}");
            let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60;
            prop_assert_eq!(next.as_second().rem_euclid(24 * 3600), seconds);
        }
    }
}
