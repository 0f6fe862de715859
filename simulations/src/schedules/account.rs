//! What is known from outside of what was due, at the controller and at each site.
//!
//! An [`Account`] is kept for each frequency at each of them: since which moment of its clock
//! nothing is settled, and who is owed a turn. So when somebody looks it is known before what must
//! come of it.

use std::collections::BTreeMap;

use mesh::{HostId, HostSet};

use super::calendar::{Calendar, Due};
use super::due::{dues, is_open};
use crate::checks::Violation;

/// A clock that was put back by more than this is believed.
const BACK_MS: u64 = 60_000;
/// So much later than due is missed, and not just busy.
const LATE_MS: u64 = 90_000;
/// Clocks are at most so far from what they should be.
const ASTRAY_MS: u64 = 24 * 3_600_000;
const MINUTE_MS: u64 = 60_000;

/// All that is known.
#[derive(Default)]
pub(crate) struct Timed {
    accounts: BTreeMap<(usize, String), Account>,
    /// All times, by how they are due, and until when they are known.
    dues: Vec<(Due, u64, Vec<u64>)>,
    /// How often each host has done what was due, and whether it may do it once more.
    done: BTreeMap<(HostId, String, u64), bool>,
}

/// What is known of one frequency at one place.
#[derive(Clone, Default)]
pub(crate) struct Account {
    /// By which times it counts.
    due: Option<Due>,
    /// Nothing that was due after this is settled.
    since: u64,
    /// Whether the controller was silent at the last look.
    alone: bool,
    /// When it was due last, if that is done here; and who is owed a turn, and has had one.
    at: Option<u64>,
    owed: HostSet,
    had: HostSet,
    /// It was noted as begun, and it may not have been told: how often it was missed.
    open: Option<u64>,
}

/// How the controller's word stands with whoever looks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word {
    /// It is the controller itself.
    Own,
    /// When it was heard, by the clock of now, and how it counts.
    Heard {
        /// 0: never.
        at_ms: u64,
        /// Whether it must count as silent, and whether it may.
        must: bool,
        may: bool,
        /// Whether it does.
        does: bool,
    },
}

/// A host begins what was due then: inside a window, and before it has expired.
pub(crate) fn begins(host: HostId, due: &Due, at: u64, now_ms: u64) -> Result<(), Violation> {
    let expires = at + due.expires_min * MINUTE_MS;
    if is_open(due, now_ms) && (due.expires_min == 0 || now_ms < expires) {
        return Ok(());
    }
    let detail = format!("{host:?} begins at {now_ms} what was due at {at}: {due:?}");
    Err(Violation::new("nothing begins outside its window", detail))
}

/// What came of a look at one frequency.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// What is begun here is due since then.
    pub(crate) at: Option<u64>,
    /// Something was settled.
    pub(crate) settled: bool,
    pub(crate) missed: u64,
    /// Who is told to have had no turn of the time before this one, and of this one.
    pub(crate) late: HostSet,
    pub(crate) expired: HostSet,
    /// Who has his turn.
    pub(crate) turns: HostSet,
}

impl Timed {
    /// All times of this kind until then, which are looked up once.
    fn dues(&mut self, calendar: &Calendar, due: &Due, until_ms: u64) -> &[u64] {
        let known = self.dues.iter().position(|(known, ..)| known == due);
        let at = known.unwrap_or_else(|| {
            self.dues.push((due.clone(), 0, Vec::new()));
            self.dues.len() - 1
        });
        let (_, through_ms, times) = &mut self.dues[at];
        if *through_ms < until_ms {
            let first = calendar.origin_ms.saturating_sub(ASTRAY_MS);
            *through_ms = until_ms + ASTRAY_MS.max(until_ms.saturating_sub(first) / 2);
            *times = dues(due, first, *through_ms);
        }
        times
    }

    /// Somebody looks, and it is kept. `here`: who is there.
    pub(crate) fn looked(
        &mut self,
        calendar: &Calendar,
        (node, name, due): (usize, &str, &Due),
        (here, word, now_ms): (&HostSet, Word, u64),
        seen: &Seen,
    ) -> Result<(), Violation> {
        let key = (node, name.to_owned());
        let mut account = self.accounts.get(&key).cloned().unwrap_or_else(|| Account {
            due: Some(due.clone()),
            since: now_ms,
            ..Account::default()
        });
        let is_due = |due: &Due| (due.hour, due.minute, due.every, due.zone.clone());
        if account.due.as_ref().map(is_due) != Some(is_due(due)) {
            account.since = now_ms;
        }
        account.due = Some(due.clone());
        let all = self.dues(calendar, due, now_ms);
        let from = all.partition_point(|at| *at <= account.since);
        let mine = &all[from..all.partition_point(|at| *at <= now_ms).max(from)];
        let wrong = |text: &str| {
            let detail = format!(
                "{node} looks at {name} at {now_ms}, which is due at {mine:?} since {}: {text}; \
                 {word:?}, {seen:?}",
                account.since
            );
            Err(Violation::new("what is due is done, left or told", detail))
        };
        let Some(last) = mine.last().copied() else {
            if seen.settled {
                return wrong("nothing was due");
            }
            let missed = account.open.unwrap_or(0);
            return match seen.missed == missed {
                true => self.go_on(key, account, (here, word, now_ms), (seen, false)),
                false => wrong(&format!("{missed} were missed")),
            };
        };
        let late = mine.len() as u64 - u64::from(now_ms - last < LATE_MS);
        // Whether the one before was begun nobody knows.
        let late = late + account.open.map_or(0, |missed| missed + 1);
        let (begins, missed) = match word {
            Word::Own => (true, late),
            Word::Heard { at_ms, .. } if at_ms >= last => {
                (false, if account.alone { late } else { 0 })
            }
            Word::Heard { must: true, .. } => (true, late),
            Word::Heard { may: true, .. } if seen.settled => (true, late),
            Word::Heard { .. } if seen.settled => return wrong("nobody knew yet whose it is"),
            Word::Heard { .. } => {
                return self.go_on(key, account, (here, word, now_ms), (seen, true));
            }
        };
        // What is begun for everybody at once has no turns.
        let at_once = matches!(word, Word::Own) && !due.is_spread() && seen.at.is_none();
        if !seen.settled || (seen.at != begins.then_some(last) && !at_once) {
            return wrong(if begins { "it was to be begun" } else { "it is the controller's" });
        }
        if seen.missed != missed {
            return wrong(&format!("{missed} were missed"));
        }
        // Of the time before everybody who was there has had his turn, or it is told.
        // What a clock that was put back shows twice has one name.
        let again = if account.at == Some(last) { seen.expired.clone() } else { HostSet::new() };
        let late = seen.late.union(&again);
        let owed = account.owed.difference(&account.had).difference(&late);
        if !owed.is_empty() && account.open.is_none() {
            return wrong(&format!("{owed} had no turn at {:?}, and it is not told", account.at));
        }
        account.since = now_ms;
        (account.at, account.owed, account.had) =
            (begins.then_some(last), HostSet::new(), HostSet::new());
        account.open = matches!(word, Word::Own).then_some(missed);
        if let (Word::Own, true) = (word, begins) {
            account.owed = here.clone();
        }
        self.go_on(key, account, (here, word, now_ms), (seen, false))
    }

    /// The rest of a look: turns, and what is remembered of it.
    fn go_on(
        &mut self,
        key: (usize, String),
        mut account: Account,
        (here, word, now_ms): (&HostSet, Word, u64),
        (seen, is_open_still): (&Seen, bool),
    ) -> Result<(), Violation> {
        let due = account.due.as_ref().expect("it has times");
        if !seen.turns.is_empty() {
            let wrong = |text: &str| {
                let detail = format!("{key:?} at {now_ms}, due {:?}: {text}", account.at);
                Err(Violation::new("a turn is in its time", format!("{detail}: {seen:?}")))
            };
            let Some(at) = account.at else { return wrong("it is not begun here") };
            if seen.at != Some(at) {
                return wrong("it is another time");
            }
            if !is_open(due, now_ms) {
                return wrong("no window is open");
            }
            let expires = at + due.expires_min * MINUTE_MS;
            if due.expires_min > 0 && now_ms >= expires {
                return wrong("it has expired");
            }
            if !seen.turns.difference(here).is_empty() {
                return wrong("it is not for them");
            }
        }
        if account.at.is_some() && matches!(word, Word::Heard { .. }) {
            account.owed = account.owed.union(here);
        }
        account.had = account.had.union(&seen.expired);
        // As long as it is open whose a time is nothing is known.
        if let (Word::Heard { does, .. }, false) = (word, is_open_still) {
            account.alone = does;
        }
        if account.since > now_ms + BACK_MS {
            account.since = now_ms;
        }
        self.accounts.insert(key, account);
        Ok(())
    }

    /// These have had their turns, or it was told that there is no word of them.
    pub(crate) fn had(&mut self, node: usize, name: &str, at: u64, hosts: &HostSet) {
        if let Some(account) = self.accounts.get_mut(&(node, name.to_owned()))
            && account.at == Some(at)
        {
            account.had = account.had.union(hosts);
        }
    }

    /// The controller has begun what was due, for all of these.
    pub(crate) fn begun(&mut self, name: &str, hosts: &HostSet) {
        if let Some(account) = self.accounts.get_mut(&(0, name.to_owned())) {
            account.had = account.had.union(hosts);
        }
    }

    /// The controller has noted that what was due has begun.
    pub(crate) fn noted(&mut self, name: &str) {
        if let Some(account) = self.accounts.get_mut(&(0, name.to_owned())) {
            account.open = None;
        }
    }

    /// What is not distributed any more is nobody's.
    pub(crate) fn keep_only(&mut self, node: usize, names: impl Fn(&str) -> bool) {
        self.accounts.retain(|(of, name), _| *of != node || names(name));
    }

    /// A host puts right what was due then; `noted`: it has noted that.
    pub(crate) fn did(
        &mut self,
        host: HostId,
        (name, at): (&str, u64),
        noted: bool,
    ) -> Result<(), Violation> {
        let key = (host, name.to_owned(), at);
        let again = self.done.insert(key, !noted).unwrap_or(true);
        if again {
            return Ok(());
        }
        let detail = format!("{host:?} does {name} of {at} a second time");
        Err(Violation::new("a host does nothing twice", detail))
    }

    /// What has waited for too long at a place.
    pub(crate) fn waits(
        &mut self,
        calendar: &Calendar,
        node: usize,
        (now_ms, most_ms): (u64, u64),
    ) -> Option<String> {
        let names: Vec<_> = self.accounts.keys().filter(|(of, _)| *of == node).cloned().collect();
        names.into_iter().find_map(|key| {
            let account = self.accounts[&key].clone();
            let all = self.dues(calendar, account.due.as_ref()?, now_ms);
            let next = *all.get(all.partition_point(|at| *at <= account.since))?;
            let waits = next + most_ms < now_ms;
            waits.then(|| format!("{key:?}: nothing was ever said of {next}, and it is {now_ms}"))
        })
    }
}
