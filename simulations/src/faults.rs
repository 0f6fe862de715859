//! What goes wrong: processes die, links break, the network parts. And its end: everything heals.

use std::time::Duration;

use mesh::{HostId, Input, LinkId};
use rand::RngExt;

use crate::checks::Violation;
use crate::coverage::Strike;
use crate::net::{Item, Phase, Side};
use crate::plan::{Fault, Weather};
use crate::queue::Event;
use crate::sim::Sim;

impl Sim {
    pub(crate) fn fault(&mut self, index: usize) -> Result<(), Violation> {
        match self.plan.faults[index].1 {
            Fault::Kill { node, down } => {
                if self.seats[node].process.is_some() {
                    self.struck(Strike::Kill, node);
                }
                self.kill(node, down)?;
            }
            Fault::Cut { child, noticed } => {
                let uplink = self.net.links.iter().find(|(_, link)| {
                    let end = link.end(Side::Child);
                    end.node == child && end.phase != Phase::Closed
                });
                if let Some(link) = uplink.map(|(id, _)| *id) {
                    self.struck(Strike::Cut, child);
                    self.cut(link, noticed);
                }
            }
            Fault::Clock { node, by_ms } => self.jump(node, by_ms),
            Fault::Restore { down, .. } => self.restore(index, down)?,
            Fault::Steer { node } => {
                let parents = &mut self.plan.tree[node].parents;
                parents.rotate_left(1);
                let count = parents.len();
                if let Some(process) = &self.seats[node].process {
                    let parent = process.node.parent().map(|host| host.0 as usize);
                    let parents = &self.plan.tree[node].parents;
                    let here = parents.iter().position(|other| Some(*other) == parent);
                    self.feed(node, mesh::Input::Parents { count, here })?;
                }
            }
            Fault::Part { from, to, both, lasts } => {
                self.struck(Strike::Part, from);
                let ways = [Some((from, to)), both.then_some((to, from))];
                for (from, to) in ways.into_iter().flatten() {
                    self.block(from, to, lasts);
                }
            }
            Fault::Isolate { node, lasts } => {
                self.struck(Strike::Isolate, node);
                for other in self.neighbours(node) {
                    self.block(node, other, lasts);
                    self.block(other, node, lasts);
                }
            }
            Fault::FullDisk { node, lasts } => {
                self.struck(Strike::FullDisk, node);
                self.fill(node, lasts)?;
            }
            Fault::FailDisk { node, down } => {
                self.note(node, "has a disk that fails");
                let disk = &mut self.seats[node].disk;
                (disk.failing, disk.down) = (true, down);
            }
        }
        Ok(())
    }

    fn block(&mut self, from: usize, to: usize, lasts: Duration) {
        self.net.block(from, to);
        self.queue.push(self.now + lasts, Event::Heal { from, to });
        self.note(from, &format!("cannot reach {to} any more"));
    }

    /// Whom a node could have a link with.
    fn neighbours(&self, node: usize) -> Vec<usize> {
        let tree = &self.plan.tree;
        let is = |other: &usize| {
            tree[*other].parents.contains(&node) || tree[node].parents.contains(other)
        };
        (0..tree.len()).filter(is).collect()
    }

    /// A disk is full: what is on its way to it, and all that comes, waits.
    fn fill(&mut self, node: usize, lasts: Duration) -> Result<(), Violation> {
        let seat = &mut self.seats[node];
        seat.disk.full_until = seat.disk.full_until.max(self.now + lasts);
        self.queue.push(self.now + lasts, Event::Room { node });
        self.note(node, "has a full disk");
        self.feed(node, Input::Degraded(true))
    }

    /// A disk may have room again; what has waited is durable then.
    pub(crate) fn room(&mut self, node: usize) -> Result<(), Violation> {
        let seat = &mut self.seats[node];
        if seat.disk.full_until == Duration::ZERO || self.now < seat.disk.full_until {
            return Ok(());
        }
        let waited = seat.disk.make_room(self.now);
        let life = seat.life;
        self.note(node, "has room on its disk again");
        if let Some(through) = waited.filter(|_| self.lives(node, life)) {
            self.durable(node, life, through)?;
        }
        self.feed(node, Input::Degraded(false))
    }

    /// A process dies: what was not on disk is gone, and its commands with it. Peers learn of it
    /// at some time, or by silence.
    pub(crate) fn kill(&mut self, node: usize, down: Duration) -> Result<(), Violation> {
        if self.seats[node].process.take().is_none() {
            return Ok(());
        }
        self.note(node, "dies");
        self.stats.deaths += 1;
        if self.rough && self.rng.random_bool(self.plan.weather.kept) {
            let keeps = self.rng.random_range(0..=self.seats[node].disk.backlog());
            for _ in 0..keeps {
                let entry = self.seats[node].disk.pop_any();
                entry.map_or(Ok(()), |entry| self.land(node, &entry))?;
            }
        }
        self.seats[node].disk.crash();
        self.checks.died(&self.seats[node]);
        self.checks.absences.died(HostId(node as u32), self.now);
        let held = |(id, link): (&LinkId, &crate::net::Link)| {
            Side::BOTH.into_iter().find(|side| link.end(*side).node == node).map(|s| (*id, s))
        };
        let links: Vec<_> = self.net.links.iter().filter_map(held).collect();
        for (link, side) in links {
            self.net.close(link, side);
            let noticed = self.rng.random_bool(0.7);
            self.cut(link, noticed);
        }
        self.queue.push(self.now + down, Event::Restart { node });
        Ok(())
    }

    /// A link breaks: nothing more goes in, what is on its way arrives or is lost, and each end
    /// that is still there is told after a while, unless the break is silent.
    pub(crate) fn cut(&mut self, link: LinkId, noticed: bool) {
        let Some(path) = self.net.links.get_mut(&link) else { return };
        path.broken = true;
        for side in Side::BOTH {
            let end = path.end_mut(side);
            end.lost |= self.rng.random_bool(0.5);
        }
        if noticed {
            for to in Side::BOTH {
                let takes = Duration::from_secs(3).mul_f64(self.rng.random_range(0.0..1.0));
                self.net.send_after(self.now, takes, link, to, Item::Down, &mut self.queue);
            }
        }
    }

    /// Faults stop: the network is whole again, and every computer starts.
    pub(crate) fn heal(&mut self) -> Result<(), Violation> {
        self.rough = false;
        let fair = Weather::fair();
        self.net.set_weather(&fair);
        self.plan.weather = fair;
        for (from, to) in self.net.partitions() {
            while self.net.is_blocked(from, to) {
                let dice = (&mut self.rng, &mut self.queue);
                self.net.unblock(self.now, (from, to), dice);
            }
        }
        for node in 0..self.seats.len() {
            let disk = &mut self.seats[node].disk;
            disk.failing = false;
            disk.full_until = disk.full_until.min(self.now);
            self.room(node)?;
            if self.seats[node].process.is_none() {
                let at = self.now + Duration::from_secs(2).mul_f64(self.rng.random_range(0.0..1.0));
                self.queue.push(at, Event::Restart { node });
            }
        }
        self.watch(&[])
    }

    pub(crate) fn note(&mut self, node: usize, text: &str) {
        self.trace.step(self.now, node, [102, text.len() as u64]);
        if self.trace.wants_text() {
            self.trace.line(self.now, node, text);
        }
    }
}
