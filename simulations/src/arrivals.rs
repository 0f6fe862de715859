//! What comes over the simulated net: links that stand, what is sent on them, and their end.

use std::time::Duration;

use mesh::{Frame, HostId, Input, LinkId, Order, Outcome, Peer, State};
use rand::RngExt;

use crate::checks::Violation;
use crate::coverage::Strike;
use crate::net::{Item, Kind, Phase, Side};
use crate::queue::Event;
use crate::sim::Sim;

impl Sim {
    pub(crate) fn dialled(
        &mut self,
        (node, life): (usize, u64),
        place: usize,
        parent: usize,
    ) -> Result<(), Violation> {
        if !self.lives(node, life) {
            return Ok(());
        }
        let alive = self.seats[parent].process.is_some();
        let blocked = self.net.is_blocked(node, parent) || self.net.is_blocked(parent, node);
        let half = self.rough && self.rng.random_bool(self.plan.weather.half_open);
        if !alive || blocked || half {
            let at = self.now + Duration::from_secs(2).mul_f64(self.rng.random_range(0.0..1.0));
            self.queue.push(at, Event::DialFailed { node, life, place });
        }
        if !alive || blocked {
            return Ok(());
        }
        self.stats.links += 1;
        let serves = self.plan.tree[node].serves;
        let kind = if serves || parent == 0 { Kind::Wan } else { Kind::Lan };
        let link = self.net.join((node, life), (parent, self.seats[parent].life), place, kind);
        let (child_id, parent_id) = (HostId(node as u32), HostId(parent as u32));
        let dice = (&mut self.rng, &mut self.queue);
        let up = Item::Up(Peer::Child { host: child_id, serves });
        self.net.send(self.now, link, Side::Parent, up, dice);
        if half {
            self.struck(Strike::HalfOpen, node);
            self.net.close(link, Side::Child);
            let noticed = self.rng.random_bool(0.5);
            self.cut(link, noticed);
        } else {
            let dice = (&mut self.rng, &mut self.queue);
            let up = Item::Up(Peer::Parent { place, host: parent_id });
            self.net.send(self.now, link, Side::Child, up, dice);
        }
        Ok(())
    }

    pub(crate) fn arrive(&mut self, link: LinkId, to: Side, item: Item) -> Result<(), Violation> {
        if let Item::Frame(Frame::Message(_) | Frame::Answer(_)) = &item {
            self.chatter.crowd.arrived(link, to);
        }
        let Some(path) = self.net.links.get_mut(&link) else { return Ok(()) };
        let (place, end) = (path.place, path.end_mut(to));
        let (node, life, phase, lost) = (end.node, end.life, end.phase, end.lost);
        if self.seats[node].life != life || self.seats[node].process.is_none() {
            return Ok(());
        }
        if let (Item::Up(_), Phase::Coming) = (&item, phase) {
            end.phase = Phase::Open;
        }
        match (item, phase) {
            (Item::Up(peer), Phase::Coming) => {
                self.feed(node, Input::LinkUp { link, peer })?;
                self.tell_epoch(node, link, to.other());
                if to == Side::Parent {
                    self.tell_list(node, link);
                }
                Ok(())
            }
            (Item::Epoch(epoch), Phase::Open) if !lost && node != 0 => self.hear_epoch(node, epoch),
            (Item::List(list), Phase::Open) if !lost => {
                self.take_list(node, *list);
                Ok(())
            }
            (Item::Due(job), Phase::Open) if !lost => self.told_due(node, link, *job),
            (Item::Did(no, how), Phase::Open) if !lost => {
                self.told_done(node, link, no, how);
                Ok(())
            }
            (Item::Down, Phase::Coming) if to == Side::Child => {
                self.net.close(link, to);
                self.feed(node, Input::DialFailed { place })
            }
            (Item::Down, _) => self.link_down(node, link, to, phase),
            // What was queued when the node hung up may still be handed to it.
            (Item::Frame(frame), Phase::Open | Phase::Closed) if !lost => {
                self.frame(node, link, to, frame)
            }
            (Item::Ask(content), Phase::Open) if !lost => self.ask(node, link, content),
            (Item::Front(content), Phase::Open) if !lost => self.front(node, link, content),
            (Item::Got(content, result, _), Phase::Open) if !lost => {
                self.fanned(link, content, result.is_ok());
                self.got(node, Some(link), content, result)
            }
            (Item::Elsewhere(content, sibling), Phase::Open) if !lost => {
                self.elsewhere(node, link, content, sibling)
            }
            (Item::Word(content, why), Phase::Open) if !lost => {
                self.came_of(node, link, content, why)
            }
            (Item::Recall(content), Phase::Open) if !lost => self.recalled(node, link, content),
            _ => Ok(()),
        }
    }

    fn frame(
        &mut self,
        node: usize,
        link: LinkId,
        to: Side,
        frame: Frame,
    ) -> Result<(), Violation> {
        if let Frame::OrdersHeld { through, .. } | Frame::ReportsHeld { through, .. } = &frame
            && let Some(path) = self.net.links.get_mut(&link)
        {
            path.end_mut(to).unheld.retain(|seq| seq > through);
        }
        match frame {
            Frame::Order { log, seq, order } => {
                let left = self.expiry(order.id).saturating_sub(self.now);
                if left.is_zero() {
                    let me = HostId(node as u32);
                    let meant = order.targets.contains(me);
                    let outcome = meant.then_some(Outcome::bare(State::Expired));
                    let order = order.id;
                    outcome
                        .into_iter()
                        .for_each(|word| self.checks.words.happened(order, me, word));
                    let bad = Input::BadOrder { link, log, seq, order, outcome, body: None };
                    return self.feed(node, bad);
                }
                let order = Order { ttl: left, ..Order::clone(&order) }.into();
                self.feed(node, Input::Frame { link, frame: Frame::Order { log, seq, order } })
            }
            frame => self.feed(node, Input::Frame { link, frame }),
        }
    }

    /// An end learns that its link is gone. Streams may break a moment before the link does.
    fn link_down(
        &mut self,
        node: usize,
        link: LinkId,
        to: Side,
        phase: Phase,
    ) -> Result<(), Violation> {
        let torn = self.rng.random_bool(0.5) && phase == Phase::Open;
        if torn && let Some(process) = &mut self.seats[node].process {
            for content in process.drop_pulls(link) {
                let result = Err(mesh::PullFault::Broken);
                self.feed(node, Input::Pulled { content, result })?;
            }
        }
        if to == Side::Parent {
            self.part(node, link);
        }
        // The dead link takes what was asked on it in between.
        self.net.close(link, to);
        if let Some(process) = &mut self.seats[node].process {
            process.drop_content(link);
            if to == Side::Child {
                process.parted = Some(self.now);
            }
        }
        self.feed(node, Input::LinkDown { link })
    }
}
