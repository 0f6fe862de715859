//! When each host has its turn, once a frequency is due: spread over its splay, and inside its
//! windows.
//!
//! The hosts of one relay follow each other evenly, in a sequence that is always the same, so that
//! no link carries them all at once. Windows are times of the week by the clocks of a host's site.
//! Whoever has not begun is superseded when the frequency is due again, or has missed it when it
//! expires before. Pure: clocks, tables and distributions are elsewhere.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use mesh::{HostId, HostSet};

use crate::cron::{Cron, moment};
use crate::week::{Week, WeekError};
use crate::{Times, duration};

/// The most windows of one frequency.
const WINDOWS: usize = 32;
/// The longest splay, and the longest time until it expires, in milliseconds.
const LONGEST_MS: u64 = 7 * 24 * 3600 * 1000;
/// Whose turns are so close together have them at once: one distribution for all of them.
const SLOT_MS: u64 = 10 * 1000;
const MINUTE_MS: u64 = 60 * 1000;
/// A week, and when the first Monday of 1970 began, in minutes.
const WEEK: u64 = 7 * 24 * 60;
const MONDAY: u64 = 4 * 24 * 60;

/// Why a frequency says no turns.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnsError {
    /// A time that is none.
    #[error("{0} {1:?}: write a time as 90s, 10m or 6h, at most 7d")]
    Time(&'static str, String),
    /// A window that is none.
    #[error("windows: {0:?} is neither days nor hours: write mon-fri 22-06, sat,sun or 01-05")]
    Window(String),
    /// Days or hours that are none.
    #[error("windows: {0}")]
    Week(#[from] WeekError),
    /// Too many windows.
    #[error("windows: more than {WINDOWS}")]
    Many,
    /// It expires before everybody had a turn.
    #[error("splay {splay:?} is longer than it has until it expires: {expires:?}")]
    Short {
        /// Over how long hosts are spread.
        splay: String,
        /// Within how long they must have begun.
        expires: String,
    },
    /// It is due again before everybody had a turn.
    #[error(
        "splay {0:?} is not shorter than the {1}m until it is due again: some had no turn ever"
    )]
    Again(String, u64),
    /// A window closes before everybody had a turn.
    #[error("splay {0:?} is not shorter than the shortest window, {1}m: some had no turn ever")]
    Narrow(String, u64),
    /// It is due again before it expires.
    #[error("expires {0:?} is not shorter than the {1}m until it is due again: it never would")]
    Endless(String, u64),
}

/// How a frequency is spread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    splay_ms: u64,
    windows: Vec<Week>,
    expires_ms: Option<u64>,
}

/// A host that has not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Who.
    pub id: HostId,
    /// Its place among the hosts of its relay, and how many these are.
    pub place: (u64, u64),
    /// The clocks of its site.
    pub zone: TimeZone,
}

/// What is to be done about those who have not begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// They begin now.
    pub begin: HostSet,
    /// Too late for them.
    pub missed: HostSet,
    /// When somebody is next.
    pub next_ms: Option<u64>,
}

impl Turns {
    /// As a frequency says it; none if everybody begins when it is due.
    pub fn of(times: &Times) -> Result<Option<Turns>, TurnsError> {
        let Times { splay, windows, expires, .. } = times;
        if splay.is_empty() && windows.is_empty() && expires.is_empty() {
            return Ok(None);
        }
        if windows.len() > WINDOWS {
            return Err(TurnsError::Many);
        }
        let splay_ms = time("splay", splay)?.unwrap_or(0);
        let expires_ms = time("expires", expires)?;
        if expires_ms.is_some_and(|expires| expires < splay_ms) {
            let (splay, expires) = (splay.clone(), expires.clone());
            return Err(TurnsError::Short { splay, expires });
        }
        let windows = windows.iter().map(|text| window(text)).collect::<Result<_, _>>()?;
        Ok(Some(Turns { splay_ms, windows, expires_ms }))
    }

    /// The same, but nobody is too late.
    pub(crate) fn endless(self) -> Turns {
        Turns { expires_ms: None, ..self }
    }

    /// When a host has its turn, if it was due then; none: no window opens within two weeks.
    pub fn turn(&self, due_ms: u64, host: &Waiting) -> Option<u64> {
        let (place, of) = host.place;
        let later = u128::from(self.splay_ms) * u128::from(place) / u128::from(of.max(1));
        let begins = self.open(due_ms, &host.zone)?;
        let later = u64::try_from(later).unwrap_or(self.splay_ms);
        self.open(begins.saturating_add(later), &host.zone)
    }

    /// The same for one who has not begun yet: whose turn came while nobody could begin it, and who
    /// is not in a window now, waits for the next.
    pub fn turn_from(&self, due_ms: u64, host: &Waiting, now_ms: u64) -> Option<u64> {
        let turn = self.turn(due_ms, host)?;
        self.open(turn.max(now_ms), &host.zone)
    }

    /// Who begins now, and who has missed what was due then. Whose turn is in the next seconds
    /// begins with those who have theirs, if he is in a window already.
    pub fn sort(&self, due_ms: u64, waiting: &[Waiting], now_ms: u64) -> Sorted {
        let (mut begin, mut missed) = (Vec::new(), Vec::new());
        let mut next_ms = None;
        let expires_ms = self.expires_ms.map(|after| due_ms.saturating_add(after));
        for host in waiting {
            let range = (host.id.0, host.id.0);
            if expires_ms.is_some_and(|at| at <= now_ms) {
                missed.push(range);
                continue;
            }
            match self.turn_from(due_ms, host, now_ms) {
                Some(turn) if turn <= now_ms => begin.push(range),
                Some(turn)
                    if turn - now_ms < SLOT_MS && self.open(now_ms, &host.zone) == Some(now_ms) =>
                {
                    begin.push(range);
                }
                turn => {
                    let wake = [turn, expires_ms, next_ms].into_iter().flatten().min();
                    next_ms = wake;
                }
            }
        }
        Sorted { begin: HostSet::from_ranges(begin), missed: HostSet::from_ranges(missed), next_ms }
    }

    /// By when a host with these clocks must have begun what was due then, if it begins it now:
    /// before its window closes, and before it expires. None: whenever it can.
    pub fn ends(&self, due_ms: u64, zone: &TimeZone, now_ms: u64) -> Option<u64> {
        let expires_ms = self.expires_ms.map(|after| due_ms.saturating_add(after));
        [expires_ms, self.closes(now_ms, zone)].into_iter().flatten().min()
    }

    /// The same for each of these; who may begin whenever he can is left out.
    pub(crate) fn by<'a>(
        &self,
        due_ms: u64,
        hosts: impl Iterator<Item = &'a Waiting>,
        now_ms: u64,
    ) -> BTreeMap<u64, HostSet> {
        let mut ends = Vec::<(&TimeZone, Option<u64>)>::new();
        let mut by = BTreeMap::<u64, Vec<(u32, u32)>>::new();
        for host in hosts {
            let known = ends.iter().find(|(zone, _)| **zone == host.zone).map(|(_, end)| *end);
            let end = known.unwrap_or_else(|| {
                let end = self.ends(due_ms, &host.zone, now_ms);
                ends.push((&host.zone, end));
                end
            });
            if let Some(end) = end {
                by.entry(end).or_default().push((host.id.0, host.id.0));
            }
        }
        by.into_iter().map(|(end, hosts)| (end, HostSet::from_ranges(hosts))).collect()
    }

    /// When the windows close of which one is open at this moment; none: within a week they do not.
    fn closes(&self, now_ms: u64, zone: &TimeZone) -> Option<u64> {
        if self.windows.is_empty() {
            return None;
        }
        let minute = now_ms / MINUTE_MS + 1;
        let mut minutes = (minute..=minute + WEEK).map(|minute| minute * MINUTE_MS);
        minutes.find(|at| {
            let at = Zoned::new(moment(*at), zone.clone());
            !self.windows.iter().any(|week| week.holds(&at))
        })
    }

    /// The first moment from this one on that is in a window.
    fn open(&self, from_ms: u64, zone: &TimeZone) -> Option<u64> {
        if self.windows.is_empty() {
            return Some(from_ms);
        }
        let from: Timestamp = moment(from_ms);
        let from = Zoned::new(from, zone.clone());
        let opens = self.windows.iter().filter_map(|week| week.next(&from)).min()?;
        u64::try_from(opens.timestamp().as_millisecond()).ok()
    }
}

/// Whether everybody can have his turn, and can miss it, before it is due again. What was recorded
/// when nobody checked that goes on as it is.
pub fn check(times: &Times) -> Result<(), TurnsError> {
    let Times { splay, expires, .. } = times;
    let Some(turns) = Turns::of(times)? else { return Ok(()) };
    // Whether its time is one is checked elsewhere.
    let pauses = Cron::new(times).map(|cron| cron.pauses());
    let (shortest, longest) = pauses.unwrap_or((u64::MAX, u64::MAX));
    if turns.splay_ms >= shortest {
        return Err(TurnsError::Again(splay.clone(), shortest / MINUTE_MS));
    }
    let window = shortest_window(&turns.windows).filter(|window| turns.splay_ms >= *window);
    if let Some(window) = window {
        return Err(TurnsError::Narrow(splay.clone(), window / MINUTE_MS));
    }
    if turns.expires_ms.is_some_and(|expires| expires >= longest) {
        return Err(TurnsError::Endless(expires.clone(), longest / MINUTE_MS));
    }
    Ok(())
}

/// How long the shortest time is for which windows are open; none if they always are.
fn shortest_window(windows: &[Week]) -> Option<u64> {
    let is_open = |minute: u64| {
        let at = Zoned::new(moment((MONDAY + minute) * MINUTE_MS), TimeZone::UTC);
        windows.iter().any(|week| week.holds(&at))
    };
    let open: Vec<bool> = (0..WEEK).map(is_open).collect();
    // From a minute on at which they are closed, once around.
    let closed = open.iter().position(|is_open| !is_open)?;
    let (before, from) = open.split_at(closed);
    let around = [from, before].concat();
    let lengths = around.split(|is_open| !is_open).map(<[bool]>::len);
    lengths.filter(|length| *length > 0).min().map(|minutes| minutes as u64 * MINUTE_MS)
}

/// The place of each host among those of its relay. `of`: its relay or, where nobody has recorded
/// one, its site; `hash`: what puts the hosts of one into a sequence.
pub fn places<'a>(
    hosts: impl Iterator<Item = (HostId, &'a str, &'a str)>,
    hash: impl Fn(&str) -> [u8; 8],
) -> BTreeMap<HostId, (u64, u64)> {
    let mut links = BTreeMap::<&str, Vec<([u8; 8], HostId)>>::new();
    for (id, name, link) in hosts {
        links.entry(link).or_default().push((hash(name), id));
    }
    let mut places = BTreeMap::new();
    for link in links.values_mut() {
        link.sort_unstable();
        let of = link.len() as u64;
        places.extend((0_u64..).zip(link.iter()).map(|(place, (_, id))| (*id, (place, of))));
    }
    places
}

fn time(what: &'static str, text: &str) -> Result<Option<u64>, TurnsError> {
    if text.is_empty() {
        return Ok(None);
    }
    let ms = duration(text).and_then(|time| u64::try_from(time.as_millis()).ok());
    let ms = ms.filter(|ms| (1..=LONGEST_MS).contains(ms));
    ms.map(Some).ok_or_else(|| TurnsError::Time(what, text.into()))
}

/// `mon-fri 22-06`, or days or hours alone.
fn window(text: &str) -> Result<Week, TurnsError> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_hours = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    match words.as_slice() {
        [days, hours] if !is_hours(days) && is_hours(hours) => Ok(Week::new(days, hours)?),
        [hours] if is_hours(hours) => Ok(Week::new("", hours)?),
        [days] => Ok(Week::new(days, "")?),
        _ => Err(TurnsError::Window(text.into())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: u64 = 60_000;
    const HOUR: u64 = 60 * MINUTE;

    fn turns(splay: &str, windows: &[&str], expires: &str) -> Result<Option<Turns>, TurnsError> {
        Turns::of(&Times {
            splay: splay.into(),
            windows: windows.iter().map(|text| (*text).to_owned()).collect(),
            expires: expires.into(),
            ..Times::new("0 * * * *", "UTC")
        })
    }

    fn spread(splay: &str, windows: &[&str], expires: &str) -> Turns {
        turns(splay, windows, expires).expect("it is fine").expect("it is spread")
    }

    fn at(text: &str) -> u64 {
        let at: Timestamp = text.parse().expect("a time");
        u64::try_from(at.as_millisecond()).expect("after 1970")
    }

    fn host(id: u32, place: u64, of: u64, zone: &str) -> Waiting {
        let zone = TimeZone::get(zone).expect("a zone");
        Waiting { id: HostId(id), place: (place, of), zone }
    }

    #[test]
    fn a_relay_s_hosts_follow_each_other_and_those_of_another_are_beside_them() {
        let hosts =
            [(1, "a", "r1"), (2, "b", "r1"), (3, "c", "r1"), (4, "d", "r2"), (5, "e", "r1")];
        let hosts = hosts.map(|(id, name, link)| (HostId(id), name, link));
        // By their last letter, backwards.
        let hash = |name: &str| [255 - name.as_bytes()[0]; 8];
        let found = places(hosts.into_iter(), hash);
        let expected = [(1, (3, 4)), (2, (2, 4)), (3, (1, 4)), (4, (0, 1)), (5, (0, 4))];
        assert_eq!(found, expected.map(|(id, place)| (HostId(id), place)).into());
        let turns = spread("10m", &[], "");
        let turn = |id: u32| {
            turns.turn(
                HOUR,
                &Waiting { id: HostId(id), place: found[&HostId(id)], zone: TimeZone::UTC },
            )
        };
        let minutes = [5, 3, 2, 1].map(|id| turn(id).map(|ms| (ms - HOUR) as f64 / MINUTE as f64));
        assert_eq!(minutes, [Some(0.0), Some(2.5), Some(5.0), Some(7.5)]);
        assert_eq!(turn(4), Some(HOUR));
    }

    #[test]
    fn windows_are_by_the_clocks_of_the_site() {
        let turns = spread("", &["mon-fri 22-06", "sat,sun"], "");
        // A Thursday, at noon in Paris.
        let due = at("2026-11-26T11:00:00Z");
        let turn = |zone| turns.turn(due, &host(1, 0, 1, zone));
        assert_eq!(turn("Europe/Paris"), Some(at("2026-11-26T21:00:00Z")));
        assert_eq!(turn("UTC"), Some(at("2026-11-26T22:00:00Z")));
        assert_eq!(turn("Asia/Tokyo"), Some(at("2026-11-26T13:00:00Z")));
        let saturday = at("2026-11-28T11:00:00Z");
        assert_eq!(turns.turn(saturday, &host(1, 0, 1, "UTC")), Some(saturday));
    }

    #[test]
    fn the_splay_counts_from_when_the_window_opens() {
        let turns = spread("1h", &["22-06"], "");
        let due = at("2026-11-26T12:00:00Z");
        let turn = |place| turns.turn(due, &host(1, place, 2, "UTC"));
        assert_eq!(turn(0), Some(at("2026-11-26T22:00:00Z")));
        assert_eq!(turn(1), Some(at("2026-11-26T22:30:00Z")));
        // What would be behind its end waits for the next.
        let short = spread("1h", &["22:00-22:20"], "");
        assert_eq!(short.turn(due, &host(1, 1, 2, "UTC")), Some(at("2026-11-27T22:00:00Z")));
    }

    #[test]
    fn a_window_that_the_clock_takes_away_is_not_there() {
        let turns = spread("", &["02-03"], "");
        let due = at("2026-03-28T12:00:00Z");
        let paris = host(1, 0, 1, "Europe/Paris");
        // On the 29th there is no such hour.
        assert_eq!(turns.turn(due, &paris), Some(at("2026-03-30T00:00:00Z")));
        // And twice on 2026-10-25: it opens at the first.
        let due = at("2026-10-24T12:00:00Z");
        assert_eq!(turns.turn(due, &paris), Some(at("2026-10-25T00:00:00Z")));
    }

    #[test]
    fn who_is_late_begins_if_a_window_is_open_and_misses_it_when_it_expires() {
        let turns = spread("10m", &["12-13,15-16"], "6h");
        let due = at("2026-11-26T12:00:00Z");
        let waiting = [host(1, 0, 2, "UTC"), host(2, 1, 2, "UTC")];
        let sort = |now: u64| {
            let Sorted { begin, missed, next_ms } = turns.sort(due, &waiting, now);
            (begin.len(), missed.len(), next_ms)
        };
        assert_eq!(sort(due), (1, 0, Some(due + 5 * MINUTE)));
        assert_eq!(sort(due + 5 * MINUTE), (2, 0, None));
        // Nobody could begin it before the window closed: then they wait for the next.
        assert_eq!(sort(due + 90 * MINUTE), (0, 0, Some(due + 180 * MINUTE)));
        assert_eq!(sort(due + 200 * MINUTE), (2, 0, None));
        assert_eq!(sort(due + 300 * MINUTE), (0, 0, Some(due + 360 * MINUTE)));
        assert_eq!(sort(due + 360 * MINUTE), (0, 2, None));
    }

    #[test]
    fn a_turn_ends_when_its_window_closes_or_it_expires() {
        let due = at("2026-11-26T12:00:00Z");
        let ends = |windows: &[&str], expires: &str, zone: &str, now: &str| {
            let zone = TimeZone::get(zone).expect("a zone");
            spread("10m", windows, expires).ends(due, &zone, at(now))
        };
        let check = |windows: &[&str], expires, zone, now, end: Option<&str>| {
            assert_eq!(ends(windows, expires, zone, now), end.map(at), "{windows:?} {now}");
        };
        check(&[], "", "UTC", "2026-11-26T12:00:00Z", None);
        check(&[], "6h", "UTC", "2026-11-26T12:00:00Z", Some("2026-11-26T18:00:00Z"));
        check(&["12-13"], "", "UTC", "2026-11-26T12:00:00Z", Some("2026-11-26T13:00:00Z"));
        check(&["12-13"], "30m", "UTC", "2026-11-26T12:10:30Z", Some("2026-11-26T12:30:00Z"));
        check(&["12-13"], "6h", "UTC", "2026-11-26T12:59:59Z", Some("2026-11-26T13:00:00Z"));
        let night = ["mon-fri 22-06", "sat,sun"];
        check(&night, "", "Europe/Paris", "2026-11-26T22:00:00Z", Some("2026-11-27T05:00:00Z"));
        // One goes on in the next: Friday's night, Saturday, Sunday.
        check(&night, "", "UTC", "2026-11-27T23:00:00Z", Some("2026-11-30T00:00:00Z"));
    }

    #[test]
    fn hosts_of_places_whose_clocks_differ_end_apart() {
        let (turns, due) = (spread("10m", &["12-14"], ""), at("2026-11-26T12:00:00Z"));
        let hosts = [host(1, 0, 1, "UTC"), host(2, 0, 1, "Europe/Paris"), host(3, 0, 1, "UTC")];
        let by = turns.by(due, hosts.iter(), due + 1);
        let set = |ids: &[u32]| ids.iter().map(|id| HostId(*id)).collect::<HostSet>();
        assert_eq!(by, [(due + HOUR, set(&[2])), (due + 2 * HOUR, set(&[1, 3]))].into());
    }

    #[test]
    fn turns_of_a_few_seconds_are_had_together_but_in_windows_only() {
        let turns = spread("20s", &["12-13"], "");
        let due = at("2026-11-26T11:00:00Z");
        let waiting: Vec<Waiting> = (0..20).map(|n| host(n, n.into(), 20, "UTC")).collect();
        let sort = |from: usize, now: u64| {
            let Sorted { begin, next_ms, .. } = turns.sort(due, &waiting[from..], now);
            (begin.len(), next_ms)
        };
        let opens = due + HOUR;
        assert_eq!(sort(0, opens - 5_000), (0, Some(opens)));
        assert_eq!(sort(0, opens), (10, Some(opens + 10_000)));
        assert_eq!(sort(10, opens + 10_000), (10, None));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let refused = |splay: &str, windows: &[&str], expires: &str, why: &str| {
            let error = turns(splay, windows, expires).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        };
        refused("soon", &[], "", "splay \"soon\"");
        refused("8d", &[], "", "at most 7d");
        refused("", &[], "0s", "expires \"0s\"");
        refused("", &["mon-fri at night"], "", "neither days nor hours");
        refused("", &["someday 22-06"], "", "days \"someday\"");
        refused("", &["22-25"], "", "hours \"22-25\"");
        refused("2h", &[], "1h", "longer than it has");
        assert_eq!(turns("", &[], ""), Ok(None));
    }

    #[test]
    fn a_spread_that_leaves_somebody_without_a_turn_is_refused() {
        let check = |cron: &str, splay: &str, windows: &[&str], expires: &str, why: &str| {
            let frequency = Times {
                splay: splay.into(),
                windows: windows.iter().map(|text| (*text).to_owned()).collect(),
                expires: expires.into(),
                ..Times::new(cron, "UTC")
            };
            let text = super::check(&frequency).err().map_or("fine".into(), |e| e.to_string());
            assert!(text.contains(why), "{text}");
        };
        let hourly = "0 * * * *";
        check(hourly, "59m", &[], "", "fine");
        check(hourly, "1h", &[], "", "splay \"1h\" is not shorter than the 60m until it is due");
        check("0 8,9 * * *", "1h", &[], "", "the 60m until it is due");
        check("0 0 1 1 *", "7d", &[], "", "fine");
        let daily = "0 20 * * *";
        check(daily, "50m", &["mon-fri 22-06", "sat 07-08"], "", "fine");
        check(daily, "1h", &["mon-fri 22-06", "sat 07-08"], "", "the shortest window, 60m");
        // A window may go on in another, and over the end of the week.
        check("0 4 * * wed", "47h", &["sat", "sun"], "", "fine");
        check("0 4 * * wed", "2d", &["sat", "sun"], "", "window, 2880m");
        check(daily, "3h", &["sun 22-24", "mon 00-02"], "", "fine");
        check(daily, "4h", &["sun 22-24", "mon 00-02"], "", "window, 240m");
        check(daily, "12h", &["00-12,12-24"], "", "fine");
        check(daily, "", &["22-06"], "23h", "fine");
        check(daily, "", &["22-06"], "1d", "expires \"1d\" is not shorter than the 1440m");
        check(hourly, "10m", &["mon-fri 22-06", "sat,sun"], "12h", "it never would");
        check("0 8,9 * * *", "", &[], "2h", "fine");
    }

    proptest! {
        /// Everybody has a turn within splay of the opening, and nobody outside of a window.
        #[test]
        fn turns_are_in_windows(
            due in 0..40 * 365 * 24 * HOUR,
            place in 0..50_u64,
            zone in prop::sample::select(vec!["UTC", "Europe/Paris", "America/New_York"]),
        ) {
            let turns = spread("30m", &["mon-fri 22-06", "sat 12:30-13"], "");
            let host = host(1, place, 50, zone);
            let turn = turns.turn(due, &host).expect("there is always one");
            prop_assert!(turn >= due && turn <= due + 8 * 24 * HOUR);
            let at = Zoned::new(moment(turn), host.zone.clone());
            prop_assert!(turns.windows.iter().any(|week| week.holds(&at)), "{at}");
        }
    }
}
