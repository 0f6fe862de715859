//! When a rollout is to begin, as an operator writes it: by the clocks of a place.
//!
//! `[DATE] TIME [ZONE]`, as in `22:00`, `2026-12-01 02:30 UTC`, `06:00 Europe/Paris` or
//! `22:00 site`. Without a date the next such time is meant, without a zone the clocks of the
//! controller. A time that clocks skip when they are put forward is the one right after the gap,
//! one that comes twice is the first of the two.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{ToSpan, Zoned};

/// The zone of the sites that the hosts are at.
const SITE: &str = "site";
/// How far ahead it may be, in days: the content is kept for it.
const FARTHEST: i64 = 30;

/// A text that is no such moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MomentError {
    #[error("`{0}` is no moment")]
    Text(String),
    #[error("`{0}` is no time zone that this machine knows")]
    Zone(String),
    #[error("{0}")]
    Site(String),
    #[error("{0} has passed")]
    Passed(String),
    #[error("{0} is more than {FARTHEST} days ahead")]
    Far(String),
}

/// The moment that a text means, in milliseconds since 1970. `of_sites`: the clocks of the sites
/// that the hosts are at, or why there are none.
pub(crate) fn moment(
    text: &str,
    of_sites: impl FnOnce() -> Result<TimeZone, String>,
    now: &Zoned,
) -> Result<u64, MomentError> {
    let no_moment = || MomentError::Text(text.to_owned());
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let zone = match words.last() {
        Some(&SITE) => Some(of_sites().map_err(MomentError::Site)?),
        Some(last) if !last.starts_with(|first: char| first.is_ascii_digit()) => {
            Some(TimeZone::get(last).map_err(|_| MomentError::Zone((*last).to_owned()))?)
        }
        _ => None,
    };
    words.truncate(words.len() - usize::from(zone.is_some()));
    let zone = zone.unwrap_or_else(|| now.time_zone().clone());
    let here = now.with_time_zone(zone.clone());
    let at = |at: DateTime| zone.to_zoned(at).map_err(|_| no_moment());
    let when = match words[..] {
        [date, time] => at(day(date).ok_or_else(no_moment)?.to_datetime(hour(time, text)?))?,
        [both] if both.contains('T') => at(both.parse().map_err(|_| no_moment())?)?,
        [time] => {
            let time = hour(time, text)?;
            let today = at(here.date().to_datetime(time))?;
            match today > here {
                true => today,
                false => at((here.date().tomorrow()).map_err(|_| no_moment())?.to_datetime(time))?,
            }
        }
        _ => return Err(no_moment()),
    };
    if when <= here {
        return Err(MomentError::Passed(text.to_owned()));
    }
    if here.checked_add(FARTHEST.days()).is_ok_and(|last| when > last) {
        return Err(MomentError::Far(text.to_owned()));
    }
    u64::try_from(when.timestamp().as_millisecond()).map_err(|_| no_moment())
}

fn day(text: &str) -> Option<Date> {
    text.parse().ok()
}

/// A time of day, of which the seconds may be left out.
fn hour(time: &str, text: &str) -> Result<Time, MomentError> {
    let full = if time.matches(':').count() == 1 { format!("{time}:00") } else { time.into() };
    let is_time = full.len() == 8 && full.bytes().all(|b| b.is_ascii_digit() || b == b':');
    let time = full.parse().ok().filter(|_| is_time);
    time.ok_or_else(|| MomentError::Text(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Zoned {
        "2026-03-28T21:30:00+01:00[Europe/Paris]".parse().expect("a moment")
    }

    fn read(text: &str) -> Result<String, MomentError> {
        let tokyo = || TimeZone::get("Asia/Tokyo").map_err(|error| error.to_string());
        let ms = moment(text, tokyo, &now())?;
        let ms = i64::try_from(ms).expect("it is not far");
        Ok(jiff::Timestamp::from_millisecond(ms).expect("it is a time").to_string())
    }

    #[test]
    fn moments_are_by_the_clocks_of_a_place() {
        let check = |text: &str, expected: &str| assert_eq!(read(text).as_deref(), Ok(expected));
        check("22:00", "2026-03-28T21:00:00Z");
        check("21:30", "2026-03-29T19:30:00Z");
        check("22:00 UTC", "2026-03-28T22:00:00Z");
        check("22:00 site", "2026-03-29T13:00:00Z");
        check("2026-04-01 06:00", "2026-04-01T04:00:00Z");
        check("2026-04-01T06:00:30", "2026-04-01T04:00:30Z");
        check("2026-04-01 06:00 America/New_York", "2026-04-01T10:00:00Z");
        // The clocks are put forward that night: right after the gap.
        check("02:30", "2026-03-29T01:30:00Z");
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        let refused = |text: &str| read(text).expect_err("it is refused").to_string();
        for wrong in ["", "soon 3", "25:00", "7", "2026-13-01 10:00", "22:00 01:00", "2026-04-01"] {
            assert_eq!(refused(wrong), format!("`{wrong}` is no moment"));
        }
        assert_eq!(
            refused("22:00 Mars/Olympus"),
            "`Mars/Olympus` is no time zone that this machine knows"
        );
        assert_eq!(refused("2026-03-28 10:00"), "2026-03-28 10:00 has passed");
        assert_eq!(refused("2026-04-29 10:00"), "2026-04-29 10:00 is more than 30 days ahead");
        let none = moment("22:00 site", || Err("lyon has no clocks".into()), &now());
        assert_eq!(none, Err(MomentError::Site("lyon has no clocks".into())));
    }
}
