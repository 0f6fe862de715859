//! The shell's side of the core: what happens when a node wants something.

use std::time::Duration;

use mesh::{
    Asker, Digest, Event as Told, Frame, HostId, Input, LinkId, Order, OrderId, Outcome, Output,
    PullFault, Record, RequestId, State,
};
use rand::RngExt;

use crate::checks::Violation;
use crate::coverage::Strike;
use crate::disk::Entry;
use crate::net::{Item, Phase, Side, draw};
use crate::queue::Event;
use crate::rolling::RECALL;
use crate::seat::Process;
use crate::sim::{Sim, body};

/// Content is handed on in pieces of this size.
const PIECE: u64 = 16 << 10;

impl Sim {
    /// Does what a node wants.
    pub(crate) fn obey(&mut self, node: usize, output: Output) -> Result<(), Violation> {
        match output {
            Output::Save { no, record } => self.save(node, no, record),
            Output::Dial { place } => {
                let takes = draw(&mut self.rng, self.net.delay());
                let life = self.seats[node].life;
                let process = self.seats[node].process.as_mut();
                if let Some(parted) = process.and_then(|process| process.parted.take()) {
                    self.checks.dialling(HostId(node as u32), self.now - parted)?;
                }
                let parent = self.plan.tree[node].parents[place];
                self.queue.push(self.now + takes, Event::Dialled { node, life, place, parent });
                Ok(())
            }
            Output::Hangup { link, .. } => self.hang_up(node, link),
            Output::Send { link, frame } => self.send(node, link, frame),
            Output::Pull { link, content } => self.pull(node, link, content),
            Output::Serve { by, content } => self.answer(node, by, content, Ok(())),
            Output::Abandon { content } => self.abandon(node, content),
            Output::Deny { by, content, fault } => self.answer(node, by, content, Err(fault)),
            Output::Start { order, missing } => self.start(node, &order, !missing.is_empty()),
            Output::Watch { orders } => {
                self.told_watch(node, orders);
                Ok(())
            }
            Output::Preview(said) => self.heard(&said),
            Output::Deliver(message) => self.delivered(node, &message),
            Output::Stranded { .. } => Ok(()),
            Output::Answered(answer) => self.answered(node, &answer),
            Output::Tell(event) => self.tell(node, event),
        }
    }

    fn save(&mut self, node: usize, no: u64, record: Record) -> Result<(), Violation> {
        self.checks.saving(&self.seats[node], no, &record)?;
        if let Record::Released { order, hosts } = &record {
            self.checks.gated.deciding(*order, hosts, self.now);
        }
        let takes = draw(&mut self.rng, self.plan.weather.save);
        let seat = &mut self.seats[node];
        let at = seat.disk.push(self.now, takes, Entry::Save { no, record });
        let life = seat.life;
        if let Some(process) = &mut seat.process {
            process.saves = no;
        }
        self.queue.push(at, Event::Durable { node, life, through: no });
        if self.rough && self.rng.random_bool(self.plan.weather.trip) {
            let at = self.now + takes.mul_f64(self.rng.random_range(0.0..2.0));
            let down = Duration::from_secs(8).mul_f64(self.rng.random_range(0.01..1.0));
            self.queue.push(at, Event::Trip { node, life, down });
        }
        Ok(())
    }

    /// The node's end closes at once; the peer learns of it, if the network lets it.
    fn hang_up(&mut self, node: usize, link: LinkId) -> Result<(), Violation> {
        let side = self.open_side(node, link, "Hangup")?;
        self.checks.hung_up(HostId(node as u32), link);
        self.checks.absences.parted(HostId(node as u32), link, self.now);
        if side == Side::Parent {
            self.part(node, link);
        }
        if let Some(process) = &mut self.seats[node].process {
            process.drop_content(link);
            if side == Side::Child {
                process.parted = Some(self.now);
            }
        }
        let late = self.rng.random_bool(0.5);
        if let Some(path) = self.net.links.get_mut(&link) {
            path.end_mut(side).lost |= !late;
            path.end_mut(side.other()).lost |= self.rng.random_bool(0.5);
            path.broken = true;
        }
        self.net.close(link, side);
        let dice = (&mut self.rng, &mut self.queue);
        self.net.send(self.now, link, side.other(), Item::Down, dice);
        Ok(())
    }

    fn send(&mut self, node: usize, link: LinkId, frame: Frame) -> Result<(), Violation> {
        let side = self.open_side(node, link, "Send")?;
        let is_bus = matches!(frame, Frame::Message(_) | Frame::Answer(_));
        if is_bus && !self.bus_fits(node, link, side.other(), &frame) {
            return Ok(());
        }
        self.stats.frames += 1;
        match (&frame, &mut self.asks) {
            // Who is away may be asked for as long as an order is valid, but not often.
            (Frame::Seek { order, .. }, Some(asks)) => {
                *asks.entry((node, link, *order)).or_default() += 1;
            }
            (Frame::Beat { .. } | Frame::Seek { .. }, _) => {}
            _ => self.stats.talk += 1,
        }
        self.checks.sending(&self.seats[node], &frame, self.now)?;
        self.checks.gated.telling(HostId(node as u32), link, &frame);
        if !self.viewers.began && matches!(frame, Frame::Watch { .. } | Frame::Said(_)) {
            let detail = format!("node {node} sends {frame:?}");
            return Err(Violation::new("who does not watch does not pay", detail));
        }
        if let Frame::Order { seq, .. } | Frame::Report { seq, .. } = &frame {
            let window = self.seats[node].config.limits.window;
            let path = self.net.links.get_mut(&link).expect("it is open");
            let unheld = &mut path.end_mut(side).unheld;
            unheld.push_back(*seq);
            if unheld.len() > window {
                let detail = format!("node {node} has {} entries in flight", unheld.len());
                return Err(Violation::new("window", detail));
            }
        }
        let is_release = matches!(frame, Frame::Go { .. });
        let weighty =
            !matches!(frame, Frame::Beat { .. } | Frame::Hello { .. } | Frame::Interest(_));
        let dice = (&mut self.rng, &mut self.queue);
        self.net.send(self.now, link, side.other(), Item::Frame(frame), dice);
        // The moment at which hosts are let begin is the worst one.
        let odds = self.plan.weather.snap * if is_release { 4.0 } else { 1.0 };
        if weighty && self.rough && self.rng.random_bool(odds) {
            let within = self.net.delay().1 * 2;
            let at = self.now + within.mul_f64(self.rng.random_range(0.0..1.0));
            self.queue.push(at, Event::Snap { link });
        }
        Ok(())
    }

    /// A node may only use links that it was told of and that it has not closed.
    fn open_side(&self, node: usize, link: LinkId, what: &str) -> Result<Side, Violation> {
        let path = self.net.links.get(&link).map(|path| (path.side(node), path));
        match path {
            Some((side, path)) if path.end(side).phase == Phase::Open => Ok(side),
            _ => {
                let detail = format!("node {node}: {what} on {link:?}, which it does not have");
                Err(Violation::new("dead link used", detail))
            }
        }
    }

    fn pull(&mut self, node: usize, link: LinkId, content: Digest) -> Result<(), Violation> {
        let side = self.open_side(node, link, "Pull")?;
        let seat = &mut self.seats[node];
        let Some(process) = &mut seat.process else { return Ok(()) };
        if side != Side::Child || process.pulling.contains_key(&content) {
            let detail = format!("node {node} pulls {content:?}, which is on its way already");
            return Err(Violation::new("one pull for each content", detail));
        }
        if process.pulling.len() >= seat.config.limits.pulls {
            let detail = format!("node {node} has {} pulls under way", process.pulling.len());
            return Err(Violation::new("pulls at once", detail));
        }
        process.pulling.insert(content, link);
        if seat.disk.image.store.contains(&content) {
            self.queue.push(self.now, Event::Found { node, life: seat.life, content });
        } else {
            let dice = (&mut self.rng, &mut self.queue);
            self.net.send(self.now, link, Side::Parent, Item::Ask(content), dice);
        }
        Ok(())
    }

    /// A child's shell asks this one for content.
    pub(crate) fn ask(
        &mut self,
        node: usize,
        link: LinkId,
        content: Digest,
    ) -> Result<(), Violation> {
        if self.seats[node].disk.image.store.contains(&content) {
            if !self.turn(node, link, content)? {
                self.give(link, content, Ok(()), self.plan.weather.content_bytes);
            }
            return Ok(());
        }
        let Some(process) = &mut self.seats[node].process else { return Ok(()) };
        let request = process.request();
        process.asks.insert(request, (link, content));
        self.feed(node, Input::Wanted { by: Asker::Child(link, request), content })
    }

    /// Sends content to the child at the other end.
    pub(crate) fn give(
        &mut self,
        link: LinkId,
        content: Digest,
        result: Result<(), PullFault>,
        bytes: u64,
    ) {
        let weather = &self.plan.weather;
        let span = weather.transfer;
        let (torn, corrupt) = match self.rough {
            true => (weather.torn, weather.corrupt),
            false => (0.0, 0.0),
        };
        let result = match result {
            Ok(()) if self.rng.random_bool(torn) => Err(PullFault::Broken),
            Ok(()) if self.rng.random_bool(corrupt) => Err(PullFault::Corrupt),
            result => result,
        };
        let strike = match result {
            Err(PullFault::Broken) => Some(Strike::Torn),
            Err(PullFault::Corrupt) => Some(Strike::Corrupt),
            _ => None,
        };
        if let (Some(strike), Some(child)) = (strike, self.net.open_child(link)) {
            self.struck(strike, child);
        }
        if result.is_ok() {
            self.net.count_content(link, self.plan.weather.content_bytes);
        }
        let delay = self.net.profile(link).delay;
        let takes = draw(&mut self.rng, delay) + draw(&mut self.rng, span);
        if result != Err(PullFault::Absent) && (self.steady || self.rng.random_bool(0.7)) {
            let early = takes.mul_f64(self.rng.random_range(0.0..1.0));
            let front = Item::Front(content);
            self.net.send_after(self.now, early, link, Side::Child, front, &mut self.queue);
        }
        let item = Item::Got(content, result, bytes);
        self.net.send_after(self.now, takes, link, Side::Child, item, &mut self.queue);
    }

    /// The front of what is pulled arrives.
    pub(crate) fn front(
        &mut self,
        node: usize,
        link: LinkId,
        content: Digest,
    ) -> Result<(), Violation> {
        let Some(process) = &mut self.seats[node].process else { return Ok(()) };
        if process.pulling.get(&content) != Some(&link) {
            return Ok(());
        }
        process.fronts.insert(content);
        self.feed(node, Input::Arriving { content })
    }

    /// Ends the streams of children that were sent content as it came.
    /// `from`: the link by which it came.
    fn end_streams(
        &mut self,
        node: usize,
        content: Digest,
        result: Result<(), PullFault>,
        from: Option<LinkId>,
    ) {
        let Some(process) = &mut self.seats[node].process else { return };
        let streams: Vec<_> =
            process.streams.extract_if(.., |(_, what)| *what == content).collect();
        for (link, content) in streams {
            let left = self.left_behind(link, from);
            self.give(link, content, result, left);
        }
    }

    /// How much of content that a child was sent as it came is still to be sent when all of it is
    /// here: one piece, if the child's link is as fast as the one by which it came.
    fn left_behind(&self, link: LinkId, from: Option<LinkId>) -> u64 {
        let bytes = self.plan.weather.content_bytes;
        let rate = |link| self.net.profile(link).rate.map_or(f64::INFINITY, |rate| rate as f64);
        let behind = match from.map(rate) {
            Some(came) if came.is_finite() => 1.0 - (rate(link) / came).min(1.0),
            _ => 0.0,
        };
        ((bytes as f64 * behind) as u64).max(bytes.min(PIECE))
    }

    fn abandon(&mut self, node: usize, content: Digest) -> Result<(), Violation> {
        let streams = self.seats[node].process.as_ref().map(|process| &process.streams);
        let sends = streams.is_some_and(|s| s.iter().any(|(_, what)| *what == content));
        if !self.call_back(node, content) && !sends {
            let detail = format!("node {node} abandons {content:?}, which it sends to nobody");
            return Err(Violation::new("abandon what is served", detail));
        }
        self.end_streams(node, content, Err(PullFault::Broken), None);
        Ok(())
    }

    /// A pull ends, on a link or in the node's own store.
    pub(crate) fn got(
        &mut self,
        node: usize,
        link: Option<LinkId>,
        content: Digest,
        result: Result<(), PullFault>,
    ) -> Result<(), Violation> {
        let seat = &mut self.seats[node];
        let Some(process) = &mut seat.process else { return Ok(()) };
        let from = process.pulling.get(&content).copied();
        if from.is_none() || (link.is_some() && link != from) {
            return Ok(());
        }
        process.pulling.remove(&content);
        process.fronts.remove(&content);
        if result.is_ok() {
            seat.disk.image.store.insert(content);
            self.end_streams(node, content, Ok(()), from);
        }
        self.feed(node, Input::Pulled { content, result })
    }

    /// The core has decided about a request.
    fn answer(
        &mut self,
        node: usize,
        by: Asker,
        content: Digest,
        result: Result<(), PullFault>,
    ) -> Result<(), Violation> {
        let seat = &mut self.seats[node];
        let whole = seat.disk.image.store.contains(&content);
        let arriving = |process: &Process| process.fronts.contains(&content);
        let front = matches!(by, Asker::Child(..)) && seat.process.as_ref().is_some_and(arriving);
        if result.is_ok() && !whole && !front {
            let detail = format!("node {node} serves {content:?}, which it does not have");
            return Err(Violation::new("serve what is there", detail));
        }
        let Some(process) = &mut seat.process else { return Ok(()) };
        match by {
            Asker::Child(_, request) => {
                let Some((link, asked)) = process.asks.remove(&request) else {
                    let detail = format!("node {node} answers {by:?}, who does not wait");
                    return Err(Violation::new("one answer for each request", detail));
                };
                debug_assert_eq!(asked, content);
                if result.is_ok() && self.turn(node, link, content)? {
                    return Ok(());
                }
                let Some(process) = &mut self.seats[node].process else { return Ok(()) };
                if result.is_ok() && !whole {
                    process.streams.push((link, content));
                    let takes = draw(&mut self.rng, self.net.profile(link).delay);
                    let item = Item::Front(content);
                    self.net.send_after(self.now, takes, link, Side::Child, item, &mut self.queue);
                } else {
                    let bytes = self.plan.weather.content_bytes;
                    self.give(link, content, result, bytes);
                }
            }
            Asker::Local(request) => {
                let Some(order) = process.wants.remove(&request) else {
                    let detail = format!("node {node} answers {by:?}, who does not wait");
                    return Err(Violation::new("one answer for each request", detail));
                };
                if result.is_err() {
                    let failed = Outcome { state: State::Failed(74), body: None };
                    process.running.insert(order, failed);
                }
                let life = seat.life;
                self.queue.push(self.now, Event::Ended { node, life, order });
            }
        }
        Ok(())
    }

    fn start(&mut self, node: usize, order: &Order, missing: bool) -> Result<(), Violation> {
        let (id, life) = (order.id, self.seats[node].life);
        if let Some(refused) = self.refusal(node, id) {
            if let Some(process) = &mut self.seats[node].process {
                process.running.insert(id, refused);
            }
            self.queue.push(self.now, Event::Ended { node, life, order: id });
            return Ok(());
        }
        self.checks.starting(&self.seats[node], order, self.now)?;
        self.stats.starts += 1;
        if let Some(older) = order.cancels.filter(|_| order.body != RECALL) {
            self.end_running(node, older);
        }
        let may_begin = match self.ends.get(&id).cloned() {
            Some(end) => self.may_begin(node, &end)?,
            None => true,
        };
        let Some(work) = self.work(id) else { return Ok(()) };
        let (extra, span) = (work.extra, work.takes);
        let expired = work.expires <= self.now || !may_begin;
        let text = Some(body(self.rng.random_range(1..5)).0);
        let (outcome, takes) = match (expired, missing) {
            (false, false) if self.alike => {
                (Outcome { state: State::Ok, body: Some(body(1).0) }, draw(&mut self.rng, span))
            }
            (true, _) => (Outcome::bare(State::Expired), Duration::ZERO),
            (_, true) => (Outcome { state: State::Failed(66), body: text }, Duration::ZERO),
            _ => {
                let states = [State::Ok, State::Ok, State::Failed(1), State::Signalled(9)];
                let state = states[self.rng.random_range(0..states.len())];
                (Outcome { state, body: text }, draw(&mut self.rng, span))
            }
        };
        let seat = &mut self.seats[node];
        let Some(process) = &mut seat.process else { return Ok(()) };
        process.running.insert(id, outcome);
        let wants_more = extra.is_some_and(|extra| !seat.disk.image.store.contains(&extra));
        let event = match wants_more && !expired && !missing {
            true => Event::Midway { node, life, order: id, request: process.request() },
            false => Event::Ended { node, life, order: id },
        };
        self.queue.push(self.now + takes, event);
        self.speak_up(node, id);
        Ok(())
    }

    /// A command that another order takes back ends at once.
    fn end_running(&mut self, node: usize, order: OrderId) {
        let seat = &mut self.seats[node];
        let Some(process) = &mut seat.process else { return };
        if let Some(outcome) = process.running.get_mut(&order) {
            *outcome = Outcome::bare(State::Cancelled);
            self.queue.push(self.now, Event::Ended { node, life: seat.life, order });
        }
    }

    /// A command finds that it wants more content.
    pub(crate) fn midway(
        &mut self,
        node: usize,
        order: OrderId,
        request: RequestId,
    ) -> Result<(), Violation> {
        let extra = self.work(order).and_then(|work| work.extra);
        let seat = &mut self.seats[node];
        let (Some(process), Some(extra)) = (&mut seat.process, extra) else { return Ok(()) };
        if seat.disk.image.store.contains(&extra) {
            self.queue.push(self.now, Event::Ended { node, life: seat.life, order });
            return Ok(());
        }
        process.wants.insert(request, order);
        self.feed(node, Input::Wanted { by: Asker::Local(request), content: extra })
    }

    /// A command ends.
    pub(crate) fn ended(&mut self, node: usize, order: OrderId) -> Result<(), Violation> {
        let Some(process) = &mut self.seats[node].process else { return Ok(()) };
        let Some(outcome) = process.running.remove(&order) else { return Ok(()) };
        self.checks.words.happened(order, HostId(node as u32), outcome);
        self.checks.gated.ended(HostId(node as u32), order);
        let text = outcome.body.map(|digest| body(digest.0[0]).1);
        self.feed(node, Input::Ended { order, outcome, body: text })
    }

    fn tell(&mut self, node: usize, event: Told) -> Result<(), Violation> {
        let expiry = match &event {
            Told::Answers(report) => self.expiry(report.order),
            _ => Duration::ZERO,
        };
        self.checks.told(&self.seats[node], &event, expiry <= self.now)?;
        if let Told::Answers(report) = &event
            && report.order.giver().is_none()
            // Who lives below a node that has no room is not reached, and that is known at once.
            && !self.checks.known.is_turned_away(report.order)
            && let Some(work) = self.work(report.order)
        {
            let grace = self.seats[node].config.grace();
            self.checks.absences.told(report, work, grace, self.now)?;
        }
        if let Told::Closed(order) = &event {
            self.closed.insert(*order, self.now);
        }
        if let Told::Stopped { order, hosts, .. } = &event {
            self.stopped(*order, hosts);
        }
        let seat = &mut self.seats[node];
        if let Some(process) = &mut seat.process {
            process.above.handle(&event);
        }
        match (event, &mut seat.process) {
            (Told::Answers(report), _) => {
                seat.disk.push(self.now, Duration::ZERO, Entry::Bodies(report));
            }
            (Told::Happened(events), _) => {
                self.checks.happened.telling(HostId::ROOT, &events)?;
                seat.disk.push(self.now, Duration::ZERO, Entry::Happened(events));
            }
            (Told::Profiles(lines), _) => {
                self.checks.profiles.telling(HostId::ROOT, &lines)?;
                seat.disk.push(self.now, Duration::ZERO, Entry::Profiles(lines));
            }
            (Told::Unheard(report), _) => {
                seat.disk.push(self.now, Duration::ZERO, Entry::Unheard(report));
            }
            (Told::Reachable(tree), Some(process)) => process.shown = tree,
            (Told::Below { child, below }, Some(process)) => {
                process.below.insert(child, below);
            }
            _ => {}
        }
        Ok(())
    }
}
