//! Operators who look on: they come and go while the weather is rough, commands speak while
//! somebody watches, and what arrives must be what was said, of an order that is watched.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use mesh::{HostId, HostSet, Input, OrderId, Said, Stream, WATCHED};
use rand::RngExt;

use crate::checks::Violation;
use crate::queue::Event;
use crate::sim::Sim;

/// How long a command is silent between two words.
const PAUSE: Duration = Duration::from_millis(300);
/// How often viewers come or go.
const VISITS: Duration = Duration::from_secs(3);

/// What is watched, and what has arrived of it.
#[derive(Default)]
pub(crate) struct Viewers {
    watched: BTreeMap<OrderId, u64>,
    generation: u64,
    /// Whether anybody has ever watched.
    pub(crate) began: bool,
    heard: BTreeMap<OrderId, HostSet>,
}

impl Sim {
    /// Viewers come and go: each order of the plan is watched, or not, as the die falls.
    pub(crate) fn visit(&mut self) -> Result<(), Violation> {
        self.queue.push(self.now + VISITS, Event::Visit);
        self.chat()?;
        let now = self.now;
        let given = self.plan.work.iter().filter(|work| work.at <= now && now < work.expires);
        let given: Vec<_> = given.map(|work| work.order.id).collect();
        let chosen: Vec<_> = given.into_iter().filter(|_| self.rng.random_bool(0.4)).collect();
        self.watch(&chosen)
    }

    /// From now on the root's shell wants previews of these orders, anew.
    pub(crate) fn watch(&mut self, orders: &[OrderId]) -> Result<(), Violation> {
        self.viewers.generation += 1;
        let generation = self.viewers.generation;
        let orders = orders.iter().take(WATCHED);
        self.viewers.began |= orders.len() > 0;
        self.viewers.watched = orders.map(|order| (*order, generation)).collect();
        self.feed(0, Input::Watch { orders: self.viewers.watched.clone() })
    }

    /// A shell is told what is watched: each new generation is answered from the beginning.
    pub(crate) fn told_watch(&mut self, node: usize, orders: BTreeMap<OrderId, u64>) {
        let Some(process) = &mut self.seats[node].process else { return };
        let old = std::mem::replace(&mut process.watched, orders);
        let new = process.watched.iter().filter(|(order, no)| old.get(order) != Some(no));
        let new: Vec<_> = new.map(|(order, _)| *order).collect();
        new.into_iter().for_each(|order| self.speak_up(node, order));
    }

    /// A command begins to be heard, if it runs and is watched.
    pub(crate) fn speak_up(&mut self, node: usize, order: OrderId) {
        let seat = &self.seats[node];
        let Some(process) = &seat.process else { return };
        if let Some(generation) = process.watched.get(&order).copied()
            && process.running.contains_key(&order)
        {
            let said = Word { order, generation, offset: 0 };
            self.queue.push(self.now, Event::Speak { node, life: seat.life, said });
        }
    }

    /// A command says its next word, if anybody still wants to hear it.
    pub(crate) fn speak(&mut self, node: usize, word: Word) -> Result<(), Violation> {
        let Word { order, generation, offset } = word;
        let seat = &self.seats[node];
        let Some(process) = &seat.process else { return Ok(()) };
        if process.watched.get(&order) != Some(&generation) || !process.running.contains_key(&order)
        {
            return Ok(());
        }
        let (host, life) = (seat.config.host, seat.life);
        let bytes = line(order, host, offset);
        let said = Word { offset: offset + bytes.len() as u64, ..word };
        self.queue.push(self.now + PAUSE, Event::Speak { node, life, said });
        self.feed(node, Input::Said(Said { order, host, stream: Stream::Stdout, offset, bytes }))
    }

    /// A preview reaches the root's shell.
    pub(crate) fn heard(&mut self, said: &Said) -> Result<(), Violation> {
        self.stats.previews += 1;
        let Said { order, host, offset, bytes, .. } = said;
        let meant = self.work(*order).is_some_and(|work| work.order.targets.contains(*host));
        if !meant || !self.viewers.watched.contains_key(order) {
            let detail = format!("{host:?} is heard in {order:?}");
            return Err(Violation::new("only who is watched is heard", detail));
        }
        if *bytes != line(*order, *host, *offset) {
            let detail = format!("{bytes:?} of {host:?} in {order:?} at {offset}");
            return Err(Violation::new("a preview is what was said", detail));
        }
        self.viewers.heard.entry(*order).or_default().insert(*host);
        Ok(())
    }

    /// Who was heard in an order.
    pub(crate) fn heard_in(&self, order: OrderId) -> HostSet {
        self.viewers.heard.get(&order).cloned().unwrap_or_default()
    }
}

/// The next word of a command.
#[derive(Clone, Copy)]
pub(crate) struct Word {
    order: OrderId,
    generation: u64,
    offset: u64,
}

/// What the command of an order says at a host after so many bytes.
fn line(order: OrderId, host: HostId, offset: u64) -> Bytes {
    Bytes::from(format!("{host} {} {offset:08}\n", order.0[15]))
}
