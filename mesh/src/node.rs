//! [`Node`]: takes inputs, calls the small machines, hands out outputs.
//!
//! The node only dispatches; each machine has one job and knows no other. What flows between them
//! flows through here: orders down (`orders`), answers up (`answers`), what is said of the silent
//! (`supposing`), previews (`watching`), events (`events`), and what a link and its frames bring
//! to everybody (`links`).

mod answers;
#[cfg(test)]
mod bench;
mod bus;
mod events;
mod gating;
mod giving;
mod links;
mod orders;
mod restored;
mod seeking;
mod supposing;
mod watching;

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::absent::Absent;
use crate::acks::Acks;
use crate::bus::Bus;
use crate::cancel::Cancels;
use crate::events::Events;
use crate::fold::Shares;
use crate::gate::Gates;
use crate::inlog::Inlog;
use crate::lanes::Lanes;
use crate::ledger::Ledger;
use crate::outbox::{Gated, Outbox};
use crate::profile::Profiles;
use crate::pull::Pulls;
use crate::pulse::Pulse;
use crate::route::Routes;
use crate::sabotage::Bug;
use crate::seek::Seek;
use crate::uplink::Uplink;
use crate::uplog::Uplog;
use crate::wake::sooner;
use crate::watch::Watch;
use crate::window::Windows;
use crate::{
    Config, Event, HostId, HostSet, Input, LinkId, OrderId, Output, Peer, Reason, Saved, Subtree,
    Tally, Time, Wake,
};

/// What an event takes on disk, about.
const EVENT_BYTES: usize = 1_024;
/// And what it takes for each host that has seen it.
const COUNT_BYTES: usize = 16;

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
    cancels: Cancels,
    uplog: Uplog,
    acks: Acks,
    pulls: Pulls,
    ledger: Ledger,
    watch: Watch,
    gates: Gates,
    windows: Windows,
    seek: Seek,
    happened: Events,
    bus: Bus,
    profiles: Profiles,
    /// The link of a parent that takes events.
    listener: Option<LinkId>,
    /// Root: who is known to be down.
    absent: Absent,
    /// The last save that is known to be durable.
    saved: u64,
}

impl Node {
    /// A node that starts, or starts again with what it had saved.
    pub fn new(config: Config, saved: Saved, seed: u64, now: Time) -> Node {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (root, limits) = (config.is_root(), &config.limits);
        let log = rng.next_u64() | 1;
        let unless = |bug, limit| if config.has(bug) { usize::MAX } else { limit };
        let window = unless(Bug::IgnoreWindow, limits.window);
        let pulls = unless(Bug::PullAll, limits.pulls);
        let bodies = unless(Bug::KeepAll, limits.body_bytes);
        let mut node = Node {
            out: Outbox::default(),
            peers: BTreeMap::new(),
            uplink: Uplink::new(config.parents, config.backoff.clone(), now),
            pulse: Pulse::new(&config, now),
            routes: Routes::new(config.host, saved.below.clone(), now),
            lanes: Lanes::new(log, window),
            orders_in: Inlog::default(),
            reports_in: BTreeMap::new(),
            shares: Shares::new(!root, bodies),
            cancels: Cancels::default(),
            uplog: Uplog::new(log, window),
            acks: Acks::new(config.ack_delay, limits.window),
            pulls: Pulls::new(root, pulls, limits.wants),
            ledger: Ledger::default(),
            watch: Watch::default(),
            gates: Gates::new(2 * limits.orders + 16),
            windows: Windows::default(),
            seek: Seek::default(),
            happened: Events::new(
                config.host,
                root,
                config.events.clone(),
                limits.report_bytes,
                config.has(Bug::SumEvents),
            ),
            bus: Bus::new(limits.bus_recent),
            profiles: Profiles::new(config.host, root, limits, config.has(Bug::KeepOldProfile)),
            listener: None,
            absent: Absent::new(now, config.grace()),
            saved: 0,
            rng,
            config,
        };
        #[cfg(feature = "sabotage")]
        {
            node.bus.bug.0 = node.config.bug;
        }
        for report in saved.answers {
            if !report.tally.settled().intersection(&node.me()).is_empty() {
                node.ledger.answer(report.order);
            }
            let (id, cut) = (report.order, node.shares.merge(now, report).1);
            node.say_cut(id, cut);
            // Of an order that was refused where it was given nobody above is told, now as before.
            let own = node.gives(id) && !node.has(Bug::ForgetOwn);
            node.shares.get_mut(id).into_iter().for_each(|share| share.own = own);
        }
        let below = node.routes.below();
        let intents: BTreeSet<_> = saved.intents.into_iter().collect();
        let mut released = BTreeMap::<OrderId, HostSet>::new();
        for (id, hosts) in saved.released {
            let known = released.entry(id).or_default();
            *known = known.union(&hosts);
        }
        for order in &saved.orders {
            node.cancels.add(order);
        }
        for order in saved.orders {
            let begun = intents.contains(&order.id) && !node.has(Bug::ForgetIntents);
            node.restore(now, order.clone(), begun, &below);
            let released = released.remove(&order.id).filter(|_| !node.has(Bug::ForgetReleases));
            node.open_window(now, &order, released.unwrap_or_default());
        }
        if root {
            for (child, below) in saved.below {
                node.out.push(Output::Tell(Event::Below { child, below }));
            }
        }
        node.shares.retell(now);
        node.restore_events(now, saved.own, saved.events);
        for id in saved.settled {
            if node.is_told_for_good(id) {
                node.shares.restore_settled(id);
            }
        }
        node
    }

    /// Takes one input. Drain [`Node::poll_output`] afterwards.
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::LinkUp { link, peer } => self.handle_link_up(now, link, peer),
            Input::LinkDown { link } => self.drop_link(now, link, None),
            Input::DialFailed { place } => {
                let mut punctual = SmallRng::seed_from_u64(0);
                let jitter = match self.config.has(Bug::NoJitter) {
                    true => &mut punctual,
                    false => &mut self.rng,
                };
                self.uplink.handle_dial_failed(now, place, jitter);
            }
            Input::Frame { link, frame } => self.handle_frame(now, link, frame),
            Input::BadOrder { link, log, seq, order, outcome, body } => {
                let answer = outcome.map(|outcome| (outcome, body));
                self.handle_bad_order(now, link, (log, seq), order, answer);
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
            Input::Arriving { content } => {
                self.pulls.handle_arriving(content, &mut self.out);
                #[cfg(feature = "sabotage")]
                if self.has(Bug::ForgetHalfServed) {
                    self.pulls.forget_half_served(content);
                }
            }
            Input::Pulled { content, result } => self.handle_pulled(now, content, result),
            Input::Ended { order, outcome, body } => {
                if self.ledger.is_running(order) {
                    self.ledger.answer(order);
                    self.answer(now, order, outcome, body);
                }
            }
            Input::Restored => self.tell_all_again(now),
            Input::Degraded(degraded) => {
                if self.routes.set_degraded(degraded) {
                    self.routes_changed(now);
                }
            }
            Input::Happened(happening) => self.happen(now, happening),
            Input::Profile(profile) => self.profiles.say(now, profile, &mut self.out),
            Input::Parents { count, here } => {
                self.uplink.handle_parents(now, count, here, &mut self.rng);
            }
            Input::Submit(order) => self.take_order(now, order),
            Input::Watch { orders } => self.handle_watch(&orders),
            Input::Said(said) => self.pass_said(said),
            Input::Subscribed(interest) => self.handle_subscribed(now, interest),
            Input::Publish(message) => self.publish(&message),
            Input::Answer(answer) => self.pass_answer(None, answer),
        }
        self.follow_up(now);
    }

    /// Does what is due. Drain [`Node::poll_output`] afterwards.
    pub fn handle_timeout(&mut self, now: Time) {
        if let Some(silent) = self.uplink.handle_timeout(now, &mut self.out) {
            self.drop_link(now, silent, None);
        }
        for link in self.pulse.handle_timeout(now, &mut self.out) {
            self.hang_up(now, link, Reason::Stale);
        }
        for order in self.shares.take_checks(now) {
            self.check_reach(now, order);
        }
        for order in self.shares.take_downs(now) {
            self.say_known_down(now, order);
        }
        for order in self.shares.take_expired(now) {
            self.expire(now, order);
        }
        self.give_up_late(now);
        self.seek(now);
        self.save_events(now);
        self.follow_up(now);
        self.acks.handle_timeout(now, &mut self.out);
        self.bus.handle_timeout(now, &mut self.out);
    }

    /// What follows from whatever has happened.
    fn follow_up(&mut self, now: Time) {
        self.look_at_windows(now);
        self.announce_changes(now);
        self.pass_watches();
        self.pass_releases(now);
        self.tell_parent(now);
        self.tell_events(now);
        // Whom the parent has not heard of it would not take a word about.
        if self.profiles.is_due(now) && self.routes.poll_timeout().is_none() {
            self.profiles.tell_parent(now, &self.routes.up(), &mut self.out);
        }
    }

    /// When to call [`Node::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Time, Wake)> {
        let announce = self.routes.poll_timeout();
        let shares = self.shares.poll_timeout(self.uplog.has_room());
        let happened = self.happened.poll_timeout(self.listener.is_some());
        let profiles = self.profiles.poll_timeout().filter(|_| announce.is_none());
        let happened = sooner(sooner(happened, profiles), self.seek.poll_timeout());
        let gates = sooner(self.gates.poll_timeout(), self.windows.poll_timeout());
        let links = sooner(self.uplink.poll_timeout(), self.pulse.poll_timeout());
        sooner(
            sooner(sooner(links, self.bus.poll_timeout()), gates),
            sooner(sooner(announce, shares), sooner(happened, self.acks.poll_timeout())),
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

    /// All that this node says of its subtree.
    pub fn subtree(&self) -> Subtree {
        self.routes.subtree()
    }

    /// The parent, once it has said hello.
    pub fn parent(&self) -> Option<HostId> {
        self.uplink.ready().map(|(_, parent)| parent)
    }

    /// The link by which a host below this node is reached now.
    pub fn way_to(&self, host: HostId) -> Option<LinkId> {
        let mut children = self.routes.children().map(|(_, child)| child);
        children.find(|child| child.up.contains(host)).and_then(|child| child.link)
    }

    /// The answers to an order that this node knows of.
    pub fn tally(&self, order: OrderId) -> Option<&Tally> {
        self.shares.get(order).map(|share| &share.tally)
    }

    /// How many orders this node remembers.
    pub fn orders(&self) -> usize {
        self.shares.orders()
    }

    /// How many different events this node remembers: its own, and those that it has to tell.
    pub fn events(&self) -> (usize, usize) {
        self.happened.len()
    }

    /// What waits here, or is kept to be told once more, in bytes: bodies of answers, and about
    /// what events take.
    pub fn waiting(&self) -> usize {
        let (own, held) = self.happened.len();
        let events = EVENT_BYTES * (own + held) + COUNT_BYTES * self.happened.counts();
        self.bodies() + events
    }

    /// What of that bodies take.
    pub fn bodies(&self) -> usize {
        self.shares.body_bytes()
    }

    /// Of how many hosts this node remembers a profile, and the bytes of those that differ.
    pub fn profiles(&self) -> (usize, usize) {
        self.profiles.len()
    }

    /// How long ago the root's word was fresh, as far as this node knows.
    pub fn root_age(&self, now: Time) -> std::time::Duration {
        self.pulse.root_age(now)
    }

    /// How the root's word stands here: whether there was any, and whether it is silent.
    pub fn root_word(&self) -> (bool, bool) {
        self.pulse.root_word()
    }

    /// Takes the steps that waited for the disk.
    fn handle_saved(&mut self, now: Time, through: u64) {
        self.saved = self.saved.max(through);
        while let Some(step) = self.out.saved(self.saved) {
            match step {
                Gated::AckOrders { link, log, through } => self.ack_orders(now, link, log, through),
                Gated::AckReports { child, log, through } => {
                    self.ack_reports(now, child, log, through)
                }
                Gated::Offer(id) => self.offer_to_all(now, id),
                Gated::Start(ready) => self.start(now, ready),
                Gated::Answer(report) => {
                    self.merge(now, report);
                }
                Gated::Go { order, hosts, until } => self.handle_go(now, order, &hosts, until),
                Gated::OwnEvents(events) => self.own_events_are_saved(now, &events),
                Gated::AckEvents(acks) => self.ack_events(acks),
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
