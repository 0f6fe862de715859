//! The controller's side: what the operator sets, what is begun when it is due, and its orders.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use controller::fleet::running::Turn;
use controller::fleet::types::NewDist;
use jiff::tz::TimeZone;
use mesh::{HostId, HostSet, Order, OrderId};
use timing::{LastRun, Todo, Waiting, look, places};

use super::account::{Seen, Word};
use super::calendar::Due;
use super::{End, host, name, sequence};
use crate::checks::Violation;
use crate::plan::{self, Work};
use crate::queue::Event;
use crate::sim::Sim;

/// What the controller notices.
const MISSED: u8 = 22;
/// How long an order of a distribution waits for whoever is away, and how long it is good.
const HOLD: Duration = Duration::from_secs(8);
const VALID: Duration = Duration::from_secs(60);
/// How long a host takes.
const TAKES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));
/// The operator says it again after this, if nobody was there to hear it.
const AGAIN: Duration = Duration::from_secs(2);

/// A distribution that goes on.
pub(crate) struct Open {
    new: NewDist,
    orders: BTreeSet<OrderId>,
}

impl Sim {
    /// The operator sets when a frequency is due, if the controller lives.
    pub(crate) fn edict(&mut self, no: usize) {
        let edict = self.plan.calendar.edicts[no].clone();
        let has_room = self.now >= self.seats[0].disk.full_until;
        if self.seats[0].process.is_none() || !has_room {
            self.queue.push(self.now + AGAIN, Event::Edict { no });
            return;
        }
        // What was said later counts.
        let edicts = &self.plan.calendar.edicts;
        let newer = edicts[no + 1..].iter().any(|e| e.name == edict.name && e.at <= self.now);
        if self.rough && !newer {
            self.decree(&edict.name, edict.due);
        }
    }

    /// From now on a frequency is due then, or never.
    pub(super) fn decree(&mut self, name: &str, due: Option<Due>) {
        self.remark(0, &format!("{name} is due {due:?} from now on"));
        let Some(process) = &mut self.seats[0].process else { return };
        let list = &mut process.desk.list;
        match due {
            Some(due) => drop(list.dues.insert(name.to_owned(), due)),
            None => drop(list.dues.remove(name)),
        }
        list.issue.1 += 1;
        let list = list.clone();
        self.keep_notes(0, |notes| notes.list = list);
        self.tell_children(0);
    }

    /// The controller looks at its schedule, begins what is due, and says how long to wait.
    pub(super) fn look_at_root(&mut self) -> Result<Duration, Violation> {
        let every = self.look_every();
        self.see_to_ends();
        let (dues, now_ms) = (self.dues(0), self.clock(0));
        let all: HostSet = (1..self.seats.len()).map(host).collect();
        let before = self.seats[0].disk.image.notes.runs.clone();
        let mut runs = before.clone();
        let mut todo = Vec::new();
        for (name, due) in &dues {
            let run = runs.entry(name.clone()).or_insert_with(|| LastRun::new(now_ms));
            let Some(process) = &self.seats[0].process else { return Ok(every) };
            let in_turn = process.desk.running.in_turn(name);
            let hosts = || self.waiting(due);
            todo.push((name.clone(), look(run, (&due.times(), false), in_turn, hosts, now_ms)));
        }
        runs.retain(|name, _| dues.contains_key(name));
        if self.dies_here(0)? {
            return Ok(every);
        }
        if runs != before && !self.keep_notes(0, |notes| notes.runs = runs.clone()) {
            return Ok(every);
        }
        self.checks.timed.keep_only(0, |name| dues.contains_key(name));
        for (name, todo) in &todo {
            let settled = match before.get(name) {
                Some(before) => runs[name].at_ms != before.at_ms && before.at_ms <= now_ms + 60_000,
                None => false,
            };
            let seen = Seen {
                at: Some(todo.due_ms).filter(|at| *at > 0),
                settled,
                missed: todo.missed,
                late: todo.late.0.clone(),
                expired: todo.expired.clone(),
                turns: todo.turns.clone(),
            };
            let (calendar, due) = (&self.plan.calendar, &dues[name]);
            let timed = &mut self.checks.timed;
            timed.looked(calendar, (0, name, due), (&all, Word::Own, now_ms), &seen)?;
        }
        if self.dies_here(0)? {
            return Ok(every);
        }
        let next = todo.iter().filter_map(|(_, todo)| todo.next_ms).min();
        for (name, todo) in todo {
            if !self.begin_due(&name, todo, &all)? {
                return Ok(every);
            }
        }
        let next = next.map(|next| next.saturating_sub(now_ms).max(1));
        let next = next.map(|ms| Duration::from_millis(ms.div_ceil(self.plan.calendar.haste)));
        Ok(next.map_or(every, |next| every.min(next)))
    }

    /// What follows from a look at one frequency. Whether the controller lives on.
    fn begin_due(&mut self, name: &str, todo: Todo, all: &HostSet) -> Result<bool, Violation> {
        if todo.missed > 0 || !todo.late.0.is_empty() || !todo.expired.is_empty() {
            let at_ms = self.clock(0);
            self.strike(0, at_ms, MISSED)?;
        }
        if todo.begin {
            self.distribute(NewDist::of(name), (all, todo.due_ms));
            self.checks.timed.begun(name, all);
        }
        if self.dies_here(0)? {
            return Ok(false);
        }
        if todo.open && self.note_run(name, |run| run.open = false) {
            self.checks.timed.noted(name);
        }
        let bound = todo.by.values().fold(HostSet::new(), |all, hosts| all.union(hosts));
        let free = (0, todo.turns.difference(&bound));
        for (begin_by_ms, turns) in todo.by.into_iter().chain([free]) {
            let only = Some(turns.clone());
            let new = NewDist { only, begin_by_ms, ..NewDist::of(name) };
            if turns.is_empty() || !self.distribute(new, (&turns, todo.due_ms)) {
                continue;
            }
            if self.dies_here(0)? {
                return Ok(false);
            }
            if self.note_run(name, |run| run.had(&turns)) {
                self.checks.timed.had(0, name, todo.due_ms, &turns);
            }
        }
        Ok(true)
    }

    fn note_run(&mut self, name: &str, note: impl FnOnce(&mut LastRun)) -> bool {
        self.keep_notes(0, |notes| {
            if let Some(run) = notes.runs.get_mut(name) {
                note(run);
            }
        })
    }

    /// Begins a distribution, if it may begin now.
    fn distribute(&mut self, new: NewDist, (hosts, due_ms): (&HostSet, u64)) -> bool {
        let Some(process) = &self.seats[0].process else { return false };
        match process.desk.running.begin(&new) {
            Turn::Now => self.give_dist(new, (hosts, due_ms)),
            Turn::Later | Turn::Dropped => return false,
        }
        true
    }

    fn give_dist(&mut self, new: NewDist, (hosts, due_ms): (&HostSet, u64)) {
        let name = new.frequency.clone();
        let given = self.seats[0].disk.image.notes.given.get(&name).cloned().unwrap_or_default();
        let order = plan::run(self.plan.free_no(), hosts.clone());
        let lives = |id: &OrderId| self.expiry(*id) > self.now && !self.closed.contains_key(id);
        let older = given.iter().filter(|(id, _)| lives(id));
        let older = older.map(|(id, of)| (*id, of.intersection(hosts)));
        let supersedes = older.filter(|(_, of)| !of.is_empty()).take(4).collect();
        let order = Order { again: true, hold: HOLD, ttl: VALID, supersedes, ..order };
        let (id, expires) = (order.id, self.now + order.ttl);
        let work =
            Work { at: self.now, order: Arc::new(order), expires, extra: None, takes: TAKES };
        if let Some(due) = self.dues(0).remove(&name).filter(|_| new.only.is_some()) {
            let (by_ms, skew_ms) = (new.begin_by_ms, self.seats[0].skew_ms);
            self.ends.insert(id, End { by_ms, due, due_ms, skew_ms });
        }
        self.checks.add(&work);
        self.plan.work.push(work);
        self.queue.push(self.now, Event::Submit { work: self.plan.work.len() - 1 });
        self.keep_notes(0, |notes| {
            notes.given.entry(name).or_default().push((id, hosts.clone()));
        });
        if let Some(process) = &mut self.seats[0].process {
            process.desk.open.push(Open { new, orders: BTreeSet::from([id]) });
        }
    }

    /// Distributions whose orders are closed are over; one that waited for that begins.
    fn see_to_ends(&mut self) {
        let Some(process) = &mut self.seats[0].process else { return };
        let mut open = std::mem::take(&mut process.desk.open);
        let is_over = |id: &OrderId| {
            let refused = self.checks.known.is_rejected(*id);
            self.closed.contains_key(id) || refused || self.expiry(*id) <= self.now
        };
        let ended: Vec<_> = open.extract_if(.., |open| open.orders.iter().all(is_over)).collect();
        let Some(process) = &mut self.seats[0].process else { return };
        process.desk.open = open;
        let ends = ended.into_iter();
        let next: Vec<_> = ends.filter_map(|open| process.desk.running.end(&open.new)).collect();
        let all: HostSet = (1..self.seats.len()).map(host).collect();
        next.into_iter().for_each(|new| self.give_dist(new, (&all, 0)));
    }

    /// Who waits for a turn, with what that depends on.
    fn waiting(&self, due: &Due) -> Vec<Waiting> {
        let nodes = 1..self.seats.len();
        let names: Vec<(HostId, String, String)> = nodes
            .map(|node| (host(node), name(node), name(self.plan.tree[node].parents[0])))
            .collect();
        let named = names.iter().map(|(id, name, link)| (*id, name.as_str(), link.as_str()));
        let places = places(named, sequence);
        let zone = TimeZone::get(&due.zone).unwrap_or(TimeZone::UTC);
        let waiting = |(id, place): (&HostId, &(u64, u64))| Waiting {
            id: *id,
            place: *place,
            zone: zone.clone(),
        };
        places.iter().map(waiting).collect()
    }
}
