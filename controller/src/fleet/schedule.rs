//! Starting distributions when they are due.
//!
//! When each frequency was last begun is on disk, so a controller that was away knows what it has
//! missed: it says so, and makes up for it once, however often it was due meanwhile. One that dies
//! before it is noted that something has begun begins it once more: whoever has it gets nothing.
//! Who waits for a turn is on disk, too, and nowhere else: whoever cannot begin just goes on
//! waiting, so that his windows are looked at again, and leaves only when he was given what he
//! lacks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh::{Class, HostId, HostSet, Kind, Severity};
use protos::Schedule;
use timing::{Cron, LastRun, Todo, clock_text, look, moment};
use tracing::{debug, error, info, warn};

use super::dist::{Distributor, Taken};
use super::spread;
use super::types::{Frequency, NewDist, Scheduled};
use crate::clock::now_ms;
use crate::fault::Failure;
use crate::orders::blocking;
use crate::rollout::driver::Rollouts;

/// How long to sleep at most: then the configuration and the clock are looked at again.
const LOOK: Duration = Duration::from_secs(20);
/// What became of a distribution that was due, as an event.
const MISSED: Kind =
    Kind { subject: "push.schedule-missed", severity: Severity::Warning, class: Class::Controller };
const NOT_BEGUN: Kind =
    Kind { subject: "push.not-begun", severity: Severity::Error, class: Class::Controller };

const EXPIRED: Kind =
    Kind { subject: "schedule.missed", severity: Severity::Warning, class: Class::Controller };

/// What is to be done, by frequency, and how long to wait afterwards.
struct Plan {
    todo: BTreeMap<String, Todo>,
    pause: Duration,
}

/// Begins what is due, until the runtime ends.
pub(crate) async fn run(rollouts: Rollouts, tell: Arc<dyn Fn() + Send + Sync>) {
    let mut keeper = Keeper { rollouts, tell, told: None, said: BTreeMap::new() };
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
    /// Tells the mesh what is due when, and what of it was told.
    tell: Arc<dyn Fn() + Send + Sync>,
    told: Option<Schedule>,
    /// When the frequencies were due whose turns are known not to begin, so that it is told once.
    said: BTreeMap<String, u64>,
}

impl Keeper {
    /// Begins what is due now. Returns how long to wait.
    async fn step(&mut self) -> Result<Duration, Failure> {
        let distributor = self.rollouts.distributor.clone();
        let planned = distributor.clone();
        let Plan { todo, pause } = blocking(move || plan(&planned, now_ms())).await?;
        self.tell_sites().await?;
        let mut kept = Ok(pause);
        for (frequency, todo) in todo {
            for (hosts, due_ms) in [(&todo.late.0, todo.late.1), (&todo.expired, todo.due_ms)] {
                if !hosts.is_empty() {
                    self.tell_no_turn(&frequency, due_ms, hosts).await;
                }
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
            if todo.open {
                let (store, name) = (distributor.planner.fleet.store.clone(), frequency.clone());
                blocking(move || Ok(store.note_begun(&name)?)).await?;
            }
            if !todo.turns.is_empty() {
                let taken = self.take_turns(&frequency, todo).await;
                kept = taken.and(kept);
            }
        }
        kept
    }

    /// Lets sites know by what they go on when they hear nothing from here.
    async fn tell_sites(&mut self) -> Result<(), Failure> {
        let schedule = self.rollouts.distributor.planner.fleet.known().schedule();
        if self.told.as_ref() != Some(&schedule) {
            let tell = self.tell.clone();
            let told = move || {
                tell();
                Ok(())
            };
            blocking(told).await?;
            self.told = Some(schedule);
        }
        Ok(())
    }

    /// Those whose windows close at different moments have orders of their own.
    async fn take_turns(&mut self, frequency: &str, todo: Todo) -> Result<(), Failure> {
        let Todo { turns, by, due_ms, .. } = todo;
        let bound = by.values().fold(HostSet::new(), |all, hosts| all.union(hosts));
        let (free, mut kept) = (turns.difference(&bound), Ok(()));
        for (by_ms, hosts) in by.into_iter().chain([(0, free)]) {
            if !hosts.is_empty() {
                let taken = self.take_turn(frequency, due_ms, (by_ms, hosts)).await;
                kept = taken.and(kept);
            }
        }
        kept
    }

    /// Whoever was given what he lacks waits no more; the others are seen to at the next look.
    async fn take_turn(
        &mut self,
        frequency: &str,
        due_ms: u64,
        (by_ms, turns): (u64, HostSet),
    ) -> Result<(), Failure> {
        let distributor = &self.rollouts.distributor;
        let Taken { left, told } = distributor.take_turns(frequency, turns.clone(), by_ms).await;
        let (had, name) = (turns.difference(&left), frequency.to_owned());
        let store = distributor.planner.fleet.store.clone();
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

    async fn tell_no_turn(&self, frequency: &str, due_ms: u64, late: &HostSet) {
        let hosts = self.rollouts.distributor.live.state().hosts.clone();
        let (count, names) = (late.len(), crate::targets::names(&hosts, late));
        let (names, at) = (crate::sets::fold(&names), clock_text(due_ms));
        warn!(frequency, count, names, "hosts had no turn in time");
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
    let store = &distributor.planner.fleet.store;
    let before = store.runs()?;
    let mut last = before.clone();
    let known = distributor.planner.fleet.known();
    let frequencies = &known.book.frequencies;
    let rows = distributor.live.state().hosts.clone();
    let mut plan = Plan { todo: BTreeMap::new(), pause: LOOK };
    for (name, frequency) in frequencies.iter().filter(|(_, frequency)| frequency.automatic) {
        // One that is new is due from now on.
        let run = last.entry(name.clone()).or_insert_with(|| LastRun::new(now));
        let hosts = || spread::hosts(&known, &rows, (name, frequency));
        let (times, rolled) = (frequency.times(), !frequency.waves.is_empty());
        let in_turn = distributor.running.in_turn(name);
        let todo = look(run, (&times, rolled), in_turn, hosts, now);
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

fn left(until_ms: u64, now_ms: u64) -> Duration {
    Duration::from_millis(until_ms.saturating_sub(now_ms).max(1))
}

/// When each frequency is due and was begun; with the turns of these hosts.
pub(crate) fn scheduled(
    distributor: &Distributor,
    last: &BTreeMap<String, LastRun>,
    asked: &[(HostId, String)],
    now_ms: u64,
) -> Vec<Scheduled> {
    let known = distributor.planner.fleet.known();
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
        let cron = Cron::new(&frequency.times()).ok();
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
