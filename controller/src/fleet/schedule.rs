//! Starting distributions when they are due.
//!
//! When each frequency was last begun is on disk, so a controller that was away knows what it has
//! missed: it says so, and makes up for it once, however often it was due meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::{Class, Kind, Severity};
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use super::cron::{Cron, moment};
use super::dist::Distributor;
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

/// When a frequency was last begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastRun {
    /// When; or since when it is there, if it was never begun.
    pub(crate) at_ms: u64,
    /// Whether it was begun at all.
    #[serde(default)]
    pub(crate) begun: bool,
    /// How often it was due before that while nobody could begin it.
    #[serde(default)]
    pub(crate) missed: u64,
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
    let frequencies = distributor.fleet.known().book.frequencies.clone();
    let mut pause = LOOK;
    let mut due = Vec::new();
    for (name, frequency) in frequencies.iter().filter(|(_, frequency)| frequency.automatic) {
        // One that is new is due from now on.
        let run = last.entry(name.clone()).or_insert(LastRun { at_ms: now, ..LastRun::default() });
        match decide(frequency, run.at_ms, now) {
            Step::Wait(until) => {
                pause = pause.min(Duration::from_millis(until.saturating_sub(now).max(1)));
            }
            Step::Never => {}
            Step::Begin { missed } => {
                *run = LastRun { at_ms: now, begun: true, missed };
                due.push((name.clone(), missed));
            }
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
    for (frequency, missed) in due {
        if missed > 0 {
            warn!(frequency, missed, "distributions were missed: made up for by this one");
            let text = format!("{frequency}: {missed} distributions were missed");
            distributor.desk.node.notice(MISSED, &text).await;
        }
        match rollouts.distribute(NewDist::of(&frequency), Vec::new()).await {
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

/// When each frequency is due and was begun.
pub(crate) fn scheduled(
    distributor: &Distributor,
    last: &BTreeMap<String, LastRun>,
    now_ms: u64,
) -> Vec<Scheduled> {
    let frequencies = distributor.fleet.known().book.frequencies.clone();
    let one = |(name, frequency): (&String, &Frequency)| {
        let run = last.get(name).copied().unwrap_or_default();
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
