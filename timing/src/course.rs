//! What a frequency has come to: when it was last begun, how often it was missed, and who still
//! waits for a turn.
//!
//! A [`LastRun`] is all that has to be kept. Whoever was away looks at it and at the clock, counts
//! what was missed, and makes up for it once, however often it was due meanwhile.

use std::collections::BTreeMap;

use mesh::HostSet;
use serde::{Deserialize, Serialize};

use crate::{Cron, Times, Turns, Waiting, moment};

/// A clock that was put back by more than this is believed.
const BACK_MS: u64 = 60 * 1000;
/// So much later than due is missed, and not just busy.
const LATE_MS: u64 = 90 * 1000;
/// How many missed times are counted.
const COUNTED: usize = 10_000;

/// When a frequency was last begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// When; or since when it is there, if it was never begun.
    pub at_ms: u64,
    /// Whether it was begun at all.
    #[serde(default)]
    pub begun: bool,
    /// How often it was due before that while nobody could begin it.
    #[serde(default)]
    pub missed: u64,
    /// If it is spread: when it was due last, and who has not had his turn since.
    #[serde(default)]
    pub due_ms: u64,
    #[serde(default)]
    waiting: Vec<(u32, u32)>,
    /// By which times it counts, and since when, if they were others before.
    #[serde(default)]
    by: String,
    #[serde(default)]
    since_ms: u64,
    /// What was noted has not been begun and told, or it is not known whether it was.
    #[serde(default)]
    pub open: bool,
}

impl LastRun {
    /// One that is due from then on.
    pub fn new(at_ms: u64) -> LastRun {
        LastRun { at_ms, ..LastRun::default() }
    }

    /// The one that follows: it was begun, or left to somebody else, now.
    pub(crate) fn next(&self, at_ms: u64) -> LastRun {
        LastRun { at_ms, by: self.by.clone(), ..LastRun::default() }
    }

    /// What was due by other times counts no more: it is due by these from now on. Who waits for
    /// his turn goes on waiting.
    pub(crate) fn follow(&mut self, times: &Times, now_ms: u64) {
        let by = format!("{} {}", times.cron, times.zone);
        if self.by != by {
            if !self.by.is_empty() {
                self.since_ms = now_ms;
            }
            self.by = by;
        }
    }

    /// From when on it counts what was due.
    pub(crate) fn counts_from(&self) -> u64 {
        self.at_ms.max(self.since_ms)
    }

    /// Who waits for a turn.
    pub fn waiting(&self) -> HostSet {
        HostSet::from_ranges(self.waiting.iter().copied())
    }

    /// These wait now, and nobody else.
    pub fn wait(&mut self, hosts: &HostSet) {
        self.waiting = hosts.ranges().to_vec();
    }

    /// These have had their turn.
    pub fn had(&mut self, hosts: &HostSet) {
        self.wait(&self.waiting().difference(hosts));
    }

    /// Who of those that wait may begin now and who has missed it. The latter wait no more, nor
    /// does whoever is not among `hosts`, since he gets nothing any more.
    fn take(&mut self, turns: &Turns, hosts: &[Waiting], now_ms: u64) -> crate::Sorted {
        let pending = self.waiting();
        let waiting: Vec<Waiting> =
            hosts.iter().filter(|host| pending.contains(host.id)).cloned().collect();
        let sorted = turns.sort(self.due_ms, &waiting, now_ms);
        let left = waiting.iter().map(|host| host.id).collect::<HostSet>();
        self.wait(&left.difference(&sorted.missed));
        sorted
    }

    /// A clock that was far ahead does not silence it.
    pub(crate) fn believe(&mut self, now_ms: u64) {
        for at_ms in [&mut self.at_ms, &mut self.since_ms] {
            if *at_ms > now_ms.saturating_add(BACK_MS) {
                *at_ms = now_ms;
            }
        }
    }
}

/// What is to be done about a frequency.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Todo {
    /// Whether it begins for everybody.
    pub begin: bool,
    /// How often it was missed. Once that is told, and what begins has begun, the run is
    /// no more [open](LastRun::open).
    pub missed: u64,
    /// When it was due, if it is spread.
    pub due_ms: u64,
    /// Who has his turn. They wait until they were given what they lack.
    pub turns: HostSet,
    /// By when those must have begun who have their turn; who is not in it may begin whenever he
    /// can.
    pub by: BTreeMap<u64, HostSet>,
    /// Who had none in time. They wait no more.
    pub expired: HostSet,
    /// Who still waited when it was due again, and since when. They wait anew.
    pub late: (HostSet, u64),
    /// When there is something to be done next, if that is known.
    pub next_ms: Option<u64>,
    /// Whether this is to be noted once it is told, and has begun.
    pub open: bool,
}

/// What to do about a frequency.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing before this time.
    Wait(u64),
    /// Begin it; it was missed so often.
    Begin { missed: u64 },
    /// It is never due.
    Never,
}

/// Looks at a frequency. `turns`: how it is spread, if it is; `rolled`: it goes in waves, so that
/// nobody has a turn; `in_turn`: who has his turn already, if anybody else may have his; `hosts`:
/// all who get files of it.
pub fn look(
    run: &mut LastRun,
    (times, rolled): (&Times, bool),
    in_turn: Option<HostSet>,
    hosts: impl Fn() -> Vec<Waiting>,
    now: u64,
) -> Todo {
    let mut todo = Todo::default();
    let turns = Turns::of(times).ok().flatten().filter(|_| !rolled);
    run.follow(times, now);
    match decide(times, run.counts_from(), now) {
        Step::Wait(until) => todo.next_ms = Some(until),
        Step::Never => {}
        Step::Begin { missed } => {
            // Whether the one before was begun nobody knows.
            let missed = missed + if run.open { run.missed + 1 } else { 0 };
            todo.late = (run.waiting(), run.due_ms);
            *run = LastRun { begun: true, missed, open: true, ..run.next(now) };
            if turns.is_some() {
                run.due_ms = last_due(times, now);
                // Whoever still waited since it was due before is superseded.
                run.wait(&hosts().iter().map(|host| host.id).collect());
            }
        }
    }
    if run.open {
        // Whoever dies between this and what follows from it does it once more.
        (todo.open, todo.missed, todo.begin) = (true, run.missed, turns.is_none());
    }
    todo.due_ms = run.due_ms;
    if rolled {
        // Since it goes in waves nobody has a turn: they are in its waves.
        run.wait(&HostSet::new());
    }
    if !run.waiting().is_empty() {
        // If it is spread no more whoever still waits begins at once.
        let (turns, hosts) = (turns.unwrap_or_default(), hosts());
        let sorted = run.take(&turns, &hosts, now);
        todo.next_ms = [todo.next_ms, sorted.next_ms].into_iter().flatten().min();
        todo.turns = in_turn.map(|has| sorted.begin.difference(&has)).unwrap_or_default();
        let in_turn = hosts.iter().filter(|host| todo.turns.contains(host.id));
        todo.by = turns.by(run.due_ms, in_turn, now);
        todo.expired = sorted.missed;
    }
    run.believe(now);
    todo
}

pub(crate) fn decide(times: &Times, last_ms: u64, now_ms: u64) -> Step {
    let Ok(cron) = Cron::new(times) else { return Step::Never };
    let last_ms = last_ms.min(now_ms.saturating_add(BACK_MS));
    let Some(next) = cron.next(moment(last_ms)) else { return Step::Never };
    let next_ms = u64::try_from(next.as_millisecond()).unwrap_or(u64::MAX);
    if next_ms > now_ms {
        return Step::Wait(next_ms);
    }
    let due = cron.count(moment(last_ms), moment(now_ms), COUNTED) as u64;
    // The last time that it was due is the one that begins now, if it was just now.
    let on_time = cron.count(moment(now_ms.saturating_sub(LATE_MS)), moment(now_ms), 1) > 0;
    Step::Begin { missed: if on_time { due - 1 } else { due } }
}

/// When it was due last, at or before now.
pub fn last_due(times: &Times, now_ms: u64) -> u64 {
    let cron = Cron::new(times).ok();
    let last = cron.and_then(|cron| cron.last(moment(now_ms)));
    last.and_then(|last| u64::try_from(last.as_millisecond()).ok()).unwrap_or(now_ms)
}

#[cfg(test)]
mod tests {
    use mesh::HostId;

    use super::*;

    const HOUR: u64 = 3600 * 1000;

    fn hourly() -> Times {
        Times::new("0 * * * *", "UTC")
    }

    #[test]
    fn what_is_due_begins_and_what_was_missed_is_counted() {
        let check =
            |last, now, step| assert_eq!(decide(&hourly(), last, now), step, "{last} {now}");
        check(0, HOUR - 1, Step::Wait(HOUR));
        check(0, HOUR, Step::Begin { missed: 0 });
        check(0, HOUR + 1_000, Step::Begin { missed: 0 });
        check(HOUR, HOUR + 1, Step::Wait(2 * HOUR));
        // Away from before 1 to half past 3: 1, 2 and 3 o'clock were missed.
        check(HOUR / 2, 3 * HOUR + HOUR / 2, Step::Begin { missed: 3 });
        // Back exactly at 3.
        check(HOUR / 2, 3 * HOUR, Step::Begin { missed: 2 });
    }

    fn host(id: u32, place: u64, of: u64) -> Waiting {
        Waiting { id: HostId(id), place: (place, of), zone: jiff::tz::TimeZone::UTC }
    }

    fn spread_daily() -> Times {
        let daily = Times::new("0 0 * * *", "UTC");
        Times { splay: "30m".into(), windows: vec!["00-01".into()], ..daily }
    }

    fn at(run: &mut LastRun, now: u64, in_turn: Option<HostSet>) -> (HostSet, HostSet) {
        let hosts = || vec![host(1, 0, 2), host(2, 1, 2)];
        let todo = look(run, (&spread_daily(), false), in_turn, hosts, now);
        assert!(!todo.begin && todo.expired.is_empty(), "{todo:?}");
        (todo.turns, run.waiting())
    }

    #[test]
    fn who_has_his_turn_waits_until_he_was_given_what_he_lacks() {
        let day = 24 * HOUR;
        let mut run = LastRun { at_ms: day - 1, ..LastRun::default() };
        let (one, both) = (HostSet::one(HostId(1)), HostSet::from_ranges([(1, 2)]));
        let nobody = HostSet::new();
        assert_eq!(at(&mut run, day, Some(nobody.clone())), (one.clone(), both.clone()));
        // It was not given: it is his turn again.
        assert_eq!(at(&mut run, day + 1, Some(nobody.clone())), (one.clone(), both.clone()));
        run.had(&one);
        let two = HostSet::one(HostId(2));
        assert_eq!(at(&mut run, day + 2, Some(one.clone())), (nobody.clone(), two.clone()));
        // A slow host keeps nobody else from his turn.
        assert_eq!(at(&mut run, day + HOUR / 2, Some(one)), (two.clone(), two));
    }

    #[test]
    fn who_could_not_begin_in_his_window_waits_for_the_next() {
        let day = 24 * HOUR;
        let mut run = LastRun { at_ms: day - 1, ..LastRun::default() };
        let (nobody, both) = (HostSet::new(), HostSet::from_ranges([(1, 2)]));
        // Something else goes on until the window is over.
        assert_eq!(at(&mut run, day, None), (nobody.clone(), both.clone()));
        assert_eq!(at(&mut run, day + HOUR - 1, None), (nobody.clone(), both.clone()));
        assert_eq!(at(&mut run, day + HOUR, Some(nobody.clone())), (nobody.clone(), both));
    }

    #[test]
    fn it_was_due_last_just_before_however_often_it_was_missed() {
        let minutely = Times { cron: "* * * * *".into(), ..spread_daily() };
        let (now, hosts) = (COUNTED as u64 * 100_000, || vec![host(1, 0, 1)]);
        let mut run = LastRun { at_ms: 1, ..LastRun::default() };
        look(&mut run, (&minutely, false), None, hosts, now);
        assert_eq!(run.due_ms, now - now % 60_000);
        look(&mut run, (&Times::new("* * * * *", "UTC"), false), None, hosts, now + 60_000);
        assert_eq!(run.due_ms, 0, "it is not spread");
    }

    #[test]
    fn who_waits_begins_at_once_when_it_is_spread_no_more() {
        let mut run = LastRun { at_ms: HOUR, due_ms: HOUR, ..LastRun::default() };
        let both = HostSet::from_ranges([(1, 2)]);
        run.wait(&both);
        let hosts = || vec![host(1, 0, 2), host(2, 1, 2)];
        let in_turn = || Some(HostSet::new());
        let todo = look(&mut run.clone(), (&hourly(), false), in_turn(), hosts, HOUR + 1);
        assert_eq!((todo.begin, todo.turns), (false, both));
        let todo = look(&mut run, (&hourly(), true), in_turn(), hosts, HOUR + 1);
        assert!(todo.turns.is_empty() && run.waiting().is_empty(), "its waves have everybody");
    }

    #[test]
    fn what_was_noted_and_not_begun_is_begun_once_more() {
        let at = |run: &mut LastRun, now| {
            let todo = look(run, (&hourly(), false), None, Vec::new, now);
            (todo.begin, todo.missed)
        };
        let mut run = LastRun::new(HOUR / 2);
        assert_eq!(at(&mut run, 2 * HOUR), (true, 1));
        let killed = run.clone();
        run.open = false;
        assert_eq!(at(&mut run, 2 * HOUR + 1), (false, 0));
        let mut run = killed.clone();
        assert_eq!(at(&mut run, 2 * HOUR + 1), (true, 1));
        let mut run = killed;
        assert_eq!(at(&mut run, 3 * HOUR), (true, 2), "nobody knows what became of it");
    }

    #[test]
    fn who_had_no_turn_before_it_was_due_again_is_told() {
        let day = 24 * HOUR;
        let mut run = LastRun::new(day - 1);
        at(&mut run, day, None);
        run.open = false;
        let hosts = || vec![host(1, 0, 2), host(2, 1, 2)];
        let todo = look(&mut run, (&spread_daily(), false), None, hosts, 2 * day);
        assert_eq!(todo.late, (HostSet::from_ranges([(1, 2)]), day));
    }

    #[test]
    fn a_time_that_is_changed_counts_from_then_on() {
        let mut run = LastRun::new(HOUR);
        let daily = Times::new("0 0 * * *", "UTC");
        let mut at = |times: &Times, now| {
            let todo = look(&mut run, (times, false), None, Vec::new, now);
            run.open = false;
            (todo.begin, todo.missed, todo.next_ms)
        };
        assert_eq!(at(&daily, 10 * HOUR), (false, 0, Some(24 * HOUR)));
        assert_eq!(at(&hourly(), 10 * HOUR + 1), (false, 0, Some(11 * HOUR)));
        assert_eq!(at(&hourly(), 11 * HOUR), (true, 0, None));
    }

    #[test]
    fn a_clock_that_was_far_ahead_does_not_silence_it() {
        assert_eq!(decide(&hourly(), 1_000 * HOUR, HOUR - 1), Step::Wait(2 * HOUR));
        assert_eq!(decide(&hourly(), 1_000 * HOUR, HOUR / 2), Step::Wait(HOUR));
    }
}
