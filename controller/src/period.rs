//! Which hour or day a report is about, as people say it: none is the present one, a number is an
//! hour of the day or a day of the month that has begun already, and a negative one counts back.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{ToSpan, Zoned};

/// How many hours and days can be asked for.
const HOURS: i64 = 48;
const DAYS: i64 = 62;

/// What kind of report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Every {
    Hour,
    Day,
}

impl Every {
    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Every::Hour => "hour",
            Every::Day => "day",
        }
    }
}

/// Time from a moment on until before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) start_ms: u64,
    pub(crate) end_ms: u64,
}

/// A time that no report is about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PeriodError {
    /// Not a time at all.
    #[error("{0}")]
    Nonsense(String),
    /// A time of which nothing is kept, or that never was.
    #[error("no report: {0}")]
    None(String),
}

/// The period that is meant by `time`, seen from `now`.
pub(crate) fn period(every: Every, time: Option<i64>, now: &Zoned) -> Result<Period, PeriodError> {
    let never = |_| PeriodError::None("there was no such time".into());
    let (start, end) = match every {
        Every::Hour => {
            let begins = hour(time, now)?;
            (begins.clone(), begins.checked_add(1.hour()).map_err(never)?)
        }
        Every::Day => {
            let date = day(time, now.date())?;
            let next = date.tomorrow().map_err(never)?;
            let zoned = |date: Date| date.to_zoned(now.time_zone().clone()).map_err(never);
            (zoned(date)?, zoned(next)?)
        }
    };
    Ok(Period { start_ms: ms(&start), end_ms: ms(&end) })
}

fn hour(time: Option<i64>, now: &Zoned) -> Result<Zoned, PeriodError> {
    let never = |_| PeriodError::None("there was no such hour".into());
    let back = |hours: i64| {
        let start = now.checked_sub(hours.hours());
        let start = start.map_err(|_| PeriodError::None("that is too long ago".into()))?;
        // It stays before or after clocks were put back.
        start.with().minute(0).second(0).subsec_nanosecond(0).build().map_err(never)
    };
    match time {
        None => back(0),
        Some(back_by @ ..=-1) if back_by >= -HOURS => back(-back_by),
        Some(..=-1) => Err(PeriodError::None(format!("only {HOURS} hours are kept"))),
        Some(hour @ 0..=23) => {
            let hour = i8::try_from(hour).expect("it is below 24");
            let at = now.date().at(hour, 0, 0, 0);
            let at = match at > now.datetime() {
                true => at.checked_sub(1.day()).unwrap_or(at),
                false => at,
            };
            at.to_zoned(now.time_zone().clone()).map_err(never)
        }
        Some(other) => {
            let text = format!("{other} is no hour: write 0 to 23, or -1 for the one before");
            Err(PeriodError::Nonsense(text))
        }
    }
}

fn day(time: Option<i64>, today: Date) -> Result<Date, PeriodError> {
    match time {
        None => Ok(today),
        Some(back @ ..=-1) if back >= -DAYS => {
            let day = today.checked_add(back.days());
            day.map_err(|_| PeriodError::None("that is too long ago".into()))
        }
        Some(..=-1) => Err(PeriodError::None(format!("only {DAYS} days are kept"))),
        Some(day @ 1..=31) => {
            let day = i8::try_from(day).expect("it is below 32");
            let month = match day > today.day() {
                true => today.first_of_month().yesterday().unwrap_or(today),
                false => today,
            };
            let (year, month) = (month.year(), month.month());
            Date::new(year, month, day)
                .map_err(|_| PeriodError::None(format!("{year}-{month:02} has no day {day}")))
        }
        Some(other) => {
            let text = format!("{other} is no day: write 1 to 31, or -1 for the one before");
            Err(PeriodError::Nonsense(text))
        }
    }
}

/// The periods that are over since a moment, the oldest first, as far back as reports are kept;
/// and the one that goes on. `grace_ms`: so much later a period counts as over.
pub(crate) fn closed(
    every: Every,
    since_ms: Option<u64>,
    now: &Zoned,
    grace_ms: u64,
) -> (Vec<Period>, Period) {
    let now_ms = ms(now);
    let whole = Period { start_ms: now_ms, end_ms: now_ms };
    let present = period(every, None, now).unwrap_or(whole);
    let most = if every == Every::Hour { HOURS } else { DAYS };
    let since_ms = since_ms.unwrap_or(u64::MAX);
    let back = (1..=most).filter_map(|back| period(every, Some(-back), now).ok());
    let is_over = |period: &Period| period.end_ms.saturating_add(grace_ms) <= now_ms;
    let mut due: Vec<Period> = back.take_while(|period| period.end_ms > since_ms).collect();
    due.retain(is_over);
    due.reverse();
    (due, present)
}

fn ms(at: &Zoned) -> u64 {
    u64::try_from(at.timestamp().as_millisecond()).unwrap_or_default()
}

/// A period in words.
pub(crate) fn title(every: Every, period: Period, zone: &TimeZone) -> String {
    let at = |ms: u64| {
        let ms = i64::try_from(ms).unwrap_or(i64::MAX);
        let at = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
        at.to_zoned(zone.clone())
    };
    let (start, end) = (at(period.start_ms), at(period.end_ms));
    match every {
        Every::Hour => format!(
            "{} {:02}:{:02} to {:02}:{:02}",
            start.date(),
            start.hour(),
            start.minute(),
            end.hour(),
            end.minute()
        ),
        Every::Day => start.date().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(text: &str) -> Zoned {
        text.parse().expect("a time with its zone")
    }

    /// What a report is about, by its beginning.
    fn begins(every: Every, time: Option<i64>, at: &str) -> String {
        let now = now(at);
        match period(every, time, &now) {
            Ok(period) => title(every, period, now.time_zone()),
            Err(PeriodError::Nonsense(_)) => "nonsense".into(),
            Err(PeriodError::None(_)) => "none".into(),
        }
    }

    #[test]
    fn x20_hours() {
        let check = |time, at, expected: &str| {
            let found = begins(Every::Hour, time, at);
            assert!(found.starts_with(expected), "{time:?} at {at}: {found}");
        };
        let late = "2026-11-26T10:15:00+01:00[Europe/Paris]";
        let early = "2026-11-26T07:15:00+01:00[Europe/Paris]";
        check(Some(8), late, "2026-11-26 08:00 to 09:00");
        check(Some(8), early, "2026-11-25 08:00");
        check(Some(0), early, "2026-11-26 00:00");
        check(Some(10), late, "2026-11-26 10:00");
        check(None, late, "2026-11-26 10:00");
        check(Some(-1), late, "2026-11-26 09:00");
        check(Some(-11), late, "2026-11-25 23:00");
        check(Some(24), late, "nonsense");
        check(Some(-49), late, "none");
    }

    #[test]
    fn x20_days() {
        let check = |time, at, expected: &str| {
            assert_eq!(begins(Every::Day, time, at), expected, "{time:?} at {at}");
        };
        let at = "2026-03-05T10:15:00+01:00[Europe/Paris]";
        check(Some(-1), at, "2026-03-04");
        check(Some(5), at, "2026-03-05");
        check(Some(6), at, "2026-02-06");
        check(Some(30), at, "none");
        check(Some(0), at, "nonsense");
        check(Some(32), at, "nonsense");
        check(Some(-63), at, "none");
        check(Some(31), "2026-01-10T00:00:00+01:00[Europe/Paris]", "2025-12-31");
    }

    #[test]
    fn what_is_over_follows_without_gaps_when_clocks_change() {
        for at in [
            "2026-10-26T12:00:00+01:00[Europe/Paris]",
            "2026-03-30T12:00:00+02:00[Europe/Paris]",
            "2026-10-25T02:30:00+01:00[Europe/Paris]",
            "2026-07-01T12:00:00+02:00[Europe/Paris]",
        ] {
            let now = now(at);
            for (every, most) in [(Every::Hour, 48), (Every::Day, 62)] {
                let (due, present) = closed(every, Some(0), &now, 0);
                assert_eq!(due.len(), most, "{at}");
                let all: Vec<_> = due.iter().chain([&present]).collect();
                for pair in all.windows(2) {
                    assert_eq!(pair[0].end_ms, pair[1].start_ms, "{at} {pair:?}");
                }
                // What was sent is not due, nor what has only just ended.
                assert_eq!(closed(every, Some(due[most - 2].end_ms), &now, 0).0, due[most - 1..]);
                assert!(closed(every, Some(present.start_ms), &now, 0).0.is_empty());
                let grace = ms(&now) - present.start_ms + 1;
                assert_eq!(closed(every, Some(0), &now, grace).0, due[..most - 1]);
                assert!(closed(every, None, &now, 0).0.is_empty(), "nothing is known");
            }
        }
    }

    #[test]
    fn a_day_with_a_change_of_the_clock_is_longer_and_its_hours_are_hours() {
        let now = now("2026-10-25T12:00:00+01:00[Europe/Paris]");
        let day = period(Every::Day, None, &now).expect("today");
        assert_eq!(day.end_ms - day.start_ms, 25 * 3_600_000);
        for time in [Some(2), Some(3), Some(-1), None] {
            let hour = period(Every::Hour, time, &now).expect("an hour");
            assert_eq!(hour.end_ms - hour.start_ms, 3_600_000);
            assert_eq!(hour.start_ms % crate::tables::events::QUARTER_MS, 0);
        }
    }
}
