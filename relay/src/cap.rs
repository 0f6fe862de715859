//! How much content the link to the parent may carry: by the calendar of the settings, or by an
//! order, which goes before it and is kept over restarts.
//!
//! It is the parent that sends, so the node tells it with each beat what holds now; what the node
//! itself sends up (long outputs) it holds back by the same number. Beats, orders, answers and
//! events are never held back.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protos::{Allowance, Cap};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::bulk::Bucket;
use crate::calendar::{Calendar, CalendarError, Entry, show_rate};

/// The file in the state folder.
const FILE: &str = "cap.toml";

/// The cap of one node.
#[derive(Clone)]
pub(crate) struct Caps(Arc<Inner>);

struct Inner {
    path: PathBuf,
    calendar: Calendar,
    /// Whether content is to give way to everything else on the link.
    yields: bool,
    ordered: Mutex<Ordered>,
    /// Of what goes up.
    upward: Bucket,
}

/// What an order has said; nothing: the calendar holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Ordered {
    /// Bits a second; 0: as much as the link carries.
    rate: Option<u64>,
    /// When it ends, in milliseconds since 1970; 0: never.
    until_ms: u64,
}

/// An order is not kept, so it does not hold. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[error("{}: writing failed", path.display())]
pub(crate) struct KeepError {
    path: PathBuf,
    source: std::io::Error,
}

impl Caps {
    /// What the settings say, with what an earlier order has said. A damaged file counts for
    /// nothing.
    pub(crate) fn open(dir: &Path, entries: &[Entry], yields: bool) -> Result<Caps, CalendarError> {
        let (path, calendar) = (dir.join(FILE), Calendar::new(entries)?);
        let ordered = match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).unwrap_or_else(|error| {
                warn!(path = %path.display(), %error, "not used: the cap is as configured");
                Ordered::default()
            }),
            Err(_) => Ordered::default(),
        };
        let (ordered, upward) = (Mutex::new(ordered), Bucket::new(0));
        Ok(Caps(Arc::new(Inner { path, calendar, yields, ordered, upward })))
    }

    /// What holds now.
    pub(crate) fn now(&self) -> Allowance {
        self.at(SystemTime::now())
    }

    fn at(&self, now: SystemTime) -> Allowance {
        let ordered = self.lock().rate_at(now);
        let rate = ordered.or_else(|| self.0.calendar.rate(now)).unwrap_or(0);
        Allowance { rate, yields: self.0.yields }
    }

    /// How much to send up in one go.
    pub(crate) fn piece(&self) -> usize {
        self.0.upward.set(self.now().rate);
        self.0.upward.piece()
    }

    /// Waits until so many bytes may go up.
    pub(crate) async fn take(&self, bytes: usize) {
        self.0.upward.take(bytes).await;
    }

    /// Does what an order says, durably.
    pub(crate) fn change(&self, cap: Cap) -> Result<(), KeepError> {
        let ordered = match cap {
            Cap::Ask => return Ok(()),
            Cap::Clear => Ordered::default(),
            Cap::Set { rate, until_ms } => Ordered { rate: Some(rate), until_ms },
        };
        let path = &self.0.path;
        let text = toml::to_string_pretty(&ordered).expect("numbers are valid TOML");
        // Held while the file is written, so that the file is what the last order has said.
        let mut now = self.lock();
        certs::files::replace_secret(path, text.as_bytes()).map_err(|error| KeepError {
            path: path.clone(),
            source: std::io::Error::other(error),
        })?;
        *now = ordered;
        Ok(())
    }

    /// What holds, in words.
    pub(crate) fn words(&self) -> String {
        self.words_at(SystemTime::now())
    }

    fn words_at(&self, now: SystemTime) -> String {
        let Allowance { rate, yields } = self.at(now);
        let ordered = *self.lock();
        let what = match rate {
            0 => "content is not capped".to_owned(),
            rate => format!("content at {} at most", show_rate(rate)),
        };
        let why = match (ordered.rate_at(now), ordered.until_ms) {
            (Some(_), 0) => ", by order",
            (Some(_), until) => &format!(", by order for {} s more", left(until, now).as_secs()),
            (None, _) if rate > 0 => ", by its calendar",
            (None, _) => "",
        };
        let gives_way = if yields { "; it gives way to other traffic" } else { "" };
        format!("{what}{why}{gives_way}")
    }

    fn lock(&self) -> MutexGuard<'_, Ordered> {
        self.0.ordered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ordered {
    fn rate_at(&self, now: SystemTime) -> Option<u64> {
        let is_over = self.until_ms > 0 && left(self.until_ms, now).is_zero();
        self.rate.filter(|_| !is_over)
    }
}

fn left(until_ms: u64, now: SystemTime) -> Duration {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(until_ms).saturating_sub(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let (days, hours) = ("".into(), "".into());
        Entry { days, hours, zone: "UTC".into(), rate: "2M".into() }
    }

    #[test]
    fn an_order_goes_before_the_calendar_and_is_kept_until_it_ends() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let open = || Caps::open(dir.path(), &[entry()], false).expect("a calendar");
        let (caps, now) = (open(), UNIX_EPOCH + Duration::from_secs(1_000));
        let rate = |caps: &Caps, at| caps.at(at).rate;
        assert_eq!(rate(&caps, now), 2_000_000);
        assert_eq!(caps.words_at(now), "content at 2 Mbit/s at most, by its calendar");
        caps.change(Cap::Set { rate: 500_000, until_ms: 1_060_000 }).expect("written");
        for caps in [&caps, &open()] {
            assert_eq!(rate(caps, now), 500_000);
            let words = "content at 500 kbit/s at most, by order for 60 s more";
            assert_eq!(caps.words_at(now), words);
            assert_eq!(rate(caps, now + Duration::from_secs(60)), 2_000_000);
        }
        caps.change(Cap::Set { rate: 0, until_ms: 0 }).expect("written");
        assert_eq!(caps.words_at(now), "content is not capped, by order");
        caps.change(Cap::Ask).expect("nothing is written");
        assert_eq!(rate(&open(), now), 0);
        caps.change(Cap::Clear).expect("written");
        assert_eq!(rate(&open(), now), 2_000_000);
    }

    #[test]
    fn a_damaged_file_counts_for_nothing_and_an_unwritable_one_changes_nothing() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join(FILE), "rate = \"much\"").expect("written");
        let caps = Caps::open(dir.path(), &[], true).expect("no calendar");
        assert_eq!(caps.now(), Allowance { rate: 0, yields: true });
        let gone = dir.path().join("gone");
        let caps = Caps::open(&gone, &[], false).expect("no calendar");
        let error = caps.change(Cap::Set { rate: 64_000, until_ms: 0 }).expect_err("no folder");
        assert!(error.to_string().contains("gone/cap.toml"), "{error}");
        assert_eq!(caps.now(), Allowance::default());
    }
}
