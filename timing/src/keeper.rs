//! What a relay does about the schedule of its site: when it looks, whom it tells to do something,
//! what it notes, and what there is to tell of it.
//!
//! Pure: the caller says what there is to see, keeps [`SiteKeeper::notes`] on disk before anybody
//! is told anything, and carries the words. If they cannot be kept he takes the look back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh::{HostId, HostSet};

use crate::planted::has;
use crate::{Cron, Planted, Said, Sight, SiteRun, SiteTodo, Times, Word, zone};

/// How long what is told may take to be on disk: it is not noted as told before.
const TELLING: Duration = Duration::from_secs(5);

/// The schedule of one site, at its relay.
#[derive(Clone, Debug, Default)]
pub struct SiteKeeper {
    notes: BTreeMap<String, SiteRun>,
    /// Who has his turn, by frequency.
    in_turn: BTreeMap<String, HostSet>,
    /// What has been told and may not be on disk yet, by frequency: when it was due, since when.
    telling: BTreeMap<String, (u64, Duration)>,
    /// Frequencies whose times this machine does not understand, so that it is told once.
    unclear: BTreeSet<String>,
    /// What is planted in it.
    pub planted: Planted,
}

/// What there is to see when a relay looks at the schedule of its site.
#[derive(Clone, Copy, Debug)]
pub struct SiteView<'a> {
    /// When everything is due, by the controller's last word.
    pub frequencies: &'a BTreeMap<String, Times>,
    /// The clocks of the site; none: those of each frequency.
    pub zone: Option<&'a str>,
    /// This relay and its children, by name.
    pub here: &'a BTreeMap<HostId, String>,
    /// How the controller's word stands.
    pub word: Word,
    /// What time it is.
    pub now_ms: u64,
    /// What puts hosts into a sequence.
    pub hash: fn(&str) -> [u8; 8],
}

/// Hosts that have their turn together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteTurns {
    /// Of which frequency.
    pub frequency: String,
    /// When it was due.
    pub due_ms: u64,
    /// By when they must have begun; 0: whenever they can.
    pub by_ms: u64,
    /// Who.
    pub hosts: HostSet,
}

/// What comes of a look.
#[derive(Debug, Default)]
pub struct SiteLook {
    /// Who has his turn, once it is noted.
    pub turns: Vec<SiteTurns>,
    /// What there is to tell, once it is noted.
    pub told: Vec<SiteTold>,
    /// When there is something to be done next, if that is known.
    pub next_ms: Option<u64>,
    /// Something is due, and nobody knows yet whose it is.
    pub is_open: bool,
}

/// Something that people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteTold {
    /// All who were there have had their turns.
    Done {
        /// Of which frequency.
        frequency: String,
        /// When it was due.
        due_ms: u64,
        /// What they have said.
        said: Said,
    },
    /// It was due and nobody was there to do it.
    Missed {
        /// What.
        frequency: String,
        /// How often.
        times: u64,
    },
    /// Hosts had no turn.
    NoTurn {
        /// Of which frequency.
        frequency: String,
        /// When it was due.
        due_ms: u64,
        /// Who.
        hosts: HostSet,
    },
    /// This machine does not understand when it is due.
    Unclear {
        /// Which frequency.
        frequency: String,
        /// What is wrong with it.
        error: String,
    },
}

impl SiteKeeper {
    /// One that goes on from what was noted.
    pub fn new(notes: BTreeMap<String, SiteRun>) -> SiteKeeper {
        SiteKeeper { notes, ..SiteKeeper::default() }
    }

    /// All that has to be kept.
    pub fn notes(&self) -> &BTreeMap<String, SiteRun> {
        &self.notes
    }

    /// What was noted by the last look cannot be kept: it is as before.
    pub fn take_back(&mut self, notes: BTreeMap<String, SiteRun>) {
        self.notes = notes;
    }

    /// Looks at everything.
    pub fn look(&mut self, view: &SiteView<'_>) -> SiteLook {
        let mut look = SiteLook::default();
        self.notes.retain(|name, _| view.frequencies.contains_key(name));
        self.unclear.retain(|name| view.frequencies.contains_key(name));
        let here: BTreeMap<HostId, &str> =
            view.here.iter().map(|(id, name)| (*id, &**name)).collect();
        for (frequency, times) in view.frequencies {
            match Cron::check(times) {
                Ok(_) => drop(self.unclear.remove(frequency)),
                Err(error) if self.unclear.insert(frequency.clone()) => {
                    let (frequency, error) = (frequency.clone(), error.to_string());
                    look.told.push(SiteTold::Unclear { frequency, error });
                }
                Err(_) => {}
            }
            let todo = self.look_at(view, &here, (frequency, times));
            look.is_open |= todo.open;
            look.next_ms = [look.next_ms, todo.next_ms].into_iter().flatten().min();
            look.told.extend(told(frequency, &todo));
            if !todo.turns.is_empty() {
                let SiteTodo { due_ms, by_ms, turns: hosts, .. } = todo;
                let frequency = frequency.clone();
                look.turns.push(SiteTurns { frequency, due_ms, by_ms, hosts });
            }
        }
        look
    }

    fn look_at(
        &mut self,
        view: &SiteView<'_>,
        here: &BTreeMap<HostId, &str>,
        (frequency, times): (&str, &Times),
    ) -> SiteTodo {
        let now_ms = view.now_ms;
        let run = self.notes.entry(frequency.to_owned()).or_insert_with(|| SiteRun::new(now_ms));
        let nobody = HostSet::new();
        let mut todo = run.look(&Sight {
            times,
            zone: &zone(view.zone.unwrap_or(&times.zone)),
            here,
            in_turn: self.in_turn.get(frequency).unwrap_or(&nobody),
            word: view.word,
            now_ms,
            hash: view.hash,
            planted: self.planted,
        });
        if has!(self.planted, ForgetLate) {
            todo.late = (HostSet::new(), 0);
        }
        todo
    }

    /// These have their turn now.
    pub fn begin(&mut self, SiteTurns { frequency, hosts, .. }: &SiteTurns) {
        let in_turn = self.in_turn.entry(frequency.clone()).or_default();
        *in_turn = in_turn.union(hosts);
    }

    /// Turns are over: of each host this is what has come of it, if there was a word. That is to be
    /// kept.
    pub fn end(&mut self, turns: &SiteTurns, said: Option<Said>) {
        let SiteTurns { frequency, due_ms, hosts, .. } = turns;
        if let Some(in_turn) = self.in_turn.get_mut(frequency) {
            *in_turn = in_turn.difference(hosts);
        }
        let run = self.notes.get_mut(frequency).filter(|run| run.run.due_ms == *due_ms);
        let Some(run) = run else { return };
        run.run.had(hosts);
        if let Some(Said { hosts, restored, failed }) = said {
            run.said.hosts += hosts;
            run.said.restored += restored;
            run.said.failed += failed;
        }
    }

    /// What has come of times of which all have had their turns, and whether there is something
    /// new to be kept. It is noted as told only once that must be on disk, too: who is killed
    /// before tells it again. `now`: since this node has started.
    pub fn tell_done(&mut self, now: Duration) -> (Vec<SiteTold>, bool) {
        let (mut told, mut is_noted) = (Vec::new(), false);
        for (frequency, run) in &mut self.notes {
            let is_over = self.in_turn.get(frequency).is_none_or(HostSet::is_empty);
            if run.told || !run.is_done() || !is_over || run.said == Said::default() {
                continue;
            }
            let (said, due_ms) = (run.said, run.run.due_ms);
            match self.telling.get(frequency).filter(|(due, _)| *due == due_ms) {
                Some((_, since)) => {
                    run.told = now.saturating_sub(*since) >= TELLING;
                    is_noted |= run.told;
                }
                None => {
                    self.telling.insert(frequency.clone(), (due_ms, now));
                    told.push(SiteTold::Done { frequency: frequency.clone(), due_ms, said });
                }
            }
        }
        self.telling.retain(|frequency, _| self.notes.get(frequency).is_some_and(|run| !run.told));
        (told, is_noted)
    }
}

/// What was missed.
fn told(frequency: &str, todo: &SiteTodo) -> Vec<SiteTold> {
    let mut told = Vec::new();
    if todo.missed > 0 {
        told.push(SiteTold::Missed { frequency: frequency.into(), times: todo.missed });
    }
    let (late, since) = &todo.late;
    for (hosts, due_ms) in [(late, *since), (&todo.expired, todo.due_ms)] {
        if !hosts.is_empty() {
            let (frequency, hosts) = (frequency.into(), hosts.clone());
            told.push(SiteTold::NoTurn { frequency, due_ms, hosts });
        }
    }
    told
}
