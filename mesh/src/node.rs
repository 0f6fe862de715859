//! [`Node`]: takes inputs, calls the small machines, hands out outputs.
//!
//! The node only dispatches; each machine has one job and knows no other. What flows between them
//! flows through here: a child's report into the fold and up, an order into the lanes, the ledger
//! and the pulls, a link's end into everybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::fold::{Share, Shares};
use crate::inlog::Inlog;
use crate::io::sooner;
use crate::lanes::Lanes;
use crate::ledger::Ledger;
use crate::outbox::{Gated, Outbox};
use crate::pull::Pulls;
use crate::pulse::Pulse;
use crate::route::{Moves, Routes};
use crate::sabotage::Bug;
use crate::uplink::Uplink;
use crate::uplog::Uplog;
use crate::{
    Config, Digest, Event, Frame, HostId, HostSet, Input, LinkId, Order, OrderId, Outcome, Output,
    Peer, PullFault, Reason, Record, Report, Saved, State, Tally, Time, Wake,
};

/// A node of the tree: controller, relay or host, by its [`Config`].
pub struct Node {
    config: Config,
    rng: SmallRng,
    out: Outbox,
    peers: BTreeMap<LinkId, Peer>,
    uplink: Uplink,
    pulse: Pulse,
    routes: Routes,
    lanes: Lanes,
    orders_in: Inlog,
    reports_in: BTreeMap<HostId, Inlog>,
    shares: Shares,
    uplog: Uplog,
    pulls: Pulls,
    ledger: Ledger,
    /// What could not be had for the orders whose intent is on its way to the disk.
    starting: BTreeMap<OrderId, Vec<(Digest, PullFault)>>,
    /// The last save that is known to be durable.
    saved: u64,
}

impl Node {
    /// A node that starts, or starts again with what it had saved.
    pub fn new(config: Config, saved: Saved, seed: u64, now: Time) -> Node {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (root, limits) = (config.is_root(), &config.limits);
        let log = rng.next_u64() | 1;
        let mut node = Node {
            out: Outbox::default(),
            peers: BTreeMap::new(),
            uplink: Uplink::new(config.parents, config.backoff.clone(), now),
            pulse: Pulse::new(&config, now),
            routes: Routes::new(config.host, saved.below.clone(), now),
            lanes: Lanes::new(log, limits.window),
            orders_in: Inlog::default(),
            reports_in: BTreeMap::new(),
            shares: Shares::new(!root, limits.body_bytes),
            uplog: Uplog::new(log, limits.window),
            pulls: Pulls::new(root, limits.pulls, limits.wants),
            ledger: Ledger::default(),
            starting: BTreeMap::new(),
            saved: 0,
            rng,
            config,
        };
        for report in saved.answers {
            if !report.tally.settled().intersection(&node.me()).is_empty() {
                node.ledger.answer(report.order);
            }
            node.shares.merge(now, report);
        }
        for order in saved.orders {
            let begun = saved.intents.contains(&order.id) && !node.has(Bug::ForgetIntents);
            node.restore(now, order, begun);
        }
        if root {
            for (child, below) in saved.below {
                node.out.push(Output::Tell(Event::Below { child, below }));
            }
        }
        node.shares.retell(now);
        for id in saved.settled {
            node.shares.restore_settled(id);
        }
        node
    }

    /// Takes one input. Drain [`Node::poll_output`] afterwards.
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::LinkUp { link, peer } => self.handle_link_up(now, link, peer),
            Input::LinkDown { link } => self.drop_link(now, link, None),
            Input::DialFailed { place: _ } => {
                self.uplink.handle_dial_failed(now, &mut self.rng);
            }
            Input::Frame { link, frame } => self.handle_frame(now, link, frame),
            Input::BadOrder { link, log, seq, order, outcome, body } => {
                let new = self.parent_of(link).is_some() && self.orders_in.accept(log, seq);
                if let Some(outcome) = outcome.filter(|_| new && !self.ledger.knows(order)) {
                    self.answer(now, order, outcome, body);
                }
                self.out.after(Gated::AckOrders { link, log, through: seq });
                self.handle_saved(now, 0);
            }
            Input::Saved { through } => self.handle_saved(now, through),
            Input::Wanted { by, content } => {
                if self.has(Bug::PullForEach)
                    && let Some(link) = self.uplink.link()
                {
                    self.out.push(Output::Pull { link, content });
                }
                self.pulls.handle_wanted(by, content, &mut self.out);
            }
            Input::Unwanted { by } => self.pulls.handle_unwanted(by),
            Input::Pulled { content, result } => self.handle_pulled(now, content, result),
            Input::Ended { order, outcome, body } => {
                if self.ledger.is_running(order) {
                    self.ledger.answer(order);
                    self.answer(now, order, outcome, body);
                }
            }
            Input::Submit(order) => self.take_order(now, order),
        }
        self.flush(now);
    }

    /// Does what is due. Drain [`Node::poll_output`] afterwards.
    pub fn handle_timeout(&mut self, now: Time) {
        self.uplink.handle_timeout(now, &mut self.out);
        for link in self.pulse.handle_timeout(now, &mut self.out) {
            self.hang_up(now, link, Reason::Stale);
        }
        for order in self.shares.take_checks(now) {
            self.check_reach(now, order);
        }
        for order in self.shares.expired(now) {
            self.expire(order);
        }
        self.flush(now);
    }

    /// When to call [`Node::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Time, Wake)> {
        let announce = self.routes.poll_timeout();
        let shares = self.shares.poll_timeout(self.uplog.has_room());
        sooner(
            sooner(self.uplink.poll_timeout(), self.pulse.poll_timeout()),
            sooner(announce, shares),
        )
    }

    /// The next thing that the node wants.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }

    /// Who is known below this node, itself included.
    pub fn below(&self) -> HostSet {
        self.routes.below()
    }

    /// Who is reachable below this node, itself included.
    pub fn up(&self) -> HostSet {
        self.routes.up()
    }

    /// The answers to an order that this node knows of.
    pub fn tally(&self, order: OrderId) -> Option<&Tally> {
        self.shares.get(order).map(|share| &share.tally)
    }

    /// How many orders this node remembers.
    pub fn orders(&self) -> usize {
        self.shares.orders()
    }

    /// How long ago the root's word was fresh, as far as this node knows.
    pub fn root_age(&self, now: Time) -> std::time::Duration {
        self.pulse.root_age(now)
    }

    // Links.

    fn handle_link_up(&mut self, now: Time, link: LinkId, peer: Peer) {
        self.peers.insert(link, peer);
        let replaced = match peer {
            Peer::Parent { place, host } => self.uplink.handle_up(now, link, host, place),
            Peer::Child { host, .. } => {
                let refusal = match () {
                    () if !self.config.serves => {
                        Some(Reason::Protocol("this node has no children"))
                    }
                    () if host == self.config.host => {
                        Some(Reason::Protocol("a node dialled itself"))
                    }
                    () if !self.routes.has_link(host)
                        && self.routes.linked() >= self.config.limits.children =>
                    {
                        Some(Reason::Full("children"))
                    }
                    () => None,
                };
                if let Some(reason) = refusal {
                    self.peers.remove(&link);
                    return self.out.push(Output::Hangup { link, reason });
                }
                self.routes.handle_up(link, host)
            }
        };
        if let Some(old) = replaced {
            self.forget_link(now, old);
            // The machines have the new link in the old one's place already; until the peer says
            // hello on it, nothing may be sent to either.
            match peer {
                Peer::Parent { .. } => self.uplog.handle_down(),
                Peer::Child { host, .. } => self.lanes.handle_down(host),
            }
            self.out.push(Output::Hangup { link: old, reason: Reason::Replaced });
        }
        self.out.push(Output::Tell(Event::Linked { peer }));
        let hello = match peer {
            Peer::Parent { .. } => (self.uplog.log(), self.orders_in),
            Peer::Child { host, .. } => {
                (self.lanes.log(), self.reports_in.get(&host).copied().unwrap_or_default())
            }
        };
        let (log, inlog) = hello;
        self.out.send(link, Frame::Hello { log, held_log: inlog.log, held: inlog.held });
        self.pulse.handle_up(now, link, &mut self.out);
        if let Peer::Parent { .. } = peer {
            self.announce(link);
            self.pulls.handle_up(link, &mut self.out);
        }
    }

    /// Closes a link that the peer has spoilt.
    fn hang_up(&mut self, now: Time, link: LinkId, reason: Reason) {
        self.out.push(Output::Hangup { link, reason });
        self.drop_link(now, link, Some(reason));
    }

    fn drop_link(&mut self, now: Time, link: LinkId, reason: Option<Reason>) {
        if let Some(peer) = self.forget_link(now, link) {
            self.out.push(Output::Tell(Event::Unlinked { peer, reason }));
        }
    }

    /// Takes a link out of every machine.
    fn forget_link(&mut self, now: Time, link: LinkId) -> Option<Peer> {
        let peer = self.peers.remove(&link)?;
        self.pulse.handle_down(link);
        #[cfg(feature = "sabotage")]
        if self.has(Bug::LosePulls) && self.uplink.link() == Some(link) {
            self.pulls.lose();
        }
        self.pulls.handle_down(link);
        if !self.has(Bug::LoseRedial) && self.uplink.handle_down(now, link, &mut self.rng) {
            if self.has(Bug::LoseInFlight) {
                self.uplog.handle_held(self.uplog.log(), u64::MAX);
            }
            self.uplog.handle_down();
        }
        if let Some((child, moves)) = self.routes.handle_down(now, link) {
            self.follow(now, moves);
            self.lanes.handle_down(child);
            for (_, share) in self.shares.iter_mut() {
                if let Some(reach) = share.order.as_ref().map(|order| order.reach)
                    && !share.missing().is_empty()
                {
                    share.check_by(now + reach);
                }
            }
            self.routes_changed(now);
        }
        Some(peer)
    }

    fn parent_of(&self, link: LinkId) -> Option<HostId> {
        match self.peers.get(&link) {
            Some(Peer::Parent { host, .. }) => Some(*host),
            _ => None,
        }
    }

    // Frames.

    fn handle_frame(&mut self, now: Time, link: LinkId, frame: Frame) {
        let Some(peer) = self.peers.get(&link).copied() else { return };
        self.pulse.handle_frame(now, link);
        match (peer, frame) {
            (_, Frame::Beat { root, interval }) => {
                let from_parent = matches!(peer, Peer::Parent { .. });
                let beat = (root, interval);
                self.pulse.handle_beat(now, link, beat, from_parent, &mut self.out);
            }
            (Peer::Parent { host, .. }, Frame::Hello { held_log, held, .. }) => {
                self.handle_parent_hello(now, link, host, (held_log, held));
            }
            (Peer::Child { host, .. }, Frame::Hello { held_log, held, .. }) => {
                if !self.lanes.handle_hello(host, link, (held_log, held), &mut self.out) {
                    self.offer_all(now, host);
                }
            }
            (Peer::Child { host, serves }, Frame::Below { below, up }) => {
                self.handle_below(now, link, (host, serves), below, up);
            }
            (Peer::Parent { .. }, Frame::Order { log, seq, order }) => {
                if self.orders_in.accept(log, seq) {
                    self.take_order(now, order);
                }
                if self.has(Bug::AckOrdersBeforeSave) {
                    self.out.send(link, Frame::OrdersHeld { log, through: seq });
                } else {
                    self.out.after(Gated::AckOrders { link, log, through: seq });
                    self.handle_saved(now, 0);
                }
            }
            (Peer::Child { host, .. }, Frame::OrdersHeld { log, through }) => {
                self.lanes.handle_held(host, log, through, &mut self.out);
            }
            (Peer::Child { host, .. }, Frame::Report { log, seq, report }) => {
                self.handle_report(now, host, (log, seq), report);
            }
            (Peer::Parent { .. }, Frame::ReportsHeld { log, through }) => {
                let orders = self.uplog.handle_held(log, through);
                self.settle(orders);
            }
            _ => self.hang_up(now, link, Reason::Protocol("a frame from the wrong side")),
        }
    }

    fn handle_parent_hello(&mut self, now: Time, link: LinkId, host: HostId, held: (u64, u64)) {
        self.uplink.handle_hello(link);
        match self.uplog.handle_hello(link, host, held, &mut self.out) {
            Some(acked) => self.settle(acked),
            None if self.has(Bug::TrustOldParent) => {}
            None => self.shares.retell(now),
        }
    }

    fn handle_below(
        &mut self,
        now: Time,
        link: LinkId,
        (child, serves): (HostId, bool),
        below: HostSet,
        up: HostSet,
    ) {
        if below.contains(self.config.host) {
            return self.hang_up(
                now,
                link,
                Reason::Protocol("a loop: its subtree holds this node"),
            );
        }
        if !serves && below != HostSet::one(child) {
            let reason = Reason::Protocol("a host announced others than itself");
            return self.hang_up(now, link, reason);
        }
        let (moves, changed) = self.routes.handle_below(child, below, up);
        if changed {
            self.routes_changed(now);
        }
        self.follow(now, moves);
        self.offer_all(now, child);
    }

    /// Hosts have moved from one child to another: what is known of them moves along.
    fn follow(&mut self, now: Time, moves: Moves) {
        for (child, news) in moves {
            let below = self.routes.child(child).map(|c| c.below.clone()).unwrap_or_default();
            if self.config.is_root() {
                self.out.push(Output::Tell(Event::Below { child, below: below.clone() }));
            }
            self.out.save(Record::Below { child, below });
            if !news.is_empty() {
                for id in self.shares.ids() {
                    self.extend_duty(now, id, &news);
                    self.ask(id, child, &news);
                }
                self.offer_all(now, child);
            }
        }
    }

    /// Asks a child about hosts that are routed through it only now and have no word yet.
    fn ask(&mut self, id: OrderId, child: HostId, news: &HostSet) {
        if let Some(share) = self.shares.get(id)
            && let Some(order) = &share.order
            && !share.missing().intersection(news).is_empty()
        {
            self.lanes.ask(child, order, &mut self.out);
        }
    }

    /// Orders that are still open reach whoever came, and whoever came back.
    fn offer_all(&mut self, now: Time, child: HostId) {
        let below = self.routes.child(child).map(|c| c.below.clone()).unwrap_or_default();
        for id in self.shares.ids() {
            self.offer(now, id, child, &below);
        }
    }

    fn routes_changed(&mut self, now: Time) {
        self.routes.announce_by(now + self.config.flush);
    }

    fn announce(&mut self, link: LinkId) {
        let (below, up) = (self.routes.below(), self.routes.up());
        self.out.send(link, Frame::Below { below, up });
    }

    // Orders.

    /// A new order, from the parent or the operator.
    fn take_order(&mut self, now: Time, order: Arc<Order>) {
        let id = order.id;
        let known = self.shares.get(id).is_some_and(|share| share.order.is_some());
        if !known && self.shares.orders() >= self.config.limits.orders {
            // What this host has carried out it must remember, lest it does so again.
            let may_go = |id, share: &Share| share.order.is_some() && !self.ledger.knows(id);
            match self.shares.oldest_settled(now, may_go) {
                Some(old) => self.forget(old),
                None => return self.refuse(now, &order),
            }
        }
        if !self.shares.open(now, &order) {
            // The parent asks how it stands: a supposition may have reached it while the host was
            // routed elsewhere, and counted for nothing.
            self.shares.doubt(id);
            return self.shares.flush_by(id, now);
        }
        let duty = match self.config.is_root() {
            true => order.targets.clone(),
            false => order.targets.intersection(&self.routes.below()),
        };
        if let Some(share) = self.shares.get_mut(id) {
            share.duty = duty;
        }
        if self.config.is_root() {
            // Nothing happens anywhere that the root could forget: the order first, then its way.
            self.out.save(Record::Order(order.clone()));
            self.out.after(Gated::Offer(id));
            self.handle_saved(now, 0);
        } else {
            // Whoever is above keeps the order until it is held here, so it may go on at once.
            self.offer_to_all(now, id);
            self.out.save(Record::Order(order.clone()));
        }
        self.fetch_for_children(&order);
        self.enter(now, order);
    }

    /// Puts an order on the lanes of all children that it concerns, now and from here on.
    fn offer_to_all(&mut self, now: Time, id: OrderId) {
        let Some(share) = self.shares.get_mut(id) else { return };
        share.may_leave = true;
        let children: Vec<_> = self.routes.children().map(|(h, c)| (h, c.below.clone())).collect();
        for (child, below) in children {
            self.offer(now, id, child, &below);
        }
    }

    fn refuse(&mut self, now: Time, order: &Order) {
        self.out.push(Output::Tell(Event::Cut { what: "orders", order: order.id }));
        let mut report = Report::new(order.id);
        let duty = order.targets.intersection(&self.routes.below());
        report.tally.record(Outcome::bare(State::Refused), &duty);
        self.give(now, report);
    }

    /// Puts an order on a child's lane if somebody below it still owes an answer.
    fn offer(&mut self, now: Time, id: OrderId, child: HostId, below: &HostSet) {
        let Some(share) = self.shares.get(id) else { return };
        let Some(order) = &share.order else { return };
        let owed = order.targets.intersection(below).difference(&share.tally.settled());
        if share.may_leave && !owed.is_empty() && now < share.hold_until {
            let order = order.clone();
            self.lanes.offer(child, &order, &mut self.out);
        }
    }

    fn extend_duty(&mut self, now: Time, id: OrderId, news: &HostSet) {
        if let Some(share) = self.shares.get_mut(id)
            && let Some(order) = &share.order
        {
            let more = order.targets.intersection(news);
            let reach = order.reach;
            share.duty = share.duty.union(&more);
            share.settled &= share.is_settled();
            // They came after the order's own deadlines were set.
            if !share.missing().intersection(&more).is_empty() {
                share.check_by(now + reach);
            }
        }
    }

    /// A relay asks for what its subtree will want before anybody below does.
    fn fetch_for_children(&mut self, order: &Order) {
        if self.config.serves && !self.config.is_root() {
            let below = self.routes.below().difference(&self.me());
            for content in order.content_for(&below.intersection(&order.targets)) {
                self.pulls.handle_needed(order.id, content, &mut self.out);
            }
        }
    }

    /// Enters an order into this host's own ledger, if it is meant.
    fn enter(&mut self, now: Time, order: Arc<Order>) {
        if !order.targets.contains(self.config.host) || self.ledger.knows(order.id) {
            return;
        }
        let id = order.id;
        let content = match self.config.is_root() {
            // What the root's orders need lies in its own store; there is nobody to ask for it.
            true => Vec::new(),
            false => order.content_for(&self.me()),
        };
        self.ledger.enter(order, content.clone());
        for piece in content {
            self.pulls.handle_needed(id, piece, &mut self.out);
        }
        self.begin(now, id);
    }

    /// Starts a local order if its content is here: the intent first, then the start.
    fn begin(&mut self, now: Time, id: OrderId) {
        let Some(ready) = self.ledger.begin(id) else { return };
        self.out.save(Record::Intent(id));
        let start = Output::Start { order: ready.order.clone(), missing: ready.missing.clone() };
        if self.has(Bug::StartBeforeIntent) {
            return self.out.push(start);
        }
        self.starting.insert(id, ready.missing);
        self.out.after(Gated::Start(ready.order));
        self.handle_saved(now, 0);
    }

    fn restore(&mut self, now: Time, order: Arc<Order>, begun: bool) {
        let id = order.id;
        self.shares.open(now, &order);
        let duty = match self.config.is_root() {
            true => order.targets.clone(),
            false => order.targets.intersection(&self.routes.below()),
        };
        if let Some(share) = self.shares.get_mut(id) {
            share.duty = duty;
            share.may_leave = true;
            share.closed = share.missing().is_empty();
        }
        if self.ledger.knows(id) || !order.targets.contains(self.config.host) {
            return;
        }
        if begun && !order.again {
            self.ledger.answer(id);
            self.answer(now, id, Outcome::bare(State::Interrupted), None);
        } else {
            self.enter(now, order);
        }
    }

    // Content.

    fn handle_pulled(&mut self, now: Time, content: Digest, result: Result<(), PullFault>) {
        for order in self.pulls.handle_pulled(content, result, &mut self.out) {
            self.ledger.handle_pulled(order, content, result);
            self.begin(now, order);
        }
    }

    // Answers.

    /// This host's own answer.
    fn answer(&mut self, now: Time, order: OrderId, outcome: Outcome, body: Option<Bytes>) {
        let mut report = Report::new(order);
        report.tally.record(outcome, &self.me());
        if let (Some(digest), Some(bytes)) = (outcome.body, body) {
            report.bodies.insert(digest, bytes);
        }
        self.give(now, report);
    }

    /// A word that this node gives itself and that is final: durable first, then told.
    fn give(&mut self, now: Time, report: Report) {
        self.out.save(Record::Answers(report.clone()));
        if self.has(Bug::AnswerBeforeSave) {
            self.merge(now, report);
        } else {
            self.out.after(Gated::Answer(report));
        }
    }

    fn handle_report(
        &mut self,
        now: Time,
        child: HostId,
        (log, seq): (u64, u64),
        mut report: Report,
    ) {
        if self.reports_in.entry(child).or_default().accept(log, seq) {
            self.drop_hearsay(child, &mut report);
            let news = self.merge(now, report);
            self.keep(news);
        }
        if self.has(Bug::AckReportsBeforeSave) {
            return self.ack_reports(child, log, seq);
        }
        self.out.after(Gated::AckReports { child, log, through: seq });
        self.handle_saved(now, 0);
    }

    /// Saves news. The bodies of the root's are kept by whoever was told of them.
    fn keep(&mut self, news: Report) {
        if !news.tally.is_empty() || !news.bodies.is_empty() {
            let kept = match self.config.is_root() {
                true => Report { bodies: BTreeMap::new(), ..news },
                false => news,
            };
            // A body whose line is no news is in the share; the record says only what is new.
            let kept = kept.with_bodies_of_lines();
            self.out.save(Record::Answers(kept));
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

    /// Joins answers into their share, tells the root's watcher, and has the rest told upward.
    fn merge(&mut self, now: Time, report: Report) -> Report {
        let id = report.order;
        if self.shares.get(id).is_none() && self.config.is_root() {
            // The root forgets an order when it has expired; nobody asks for its answers then.
            return Report::new(id);
        }
        if self.shares.get(id).is_none() && self.shares.len() >= 2 * self.config.limits.orders {
            // Answers are never turned away, so those without an order have a limit of their own.
            let old = self.shares.oldest_settled(now, |id, _| !self.ledger.knows(id));
            old.into_iter().for_each(|old| self.forget(old));
        }
        let (news, cut) = self.shares.merge(now, report);
        if cut {
            self.out.push(Output::Tell(Event::Cut { what: "output", order: id }));
            self.shares.trim();
        }
        if self.config.is_root() {
            if !news.tally.is_empty() || !news.bodies.is_empty() || news.cut > 0 {
                self.out.push(Output::Tell(Event::Answers(news.clone())));
            }
            self.close(id);
        } else {
            let share = self.shares.get(id).expect("merging opened it");
            let wait = if share.missing().is_empty() { now } else { now + self.config.flush };
            self.shares.flush_by(id, wait);
        }
        news
    }

    /// Root: says once that each target has an outcome.
    fn close(&mut self, id: OrderId) {
        if let Some(share) = self.shares.get_mut(id)
            && !share.closed
            && share.missing().is_empty()
        {
            share.closed = true;
            self.out.push(Output::Tell(Event::Closed(id)));
        }
    }

    /// The parent has acknowledged reports on these orders: some may be settled now.
    fn settle(&mut self, orders: Vec<OrderId>) {
        for id in orders {
            let told = !self.uplog.is_in_flight(id) && !self.shares.has_news(id);
            if let Some(share) = self.shares.get_mut(id)
                && told
                && !share.settled
                && share.is_settled()
            {
                share.settled = true;
                self.out.save(Record::Settled(id));
            }
        }
    }

    /// Says of those who should have been reached by now what is known of them.
    fn check_reach(&mut self, now: Time, id: OrderId) {
        let Some(share) = self.shares.get(id) else { return };
        let Some(order) = share.order.clone() else { return };
        let (hold_until, missing) = (share.hold_until, share.missing());
        let mut report = Report::new(id);
        let mut again = Some(hold_until).filter(|at| *at > now);
        let unplaced = missing.difference(&self.routes.below());
        report.tally.record(Outcome::bare(State::NotReached), &unplaced);
        for (host, child) in self.routes.children() {
            let waiting = missing.intersection(&child.below);
            let holds = self.lanes.holds(host, id);
            let lost_for_long = child.lost_at.is_some_and(|at| now >= at + order.reach);
            match (child.link, holds) {
                _ if waiting.is_empty() => {}
                // The child will say. If it has spoken while its word did not count, because they
                // were routed elsewhere, then at the end of the hold this node says it.
                (Some(_), true) if now < hold_until => {}
                (Some(_), true) => {
                    let away = waiting.difference(&child.up);
                    report.tally.record(Outcome::bare(State::NotReached), &away);
                }
                (None, true) if !lost_for_long => {
                    let at = child.lost_at.unwrap_or(now) + order.reach;
                    again = Some(again.map_or(at, |old| old.min(at)));
                }
                (None, true) => {
                    report.tally.record(Outcome::bare(State::RelayLost), &waiting);
                }
                (_, false) => {
                    report.tally.record(Outcome::bare(State::NotReached), &waiting);
                }
            }
        }
        let children: Vec<_> = self.routes.children().map(|(host, _)| host).collect();
        if now >= hold_until {
            children.into_iter().for_each(|child| self.lanes.withdraw(child, id));
        }
        if let Some(at) = again
            && let Some(share) = self.shares.get_mut(id)
        {
            share.check_by(at);
        }
        // Kept like any other word: a child that supposes the same is told that it is held here.
        let news = self.merge(now, report);
        self.keep(news);
    }

    /// An order is past its validity: whoever is silent still gets a last word, then it goes.
    fn expire(&mut self, id: OrderId) {
        if self.config.is_root()
            && let Some(share) = self.shares.get_mut(id)
            && !share.closed
        {
            let mut report = Report::new(id);
            report.tally.record(Outcome::bare(State::RelayLost), &share.missing());
            self.out.push(Output::Tell(Event::Answers(report)));
            self.out.push(Output::Tell(Event::Closed(id)));
        }
        self.forget(id);
    }

    fn forget(&mut self, id: OrderId) {
        self.shares.forget(id);
        self.lanes.forget(id);
        self.ledger.forget(id);
        self.out.save(Record::Forget(id));
    }

    // The disk.

    /// Takes the steps that waited for the disk.
    fn handle_saved(&mut self, now: Time, through: u64) {
        self.saved = self.saved.max(through);
        while let Some(step) = self.out.saved(self.saved) {
            match step {
                Gated::AckOrders { link, log, through } => {
                    let same = self.orders_in.saved(log, through);
                    if same && self.parent_of(link).is_some() {
                        self.out.send(link, Frame::OrdersHeld { log, through });
                    }
                }
                Gated::AckReports { child, log, through } => self.ack_reports(child, log, through),
                Gated::Offer(id) => self.offer_to_all(now, id),
                Gated::Start(order) => {
                    let missing = self.starting.remove(&order.id).unwrap_or_default();
                    self.out.push(Output::Start { order, missing });
                }
                Gated::Answer(report) => {
                    self.merge(now, report);
                }
            }
        }
    }

    fn ack_reports(&mut self, child: HostId, log: u64, through: u64) {
        let same = self.reports_in.entry(child).or_default().saved(log, through);
        if same && let Some(link) = self.routes.child(child).and_then(|child| child.link) {
            self.out.send(link, Frame::ReportsHeld { log, through });
        }
    }

    // Upward.

    /// Sends what is due: announcements and folded answers.
    fn flush(&mut self, now: Time) {
        if self.routes.announcement_due(now) {
            let (below, up) = (self.routes.below(), self.routes.up());
            match self.uplink.link() {
                Some(link) => self.out.send(link, Frame::Below { below, up }),
                None if self.config.is_root() => {
                    self.out.push(Output::Tell(Event::Reachable { below, up }));
                }
                None => {}
            }
        }
        if self.uplink.ready().is_none() {
            return;
        }
        let limit = self.config.limits.report_bytes;
        for id in self.shares.due(now) {
            while self.uplog.has_room() {
                match self.shares.take_report(id, limit) {
                    Some(report) => self.uplog.push(report, &mut self.out),
                    None => break,
                }
            }
        }
    }

    fn me(&self) -> HostSet {
        HostSet::one(self.config.host)
    }

    fn has(&self, bug: Bug) -> bool {
        self.config.has(bug)
    }
}
