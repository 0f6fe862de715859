//! Which hour or day a report is about, as people say it: none is the present one, a number is an
//! hour of the day or a day of the month that has begun already, and a negative one counts back.

use jiff::civil::{Date, DateTime};
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
            let this = now.datetime().with().minute(0).second(0).subsec_nanosecond(0).build();
            let this = this.map_err(never)?;
            let start = hour(time, now, this)?;
            let begins = start.to_zoned(now.time_zone().clone()).map_err(never)?;
            (begins.clone(), begins.checked_add(1.hour()).map_err(never)?)
        }
        Every::Day => {
            let date = day(time, now.date())?;
            let next = date.tomorrow().map_err(never)?;
            let zoned = |date: Date| date.to_zoned(now.time_zone().clone()).map_err(never);
            (zoned(date)?, zoned(next)?)
        }
    };
    let ms = |at: &Zoned| u64::try_from(at.timestamp().as_millisecond()).unwrap_or_default();
    Ok(Period { start_ms: ms(&start), end_ms: ms(&end) })
}

fn hour(time: Option<i64>, now: &Zoned, this: DateTime) -> Result<DateTime, PeriodError> {
    let back = |hours: i64| {
        let start = now.checked_sub(hours.hours());
        let start = start.map_err(|_| PeriodError::None("that is too long ago".into()))?;
        let start = start.datetime().with().minute(0).second(0).subsec_nanosecond(0).build();
        start.map_err(|_| PeriodError::None("there was no such hour".into()))
    };
    match time {
        None => Ok(this),
        Some(back_by @ ..=-1) if back_by >= -HOURS => back(-back_by),
        Some(..=-1) => Err(PeriodError::None(format!("only {HOURS} hours are kept"))),
        Some(hour @ 0..=23) => {
            let hour = i8::try_from(hour).expect("it is below 24");
            let at = this.with().hour(hour).build();
            let at = at.map_err(|_| PeriodError::None("there was no such hour".into()))?;
            match at > now.datetime() {
                true => Ok(at.checked_sub(1.day()).unwrap_or(at)),
                false => Ok(at),
            }
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
