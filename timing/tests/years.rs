//! Schedules over years of virtual time: clocks that are put forward and back, controllers, links
//! and relays that die and return, clocks that are wrong.
//!
//! What is due when is found anew here, minute by minute, and whether the controller was heard is
//! known from outside. Whatever was due must have been begun once, or left to the controller, or
//! said to be missed. A world follows from its seed. Bugs are planted in what keeps the notes, and
//! must be found.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use mesh::{HostId, HostSet};
use timing::{LastRun, Planted, Sight, SiteRun, Times, Word, look};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// From when on a controller counts as silent, and from when on something is late.
const SILENT: u64 = 20 * SECOND;
const LATE: u64 = 90 * SECOND;
/// The longest time between two looks.
const LOOK: u64 = 2 * HOUR;
/// How many worlds there are of each course.
const SEEDS: u64 = 8;

/// A cron line, how it is read here, a place, and for how long it is watched.
struct Course {
    cron: &'static str,
    hour: Option<i8>,
    /// The first minute, and each so many after it.
    minute: i8,
    every: i8,
    zone: &'static str,
    from: &'static str,
    days: u64,
}

const COURSES: [Course; 6] = [
    daily("30 2 * * *", 2, 30, "Europe/Berlin"),
    daily("15 1 * * *", 1, 15, "America/New_York"),
    daily("45 1 * * *", 1, 45, "Australia/Lord_Howe"),
    hourly("10 * * * *", 10, 60, "Australia/Lord_Howe"),
    hourly("0 * * * *", 0, 60, "America/Santiago"),
    hourly("*/30 * * * *", 0, 30, "Europe/Berlin"),
];

const fn daily(cron: &'static str, hour: i8, minute: i8, zone: &'static str) -> Course {
    let (from, days) = ("2026-01-01T00:00:00Z", 400);
    Course { cron, hour: Some(hour), minute, every: 60, zone, from, days }
}

/// Around the days on which clocks are changed.
const fn hourly(cron: &'static str, minute: i8, every: i8, zone: &'static str) -> Course {
    Course { cron, hour: None, minute, every, zone, from: "2026-03-20T00:00:00Z", days: 30 }
}

impl Course {
    fn times(&self) -> Times {
        Times::new(self.cron, self.zone)
    }

    fn from(&self) -> u64 {
        let from: Timestamp = self.from.parse().expect("a time");
        u64::try_from(from.as_millisecond()).expect("after 1970")
    }

    /// All times at which it is due, by looking at the clock of the place minute by minute.
    fn due(&self) -> Vec<u64> {
        let zone = TimeZone::get(self.zone).expect("a place");
        let shown = |ms: u64| {
            let at = Timestamp::from_millisecond(ms.cast_signed()).expect("a time");
            Zoned::new(at, zone.clone()).datetime()
        };
        let fits = |hour: i8, minute: i8| {
            self.hour.is_none_or(|is| is == hour) && minute % self.every == self.minute
        };
        let (mut due, mut days) = (Vec::new(), BTreeSet::new());
        let mut before = shown(self.from() - MINUTE);
        for at in (self.from()..self.from() + self.days * DAY).step_by(60_000) {
            let now = shown(at);
            let minutes = now.duration_since(before).as_secs() / 60;
            // What the clock leaves out is as much later as the clock is put forward.
            let left_out = self.hour.filter(|_| minutes > 1).and_then(|hour| {
                let wanted = now.date().at(hour, self.minute, 0, 0);
                let after = wanted.duration_since(before).as_secs() / 60;
                let is_in = after > 0 && wanted < now;
                is_in.then(|| at + u64::try_from(after - 1).expect("later") * MINUTE)
            });
            due.extend(left_out);
            // Once a day, though the clock may show it twice.
            if fits(now.hour(), now.minute()) && (self.hour.is_none() || days.insert(now.date())) {
                due.push(at);
            }
            before = now;
        }
        due.sort_unstable();
        due
    }
}

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    /// When something is away: for minutes, hours or days, now and then.
    fn outages(&mut self, from: u64, until: u64) -> Vec<(u64, u64)> {
        let (mut outages, mut at) = (Vec::new(), from + self.roll(DAY));
        let span = until - from;
        while at < until {
            let lasts = match self.roll(4) {
                0 => self.roll(2 * MINUTE),
                1 => self.roll(HOUR),
                2 => self.roll((span / 40).max(2)),
                _ => self.roll((span / 100).max(2)),
            };
            outages.push((at, at + lasts + 1));
            at += lasts + 1 + SECOND + self.roll((span / 12).max(2));
        }
        outages
    }
}

fn is_away(outages: &[(u64, u64)], at: u64) -> bool {
    let next = outages.partition_point(|(begin, _)| *begin <= at);
    next.checked_sub(1).is_some_and(|last| at < outages[last].1)
}

/// What is wrong with whoever keeps the notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// A relay that starts takes that for a word of the controller.
    StartIsAWord,
    /// It does not wait until the controller counts as silent.
    Impatient,
    /// Its notes do not outlive it.
    Forgets,
    /// What it has noted is lost if it dies right after it was begun.
    NotesTooLate,
    /// Whether it was alone does not outlive it.
    ForgetsBeingAlone,
}

/// What a site has come to.
#[derive(Debug)]
struct Resolved {
    at: u64,
    begun: Option<u64>,
    missed: u64,
    /// Whether it was alone when it looked last before.
    was_alone: bool,
}

struct World<'a> {
    course: &'a Course,
    controller: Vec<(u64, u64)>,
    relay: Vec<(u64, u64)>,
    until: u64,
}

impl World<'_> {
    fn new(course: &Course, seed: u64) -> World<'_> {
        let mut dice = Dice(seed);
        let (from, until) = (course.from(), course.from() + course.days * DAY);
        let (controller, relay) = (dice.outages(from, until), dice.outages(from, until));
        World { course, controller, relay, until }
    }

    /// When the controller was heard last before, or at, this time.
    fn heard(&self, at: u64) -> u64 {
        let next = self.controller.partition_point(|(begin, _)| *begin <= at);
        match next.checked_sub(1).map(|last| self.controller[last]) {
            Some((begin, end)) if at < end => begin,
            _ => at,
        }
    }

    /// Lives through it all, and says what the site has come to.
    fn play(&self, bug: Option<Bug>) -> Vec<Resolved> {
        let from = self.course.from();
        let (times, here) = (self.course.times(), BTreeMap::from([(HostId(1), "a")]));
        let (mut site, mut on_disk) = (SiteRun::new(from), SiteRun::new(from));
        let (mut resolved, mut started, mut alone) = (Vec::new(), from, false);
        let (mut at, mut dice) = (from, Dice(self.until));
        while at < self.until {
            if is_away(&self.relay, at) {
                let next = self.relay.partition_point(|(begin, _)| *begin <= at);
                at = self.relay[next - 1].1;
                (started, site) = (at, reborn(bug, &on_disk, at));
                continue;
            }
            let heard = self.heard(at);
            let heard_ms = match heard >= started {
                true => heard,
                false if bug == Some(Bug::StartIsAWord) => started,
                false => 0,
            };
            let silent = bug == Some(Bug::Impatient) || at - heard.max(started) > SILENT;
            let (stale, noted) = (silent && heard != at, site.run.at_ms);
            let todo = site.look(&Sight {
                times: &times,
                zone: &TimeZone::UTC,
                here: &here,
                in_turn: &HostSet::new(),
                word: Word { heard_ms, stale },
                now_ms: at,
                hash: |_| [0; 8],
                planted: Planted::default(),
            });
            let begun = (!todo.turns.is_empty()).then_some(todo.due_ms);
            let has_resolved = site.run.at_ms != noted;
            if has_resolved {
                resolved.push(Resolved { at, begun, missed: todo.missed, was_alone: alone });
            }
            // As long as it is open nothing is known.
            alone = if todo.open { alone } else { stale };
            if bug != Some(Bug::NotesTooLate) {
                on_disk = site.clone();
            }
            site.run.had(&todo.turns);
            let next = at
                + match todo.next_ms {
                    _ if todo.open => 5 * SECOND,
                    // What comes next is not said by the look that has begun something.
                    _ if has_resolved => SECOND,
                    next => next.map_or(LOOK, |next| (next - at).clamp(1, LOOK)),
                };
            // Of four relays one is killed right after it has told somebody, and starts at once.
            if begun.is_some() && dice.roll(4) == 0 {
                (started, site) = (at, reborn(bug, &on_disk, at));
                site.run.had(&todo.turns);
            }
            on_disk = site.clone();
            at = next;
        }
        resolved
    }

    /// Whether all that was due was seen to.
    fn judge(&self, due: &[u64], resolved: &[Resolved]) -> Result<(), String> {
        let (mut before, mut begun) = (self.course.from(), BTreeSet::new());
        for one in resolved {
            let Resolved { at, missed, was_alone, .. } = *one;
            let since = due.partition_point(|due| *due <= before);
            let mine = &due[since..due.partition_point(|due| *due <= at)];
            before = at;
            let Some(last) = mine.last().copied() else {
                return Err(format!("{one:?}: nothing was due"));
            };
            let on_time = u64::from(at - last < LATE);
            let late = mine.len() as u64 - on_time;
            match one.begun {
                Some(due) if due != last => return Err(format!("{one:?}: {last} was due")),
                Some(due) if !begun.insert(due) => return Err(format!("{one:?}: begun twice")),
                Some(due) if self.is_heard(due, at) => {
                    return Err(format!("{one:?}: it was the controller's"));
                }
                Some(_) if at - self.heard(at).max(self.started(at)) <= SILENT => {
                    return Err(format!("{one:?}: the controller was not silent yet"));
                }
                Some(_) if missed != late => return Err(format!("{one:?}: {late} were missed")),
                None if !self.is_heard(last, at) => {
                    return Err(format!("{one:?}: neither begun nor the controller's"));
                }
                None if missed != if was_alone { late } else { 0 } => {
                    return Err(format!("{one:?}: {late} were missed"));
                }
                _ => {}
            }
        }
        let open = due.iter().find(|due| **due > before && **due + HOUR < self.until);
        let outages = |at: u64| self.relay.partition_point(|(begin, _)| *begin <= at);
        let was_there = |due: u64| {
            let (from, until) = (due + HOUR / 2, due + HOUR);
            !is_away(&self.relay, from) && outages(from) == outages(until)
        };
        match open.filter(|due| was_there(**due)) {
            Some(due) => Err(format!("nothing was ever said of {due}")),
            None => Ok(()),
        }
    }

    /// Whether the controller was heard by the relay then.
    fn is_heard(&self, from: u64, until: u64) -> bool {
        self.heard(until) >= from.max(self.started(until))
    }

    /// When the relay was started last.
    fn started(&self, at: u64) -> u64 {
        let next = self.relay.partition_point(|(begin, _)| *begin <= at);
        next.checked_sub(1).map_or(self.course.from(), |last| self.relay[last].1)
    }
}

/// A relay that starts again.
fn reborn(bug: Option<Bug>, on_disk: &SiteRun, now: u64) -> SiteRun {
    match bug {
        Some(Bug::Forgets) => SiteRun::new(now),
        Some(Bug::ForgetsBeingAlone) => {
            let mut site = SiteRun::new(now);
            site.run = on_disk.run.clone();
            site
        }
        _ => on_disk.clone(),
    }
}

fn zones_are_known() -> bool {
    let known = COURSES.iter().all(|course| TimeZone::get(course.zone).is_ok());
    if !known {
        eprintln!("skipped: this machine knows no time zones");
    }
    known
}

#[test]
fn whatever_is_due_at_a_site_is_done_once_or_left_or_said_to_be_missed() {
    if !zones_are_known() {
        return;
    }
    for course in &COURSES {
        let (due, mut begun, mut missed, mut left) = (course.due(), 0, 0, 0);
        for seed in 0..SEEDS {
            let world = World::new(course, seed);
            let resolved = world.play(None);
            let judged = world.judge(&due, &resolved);
            assert_eq!(judged, Ok(()), "{} {} seed {seed}", course.cron, course.zone);
            begun += resolved.iter().filter(|one| one.begun.is_some()).count();
            left += resolved.iter().filter(|one| one.begun.is_none()).count();
            missed += resolved.iter().map(|one| one.missed).sum::<u64>();
        }
        assert!(begun > 0 && missed > 0 && left > 0, "{begun} {missed} {left}: {}", course.cron);
    }
}

#[test]
fn bugs_that_are_planted_are_found() {
    if !zones_are_known() {
        return;
    }
    let due: Vec<_> = COURSES.iter().map(Course::due).collect();
    let bugs = [
        Bug::StartIsAWord,
        Bug::Impatient,
        Bug::Forgets,
        Bug::NotesTooLate,
        Bug::ForgetsBeingAlone,
    ];
    for bug in bugs {
        let found = COURSES.iter().zip(&due).any(|(course, due)| {
            (0..SEEDS).any(|seed| {
                let world = World::new(course, seed);
                world.judge(due, &world.play(Some(bug))).is_err()
            })
        });
        assert!(found, "{bug:?} is not found");
    }
}

/// The controller's own schedule: it dies and returns, and its clock jumps. Whatever its clock has
/// passed is begun or said to be missed; what it shows twice may be begun twice.
#[test]
fn whatever_the_controllers_clock_passes_is_begun_or_said_to_be_missed() {
    if !zones_are_known() {
        return;
    }
    for course in &COURSES {
        let (due, times, from) = (course.due(), course.times(), course.from());
        for seed in 0..SEEDS {
            let mut dice = Dice(seed);
            let (until, mut run) = (from + course.days * DAY, LastRun::new(from));
            let outages = dice.outages(from, until);
            let (mut at, mut seen, mut begun) = (from, from, BTreeSet::new());
            while at < until {
                if is_away(&outages, at) {
                    let next = outages.partition_point(|(begin, _)| *begin <= at);
                    at = outages[next - 1].1;
                    continue;
                }
                let todo = look(&mut run, (&times, false), None, Vec::new, at);
                run.open = false;
                let since = due.partition_point(|due| *due <= seen);
                let passed = &due[since..due.partition_point(|due| *due <= at)];
                assert_eq!(todo.begin, !passed.is_empty(), "{} seed {seed} at {at}", course.cron);
                if let Some(last) = passed.last() {
                    let late = passed.len() as u64 - u64::from(at - last < LATE);
                    assert_eq!(todo.missed, late, "{} seed {seed} at {at}", course.cron);
                    assert!(begun.insert(*last), "{last}: begun twice");
                }
                seen = at;
                at += match todo.next_ms {
                    _ if todo.begin => SECOND,
                    next => next.map_or(LOOK, |next| (next - at).clamp(1, LOOK)),
                };
                // Now and then its clock goes wrong, and what it shows is what counts.
                match dice.roll(4_000) {
                    0 => at += dice.roll(3 * DAY),
                    1 => {
                        let back = at.saturating_sub(2 * MINUTE + dice.roll(DAY)).max(from);
                        if !is_away(&outages, back) {
                            // By less than a minute is not believed.
                            at = back;
                            seen = if run.at_ms > at + MINUTE { at } else { at.max(run.at_ms) };
                            begun.clear();
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}
