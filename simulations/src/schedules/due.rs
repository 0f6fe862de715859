//! All times at which something is due, by looking at the clock of the place minute by minute; and
//! whether a window is open. It shares nothing with what it checks.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use std::collections::BTreeSet;

use super::calendar::Due;

const MINUTE: u64 = 60_000;

/// The times of a frequency from one moment to another.
pub(crate) fn dues(due: &Due, from_ms: u64, until_ms: u64) -> Vec<u64> {
    let zone = TimeZone::get(&due.zone).unwrap_or(TimeZone::UTC);
    let fits = |hour: i8, minute: i8| {
        due.hour.is_none_or(|is| is as i8 == hour)
            && minute >= due.minute as i8
            && (minute - due.minute as i8) % due.every as i8 == 0
    };
    // From two hours before, so that a gap of the clock is seen.
    let first = from_ms / MINUTE * MINUTE - 120 * MINUTE;
    let mut before = shown(&zone, first - MINUTE).datetime();
    let (mut found, mut days) = (Vec::new(), BTreeSet::<(Date, i8)>::new());
    for at in (first..=until_ms).step_by(MINUTE as usize) {
        let now = shown(&zone, at).datetime();
        let minutes = now.duration_since(before).as_secs() / 60;
        // What the clock leaves out is as much later as the clock is put forward.
        if let Some(hour) = due.hour.filter(|_| minutes > 1) {
            let wanted = (0..60).filter(|minute| fits(hour as i8, *minute));
            found.extend(wanted.filter_map(|minute| {
                let wanted = now.date().at(hour as i8, minute, 0, 0);
                let after = wanted.duration_since(before).as_secs() / 60;
                let is_in = after > 0 && wanted < now;
                is_in.then(|| at + (after as u64 - 1) * MINUTE)
            }));
        }
        // Once a day, though the clock may show it twice.
        if fits(now.hour(), now.minute())
            && (due.hour.is_none() || days.insert((now.date(), now.minute())))
        {
            found.push(at);
        }
        before = now;
    }
    found.retain(|at| (from_ms..=until_ms).contains(at));
    found.sort_unstable();
    found
}

/// Whether a frequency may begin at this moment.
pub(crate) fn is_open(due: &Due, at_ms: u64) -> bool {
    let Some((from, until)) = due.window else { return true };
    let hour = hour(&due.zone, at_ms);
    match from < until {
        true => (from..until).contains(&hour),
        false => hour >= from || hour < until,
    }
}

/// Which hour the clock of a place shows.
pub(crate) fn hour(zone: &str, at_ms: u64) -> u8 {
    shown(&TimeZone::get(zone).unwrap_or(TimeZone::UTC), at_ms).hour() as u8
}

fn shown(zone: &TimeZone, ms: u64) -> Zoned {
    let at = Timestamp::from_millisecond(ms.cast_signed()).unwrap_or(Timestamp::MAX);
    Zoned::new(at, zone.clone())
}
