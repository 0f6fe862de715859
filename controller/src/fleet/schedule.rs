//! Starting distributions when they are due.
//!
//! When each frequency was last begun is on disk, so a controller that was away knows what it has
//! missed: it says so, and makes up for it once, however often it was due meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::{Class, HostId, HostSet, Kind, Severity};
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use super::cron::{Cron, moment, text as clock_text};
use super::dist::Distributor;
use super::spread;
use super::turns::Turns;
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
}

/// A distribution that begins now.
struct Due {
    frequency: String,
    /// How often it was missed.
    missed: u64,
    /// Who has his turn, if it is spread.
    only: Option<HostSet>,
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
    loop {
        let pause = match step(&rollouts).await {
            Ok(pause) => pause,
            Err(failure) => {
                error!(error = %failure.error.message, "the schedule is not kept");
                LOOK
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Begins what is due now. Returns how long to wait.
async fn step(rollouts: &Rollouts) -> Result<Duration, Failure> {
    let distributor = &rollouts.distributor;
    let store = distributor.fleet.store.clone();
    let mut last = blocking({
        let store = store.clone();
        move || Ok(store.runs()?)
    })
    .await?;
    let (before, now) = (last.clone(), now_ms());
    let known = distributor.fleet.known();
    let frequencies = known.book.frequencies.clone();
    let hosts = distributor.live.state().hosts.clone();
    let mut pause = LOOK;
    let (mut due, mut expired) = (Vec::new(), Vec::new());
    for (name, frequency) in frequencies.iter().filter(|(_, frequency)| frequency.automatic) {
        // One that is new is due from now on.
        let run = last.entry(name.clone()).or_insert(LastRun { at_ms: now, ..LastRun::default() });
        let turns = Turns::of(frequency).ok().flatten();
        match decide(frequency, run.at_ms, now) {
            Step::Wait(until) => pause = pause.min(left(until, now)),
            Step::Never => {}
            Step::Begin { missed } => {
                let due_ms = last_due(frequency, run.at_ms, now);
                *run = LastRun { at_ms: now, begun: true, missed, due_ms, ..LastRun::default() };
                let mut only = None;
                if turns.is_some() {
                    // Whoever still waited since it was due before is superseded.
                    run.wait(&spread::members(&known, name));
                    only = Some(HostSet::new());
                }
                due.push(Due { frequency: name.clone(), missed, only });
            }
        }
        match turns {
            Some(turns) if !run.waiting().is_empty() => {
                let hosts = spread::hosts(&known, &hosts, (name, frequency));
                let sorted = spread::take(run, &turns, &hosts, now);
                pause = sorted.next_ms.map_or(pause, |next| pause.min(left(next, now)));
                if !sorted.begin.is_empty() {
                    let only = Some(sorted.begin);
                    due.push(Due { frequency: name.clone(), missed: 0, only });
                }
                if !sorted.missed.is_empty() {
                    expired.push((name.clone(), run.due_ms, sorted.missed));
                }
            }
            Some(_) => {}
            None => run.wait(&HostSet::new()),
        }
        if run.at_ms > now.saturating_add(BACK_MS) {
            run.at_ms = now;
        }
    }
    last.retain(|name, _| frequencies.contains_key(name));
    if last != before {
        // What was noted as begun is not begun again, whatever happens to us now.
        blocking(move || Ok(store.set_runs(&last)?)).await?;
    }
    for (frequency, due_ms, missed) in expired {
        let (count, names) = (missed.len(), crate::targets::names(&hosts, &missed));
        let (names, at) = (crate::sets::fold(&names), clock_text(due_ms));
        warn!(frequency, count, names, "hosts had no turn before it expired");
        let text = format!("{frequency}, due {at}: {count} hosts had no turn in time: {names}");
        distributor.desk.node.notice(EXPIRED, &text).await;
    }
    for Due { frequency, missed, only } in due {
        if missed > 0 {
            warn!(frequency, missed, "distributions were missed: made up for by this one");
            let text = format!("{frequency}: {missed} distributions were missed");
            distributor.desk.node.notice(MISSED, &text).await;
        }
        if only.as_ref().is_some_and(HostSet::is_empty) {
            continue;
        }
        let new = NewDist { only, ..NewDist::of(&frequency) };
        match rollouts.distribute(new, Vec::new()).await {
            Ok(told) => told.notes.iter().for_each(|note| info!(frequency, "{note}")),
            Err(failure) => {
                let error = failure.error.message;
                warn!(frequency, %error, "not distributed");
                let text = format!("{frequency} was due and is not distributed: {error}");
                distributor.desk.node.notice(NOT_BEGUN, &text).await;
            }
        }
    }
    Ok(pause)
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
fn last_due(frequency: &Frequency, last_ms: u64, now_ms: u64) -> u64 {
    let cron = Cron::new(frequency).ok();
    let last = cron.and_then(|cron| cron.last(moment(last_ms), moment(now_ms), COUNTED));
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

    #[test]
    fn a_clock_that_was_far_ahead_does_not_silence_it() {
        assert_eq!(decide(&hourly(), 1_000 * HOUR, HOUR - 1), Step::Wait(2 * HOUR));
        assert_eq!(decide(&hourly(), 1_000 * HOUR, HOUR / 2), Step::Wait(HOUR));
    }
}
