//! When something is due, and when it is whose turn: cron lines, times of a week, splay, windows,
//! and what follows for what is done by them.
//!
//! Pure: whoever uses it says what time it is, and keeps what it notes. It does nothing itself and
//! knows neither files nor links.

mod course;
mod cron;
mod keeper;
mod once;
mod planted;
mod site;
mod turns;
mod week;

use std::time::Duration;

use jiff::tz::TimeZone;

pub use course::{LastRun, Todo, last_due, look};
pub use cron::{Cron, CronError, moment, text as clock_text};
pub use keeper::{SiteKeeper, SiteLook, SiteTold, SiteTurns, SiteView};
pub use once::{Once, may_begin};
pub use planted::Planted;
pub use site::{Said, Sight, SiteRun, SiteTodo, Word};
pub use turns::{Sorted, Turns, TurnsError, Waiting, check as check_turns, places};
pub use week::{Week, WeekError};

/// What a frequency says of its times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// When, as cron has it: minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// By the clocks of which place.
    pub zone: String,
    /// Over how long the hosts of each relay are spread, as `10m`; empty: not at all.
    pub splay: String,
    /// Days and times outside of which a host waits, as `mon-fri 22-06`; none: it never does.
    pub windows: Vec<String>,
    /// Within how long it must have begun at a host, as `6h`; empty: until it is due again.
    pub expires: String,
}

impl Times {
    /// By such a cron line, by the clocks of such a place.
    pub fn new(cron: &str, zone: &str) -> Times {
        Times { cron: cron.into(), zone: zone.into(), ..Times::default() }
    }
}

/// The clocks of a place. What was recorded is known, unless this machine has forgotten a place
/// since.
pub fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

/// Reads `90s`, `10m`, `2h`, `1d`, `1h30m`; a bare number is seconds.
pub fn duration(text: &str) -> Option<Duration> {
    if let Some(secs) = digits(text) {
        return Some(Duration::from_secs(secs));
    }
    let (mut sum, mut rest) = (0u64, text);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number = digits(&rest[..end])?;
        let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        let (unit, scale) = units.into_iter().find(|(unit, _)| {
            let after = rest[end..].strip_prefix(unit);
            after.is_some_and(|after| !after.starts_with(|c: char| c.is_ascii_alphabetic()))
        })?;
        sum = sum.checked_add(number.checked_mul(scale)?)?;
        rest = &rest[end + unit.len()..];
    }
    (!text.is_empty()).then(|| Duration::from_millis(sum))
}

/// A number of digits alone.
pub fn digits(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}
