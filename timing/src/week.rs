//! Times of a week: days, and times of the day on them.
//!
//! A time that ends before it begins goes on over midnight and belongs to the day on which it
//! began. When clocks are put forward or back, what they show is what counts.

use jiff::civil::{Date, Time, Weekday};
use jiff::{ToSpan, Zoned};

/// Minutes of a day.
const DAY: u16 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// So many days ahead the next beginning is looked for: a week, and some that a change of the
/// clock may take away.
const AHEAD: i64 = 15;
/// More than so many changes of a clock are not within these days.
const CHANGES: usize = 2;

/// Times of a week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Week {
    /// A bit for each day, Monday the lowest.
    days: u8,
    /// From and to, in minutes of the day; to may be less than from.
    times: Vec<(u16, u16)>,
}

/// A text that says no times of a week.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeekError {
    /// Days that are none.
    #[error("days {0:?}: write days as mon-fri or mon,wed,sun")]
    Days(String),
    /// Times that are none.
    #[error("hours {0:?}: write times as 08-18 or 08:30-12,22-06")]
    Hours(String),
}

impl Week {
    /// Days as `mon-fri,sun` and times as `08-18` or `08:30-12,22-06`; empty: all.
    pub fn new(days: &str, hours: &str) -> Result<Week, WeekError> {
        Ok(Week {
            days: read_days(days).ok_or_else(|| WeekError::Days(days.into()))?,
            times: read_times(hours).ok_or_else(|| WeekError::Hours(hours.into()))?,
        })
    }

    /// Whether this moment is one of them.
    pub fn holds(&self, now: &Zoned) -> bool {
        let minute = now.hour() as u16 * 60 + now.minute() as u16;
        let (today, yesterday) = (self.is_on(now.weekday()), self.is_on(now.weekday().previous()));
        self.times.iter().any(|&(from, to)| match from < to {
            true => today && (from..to).contains(&minute),
            false => today && minute >= from || yesterday && minute < to,
        })
    }

    /// The first moment from this one on.
    pub fn next(&self, now: &Zoned) -> Option<Zoned> {
        if self.holds(now) {
            return Some(now.clone());
        }
        let (zone, mut date) = (now.time_zone(), now.date());
        // What begins in a gap of the clock begins right after it, if it is not over by then.
        let changes = zone.following(now.timestamp()).take(CHANGES);
        let changes = changes.map(|change| change.timestamp().to_zoned(zone.clone()));
        let change = changes.filter(|at| self.holds(at)).min();
        for _ in 0..AHEAD {
            let begins = self.begins(date, now).into_iter();
            let first = begins.filter(|at| at > now && self.holds(at)).min();
            if first.is_some() {
                return first.into_iter().chain(change).min();
            }
            date = date.checked_add(1.day()).ok()?;
        }
        change
    }

    fn begins(&self, date: Date, now: &Zoned) -> Vec<Zoned> {
        if !self.is_on(date.weekday()) {
            return Vec::new();
        }
        let begin = |&(from, _): &(u16, u16)| {
            let (hour, minute) = (i8::try_from(from / 60).ok()?, i8::try_from(from % 60).ok()?);
            let time = Time::new(hour, minute, 0, 0).ok()?;
            date.to_datetime(time).to_zoned(now.time_zone().clone()).ok()
        };
        self.times.iter().filter_map(begin).collect()
    }

    fn is_on(&self, day: Weekday) -> bool {
        self.days >> day.to_monday_zero_offset() & 1 == 1
    }
}

fn read_days(text: &str) -> Option<u8> {
    if text.trim().is_empty() {
        return Some(0x7f);
    }
    let day = |name: &str| {
        let name = name.trim().to_ascii_lowercase();
        DAYS.iter().position(|day| *day == name)
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut at, last) = (day(first)?, day(last)?);
        bits |= 1 << at;
        while at != last {
            at = (at + 1) % DAYS.len();
            bits |= 1 << at;
        }
    }
    Some(bits)
}

fn read_times(text: &str) -> Option<Vec<(u16, u16)>> {
    if text.trim().is_empty() {
        return Some(vec![(0, DAY)]);
    }
    let time = |text: &str| {
        let (hour, minute) = text.trim().split_once(':').unwrap_or((text.trim(), "0"));
        let is_number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        let good = is_number(hour) && is_number(minute);
        let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
        let at = hour.checked_mul(60)?.checked_add(minute)?;
        (good && minute < 60 && at <= DAY).then_some(at)
    };
    let span = |part: &str| {
        let (from, to) = part.split_once('-')?;
        let (from, to) = (time(from)?, time(to)?);
        (from != to && from < DAY).then_some((from, to))
    };
    text.split(',').map(span).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn next(days: &str, hours: &str, now: &str, expected: &str) {
        let now: Zoned = now.parse().expect("a time with its zone");
        let week = Week::new(days, hours).expect("times");
        let next = week.next(&now).map(|at| at.to_string());
        assert_eq!(next.as_deref(), Some(expected), "from {now}");
    }

    #[test]
    fn the_next_time_is_now_or_the_next_beginning() {
        // 2026-11-26 is a Thursday.
        let now = "2026-11-26T12:00:00+01:00[Europe/Paris]";
        next("", "", now, now);
        next("mon-fri", "08-18", now, now);
        next("", "22-06", now, "2026-11-26T22:00:00+01:00[Europe/Paris]");
        next("wed", "22-06", now, "2026-12-02T22:00:00+01:00[Europe/Paris]");
        next("thu", "06-08,08-12", now, "2026-12-03T06:00:00+01:00[Europe/Paris]");
        // The night belongs to the day on which it began.
        let night = "2026-11-27T05:59:00+01:00[Europe/Paris]";
        next("thu", "22-06", night, night);
    }

    #[test]
    fn clocks_that_are_put_forward_or_back() {
        // 02:00 to 03:00 is not there on 2026-03-29, and twice on 2026-10-25.
        let before = "2026-03-29T01:30:00+01:00[Europe/Paris]";
        next("", "02-03", before, "2026-03-30T02:00:00+02:00[Europe/Paris]");
        next("", "02-04", before, "2026-03-29T03:00:00+02:00[Europe/Paris]");
        let after = "2026-03-29T03:00:00+02:00[Europe/Paris]";
        next("", "02:30-05", before, after);
        next("", "02:30-03:15", before, after);
        next("sat", "02:30-03:15", before, "2026-04-04T02:30:00+02:00[Europe/Paris]");
        let first = "2026-10-25T01:30:00+02:00[Europe/Paris]";
        next("", "02-03", first, "2026-10-25T02:00:00+02:00[Europe/Paris]");
        let again = "2026-10-25T02:30:00+01:00[Europe/Paris]";
        next("", "02-03", again, again);
        let between = "2026-10-25T02:45:00+02:00[Europe/Paris]";
        next("", "02-02:30", between, "2026-10-25T02:00:00+01:00[Europe/Paris]");
        let after = "2026-10-25T03:00:00+01:00[Europe/Paris]";
        next("", "02-03", after, "2026-10-26T02:00:00+01:00[Europe/Paris]");
    }
}
