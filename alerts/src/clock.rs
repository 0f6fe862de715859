//! The clock of the engine: it counts from 1970, so that what it notes can be kept and shown, and
//! runs evenly, so that a wall clock that is set makes no alert come or go.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mesh::Time;

/// When this process started, by the wall, and what has passed since.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Duration,
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn new() -> Clock {
        let base = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { base, start: Instant::now() }
    }

    /// Now.
    pub fn now(&self) -> Time {
        Time(self.base + self.start.elapsed())
    }

    /// How long it is until then.
    pub(crate) fn until(&self, at: Time) -> Duration {
        at.since(self.now())
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

/// A moment as unix milliseconds.
pub(crate) fn to_ms(at: Time) -> u64 {
    u64::try_from(at.0.as_millis()).unwrap_or(u64::MAX)
}

/// Unix milliseconds as a moment.
pub(crate) fn from_ms(ms: u64) -> Time {
    Time(Duration::from_millis(ms))
}

/// Unix milliseconds as RFC 3339 in UTC.
pub(crate) fn rfc3339(ms: u64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    let at = at.unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
