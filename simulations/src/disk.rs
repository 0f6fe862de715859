//! A node's disk: what is on it, and what is on its way to it.
//!
//! Records reach the image in the order of their numbers, some time after they were asked for. A
//! crash loses what was on its way, or a part of it: some of the first records may be on the disk
//! although nobody was told so (a write that no sync has confirmed, a batch that tore). A restart
//! finds the image and nothing else. A full disk confirms nothing until it has room again; one
//! that fails ends the process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mesh::{
    Digest, FoldKey, Folded, HostId, HostSet, Order, OrderId, Profile, Profiled, Record, Report,
    Saved, Signature, Tally,
};
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::schedules::Notes;

/// What a restart finds.
#[derive(Clone, Default)]
pub(crate) struct Image {
    pub(crate) orders: BTreeMap<OrderId, Arc<Order>>,
    pub(crate) intents: BTreeSet<OrderId>,
    answers: BTreeMap<OrderId, Vec<Report>>,
    settled: BTreeSet<OrderId>,
    below: BTreeMap<HostId, HostSet>,
    released: BTreeMap<OrderId, Vec<HostSet>>,
    own: BTreeMap<Signature, Folded>,
    events: BTreeMap<FoldKey, Folded>,
    /// What the root's watcher knows of events.
    pub(crate) happened: BTreeMap<FoldKey, Folded>,
    /// Root: the newest profile of each host.
    pub(crate) profiles: BTreeMap<HostId, Profile>,
    /// Content, verified.
    pub(crate) store: BTreeSet<Digest>,
    /// The answers of each order, joined; for the checks.
    pub(crate) tallies: BTreeMap<OrderId, Tally>,
    /// The bodies kept for each order; at the root, those of its controller's tables.
    pub(crate) bodies: BTreeMap<OrderId, BTreeSet<Digest>>,
    /// What it has of schedules, in files of their own.
    pub(crate) notes: Notes,
    /// Root: what was answered to orders that it does not know.
    pub(crate) unheard: BTreeMap<OrderId, Tally>,
    /// The epoch since which the core has been told to tell everything again.
    pub(crate) retold: u64,
}

/// What goes to the disk.
pub(crate) enum Entry {
    /// A record of the core.
    Save { no: u64, record: Record },
    /// Bodies that the root's watcher keeps; the core's record of them comes after.
    Bodies(Report),
    /// Events that the root's watcher keeps.
    Happened(Vec<Folded>),
    /// Profiles that the root's watcher keeps.
    Profiles(Vec<Profiled>),
    /// Answers to an order that the root does not know, which its watcher keeps.
    Unheard(Report),
    /// The core was told of this epoch, and all that it saved about it comes before.
    Retold(u64),
}

/// A disk.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) image: Image,
    queue: VecDeque<Entry>,
    last: Duration,
    /// It takes nothing before this.
    pub(crate) full_until: Duration,
    /// The next save fails.
    pub(crate) failing: bool,
    /// For how long the process is dead then.
    pub(crate) down: Duration,
}

impl Disk {
    /// Takes an entry; returns when it will be durable.
    pub(crate) fn push(&mut self, now: Duration, takes: Duration, entry: Entry) -> Duration {
        self.queue.push_back(entry);
        self.last = self.last.max(now + takes).max(self.full_until);
        self.last
    }

    /// It has room again, and takes what has waited. Returns the last number of that.
    pub(crate) fn make_room(&mut self, now: Duration) -> Option<u64> {
        (self.full_until, self.last) = (Duration::ZERO, now);
        self.queue.iter().rev().find_map(|entry| match entry {
            Entry::Save { no, .. } => Some(*no),
            _ => None,
        })
    }

    /// What is on its way to the disk.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &Record> {
        self.queue.iter().filter_map(|entry| match entry {
            Entry::Save { record, .. } => Some(record),
            _ => None,
        })
    }

    /// How much is on its way to the disk.
    pub(crate) fn backlog(&self) -> usize {
        self.queue.len()
    }

    /// Makes the next entry durable, whatever its number.
    pub(crate) fn pop_any(&mut self) -> Option<Entry> {
        self.queue.pop_front()
    }

    /// The newest profiles, with those that the next write takes along.
    pub(crate) fn profiles(&self) -> BTreeMap<HostId, Profile> {
        let mut image = Image { profiles: self.image.profiles.clone(), ..Image::default() };
        for entry in self.queue.iter().filter(|entry| matches!(entry, Entry::Profiles(_))) {
            image.apply(entry);
        }
        image.profiles
    }

    /// Makes the next entry durable, up to the save of this number.
    pub(crate) fn pop(&mut self, through: u64) -> Option<Entry> {
        match self.queue.front()? {
            Entry::Save { no, .. } if *no > through => None,
            _ => self.queue.pop_front(),
        }
    }

    /// The power goes.
    pub(crate) fn crash(&mut self) {
        self.queue.clear();
        self.last = Duration::ZERO;
        self.failing = false;
    }
}

impl Image {
    pub(crate) fn apply(&mut self, entry: &Entry) {
        let record = match entry {
            Entry::Save { record, .. } => record,
            Entry::Bodies(report) => return self.keep_bodies(report),
            Entry::Happened(events) => return self.keep_events(events),
            Entry::Profiles(lines) => return self.keep_profiles(lines),
            Entry::Unheard(report) => {
                self.unheard.entry(report.order).or_default().join(&report.tally);
                return self.keep_bodies(report);
            }
            Entry::Retold(epoch) => {
                self.retold = self.retold.max(*epoch);
                return;
            }
        };
        match record {
            Record::Order(order) => drop(self.orders.insert(order.id, order.clone())),
            Record::Intent(id) => drop(self.intents.insert(*id)),
            Record::Answers(report) => {
                self.tallies.entry(report.order).or_default().join(&report.tally);
                self.keep_bodies(report);
                self.answers.entry(report.order).or_default().push(report.clone());
                self.settled.remove(&report.order);
            }
            Record::Settled(id) => drop(self.settled.insert(*id)),
            Record::Trimmed(id) => {
                self.bodies.remove(id);
                let answers = self.answers.entry(*id).or_default();
                answers.iter_mut().for_each(|report| report.bodies.clear());
            }
            Record::Below { child, below } => drop(self.below.insert(*child, below.clone())),
            Record::Released { order, hosts } => {
                self.released.entry(*order).or_default().push(hosts.clone());
            }
            Record::Forget(id) => self.forget(*id),
            Record::Own(folded) => {
                self.own.insert(folded.fact.signature, folded.clone());
            }
            Record::OwnGone(gone) => gone.iter().for_each(|key| drop(self.own.remove(key))),
            Record::Events(folded) => {
                self.events.insert(folded.key(), folded.clone());
            }
            Record::EventsGone(gone) => gone.iter().for_each(|key| drop(self.events.remove(key))),
        }
    }

    fn keep_profiles(&mut self, lines: &[Profiled]) {
        for Profiled { profile, hosts } in lines {
            for host in hosts.iter() {
                let known = self.profiles.entry(host).or_insert_with(|| profile.clone());
                if *known < *profile {
                    *known = profile.clone();
                }
            }
        }
    }

    fn forget(&mut self, id: OrderId) {
        self.orders.remove(&id);
        self.intents.remove(&id);
        self.answers.remove(&id);
        self.settled.remove(&id);
        self.tallies.remove(&id);
        self.bodies.remove(&id);
        self.released.remove(&id);
    }

    fn keep_events(&mut self, events: &[Folded]) {
        for folded in events {
            let known = self.happened.entry(folded.key()).or_insert_with(|| folded.clone());
            known.join(folded);
        }
    }

    /// Whether answers are here that the parent has not acknowledged.
    pub(crate) fn owes(&self) -> bool {
        self.answers.keys().any(|id| !self.settled.contains(id))
    }

    fn keep_bodies(&mut self, report: &Report) {
        self.bodies.entry(report.order).or_default().extend(report.bodies.keys());
    }

    /// What a node starts again with, its lists in any order. Orders past their validity go.
    pub(crate) fn load(&mut self, left: impl Fn(OrderId) -> Duration, rng: &mut SmallRng) -> Saved {
        let gone: Vec<_> = self.orders.keys().copied().filter(|id| left(*id).is_zero()).collect();
        gone.into_iter().for_each(|id| self.forget(id));
        let order =
            |order: &Arc<Order>| Arc::new(Order { ttl: left(order.id), ..Order::clone(order) });
        let released = self.released.iter();
        let released = released.flat_map(|(id, sets)| sets.iter().map(|set| (*id, set.clone())));
        let mut saved = Saved {
            orders: self.orders.values().map(order).collect(),
            intents: self.intents.iter().copied().collect(),
            answers: self.answers.values().flatten().cloned().collect(),
            settled: self.settled.iter().copied().collect(),
            below: self.below.iter().map(|(child, below)| (*child, below.clone())).collect(),
            released: released.collect(),
            own: self.own.values().cloned().collect(),
            events: self.events.values().cloned().collect(),
        };
        shuffle(&mut saved.orders, rng);
        shuffle(&mut saved.answers, rng);
        saved
    }
}

fn shuffle<T>(list: &mut [T], rng: &mut SmallRng) {
    for n in (1..list.len()).rev() {
        list.swap(n, rng.random_range(0..=n));
    }
}
