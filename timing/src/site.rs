//! What is due at a site whose controller is silent.
//!
//! A time that is due is the controller's if its word came here after that time, and the site's if
//! the controller is silent by then; as long as neither is known nobody begins. A [`SiteRun`] is
//! all that has to be kept: so each time is done here once, left to the controller, or said to be
//! missed, whatever is started anew meanwhile. Who is at the site may change: whoever comes while a
//! time is current has his turn, too.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use mesh::{HostId, HostSet};
use serde::{Deserialize, Serialize};

use crate::course::{Step, decide};
use crate::planted::has;
use crate::{LastRun, Planted, Times, Turns, Waiting, last_due, places};

/// How the controller's word stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// When it was fresh last, by the clock of now; 0: never since this node has started.
    pub heard_ms: u64,
    /// Whether it counts as silent.
    pub stale: bool,
}

/// What there is to see when a site looks at a frequency.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// What the frequency says.
    pub times: &'a Times,
    /// The clocks of the site.
    pub zone: &'a TimeZone,
    /// Who is at the site, by name.
    pub here: &'a BTreeMap<HostId, &'a str>,
    /// Of these, who has his turn.
    pub in_turn: &'a HostSet,
    /// How the controller's word stands.
    pub word: Word,
    /// What time it is.
    pub now_ms: u64,
    /// What puts hosts into a sequence.
    pub hash: fn(&str) -> [u8; 8],
    /// What is planted in it.
    pub planted: Planted,
}

/// What a site has come to with a frequency.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteRun {
    /// When it was last begun here or left to the controller, and who waits for a turn.
    pub run: LastRun,
    /// Who has been here since it was due.
    #[serde(default)]
    met: Vec<(u32, u32)>,
    /// Whether the controller was silent when this was last looked at.
    #[serde(default)]
    alone: bool,
    /// What hosts have said since it was due.
    #[serde(default)]
    pub said: Said,
    /// Whether that has been told.
    #[serde(default)]
    pub told: bool,
}

/// What hosts have said of one time that was due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// How many there is a word of.
    pub hosts: u64,
    /// Of them those at which something was put right.
    pub restored: u64,
    /// Of them those at which something could not be.
    pub failed: u64,
}

/// What is to be done about a frequency at a site.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SiteTodo {
    /// When it was due; 0: it is not the site's.
    pub due_ms: u64,
    /// How often it was due and nobody was there to do it.
    pub missed: u64,
    /// Who still waited when it was due again, or the controller was back; and since when.
    pub late: (HostSet, u64),
    /// Who has his turn, of those that are here.
    pub turns: HostSet,
    /// By when they must have begun; 0: whenever they can.
    pub by_ms: u64,
    /// Who had none in time. They wait no more.
    pub expired: HostSet,
    /// When there is something to be done next, if that is known.
    pub next_ms: Option<u64>,
    /// It is due, and nobody knows yet whose it is.
    pub open: bool,
}

impl SiteRun {
    /// One of a frequency that is new here: it is due from now on.
    pub fn new(now_ms: u64) -> SiteRun {
        SiteRun { run: LastRun::new(now_ms), ..SiteRun::default() }
    }

    /// Looks at it.
    pub fn look(&mut self, sight: &Sight<'_>) -> SiteTodo {
        let &Sight { times, word, now_ms, planted, .. } = sight;
        let mut todo = SiteTodo::default();
        if !has!(planted, CountOld) {
            self.run.follow(times, now_ms);
        }
        match decide(times, self.run.counts_from(), now_ms) {
            Step::Wait(until) => todo.next_ms = Some(until),
            Step::Never => {}
            Step::Begin { missed } => {
                let due_ms = last_due(times, now_ms);
                if word.heard_ms >= due_ms {
                    // Of what was due while nobody was here the controller knows nothing either.
                    todo.missed = if self.alone { missed } else { 0 };
                    todo.late = self.end();
                    self.run = self.run.next(now_ms);
                } else if word.stale || has!(planted, DoubtNothing) {
                    todo.missed = missed;
                    todo.late = self.end();
                    self.run = self.run.next(now_ms);
                    (self.run.begun, self.run.missed, self.run.due_ms) = (true, missed, due_ms);
                } else {
                    todo.open = true;
                }
            }
        }
        // As long as it is open nothing is known.
        if !todo.open {
            self.alone = word.stale;
        }
        if self.run.due_ms > 0 {
            self.take(sight, &mut todo);
        }
        self.run.believe(now_ms);
        todo
    }

    /// Whether all who are here have had their turns.
    pub fn is_done(&self) -> bool {
        self.run.due_ms > 0 && self.run.waiting().is_empty()
    }

    fn take(&mut self, sight: &Sight<'_>, todo: &mut SiteTodo) {
        let &Sight { times, zone, here, in_turn, now_ms, .. } = sight;
        let all: HostSet = here.keys().copied().collect();
        let met = HostSet::from_ranges(self.met.iter().copied());
        self.run.wait(&self.run.waiting().union(&all.difference(&met)));
        self.met = met.union(&all).ranges().to_vec();
        let waiting = self.run.waiting();
        if waiting.is_empty() {
            return;
        }
        let places = places(here.iter().map(|(id, name)| (*id, *name, "")), sight.hash);
        let wait = |id: HostId| Waiting {
            id,
            place: places.get(&id).copied().unwrap_or((0, 1)),
            zone: zone.clone(),
        };
        let waiting: Vec<Waiting> = waiting.iter().map(wait).collect();
        let turns = Turns::of(times).ok().flatten().unwrap_or_default();
        let turns = if has!(sight.planted, IgnoreExpiry) { turns.endless() } else { turns };
        let sorted = turns.sort(self.run.due_ms, &waiting, now_ms);
        self.run.had(&sorted.missed);
        todo.due_ms = self.run.due_ms;
        todo.turns = sorted.begin.intersection(&all).difference(in_turn);
        todo.by_ms = match todo.turns.is_empty() {
            true => 0,
            false => turns.ends(self.run.due_ms, zone, now_ms).unwrap_or(0),
        };
        todo.expired = sorted.missed;
        todo.next_ms = [todo.next_ms, sorted.next_ms].into_iter().flatten().min();
    }

    /// Nothing more comes of the time that it was due last.
    fn end(&mut self) -> (HostSet, u64) {
        let late = (self.run.waiting(), self.run.due_ms);
        (self.met, self.said, self.told) = (Vec::new(), Said::default(), false);
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60 * 1000;
    const HOUR: u64 = 60 * MINUTE;

    struct Site {
        run: SiteRun,
        times: Times,
        here: Vec<u32>,
    }

    impl Site {
        fn hourly() -> Site {
            let times = Times::new("0 * * * *", "UTC");
            Site { run: SiteRun::new(HOUR / 2), times, here: vec![1, 2] }
        }

        /// Looks at it; the controller was heard so long ago, and is silent after a minute.
        fn at(&mut self, now_ms: u64, age_ms: u64) -> SiteTodo {
            let word = Word { heard_ms: now_ms.saturating_sub(age_ms), stale: age_ms > MINUTE };
            let here: BTreeMap<HostId, &str> = self
                .here
                .iter()
                .map(|id| (HostId(*id), ["", "a", "b", "c"][*id as usize]))
                .collect();
            self.run.look(&Sight {
                times: &self.times,
                zone: &TimeZone::UTC,
                here: &here,
                in_turn: &HostSet::new(),
                word,
                now_ms,
                hash: |name| [name.as_bytes()[0]; 8],
                planted: Planted::default(),
            })
        }
    }

    fn hosts(ids: &[u32]) -> HostSet {
        ids.iter().map(|id| HostId(*id)).collect()
    }

    #[test]
    fn what_is_due_is_the_controllers_if_it_is_heard_after_that() {
        let mut site = Site::hourly();
        assert!(site.at(HOUR + 1_000, 5_000).open, "nobody knows");
        assert!(site.at(HOUR + 59_000, 60_000).open);
        let todo = site.at(HOUR + 60_000, 1_000);
        assert_eq!((todo.open, todo.turns), (false, hosts(&[])));
        assert_eq!(site.at(HOUR + 2 * MINUTE, 90_000).turns, hosts(&[]), "it was left to it");
    }

    #[test]
    fn a_silent_controllers_times_are_done_here_once() {
        let mut site = Site::hourly();
        assert_eq!(site.at(HOUR - MINUTE, 10 * MINUTE).turns, hosts(&[]));
        assert!(site.at(2 * HOUR - 5_000, HOUR).turns == hosts(&[1, 2]), "it was due at one");
        site.run.run.had(&hosts(&[1]));
        // It is killed here, and 2 was away when it is back; 3 has come.
        site.here = vec![1, 3];
        site.run.run.had(&hosts(&[3]));
        let todo = site.at(2 * HOUR - 4_000, HOUR);
        assert_eq!((todo.turns, todo.due_ms), (hosts(&[3]), HOUR));
        site.run.run.had(&hosts(&[3]));
        // 2 has not come in time.
        let todo = site.at(2 * HOUR, HOUR);
        assert_eq!((todo.late, todo.missed), ((hosts(&[2]), HOUR), 0));
        assert_eq!(todo.turns, hosts(&[1, 3]));
        site.run.run.had(&hosts(&[1, 3]));
        assert!(site.run.is_done());
        assert_eq!(site.at(2 * HOUR + MINUTE, HOUR).turns, hosts(&[]));
    }

    #[test]
    fn what_nobody_was_there_for_is_missed() {
        let mut site = Site::hourly();
        site.at(HOUR - MINUTE, 10 * MINUTE);
        // This relay was away from then until half past four, and the controller is silent still.
        let todo = site.at(4 * HOUR + 30 * MINUTE, 5 * HOUR);
        assert_eq!((todo.missed, todo.due_ms, todo.turns), (4, 4 * HOUR, hosts(&[1, 2])));
        // The same, but now the controller is there.
        site.run.run.had(&hosts(&[1]));
        let todo = site.at(8 * HOUR + 30 * MINUTE, 1_000);
        assert_eq!((todo.missed, todo.late), (4, (hosts(&[2]), 4 * HOUR)));
        // Away once more, but the controller was there before and is there afterwards.
        let todo = site.at(12 * HOUR + 30 * MINUTE, 1_000);
        assert_eq!((todo.missed, todo.turns), (0, hosts(&[])));
    }

    #[test]
    fn turns_and_windows_hold_here_too() {
        let mut site = Site::hourly();
        site.times.splay = "30m".into();
        site.times.windows = vec!["01:10-01:50".into()];
        site.times.expires = "50m".into();
        let todo = site.at(HOUR + MINUTE, 10 * MINUTE);
        assert_eq!((todo.turns, todo.next_ms), (hosts(&[]), Some(HOUR + 10 * MINUTE)));
        let todo = site.at(HOUR + 10 * MINUTE, 20 * MINUTE);
        assert_eq!((todo.turns, todo.next_ms), (hosts(&[1]), Some(HOUR + 25 * MINUTE)));
        assert_eq!(todo.by_ms, HOUR + 50 * MINUTE);
        site.run.run.had(&hosts(&[1]));
        let todo = site.at(HOUR + 25 * MINUTE, 35 * MINUTE);
        assert_eq!(todo.turns, hosts(&[2]));
        // It could not be given before it expired.
        let todo = site.at(HOUR + 50 * MINUTE, HOUR);
        assert_eq!((todo.turns, todo.expired), (hosts(&[]), hosts(&[2])));
    }
}
