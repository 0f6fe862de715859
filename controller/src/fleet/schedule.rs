//! Starting distributions when they are due.
//!
//! When each frequency was last begun is on disk, so a controller that was away knows what it has
//! missed: it says so, and makes up for it once, however often it was due meanwhile. Who waits for
//! a turn is on disk, too, and nowhere else: whoever cannot begin just goes on waiting, so that his
//! windows are looked at again, and leaves only when he was given what he lacks.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::{Class, HostId, HostSet, Kind, Severity};
use serde::{Deserialize, Serialize};
use tracing::{debug, error, info, warn};

use super::cron::{Cron, moment, text as clock_text};
use super::dist::{Distributor, Taken};
use super::spread;
use super::turns::{Turns, Waiting};
use super::types::{Frequency, NewDist, Scheduled};
use crate::clock::now_ms;
use crate::fault::Failure;
use crate::orders::blocking;
use crate::rollout::driver::Rollouts;

/// How long to sleep at most: then the configuration and the clock are looked at again.
const LOOK: Duration = Duration::from_secs(20);
/// A clock that was put back by more than this is believed.
const BACK_MS: u64 = 60 * 1000;
/// So much later than due is missed, and not just busy.
const LATE_MS: u64 = 90 * 1000;
/// How many missed times are counted.
const COUNTED: usize = 10_000;

/// What became of a distribution that was due, as an event.
const MISSED: Kind =
    Kind { subject: "push.schedule-missed", severity: Severity::Warning, class: Class::Controller };
const NOT_BEGUN: Kind =
    Kind { subject: "push.not-begun", severity: Severity::Error, class: Class::Controller };

const EXPIRED: Kind =
    Kind { subject: "schedule.missed", severity: Severity::Warning, class: Class::Controller };

/// When a frequency was last begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastRun {
    /// When; or since when it is there, if it was never begun.
    pub(crate) at_ms: u64,
    /// Whether it was begun at all.
    #[serde(default)]
    pub(crate) begun: bool,
    /// How often it was due before that while nobody could begin it.
    #[serde(default)]
    pub(crate) missed: u64,
    /// If it is spread: when it was due last, and who has not had his turn since.
    #[serde(default)]
    pub(crate) due_ms: u64,
    #[serde(default)]
    waiting: Vec<(u32, u32)>,
}

impl LastRun {
    /// Who waits for a turn.
    pub(crate) fn waiting(&self) -> HostSet {
        HostSet::from_ranges(self.waiting.iter().copied())
    }

    pub(crate) fn wait(&mut self, hosts: &HostSet) {
        self.waiting = hosts.ranges().to_vec();
    }

    /// These have had their turn.
    pub(crate) fn had(&mut self, hosts: &HostSet) {
        self.wait(&self.waiting().difference(hosts));
    }
}

/// What is to be done about a frequency.
#[derive(Debug, Default, PartialEq, Eq)]
struct Todo {
    /// Whether it begins for everybody.
    begin: bool,
    /// How often it was missed.
    missed: u64,
    /// When it was due, if it is spread.
    due_ms: u64,
    /// Who has his turn. They wait until they were given what they lack.
    turns: HostSet,
    /// Who had none in time. They wait no more.
    expired: HostSet,
    /// When there is something to be done next, if that is known.
    next_ms: Option<u64>,
}

/// What is to be done, by frequency, and how long to wait afterwards.
struct Plan {
    todo: BTreeMap<String, Todo>,
    pause: Duration,
}

/// What to do about a frequency.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Nothing before this time.
    Wait(u64),
    /// Begin it; it was missed so often.
    Begin { missed: u64 },
    /// It is never due.
    Never,
}

/// Begins what is due, until the runtime ends.
pub(crate) async fn run(rollouts: Rollouts) {
    let mut keeper = Keeper { rollouts, said: BTreeMap::new() };
    loop {
        let pause = match keeper.step().await {
            Ok(pause) => pause,
            Err(failure) => {
                error!(error = %failure.error.message, "the schedule is not kept");
                LOOK
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Keeps the schedule.
struct Keeper {
    rollouts: Rollouts,
    /// When the frequencies were due whose turns are known not to begin, so that it is told once.
    said: BTreeMap<String, u64>,
}

impl Keeper {
    /// Begins what is due now. Returns how long to wait.
    async fn step(&mut self) -> Result<Duration, Failure> {
        let distributor = self.rollouts.distributor.clone();
        let Plan { todo, pause } = blocking(move || plan(&distributor, now_ms())).await?;
        let mut kept = Ok(pause);
        for (frequency, todo) in todo {
            if !todo.expired.is_empty() {
                self.tell_expired(&frequency, &todo).await;
            }
            if todo.missed > 0 {
                let missed = todo.missed;
                warn!(frequency, missed, "distributions were missed: made up for by this one");
                let text = format!("{frequency}: {missed} distributions were missed");
                self.notice(MISSED, &text).await;
            }
            if todo.begin {
                match self.rollouts.distribute(NewDist::of(&frequency), Vec::new()).await {
                    Ok(told) => told.notes.iter().for_each(|note| info!(frequency, "{note}")),
                    Err(failure) => self.tell_not_begun(&frequency, &failure).await,
                }
            }
            if !todo.turns.is_empty() {
                let taken = self.take_turns(&frequency, todo).await;
                kept = taken.and(kept);
            }
        }
        kept
    }

    /// Whoever was given what he lacks waits no more; the others are seen to at the next look.
    async fn take_turns(&mut self, frequency: &str, todo: Todo) -> Result<(), Failure> {
        let Todo { turns, due_ms, .. } = todo;
        let distributor = &self.rollouts.distributor;
        let Taken { left, told } = distributor.take_turns(frequency, turns.clone()).await;
        let (had, name) = (turns.difference(&left), frequency.to_owned());
        let store = distributor.fleet.store.clone();
        let noted = match had.is_empty() {
            true => Ok(()),
            false => blocking(move || Ok(store.note_turns(&name, &had)?)).await,
        };
        match told {
            Ok(told) => {
                self.said.remove(frequency);
                told.notes.iter().for_each(|note| info!(frequency, "{note}"));
            }
            Err(failure) if self.said.insert(frequency.into(), due_ms) == Some(due_ms) => {
                debug!(frequency, error = %failure.error.message, "turns still do not begin");
            }
            Err(failure) => self.tell_not_begun(frequency, &failure).await,
        }
        noted
    }

    async fn tell_expired(&self, frequency: &str, todo: &Todo) {
        let hosts = self.rollouts.distributor.live.state().hosts.clone();
        let (count, names) = (todo.expired.len(), crate::targets::names(&hosts, &todo.expired));
        let (names, at) = (crate::sets::fold(&names), clock_text(todo.due_ms));
        warn!(frequency, count, names, "hosts had no turn before it expired");
        let text = format!("{frequency}, due {at}: {count} hosts had no turn in time: {names}");
        self.notice(EXPIRED, &text).await;
    }

    async fn tell_not_begun(&self, frequency: &str, failure: &Failure) {
        let error = &failure.error.message;
        warn!(frequency, %error, "not distributed");
        let text = format!("{frequency} was due and is not distributed: {error}");
        self.notice(NOT_BEGUN, &text).await;
    }

    async fn notice(&self, kind: Kind, text: &str) {
        self.rollouts.distributor.desk.node.notice(kind, text).await;
    }
}

/// Looks at all frequencies, and notes what begins. Blocks.
fn plan(distributor: &Distributor, now: u64) -> Result<Plan, Failure> {
    let store = &distributor.fleet.store;
    let before = store.runs()?;
    let mut last = before.clone();
    let known = distributor.fleet.known();
    let frequencies = &known.book.frequencies;
    let rows = distributor.live.state().hosts.clone();
    let mut plan = Plan { todo: BTreeMap::new(), pause: LOOK };
    for (name, frequency) in frequencies.iter().filter(|(_, frequency)| frequency.automatic) {
        // One that is new is due from now on.
        let run = last.entry(name.clone()).or_insert(LastRun { at_ms: now, ..LastRun::default() });
        let hosts = || spread::hosts(&known, &rows, (name, frequency));
        let todo = look(run, frequency, distributor.running.in_turn(name), hosts, now);
        plan.pause = todo.next_ms.map_or(plan.pause, |next| plan.pause.min(left(next, now)));
        plan.todo.insert(name.clone(), todo);
    }
    last.retain(|name, _| frequencies.contains_key(name));
    if last != before {
        // What was noted as begun is not begun again, whatever happens to us now.
        store.set_runs(&last)?;
    }
    Ok(plan)
}

/// Looks at a frequency. `in_turn`: who has his turn already, if anybody else may have his;
/// `hosts`: all who get files of it.
fn look(
    run: &mut LastRun,
    frequency: &Frequency,
    in_turn: Option<HostSet>,
    hosts: impl Fn() -> Vec<Waiting>,
    now: u64,
) -> Todo {
    let mut todo = Todo::default();
    let turns = Turns::of(frequency).ok().flatten();
    match decide(frequency, run.at_ms, now) {
        Step::Wait(until) => todo.next_ms = Some(until),
        Step::Never => {}
        Step::Begin { missed } => {
            *run = LastRun { at_ms: now, begun: true, missed, ..LastRun::default() };
            todo.missed = missed;
            todo.begin = turns.is_none();
            if turns.is_some() {
                run.due_ms = last_due(frequency, now);
                // Whoever still waited since it was due before is superseded.
                run.wait(&hosts().iter().map(|host| host.id).collect());
            }
        }
    }
    todo.due_ms = run.due_ms;
    if !frequency.waves.is_empty() {
        // Since it goes in waves nobody has a turn: they are in its waves.
        run.wait(&HostSet::new());
    }
    if !run.waiting().is_empty() {
        // If it is spread no more whoever still waits begins at once.
        let sorted = spread::take(run, &turns.unwrap_or_default(), &hosts(), now);
        todo.next_ms = [todo.next_ms, sorted.next_ms].into_iter().flatten().min();
        todo.turns = in_turn.map(|has| sorted.begin.difference(&has)).unwrap_or_default();
        todo.expired = sorted.missed;
    }
    if run.at_ms > now.saturating_add(BACK_MS) {
        run.at_ms = now;
    }
    todo
}

fn decide(frequency: &Frequency, last_ms: u64, now_ms: u64) -> Step {
    let Ok(cron) = Cron::new(frequency) else { return Step::Never };
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

fn left(until_ms: u64, now_ms: u64) -> Duration {
    Duration::from_millis(until_ms.saturating_sub(now_ms).max(1))
}

/// When it was due last, at or before now.
fn last_due(frequency: &Frequency, now_ms: u64) -> u64 {
    let cron = Cron::new(frequency).ok();
    let last = cron.and_then(|cron| cron.last(moment(now_ms)));
    last.and_then(|last| u64::try_from(last.as_millisecond()).ok()).unwrap_or(now_ms)
}

/// When each frequency is due and was begun; with the turns of these hosts.
pub(crate) fn scheduled(
    distributor: &Distributor,
    last: &BTreeMap<String, LastRun>,
    asked: &[(HostId, String)],
    now_ms: u64,
) -> Vec<Scheduled> {
    let known = distributor.fleet.known();
    let hosts = distributor.live.state().hosts.clone();
    let frequencies = known.book.frequencies.clone();
    let one = |(name, frequency): (&String, &Frequency)| {
        let run = last.get(name).cloned().unwrap_or_default();
        let turns = match asked {
            [] => Vec::new(),
            asked => {
                let hosts = spread::hosts(&known, &hosts, (name, frequency));
                spread::next_turns(&run, frequency, &hosts, asked, now_ms)
            }
        };
        let cron = Cron::new(frequency).ok();
        let next = cron.and_then(|cron| cron.next(moment(now_ms)));
        let next = next.and_then(|next| u64::try_from(next.as_millisecond()).ok());
        Scheduled {
            frequency: name.clone(),
            cron: frequency.cron.clone(),
            zone: frequency.zone.clone(),
            automatic: frequency.automatic,
            last_ms: if run.begun { run.at_ms } else { 0 },
            next_ms: next.filter(|_| frequency.automatic).unwrap_or(0),
            missed: run.missed,
            running: distributor.running.is_on(name),
            waves: frequency.waves.clone(),
            rollout: distributor.running.rolled(name),
            waiting: run.waiting().len(),
            turns,
        }
    };
    frequencies.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600 * 1000;

    fn hourly() -> Frequency {
        Frequency::new("0 * * * *", "UTC")
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

    fn spread_daily() -> Frequency {
        let daily = Frequency::new("0 0 * * *", "UTC");
        Frequency { splay: "30m".into(), windows: vec!["00-01".into()], ..daily }
    }

    fn at(run: &mut LastRun, now: u64, in_turn: Option<HostSet>) -> (HostSet, HostSet) {
        let hosts = || vec![host(1, 0, 2), host(2, 1, 2)];
        let todo = look(run, &spread_daily(), in_turn, hosts, now);
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
        let minutely = Frequency { cron: "* * * * *".into(), ..spread_daily() };
        let (now, hosts) = (COUNTED as u64 * 100_000, || vec![host(1, 0, 1)]);
        let mut run = LastRun { at_ms: 1, ..LastRun::default() };
        look(&mut run, &minutely, None, hosts, now);
        assert_eq!(run.due_ms, now - now % 60_000);
        look(&mut run, &Frequency::new("* * * * *", "UTC"), None, hosts, now + 60_000);
        assert_eq!(run.due_ms, 0, "it is not spread");
    }

    #[test]
    fn who_waits_begins_at_once_when_it_is_spread_no_more() {
        let mut run = LastRun { at_ms: HOUR, due_ms: HOUR, ..LastRun::default() };
        let both = HostSet::from_ranges([(1, 2)]);
        run.wait(&both);
        let hosts = || vec![host(1, 0, 2), host(2, 1, 2)];
        let in_turn = || Some(HostSet::new());
        let todo = look(&mut run.clone(), &hourly(), in_turn(), hosts, HOUR + 1);
        assert_eq!((todo.begin, todo.turns), (false, both));
        let waves = Frequency { waves: "1,100%".into(), ..hourly() };
        let todo = look(&mut run, &waves, in_turn(), hosts, HOUR + 1);
        assert!(todo.turns.is_empty() && run.waiting().is_empty(), "its waves have everybody");
    }

    #[test]
    fn a_clock_that_was_far_ahead_does_not_silence_it() {
        assert_eq!(decide(&hourly(), 1_000 * HOUR, HOUR - 1), Step::Wait(2 * HOUR));
        assert_eq!(decide(&hourly(), 1_000 * HOUR, HOUR / 2), Step::Wait(HOUR));
    }
}
