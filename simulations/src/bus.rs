//! Programs on the bus: they come, speak and go while the weather is rough. What arrives must be
//! what was said, wanted where it arrives, and arrive there once; in a healthy tree it must arrive
//! everywhere, but for what `burst` sees dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use mesh::bus::{Answer, Interest, Message, PATTERNS, Pattern, Subject};
use mesh::{HostId, Input};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::burst::Crowd;
use crate::checks::Violation;
use crate::queue::Event;
use crate::sim::Sim;

const SUBJECTS: [&str; 4] = ["a.x", "a.y", "b.x", "c"];
const PATTERN_TEXTS: [&str; 6] = ["a.x", "a.*", "*.x", "b.>", "c", ">"];
/// What everybody listens to in the end.
pub(crate) const LAST: &str = "last.word";
/// How long it may take there until everybody is told of something.
pub(crate) const WITHIN: Duration = Duration::from_secs(10);

/// A message, by the node where it was said and its number there.
pub(crate) type Key = (HostId, u64);

/// What was said, and who has heard it.
#[derive(Default)]
pub(crate) struct Chatter {
    next: u64,
    /// How much each node has said.
    numbers: BTreeMap<usize, u64>,
    said: BTreeMap<Key, Message>,
    /// What is wanted at each node, by its life.
    wants: BTreeMap<(usize, u64), Interest>,
    heard: BTreeSet<(usize, u64, Key)>,
    answered: BTreeSet<(Key, HostId)>,
    /// What links do with too much.
    pub(crate) crowd: Crowd,
}

impl Chatter {
    /// What a node has said last.
    pub(crate) fn last_of(&self, node: usize) -> Key {
        (HostId(node as u32), self.numbers.get(&node).copied().unwrap_or_default())
    }
}

pub(crate) fn interest(texts: &[&str]) -> Interest {
    let patterns = texts.iter().map(|text| Pattern::new(text).expect("one of ours"));
    Interest::of(patterns, PATTERNS)
}

impl Sim {
    /// At some node what is wanted changes, and at another one something is published.
    pub(crate) fn chat(&mut self) -> Result<(), Violation> {
        self.chatter.next += 1;
        // Dice of its own: whether anybody talks changes nothing else.
        let mut rng = SmallRng::seed_from_u64(self.plan.seed ^ (self.chatter.next << 32));
        let (listener, speaker) =
            (rng.random_range(0..self.seats.len()), rng.random_range(0..self.seats.len()));
        let count = rng.random_range(0..3);
        let texts: Vec<&str> = PATTERN_TEXTS.sample(&mut rng, count).copied().collect();
        self.listen(listener, interest(&texts))?;
        let subject = SUBJECTS.choose(&mut rng).copied().unwrap_or("c");
        self.say(speaker, subject, rng.random_bool(0.5))
    }

    pub(crate) fn listen(&mut self, node: usize, wants: Interest) -> Result<(), Violation> {
        if self.seats[node].process.is_none() {
            return Ok(());
        }
        self.chatter.wants.insert((node, self.seats[node].life), wants.clone());
        self.feed(node, Input::Subscribed(wants))
    }

    pub(crate) fn say(&mut self, node: usize, subject: &str, asks: bool) -> Result<(), Violation> {
        if self.seats[node].process.is_none() {
            return Ok(());
        }
        // Each node counts by itself, so that numbers alone tell no messages apart.
        let id = self.chatter.numbers.entry(node).or_default();
        *id += 1;
        let id = *id;
        let message = Message {
            id,
            from: self.seats[node].host(),
            node: format!("node {node}"),
            subject: Subject::new(subject).expect("one of ours"),
            request: asks.then_some(id),
            body: Bytes::from(format!("{id} of {node}")),
        };
        self.chatter.said.insert((message.from, id), message.clone());
        self.feed(node, Input::Publish(message))
    }

    /// A message reaches the programs at a node. Some of them answer.
    pub(crate) fn delivered(&mut self, node: usize, message: &Message) -> Result<(), Violation> {
        self.stats.messages += 1;
        let life = self.seats[node].life;
        let wants = self.chatter.wants.get(&(node, life));
        if !wants.is_some_and(|wants| wants.matches(&message.subject)) {
            let detail = format!("node {node} gets {message:?} and wants {wants:?}");
            return Err(Violation::new("only who wants a message gets it", detail));
        }
        let key = (message.from, message.id);
        if self.chatter.said.get(&key) != Some(message) {
            return Err(Violation::new("a message is what was said", format!("{message:?}")));
        }
        if !self.chatter.heard.insert((node, life, key)) {
            let detail = format!("node {node} gets {message:?} again");
            return Err(Violation::new("a message comes once", detail));
        }
        self.chatter.crowd.heard(node, key);
        let Some(request) = message.request else { return Ok(()) };
        let (to, from) = (message.from, self.seats[node].host());
        let body = message.body.clone();
        let answer = Answer { to, request, from, node: format!("node {node}"), body };
        self.queue.push(self.now, Event::Reply { node, life, answer });
        Ok(())
    }

    /// A program at a node answers.
    pub(crate) fn reply(&mut self, node: usize, answer: Answer) -> Result<(), Violation> {
        self.feed(node, Input::Answer(answer))
    }

    /// An answer reaches the programs at a node.
    pub(crate) fn answered(&mut self, node: usize, answer: &Answer) -> Result<(), Violation> {
        let me = self.seats[node].host();
        let key = (answer.to, answer.request);
        let asked = self.chatter.said.get(&key);
        let meant = asked.is_some_and(|m| m.from == me && m.body == answer.body);
        if !meant || answer.to != me {
            let detail = format!("node {node} gets {answer:?} to {asked:?}");
            return Err(Violation::new("who has asked is answered", detail));
        }
        if !self.chatter.answered.insert((key, answer.from)) {
            return Err(Violation::new("an answer comes once", format!("{answer:?}")));
        }
        Ok(())
    }

    /// In a healthy tree everybody listens, one speaks, and all answer.
    pub(crate) fn last_word(&mut self) -> Result<(), Violation> {
        self.chatter.crowd.room = usize::MAX;
        (0..self.seats.len()).try_for_each(|node| self.listen(node, interest(&[LAST])))?;
        self.run_until(self.now + WITHIN)?;
        let node = usize::try_from(self.plan.seed % self.seats.len() as u64).unwrap_or(0);
        self.say(node, LAST, true)?;
        let key = self.chatter.last_of(node);
        self.run_until(self.now + WITHIN)?;
        let live = |node: &usize| self.seats[*node].process.is_some();
        for node in (0..self.seats.len()).filter(live) {
            let (life, host) = (self.seats[node].life, self.seats[node].host());
            let heard = self.chatter.heard.contains(&(node, life, key));
            if !heard || !self.chatter.answered.contains(&(key, host)) {
                let said = &self.chatter.said[&key];
                let detail = format!("node {node}: heard {heard}, of {said:?}");
                return Err(Violation::new("in a healthy tree everybody is reached", detail));
            }
        }
        Ok(())
    }
}
