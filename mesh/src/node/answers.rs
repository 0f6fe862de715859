//! Reports upward: this host's own answers and those of children.
//!
//! A word is saved before it is told or acknowledged. What joins a share is news or nothing; news
//! goes to the root's watcher or, folded, to the parent.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Node;
use crate::outbox::Gated;
use crate::sabotage::Bug;
use crate::{Event, Frame, HostId, OrderId, Outcome, Output, Record, Report, Time};

impl Node {
    /// This host's own answer.
    pub(super) fn answer(
        &mut self,
        now: Time,
        order: OrderId,
        outcome: Outcome,
        body: Option<Bytes>,
    ) {
        let mut report = Report::new(order);
        report.tally.record(outcome, &self.me());
        if let (Some(digest), Some(bytes)) = (outcome.body, body) {
            report.bodies.insert(digest, bytes);
        }
        self.give(now, report);
    }

    /// A word that this node gives itself and that is final: durable first, then told.
    pub(super) fn give(&mut self, now: Time, mut report: Report) {
        // What finds no room in memory must not fill the disk either.
        self.make_room(&report);
        let cut = self.shares.fit(&mut report);
        self.say_cut(report.order, cut);
        self.out.save(Record::Answers(report.clone()));
        if self.has(Bug::AnswerBeforeSave) {
            self.merge(now, report);
        } else {
            self.out.after(Gated::Answer(report));
        }
    }

    /// Whether answers to this order can be kept. With the parent away nothing can be given up for
    /// them, and a child that invents orders must not fill this node.
    pub(super) fn has_room_for(&self, order: OrderId) -> bool {
        let limit = 4 * self.config.limits.orders;
        let known = self.config.is_root() || self.shares.get(order).is_some();
        known || self.shares.len() < limit
    }

    pub(super) fn handle_report(
        &mut self,
        now: Time,
        child: HostId,
        (log, seq): (u64, u64),
        mut report: Report,
    ) {
        let is_new = self.reports_in.entry(child).or_default().accept(log, seq);
        if is_new && !self.is_unheard_of(report.order) {
            self.drop_hearsay(child, &mut report);
            let news = self.merge(now, report);
            self.hand_back(now, &news);
            self.keep(news);
        } else if is_new && self.config.is_root() {
            self.drop_hearsay(child, &mut report);
            self.hand_back(now, &report);
            self.tell_unheard(report);
        }
        if self.has(Bug::AckReportsBeforeSave) {
            self.ack_reports(now, child, log, seq);
            let link = self.routes.child(child).and_then(|child| child.link);
            return link.into_iter().for_each(|link| self.acks.send(link, &mut self.out));
        }
        self.out.after(Gated::AckReports { child, log, through: seq });
        self.handle_saved(now, 0);
    }

    /// Tells a child that its reports through this number are durable here.
    pub(super) fn ack_reports(&mut self, now: Time, child: HostId, log: u64, through: u64) {
        let same = self.reports_in.entry(child).or_default().saved(log, through);
        if same && let Some(link) = self.routes.child(child).and_then(|child| child.link) {
            self.acks.add(now, link, Frame::ReportsHeld { log, through }, &mut self.out);
        }
    }

    /// A supposition counts only from the child through which the host is reached.
    fn drop_hearsay(&self, child: HostId, report: &mut Report) {
        if self.has(Bug::BelieveAnybody) {
            return;
        }
        let below = self.routes.child(child).map(|c| c.below.clone()).unwrap_or_default();
        let lines = report.tally.lines().map(|(outcome, hosts)| match outcome.state {
            state if state.is_provisional() => (*outcome, hosts.intersection(&below)),
            _ => (*outcome, hosts.clone()),
        });
        report.tally = lines.collect();
    }

    /// Saves news. The bodies of the root's are kept by whoever was told of them.
    pub(super) fn keep(&mut self, mut news: Report) {
        if news.tally.is_empty() && news.bodies.is_empty() {
            return;
        }
        if self.config.is_root() {
            news.bodies = BTreeMap::new();
        }
        // A body may come when its line is known already, from a child that had told it to another
        // parent. It is of no use without a line, so the record says the line once more.
        if let Some(share) = self.shares.get(news.order) {
            for (outcome, hosts) in share.tally.lines() {
                if outcome.body.is_some_and(|body| news.bodies.contains_key(&body)) {
                    news.tally.record(*outcome, hosts);
                }
            }
        }
        self.out.save(Record::Answers(news.with_bodies_of_lines()));
    }

    /// Joins answers into their share, tells the root's watcher, and has the rest told upward.
    /// Returns what of them was news.
    pub(super) fn merge(&mut self, now: Time, report: Report) -> Report {
        let id = report.order;
        if self.config.is_root() && self.is_unheard_of(id) {
            return Report::new(id);
        }
        if self.shares.get(id).is_none() && self.shares.len() >= 3 * self.config.limits.orders {
            // Answers are never turned away, so those without an order have a limit of their own.
            let old = self.shares.oldest_settled(now, |id, _| !self.ledger.knows(id));
            old.into_iter().for_each(|old| self.forget(old));
        }
        self.make_room(&report);
        let (news, cut) = self.shares.merge(now, report);
        self.say_cut(id, cut);
        if self.gives(id) {
            if let Some(share) = self.shares.get_mut(id) {
                share.own = true;
            }
            if !news.tally.is_empty() || !news.bodies.is_empty() || news.cut > 0 {
                self.out.push(Output::Tell(Event::Answers(news.clone())));
            }
            self.windows.stir(now, id);
            self.close(now, id);
        } else {
            let share = self.shares.get(id).expect("merging opened it");
            match share.is_complete() {
                true => self.shares.flush_by(id, now),
                false => self.shares.flush_after(id, now, self.config.flush),
            }
        }
        news
    }

    /// Gives up bodies that the parent holds, also on disk, for those of a report.
    fn make_room(&mut self, report: &Report) {
        let anybodys = self.has(Bug::DropUnheard);
        for gone in self.shares.make_room(report, anybodys) {
            self.out.save(Record::Trimmed(gone));
        }
    }

    /// So many outputs in answers to an order found no room.
    pub(super) fn say_cut(&mut self, order: OrderId, count: u64) {
        if count > 0 && !self.has(Bug::CutUntold) {
            self.out.push(Output::Tell(Event::Cut { what: "output", order, count }));
        }
    }

    /// Of an order that was given here: says once that each target has an outcome.
    fn close(&mut self, now: Time, id: OrderId) {
        if let Some(share) = self.shares.get_mut(id)
            && share.order.is_some()
            && !share.closed
            && share.is_complete()
        {
            share.closed = true;
            self.say_stopped(now, id);
            self.out.push(Output::Tell(Event::Closed(id)));
        }
    }

    /// Sends the parent the news that is due, as far as the window goes.
    pub(super) fn tell_parent(&mut self, now: Time) {
        let Some((link, _)) = self.uplink.ready() else { return };
        let limit = self.config.limits.report_bytes;
        while self.uplog.has_room()
            && let Some(id) = self.shares.due(now)
        {
            // It stays due until there is nothing left to say about it.
            if let Some(report) = self.shares.take_report(id, limit) {
                self.acks.send(link, &mut self.out);
                self.uplog.push(report, &mut self.out);
            }
        }
    }

    /// The parent has acknowledged reports on these orders: some may be settled now.
    pub(super) fn settle(&mut self, orders: Vec<OrderId>) {
        for id in orders {
            let told = !self.uplog.is_in_flight(id) && !self.shares.has_news(id);
            if let Some(share) = self.shares.get(id)
                && told
                && !share.settled
                && share.is_settled()
            {
                self.shares.settle(id);
                self.out.save(Record::Settled(id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Digest, HostSet, Input, LinkId, Peer, Saved, State, Subtree};

    const ORDER: OrderId = OrderId([1; 16]);
    const LINK: LinkId = LinkId(1);
    const BODY: Digest = Digest([7; 32]);

    #[test]
    fn a_body_that_comes_after_its_line_is_kept_with_the_line() {
        let mut relay = Node::new(Config::new(HostId(9), 1, true), Saved::default(), 1, Time::ZERO);
        let peer = Peer::Child { host: HostId(11), serves: false };
        relay.handle(Time::ZERO, Input::LinkUp { link: LINK, peer });
        let below = HostSet::one(HostId(11));
        let tree = Subtree { up: below.clone(), below: below.clone(), ..Default::default() };
        relay.handle(Time::ZERO, Input::Frame { link: LINK, frame: Frame::Below(tree) });
        let mut hear = |seq, bodies: &[(Digest, Bytes)]| -> Vec<Report> {
            let mut report = Report::new(ORDER);
            report.tally.record(Outcome { state: State::Ok, body: Some(BODY) }, &below);
            report.bodies.extend(bodies.iter().cloned());
            let frame = Frame::Report { log: 1, seq, report };
            relay.handle(Time::ZERO, Input::Frame { link: LINK, frame });
            let outputs = std::iter::from_fn(|| relay.poll_output());
            let kept = outputs.filter_map(|output| match output {
                Output::Save { record: Record::Answers(report), .. } => Some(report),
                _ => None,
            });
            kept.collect()
        };
        assert!(hear(1, &[]).iter().all(|report| report.bodies.is_empty()));
        let kept = hear(2, &[(BODY, Bytes::from_static(b"late"))]);
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].tally.hosts(), &HostSet::one(HostId(11)));
        assert!(kept[0].bodies.contains_key(&BODY));
        assert_eq!(hear(3, &[(BODY, Bytes::from_static(b"late"))]), [], "nothing is new");
    }
}
