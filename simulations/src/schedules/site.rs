//! A relay's side: it looks at the schedule of its site, notes what it begins, and tells itself and
//! its children to do it.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::{HostId, HostSet};
use timing::{Said, SiteLook, SiteRun, SiteTold, SiteTurns, SiteView, Times, Word};

use super::account::{self, Seen};
use super::calendar::Due;
use super::{End, Job, host, name, sequence};
use crate::checks::Violation;
use crate::net::{Item, Side};
use crate::queue::Event;
use crate::sim::Sim;

/// What relays notice.
const DONE: u8 = 20;
const MISSED: u8 = 21;

impl Sim {
    /// A relay, or the root, looks at its schedule.
    pub(crate) fn look(&mut self, node: usize, life: u64) -> Result<(), Violation> {
        if !self.lives(node, life) {
            return Ok(());
        }
        let pause = match node {
            0 => self.look_at_root()?,
            node => self.look_at_site(node)?,
        };
        self.queue.push(self.now + pause, Event::Look { node, life });
        Ok(())
    }

    fn look_at_site(&mut self, node: usize) -> Result<Duration, Violation> {
        let every = self.look_every();
        self.tell_done(node)?;
        let (dues, here) = (self.dues(node), self.here(node));
        let now_ms = self.clock(node);
        let Some(process) = &self.seats[node].process else { return Ok(every) };
        let (heard, silent) = process.node.root_word();
        let age = self.by_clock(process.node.root_age(process.time(self.now)));
        let heard_ms = if heard { now_ms.saturating_sub(age) } else { 0 };
        let word = self.word(node, silent);
        let Some(process) = &mut self.seats[node].process else { return Ok(every) };
        let before = process.desk.keeper.notes().clone();
        let frequencies: BTreeMap<String, Times> =
            dues.iter().map(|(name, due)| (name.clone(), due.times())).collect();
        let look = process.desk.keeper.look(&SiteView {
            frequencies: &frequencies,
            zone: None,
            here: &here,
            word: Word { heard_ms, stale: silent },
            now_ms,
            hash: sequence,
        });
        let after = process.desk.keeper.notes().clone();
        if self.dies_here(node)? {
            return Ok(every);
        }
        if after != before && !self.keep_notes(node, |notes| notes.site = after.clone()) {
            if let Some(process) = &mut self.seats[node].process {
                process.desk.keeper.take_back(before);
            }
            return Ok(every);
        }
        let all: HostSet = here.keys().copied().collect();
        self.checks.timed.keep_only(node, |name| dues.contains_key(name));
        for (name, due) in &dues {
            let seen = seen(name, &look, (before.get(name), after.get(name)), now_ms);
            let calendar = &self.plan.calendar;
            self.checks.timed.looked(calendar, (node, name, due), (&all, word, now_ms), &seen)?;
        }
        if self.dies_here(node)? {
            return Ok(every);
        }
        self.tell_site(node, look.told)?;
        for turns in look.turns {
            self.begin_turns(node, turns)?;
        }
        let every = if look.is_open { every / 4 } else { every };
        let next = look.next_ms.map(|next| next.saturating_sub(now_ms).max(1));
        let next = next.map(|ms| Duration::from_millis(ms.div_ceil(self.plan.calendar.haste)));
        Ok(next.map_or(every, |next| every.min(next)))
    }

    /// How the controller's word stands, as it is known from outside. `silent`: what the node says.
    fn word(&self, node: usize, silent: bool) -> account::Word {
        let Some(process) = &self.seats[node].process else { return account::Word::Own };
        let heard = process.desk.heard;
        let now_ms = self.clock(node);
        let age = |since: Duration| self.by_clock(self.now - since);
        let at_ms = heard.map_or(0, |at| now_ms.saturating_sub(age(at)));
        let silence = self.now - heard.unwrap_or(process.started);
        let missed = self.seats[node].config.missed_beats;
        let beat = self.plan.beat;
        account::Word::Heard {
            at_ms,
            must: silence > beat * (missed + 3),
            may: silence > beat * (missed + 1),
            does: silent,
        }
    }

    /// When everything is due, as far as a node knows.
    pub(super) fn dues(&self, node: usize) -> BTreeMap<String, Due> {
        let process = self.seats[node].process.as_ref();
        process.map(|process| process.desk.list.dues.clone()).unwrap_or_default()
    }

    /// A relay and its children.
    fn here(&self, node: usize) -> BTreeMap<HostId, String> {
        let links = self.net.open_links(node, Side::Parent);
        let child = |link| self.net.links[&link].end(Side::Child).node;
        let children = links.into_iter().map(child);
        children.chain([node]).map(|node| (host(node), name(node))).collect()
    }

    fn tell_done(&mut self, node: usize) -> Result<(), Violation> {
        let Some(process) = &mut self.seats[node].process else { return Ok(()) };
        let (told, is_noted) = process.desk.keeper.tell_done(self.now - process.started);
        if is_noted {
            let notes = process.desk.keeper.notes().clone();
            self.keep_notes(node, |kept| kept.site = notes);
        }
        self.tell_site(node, told)
    }

    /// What a relay tells is an event, like all that nodes notice.
    fn tell_site(&mut self, node: usize, told: Vec<SiteTold>) -> Result<(), Violation> {
        for told in told {
            if self.trace.wants_text() {
                self.trace.line(self.now, node, &format!("tells of its site: {told:?}"));
            }
            let what = if matches!(told, SiteTold::Done { .. }) { DONE } else { MISSED };
            let at_ms = self.clock(node);
            self.strike(node, at_ms, what)?;
        }
        Ok(())
    }

    /// Nodes of a site have their turn.
    fn begin_turns(&mut self, node: usize, turns: SiteTurns) -> Result<(), Violation> {
        let text =
            format!("{} of {} is the turn of {}", turns.due_ms, turns.frequency, turns.hosts);
        self.remark(node, &text);
        let (me, within) = (host(node), self.silence());
        let links = self.net.open_links(node, Side::Parent);
        let Some(process) = &mut self.seats[node].process else { return Ok(()) };
        process.desk.keeper.begin(&turns);
        process.desk.numbers += 1;
        let no = process.desk.numbers;
        process.desk.groups.insert(no, (turns.clone(), turns.hosts.clone()));
        let life = self.seats[node].life;
        self.queue.push(self.now + within, Event::Silent { node, life, no });
        let SiteTurns { frequency, due_ms, by_ms, hosts } = turns;
        let Some(due) = self.dues(node).remove(&frequency) else { return Ok(()) };
        let end = End { by_ms, due, due_ms, skew_ms: self.seats[node].skew_ms };
        let job = Job { by: None, no, frequency, due_ms, end };
        for link in links {
            let child = self.net.links[&link].end(Side::Child).node;
            if hosts.contains(host(child)) {
                let item = Item::Due(Box::new(job.clone()));
                let dice = (&mut self.rng, &mut self.queue);
                self.net.send(self.now, link, Side::Child, item, dice);
            }
        }
        match hosts.contains(me) {
            true => self.take_job(node, job),
            false => Ok(()),
        }
    }

    /// How long children are waited for.
    fn silence(&self) -> Duration {
        let missed = self.seats[0].config.missed_beats;
        Duration::from_secs(5).max(self.plan.beat * (missed + 1))
    }

    /// A node has done what it was told; how it was says a number.
    pub(super) fn job_done(&mut self, node: usize, no: u64, by: HostId, how: u64) {
        let Some(process) = &mut self.seats[node].process else { return };
        let Some((turns, silent)) = process.desk.groups.get_mut(&no) else { return };
        if !silent.contains(by) {
            return;
        }
        *silent = silent.difference(&HostSet::one(by));
        let one = SiteTurns { hosts: HostSet::one(by), ..turns.clone() };
        if silent.is_empty() {
            process.desk.groups.remove(&no);
        }
        let said = Said { hosts: 1, restored: u64::from(how == 1), failed: u64::from(how == 2) };
        process.desk.keeper.end(&one, Some(said));
        self.end_turns(node, &one);
    }

    /// Whoever has not spoken by now is not waited for any more.
    pub(crate) fn silent(&mut self, node: usize, life: u64, no: u64) -> Result<(), Violation> {
        if !self.lives(node, life) {
            return Ok(());
        }
        let Some(process) = &mut self.seats[node].process else { return Ok(()) };
        let Some((turns, silent)) = process.desk.groups.remove(&no) else { return Ok(()) };
        let rest = SiteTurns { hosts: silent, ..turns };
        process.desk.keeper.end(&rest, None);
        self.end_turns(node, &rest);
        let at_ms = self.clock(node);
        self.strike(node, at_ms, MISSED)
    }

    fn end_turns(&mut self, node: usize, turns: &SiteTurns) {
        let SiteTurns { frequency, due_ms, hosts, .. } = turns;
        self.checks.timed.had(node, frequency, *due_ms, hosts);
        let process = self.seats[node].process.as_ref();
        let notes = process.map(|process| process.desk.keeper.notes().clone());
        notes.map(|notes| self.keep_notes(node, |kept| kept.site = notes));
    }

    /// Nothing that was due waits at a site, in a tree that is whole.
    pub(super) fn nothing_is_open(&mut self, node: usize) -> Result<(), Violation> {
        let most = self.plan.beat * (self.seats[0].config.missed_beats + 4) + self.look_every() * 2;
        let (now_ms, most_ms) = (self.clock(node), self.by_clock(most) + 60_000);
        let calendar = &self.plan.calendar;
        match self.checks.timed.waits(calendar, node, (now_ms, most_ms)) {
            Some(detail) => Err(Violation::new("what is due is done, left or told", detail)),
            None => Ok(()),
        }
    }
}

/// What came of a look at one frequency.
fn seen(
    name: &str,
    look: &SiteLook,
    (before, after): (Option<&SiteRun>, Option<&SiteRun>),
    now_ms: u64,
) -> Seen {
    let at = after.map(|run| run.run.due_ms).filter(|at| *at > 0);
    let (mut missed, mut late, mut expired) = (0, HostSet::new(), HostSet::new());
    for told in &look.told {
        match told {
            SiteTold::Missed { frequency, times } if frequency == name => missed += times,
            SiteTold::NoTurn { frequency, hosts, due_ms } if frequency == name => {
                let of_this = at == Some(*due_ms);
                let told = if of_this { &mut expired } else { &mut late };
                *told = told.union(hosts);
            }
            _ => {}
        }
    }
    let turns = look.turns.iter().find(|turns| turns.frequency == name);
    let settled = match (before, after) {
        (Some(before), Some(after)) => {
            before.run.at_ms != after.run.at_ms && before.run.at_ms <= now_ms + 60_000
        }
        _ => false,
    };
    Seen {
        at: turns.map(|turns| turns.due_ms).or(at),
        settled,
        missed,
        late,
        expired,
        turns: turns.map(|turns| turns.hosts.clone()).unwrap_or_default(),
    }
}
