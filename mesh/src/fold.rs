//! A node's share of each open order: who answered what, and what of it the parent knows.
//!
//! The share of a node is the part of the targets that lives below it (its *duty*). Answers of
//! children join the share's tally; what the parent has not been told yet goes up after a short
//! wait, or at once when nobody is missing, as outcomes with host sets, and each distinct body
//! once. Bodies are held within a budget over all shares, in memory and on disk: for new ones those
//! go first that the parent holds already, and only then are new ones cut, which is counted.
//!
//! How long that wait is stands in [`Patience`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::agenda::Agenda;
use crate::patience::Patience;
use crate::wake::{Deadline, sooner};
use crate::{Digest, HostSet, Order, OrderId, Report, Tally, Time, Wake};

/// How long a node remembers answers to an order that it was never given, once they are told.
const ORPHAN_TTL: Duration = Duration::from_secs(3600);
/// Nodes remember an order a little longer than it is valid, so that none outlives its own ledger.
const TTL_SLACK: Duration = Duration::from_secs(60);
/// What a line of a tally costs on the wire, about: an outcome with its digest, and a range.
const LINE_BYTES: usize = 48;
const RANGE_BYTES: usize = 10;

/// What a line about these hosts costs on the wire, about.
pub(crate) fn line_bytes(hosts: &HostSet) -> usize {
    LINE_BYTES + RANGE_BYTES * hosts.ranges().len()
}

#[derive(Default)]
pub(crate) struct Share {
    pub(crate) order: Option<Arc<Order>>,
    duty: HostSet,
    pub(crate) tally: Tally,
    told: Tally,
    bodies: BTreeMap<Digest, Bytes>,
    bodies_told: BTreeSet<Digest>,
    cut: u64,
    cut_told: u64,
    /// Whether children may have the order yet.
    pub(crate) may_leave: bool,
    /// Whether the parent has acknowledged all that there will be.
    pub(crate) settled: bool,
    /// Root: whether the watcher knows that nobody is missing.
    pub(crate) closed: bool,
    /// Whether the parent has asked for what it had been told, as a supposition of this node.
    pub(crate) doubted: bool,
    /// Whether the order was given at this node: its answers go to the watcher and not upward.
    pub(crate) own: bool,
    /// Until when the order waits for hosts that are away.
    pub(crate) hold_until: Time,
    /// How long answers wait for others, once one has come that did not complete the share.
    patience: Option<Patience>,
}

impl Share {
    /// Those of the duty of whom nothing is known, not even a supposition.
    pub(crate) fn missing(&self) -> HostSet {
        self.duty.difference(self.tally.hosts())
    }

    /// Whether something is known of everybody, be it a supposition.
    pub(crate) fn is_complete(&self) -> bool {
        self.duty.is_subset(self.tally.hosts())
    }

    /// Whether every host of the duty has given its own word. Of an order that was never given
    /// nobody knows whose duty it is.
    pub(crate) fn is_settled(&self) -> bool {
        self.order.is_some() && self.tally.has_settled(&self.duty)
    }

    fn has_news(&self) -> bool {
        !self.own && (self.cut > self.cut_told || self.tally.has_news_since(&self.told))
    }

    /// Whether a body is here, or has been and was told.
    fn has_had(&self, digest: &Digest) -> bool {
        self.bodies.contains_key(digest) || self.bodies_told.contains(digest)
    }

    /// All that is known of the order's answers, with the bodies that are at hand.
    pub(crate) fn known(&self, id: OrderId) -> Report {
        let (tally, bodies, cut) = (self.tally.clone(), self.bodies.clone(), self.cut);
        Report { order: id, tally, bodies, cut }
    }
}

/// The shares of all orders that a node remembers.
pub(crate) struct Shares {
    keep_bodies: bool,
    body_budget: usize,
    body_bytes: usize,
    shares: BTreeMap<OrderId, Share>,
    /// Those whose bodies the parent may hold: each that does is among them, and some that do not
    /// any more.
    held_above: BTreeSet<OrderId>,
    /// How many orders were looked at to make room.
    #[cfg(test)]
    looks: usize,
    /// How many of them have their order, of the root's and of those that relays have given.
    orders: usize,
    given: usize,
    /// Those of them in which some host of the duty has not given its own word.
    open: BTreeSet<OrderId>,
    /// Those of them in which nothing is known of some host of the duty.
    silent: BTreeSet<OrderId>,
    /// When news goes up.
    flushes: Agenda,
    /// When to look who was reached.
    checks: Agenda,
    /// When to look who is known to be down.
    downs: Agenda,
    /// When they are forgotten.
    expiries: Agenda,
}

impl Shares {
    pub(crate) fn new(keep_bodies: bool, body_budget: usize) -> Shares {
        Shares {
            keep_bodies,
            body_budget,
            body_bytes: 0,
            shares: BTreeMap::new(),
            held_above: BTreeSet::new(),
            #[cfg(test)]
            looks: 0,
            orders: 0,
            given: 0,
            open: BTreeSet::new(),
            silent: BTreeSet::new(),
            flushes: Agenda::default(),
            checks: Agenda::default(),
            downs: Agenda::default(),
            expiries: Agenda::default(),
        }
    }

    /// How many orders of the root are remembered.
    pub(crate) fn orders(&self) -> usize {
        self.orders
    }

    /// How many orders are remembered that relays have given.
    pub(crate) fn given(&self) -> usize {
        self.given
    }

    /// How many orders are remembered that count against the same limit as this one: a relay's
    /// operators take no room from the root's.
    pub(crate) fn beside(&self, order: OrderId) -> usize {
        if order.giver().is_some() { self.given } else { self.orders }
    }

    /// How many orders are remembered or spoken of.
    pub(crate) fn len(&self) -> usize {
        self.shares.len()
    }

    pub(crate) fn get(&self, order: OrderId) -> Option<&Share> {
        self.shares.get(&order)
    }

    pub(crate) fn get_mut(&mut self, order: OrderId) -> Option<&mut Share> {
        self.shares.get_mut(&order)
    }

    /// The orders to which somebody still owes their own word.
    pub(crate) fn open_orders(&self) -> Vec<OrderId> {
        self.open.iter().copied().collect()
    }

    /// The orders that are meant for some of these hosts.
    pub(crate) fn orders_for(&self, hosts: &HostSet) -> Vec<OrderId> {
        let meant =
            |share: &Share| share.order.as_ref().is_some_and(|o| o.targets.intersects(hosts));
        self.shares.iter().filter(|(_, share)| meant(share)).map(|(id, _)| *id).collect()
    }

    /// Takes an order. Returns whether it is new here.
    pub(crate) fn adopt(&mut self, now: Time, order: &Arc<Order>, duty: HostSet) -> bool {
        let id = order.id;
        let share = self.shares.entry(id).or_default();
        if share.order.is_some() {
            return false;
        }
        share.order = Some(order.clone());
        share.hold_until = now + order.hold.max(order.reach);
        (share.duty, share.settled) = (duty, false);
        *self.count(id) += 1;
        self.checks.set(id, now + order.reach);
        self.expiries.set(id, now + order.ttl + TTL_SLACK);
        self.sort(id);
        true
    }

    /// These hosts live here from now on.
    pub(crate) fn extend_duty(&mut self, now: Time, id: OrderId, hosts: &HostSet) {
        let Some(share) = self.shares.get_mut(&id) else { return };
        let Some(order) = &share.order else { return };
        let more = order.targets.intersection(hosts);
        share.duty = share.duty.union(&more);
        share.settled &= share.is_settled();
        // They came after the order's own deadlines were set.
        if !more.is_subset(share.tally.hosts()) {
            self.checks.by(id, now + order.reach);
        }
        self.sort(id);
    }

    /// Looks who was reached at this order, at this time or sooner.
    pub(crate) fn check_by(&mut self, order: OrderId, at: Time) {
        self.checks.by(order, at);
    }

    /// Looks who is known to be down at this order, at this time or sooner.
    pub(crate) fn look_by(&mut self, order: OrderId, at: Time) {
        if self.silent.contains(&order) {
            self.downs.by(order, at);
        }
    }

    /// A child was lost: looks again at all orders of which somebody is silent, when the child is
    /// known to be down and when their time to reach a host has passed.
    pub(crate) fn check_again(&mut self, now: Time, grace: Duration) {
        for id in &self.silent {
            if let Some(order) = self.shares.get(id).and_then(|share| share.order.as_ref()) {
                self.checks.by(*id, now + order.reach);
                self.downs.by(*id, now + grace);
            }
        }
    }

    fn count(&mut self, order: OrderId) -> &mut usize {
        if order.giver().is_some() { &mut self.given } else { &mut self.orders }
    }

    /// Puts an order among the open ones and the silent ones, or takes it from there.
    fn sort(&mut self, id: OrderId) {
        let share = self.shares.get(&id);
        let kinds = [
            (
                &mut self.open,
                share.is_some_and(|share| share.order.is_some() && !share.is_settled()),
            ),
            (&mut self.silent, share.is_some_and(|share| !share.is_complete())),
        ];
        for (ids, belongs) in kinds {
            if belongs {
                ids.insert(id);
            } else {
                ids.remove(&id);
            }
        }
    }

    /// The oldest share that may make room: the parent has its answers in full, nobody is offered
    /// its order any more, and the caller agrees.
    pub(crate) fn oldest_settled(
        &self,
        now: Time,
        may_go: impl Fn(OrderId, &Share) -> bool,
    ) -> Option<OrderId> {
        let old = |share: &Share| share.settled && share.hold_until <= now;
        let mut shares = self.shares.iter();
        shares.find(|(id, share)| old(share) && may_go(**id, share)).map(|(id, _)| *id)
    }

    /// Joins answers into the share of their order. Returns what of them was news, with the
    /// bodies that were new here, and how many bodies found no room.
    pub(crate) fn merge(&mut self, now: Time, mut report: Report) -> (Report, u64) {
        let id = report.order;
        if !self.shares.contains_key(&id) {
            self.expiries.set(id, now + ORPHAN_TTL);
        }
        let cut = self.fit(&mut report);
        let share = self.shares.entry(id).or_default();
        let mut news = Report::new(id);
        news.tally = share.tally.join(&report.tally);
        (news.cut, share.cut) = (report.cut, share.cut + report.cut);
        for (digest, body) in report.bodies {
            if share.has_had(&digest) {
                continue;
            }
            if self.keep_bodies && !share.own {
                self.body_bytes += body.len();
                share.bodies.insert(digest, body.clone());
                if share.settled {
                    self.held_above.insert(id);
                }
            }
            news.bodies.insert(digest, body);
        }
        if !news.tally.is_empty() {
            self.sort(id);
        }
        (news, cut)
    }

    /// Takes the bodies out of a report that are new here and find no room. Returns how many.
    pub(crate) fn fit(&mut self, report: &mut Report) -> u64 {
        let share = self.shares.get(&report.order);
        if !self.keep_bodies || share.is_some_and(|share| share.own) {
            return 0;
        }
        let (mut bytes, mut cut) = (self.body_bytes, 0);
        report.bodies.retain(|digest, body| {
            if share.is_some_and(|share| share.has_had(digest)) {
                return true;
            }
            let fits = bytes + body.len() <= self.body_budget;
            bytes += if fits { body.len() } else { 0 };
            cut += u64::from(!fits);
            fits
        });
        report.cut += cut;
        cut
    }

    /// Gives up bodies of orders that are settled, so that the parent holds them, the oldest first,
    /// until those of a report fit that are new here. Returns whose they were.
    /// `anybodys`: the planted bug.
    pub(crate) fn make_room(&mut self, report: &Report, anybodys: bool) -> Vec<OrderId> {
        let share = self.shares.get(&report.order);
        if !self.keep_bodies || share.is_some_and(|share| share.own) {
            return Vec::new();
        }
        let new = report.bodies.iter();
        let new = new.filter(|(digest, _)| !share.is_some_and(|share| share.has_had(digest)));
        let wanted: usize = new.map(|(_, body)| body.len()).sum();
        let mut gone = Vec::new();
        if anybodys {
            self.held_above = self.shares.keys().copied().collect();
        }
        let mut from = None;
        while wanted > 0 && self.body_bytes + wanted > self.body_budget {
            let Some(id) = self.next_held_above(from) else { break };
            from = Some(id);
            if id == report.order {
                continue;
            }
            self.held_above.remove(&id);
            let Some(share) = self.shares.get_mut(&id) else { continue };
            if (share.settled || anybodys) && !share.bodies.is_empty() {
                self.body_bytes -= share.bodies.values().map(Bytes::len).sum::<usize>();
                share.bodies.clear();
                gone.push(id);
            }
        }
        gone
    }

    /// The first order behind this one whose bodies the parent may hold.
    fn next_held_above(&mut self, from: Option<OrderId>) -> Option<OrderId> {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        let start = from.map_or(Bound::Unbounded, Bound::Excluded);
        self.held_above.range((start, Bound::Unbounded)).next().copied()
    }

    /// The parent holds every answer to an order that there will be.
    pub(crate) fn settle(&mut self, order: OrderId) {
        if let Some(share) = self.shares.get_mut(&order) {
            share.settled = true;
            self.held_above.insert(order);
        }
    }

    /// Bytes of bodies that are held.
    pub(crate) fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Has the news of an order told by this time.
    pub(crate) fn flush_by(&mut self, order: OrderId, at: Time) {
        if let Some(share) = self.shares.get_mut(&order)
            && share.has_news()
        {
            share.settled = false;
            self.flushes.by(order, at);
        }
    }

    /// Has the news of an order told after a wait: the least one, or more if answers keep coming.
    /// Not of a gated order, where the next hosts wait for it.
    pub(crate) fn flush_after(&mut self, order: OrderId, now: Time, least: Duration) {
        let Some(share) = self.shares.get_mut(&order) else { return };
        let is_gated = share.order.as_ref().is_some_and(|order| order.gate.is_some());
        match &mut share.patience {
            Some(patience) => patience.hear(now, !is_gated),
            None => share.patience = Some(Patience::new(now, least)),
        }
        let due = share.patience.map_or(now, |patience| patience.due());
        if share.has_news() {
            share.settled = false;
            self.flushes.put_off(order, now, due);
        }
    }

    /// Takes back what was told of an order and was only supposed: it is told again.
    pub(crate) fn doubt(&mut self, order: OrderId) {
        if let Some(share) = self.shares.get_mut(&order) {
            let lines = share.told.lines().filter(|(outcome, _)| outcome.state.is_provisional());
            let supposed = lines.map(|(outcome, hosts)| (*outcome, hosts.clone())).collect();
            share.told.retract(&supposed);
            share.doubted = true;
        }
    }

    /// Takes back all that was told of an order: it is told again.
    pub(crate) fn tell_again(&mut self, order: OrderId) {
        if let Some(share) = self.shares.get_mut(&order) {
            (share.told, share.cut_told) = (Tally::new(), 0);
            share.bodies_told.clear();
        }
    }

    /// Whether there is something about this order that the parent has not been told.
    pub(crate) fn has_news(&self, order: OrderId) -> bool {
        self.shares.get(&order).is_some_and(Share::has_news)
    }

    /// Takes an order as told in full and answered in full, as it was before a restart.
    pub(crate) fn restore_settled(&mut self, order: OrderId) {
        if let Some(share) = self.shares.get_mut(&order) {
            let settled = share.is_settled();
            share.told = share.tally.clone();
            share.bodies_told = share.bodies.keys().copied().collect();
            (share.cut_told, share.settled) = (share.cut, false);
            self.flushes.clear(order);
            if settled {
                self.settle(order);
            }
        }
    }

    /// The order whose news has been due for longest.
    pub(crate) fn due(&self, now: Time) -> Option<OrderId> {
        self.flushes.due(now)
    }

    /// The next report on an order, of about `limit` bytes at most; it counts as told.
    /// `None`, and the flush is done, when there is no news.
    pub(crate) fn take_report(&mut self, order: OrderId, limit: usize) -> Option<Report> {
        let share = self.shares.get_mut(&order)?;
        let mut report = Report::new(order);
        let mut size = 0;
        for (outcome, hosts) in share.tally.news_since(&share.told).lines() {
            let body = outcome.body.filter(|digest| {
                !share.bodies_told.contains(digest) && !report.bodies.contains_key(digest)
            });
            let body = body.and_then(|digest| Some((digest, share.bodies.get(&digest)?)));
            size += line_bytes(hosts);
            size += body.map_or(0, |(_, bytes)| bytes.len());
            if size > limit && !report.tally.is_empty() {
                break;
            }
            report.tally.record(*outcome, hosts);
            if let Some((digest, bytes)) = body {
                report.bodies.insert(digest, bytes.clone());
            }
        }
        report.cut = share.cut - share.cut_told;
        if report.tally.is_empty() && report.cut == 0 {
            self.flushes.clear(order);
            return None;
        }
        share.cut_told = share.cut;
        // A host whose word has changed leaves its old line before it joins the new one.
        let hosts = report.tally.hosts().clone();
        let stale: Vec<_> = share.told.lines().map(|(o, h)| (*o, h.intersection(&hosts))).collect();
        share.told.retract(&stale.into_iter().collect());
        share.told.join(&report.tally);
        share.bodies_told.extend(report.bodies.keys().copied());
        Some(report)
    }

    /// The orders of which the parent holds every answer.
    pub(crate) fn settled_orders(&self) -> Vec<OrderId> {
        let settled = self.shares.iter().filter(|(_, share)| share.settled);
        settled.map(|(id, _)| *id).collect()
    }

    /// Nothing that was told counts any more: there is another parent.
    pub(crate) fn retell(&mut self, now: Time) {
        for (id, share) in &mut self.shares {
            share.told = Tally::new();
            share.bodies_told.clear();
            share.cut_told = 0;
            if share.has_news() {
                share.settled = false;
                self.flushes.set(*id, now);
            }
        }
    }

    /// Forgets an order.
    pub(crate) fn forget(&mut self, order: OrderId) {
        for agenda in [&mut self.flushes, &mut self.checks, &mut self.downs, &mut self.expiries] {
            agenda.clear(order);
        }
        self.held_above.remove(&order);
        if let Some(share) = self.shares.remove(&order) {
            *self.count(order) -= usize::from(share.order.is_some());
            self.body_bytes -= share.bodies.values().map(Bytes::len).sum::<usize>();
        }
        self.sort(order);
    }

    /// The orders that are past their validity; the caller forgets them.
    pub(crate) fn take_expired(&mut self, now: Time) -> Vec<OrderId> {
        self.expiries.take_due(now)
    }

    /// Remembers answers to an order that never came here for a while longer.
    pub(crate) fn remember(&mut self, order: OrderId, now: Time) {
        self.expiries.set(order, now + ORPHAN_TTL);
    }

    /// The orders at which to look who was reached.
    pub(crate) fn take_checks(&mut self, now: Time) -> Vec<OrderId> {
        self.checks.take_due(now)
    }

    /// The orders at which to look who is known to be down.
    pub(crate) fn take_downs(&mut self, now: Time) -> Vec<OrderId> {
        self.downs.take_due(now)
    }

    /// `flushes`: whether there is a parent who would listen.
    pub(crate) fn poll_timeout(&self, flushes: bool) -> Deadline {
        let flush = self.flushes.next().filter(|_| flushes).map(|at| (at, Wake::Flush));
        let check = [self.checks.next(), self.downs.next()].into_iter().flatten().min();
        let check = check.map(|at| (at, Wake::Reach));
        let expire = self.expiries.next().map(|at| (at, Wake::Expire));
        sooner(flush, sooner(check, expire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HostId, Outcome, State};

    const ID: OrderId = OrderId([1; 16]);

    fn answer(host: u32, body: u8, bytes: usize) -> Report {
        let digest = Digest([body; 32]);
        let outcome = Outcome { state: State::Ok, body: Some(digest) };
        let mut report = Report::new(ID);
        report.tally.record(outcome, &HostSet::one(HostId(host)));
        report.bodies.insert(digest, vec![body; bytes].into());
        report
    }

    fn told(shares: &mut Shares, limit: usize) -> Vec<Report> {
        std::iter::from_fn(|| shares.take_report(ID, limit)).collect()
    }

    #[test]
    fn equal_answers_go_up_as_one_body_and_a_set() {
        let mut shares = Shares::new(true, 1 << 20);
        (1..=100).for_each(|host| drop(shares.merge(Time::ZERO, answer(host, 7, 10))));
        let reports = told(&mut shares, 1 << 16);
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].bodies.len(), 1);
        assert_eq!(reports[0].tally.hosts(), &HostSet::from_ranges([(1, 100)]));
        // A latecomer with the same words costs a line and no body.
        shares.merge(Time::ZERO, answer(101, 7, 10));
        let late = told(&mut shares, 1 << 16);
        assert_eq!((late.len(), late[0].bodies.len()), (1, 0));
        // Another parent is told everything, body included.
        shares.retell(Time::ZERO);
        assert_eq!(told(&mut shares, 1 << 16)[0].bodies.len(), 1);
    }

    #[test]
    fn the_wait_grows_while_answers_keep_coming_and_begins_anew_after_a_pause() {
        const LEAST: Duration = Duration::from_millis(10);
        let mut shares = Shares::new(true, 1 << 20);
        let (mut sent, mut now) = (Vec::new(), Time::ZERO);
        let at = |ms: u64| Time::ZERO + Duration::from_millis(ms);
        let mut answers = |shares: &mut Shares, from: u64, to: u64| {
            for ms in from..to {
                now = at(ms);
                if shares.due(now).is_some() {
                    sent.push(ms);
                    told(shares, 1 << 16);
                }
                shares.merge(now, answer(ms as u32, 7, 10));
                shares.flush_after(ID, now, LEAST);
            }
            std::mem::take(&mut sent)
        };
        // One each millisecond: after 10 ms, 20, 40 and so on, and never more than 320.
        let first = [10, 30, 70, 150, 310, 630, 950, 1_270];
        assert_eq!(answers(&mut shares, 0, 1_500), first);
        told(&mut shares, 1 << 16);
        assert_eq!(answers(&mut shares, 5_000, 5_071), [5_010, 5_030, 5_070]);
    }

    #[test]
    fn reports_keep_their_size_and_bodies_their_budget() {
        let mut shares = Shares::new(true, 5_000);
        let cut = (1..=10).map(|n| shares.merge(Time::ZERO, answer(n, n as u8, 1_000)).1);
        assert_eq!(cut.sum::<u64>(), 5);
        let reports = told(&mut shares, 2_500);
        assert!(reports.len() >= 3, "{}", reports.len());
        let bodies: usize = reports.iter().map(|report| report.bodies.len()).sum();
        let cut: u64 = reports.iter().map(|report| report.cut).sum();
        let hosts: u64 = reports.iter().map(|report| report.tally.hosts().len()).sum();
        assert_eq!((bodies, cut, hosts), (5, 5, 10));
    }

    #[test]
    fn what_the_parent_holds_goes_before_anything_is_cut() {
        let mut shares = Shares::new(true, 5_000);
        let of = |no: u8, body: u8| Report { order: OrderId([no; 16]), ..answer(1, body, 1_000) };
        for no in 1..=5 {
            assert!(shares.make_room(&of(no, no), false).is_empty());
            assert_eq!(shares.merge(Time::ZERO, of(no, no)).1, 0);
        }
        for no in [2, 4] {
            shares.settle(OrderId([no; 16]));
        }
        for (new, gone) in [(6, Some(2)), (7, Some(4)), (8, None)] {
            let made = shares.make_room(&of(new, new), false);
            assert_eq!(made, gone.map(|no| OrderId([no; 16])).into_iter().collect::<Vec<_>>());
            let cut = shares.merge(Time::ZERO, of(new, new)).1;
            assert_eq!(cut, u64::from(gone.is_none()), "{new}");
            assert_eq!(shares.body_bytes(), 5_000);
        }
        // The answer itself is still there, and is told to another parent.
        shares.retell(Time::ZERO);
        let told = shares.take_report(OrderId([2; 16]), 1 << 16).expect("it is told");
        assert_eq!((told.tally.hosts().len(), told.bodies.len()), (1, 0));
        // What is known already wants no room.
        assert!(shares.make_room(&of(7, 7), false).is_empty());
    }

    /// Reports for which no room can be made cost nothing for each order that is remembered, and
    /// making room costs what is dropped.
    #[test]
    fn making_room_looks_at_what_it_drops() {
        const ORDERS: usize = 5_000;
        let mut shares = Shares::new(true, ORDERS);
        let id = |n: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(n as u64).to_be_bytes());
            OrderId(id)
        };
        let of = |n: usize, bytes| Report { order: id(n), ..answer(1, 7, bytes) };
        (0..ORDERS).for_each(|n| drop(shares.merge(Time::ZERO, of(n, 1))));
        for n in 0..1_000 {
            assert!(shares.make_room(&of(ORDERS + n, 1), false).is_empty());
        }
        assert_eq!(shares.looks, 1_000);
        // Those that the parent holds go one for one; who has news again stays.
        (0..100).for_each(|n| shares.settle(id(n)));
        shares.retell(Time::ZERO);
        (100..200).for_each(|n| shares.settle(id(n)));
        for n in 100..150 {
            assert_eq!(shares.make_room(&of(ORDERS, 1), false), [id(n)]);
            shares.merge(Time::ZERO, of(ORDERS + n, 1));
        }
        assert_eq!(shares.looks, 1_000 + 100 + 50);
        // An order makes no room for itself.
        shares.settle(id(ORDERS + 149));
        let more = Report { order: id(ORDERS + 149), ..answer(2, 8, 51) };
        assert_eq!(shares.make_room(&more, false).len(), 50);
    }

    #[test]
    fn a_better_word_is_told_again() {
        let mut shares = Shares::new(true, 1 << 20);
        let mut lost = Report::new(ID);
        lost.tally.record(Outcome::bare(State::RelayLost), &HostSet::one(HostId(1)));
        shares.merge(Time::ZERO, lost.clone());
        assert_eq!(told(&mut shares, 1 << 16).len(), 1);
        shares.merge(Time::ZERO, answer(1, 7, 10));
        shares.merge(Time::ZERO, lost);
        let reports = told(&mut shares, 1 << 16);
        assert_eq!(reports[0].tally.outcome(HostId(1)).map(|o| o.state), Some(State::Ok));
    }
}
