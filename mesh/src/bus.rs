//! The bus: messages between programs on any nodes, by subject, to whoever has said that he wants
//! them.
//!
//! Each end of a link tells the other what is wanted on its own side, and a message crosses only
//! links behind which somebody wants it. In a tree that is all there is to routing: whoever is on
//! this side of a link is not on the other. Answers to a request go straight to whoever has asked,
//! by where he lives.
//!
//! All of it is soft: interest is told anew on each link, and a message is where it is or nowhere.
//! Nothing is kept, nothing waits here, and what does not fit into a queue of the shell is dropped
//! and counted there.

mod interest;
mod recent;
mod subject;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::outbox::Outbox;
use crate::sabotage::Bug;
use crate::wake::Deadline;
use crate::{Frame, HostId, LinkId, Output, Time, Wake};

use self::recent::Recent;

pub use self::interest::Interest;
pub use self::subject::{Pattern, RESERVED, SUBJECT_WORDS, Subject, SubjectError, is_reserved};

/// The longest body of a message or an answer.
pub const BUS_BYTES: usize = 64 << 10;
/// How many patterns the interest on one side of a link has at most; beyond, they become coarser.
pub const PATTERNS: usize = 256;
/// A relay with thousands of children, of which each wants something else every moment, still tells
/// them no more often than this.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest, where it changes all the time: the pause doubles while it does.
const LONG: Duration = Duration::from_secs(3);
/// For so long after a link broke messages may come for those behind it, from who has not been told
/// yet: the longest pause, and what is on its way.
pub(crate) const STRAGGLE: Duration = Duration::from_secs(10);
/// So many of those links are kept in mind; what comes for those behind older ones is not counted.
const PARTED: usize = 32;

/// A message on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Tells it from all others of its node.
    pub id: u64,
    /// The node where it was published.
    pub from: HostId,
    /// What that node calls itself.
    pub node: String,
    /// What it is about.
    pub subject: Subject,
    /// If answers are wanted: under which number.
    pub request: Option<u64>,
    /// At most [`BUS_BYTES`].
    pub body: Bytes,
}

/// An answer to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The node that has asked.
    pub to: HostId,
    /// Under which number.
    pub request: u64,
    /// The node that answers.
    pub from: HostId,
    /// What that node calls itself.
    pub node: String,
    /// At most [`BUS_BYTES`].
    pub body: Bytes,
}

/// Who wants a message, as far as a node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanting {
    /// Whether somebody at this node does.
    pub here: bool,
    /// Behind which links somebody does.
    pub links: Vec<LinkId>,
}

impl Wanting {
    /// Whether anybody at all does.
    pub fn is_heard(&self) -> bool {
        self.here || !self.links.is_empty()
    }
}

/// The other side of a link.
#[derive(Default)]
struct Side {
    /// Whether it is the parent.
    is_parent: bool,
    /// What is wanted there; none: it has not said yet, and may be too old to.
    wants: Option<Interest>,
    /// What it was told.
    told: Option<Interest>,
}

impl Side {
    /// Whether a subject is wanted there.
    fn wants(&self, subject: &Subject) -> bool {
        self.wants.as_ref().is_some_and(|wants| wants.matches(subject))
    }
}

/// The machine.
pub(crate) struct Bus {
    /// What is wanted at this node.
    here: Interest,
    sides: BTreeMap<LinkId, Side>,
    /// Sides that went lately, oldest first, and until when that is kept in mind.
    parted: VecDeque<(Time, Side)>,
    /// Who wants the subject that was looked up last: it is looked up again when the message is
    /// passed on, and many messages on one subject come in a row. None: that may have changed.
    last: Option<(Subject, Wanting)>,
    recent: Recent<(HostId, u64)>,
    tell_at: Option<Time>,
    told_at: Option<Time>,
    /// How long after that it is told again at the earliest.
    pause: Duration,
    /// The planted bug, and what it holds back.
    #[cfg(feature = "sabotage")]
    pub(crate) bug: (Option<Bug>, Option<Message>),
}

impl Bus {
    pub(crate) fn new(recent: usize) -> Bus {
        let (here, sides) = (Interest::default(), BTreeMap::new());
        Bus {
            here,
            sides,
            parted: VecDeque::new(),
            last: None,
            recent: Recent::new(recent),
            tell_at: None,
            told_at: None,
            pause: PAUSE,
            #[cfg(feature = "sabotage")]
            bug: (None, None),
        }
    }

    #[cfg(feature = "sabotage")]
    fn has(&self, bug: Bug) -> bool {
        self.bug.0 == Some(bug)
    }

    #[cfg(not(feature = "sabotage"))]
    const fn has(&self, _: Bug) -> bool {
        false
    }

    /// A link stands. The child speaks first, so that nothing is sent to one that knows no bus.
    /// `soon`: when it does.
    pub(crate) fn handle_up(&mut self, soon: Time, link: LinkId, is_parent: bool) {
        self.last = None;
        self.sides.insert(link, Side { is_parent, ..Side::default() });
        if is_parent {
            self.tell_by(soon);
        }
    }

    /// A link is gone. `soon`: when the others are told.
    pub(crate) fn handle_down(&mut self, link: LinkId, soon: Time) {
        self.last = None;
        if let Some(side) = self.sides.remove(&link).filter(|side| side.wants.is_some()) {
            if self.parted.len() == PARTED {
                self.parted.pop_front();
            }
            self.parted.push_back((soon + STRAGGLE, side));
            self.tell_by(soon);
        }
    }

    /// Whether somebody wanted this subject who was behind a link that broke lately; and if so,
    /// whether that was the parent's, or he may have gone to where he gets it by another way.
    pub(crate) fn was_wanted(&self, now: Time, subject: &Subject) -> Option<bool> {
        let lately = self.parted.iter().filter(|(until, _)| *until > now).map(|(_, side)| side);
        lately.filter(|side| side.wants(subject)).map(|side| side.is_parent).max()
    }

    /// What is wanted at this node from now on.
    pub(crate) fn handle_here(&mut self, interest: Interest, soon: Time) {
        if self.here != interest {
            (self.here, self.last) = (interest, None);
            self.tell_by(soon);
        }
    }

    /// What is wanted on the other side of a link from now on.
    pub(crate) fn handle_interest(&mut self, link: LinkId, interest: Interest, soon: Time) {
        let interest = match self.has(Bug::KeepInterest) {
            true => self.widened(link, interest),
            false => interest,
        };
        if let Some(side) = self.sides.get_mut(&link)
            && side.wants.as_ref() != Some(&interest)
        {
            (side.wants, self.last) = (Some(interest), None);
            self.tell_by(soon);
        }
    }

    /// It together with what was wanted there before: [`Bug::KeepInterest`].
    fn widened(&self, link: LinkId, interest: Interest) -> Interest {
        let before = self.sides.get(&link).and_then(|side| side.wants.as_ref());
        let patterns = before.into_iter().chain([&interest]).flat_map(Interest::patterns);
        Interest::of(patterns.cloned(), PATTERNS)
    }

    fn tell_by(&mut self, at: Time) {
        let at = self.told_at.map_or(at, |told| at.max(told + self.pause));
        self.tell_at = Some(self.tell_at.map_or(at, |before| before.min(at)));
    }

    pub(crate) fn poll_timeout(&self) -> Deadline {
        self.tell_at.map(|at| (at, Wake::Bus))
    }

    /// Tells each side what the others want, where that is news.
    pub(crate) fn handle_timeout(&mut self, now: Time, out: &mut Outbox) {
        if self.tell_at.is_none_or(|at| at > now) {
            return;
        }
        let lately = self.told_at.is_some_and(|told| now.since(told) < self.pause * 2);
        self.pause = if lately { (self.pause * 2).min(LONG) } else { PAUSE };
        (self.tell_at, self.told_at) = (None, Some(now));
        // How many sides want each pattern: what only one wants is no news to that one.
        let wants = self.sides.values().filter_map(|side| side.wants.as_ref());
        let mut wanted = BTreeMap::<Pattern, usize>::new();
        for pattern in wants.chain([&self.here]).flat_map(Interest::patterns) {
            *wanted.entry(pattern.clone()).or_default() += 1;
        }
        let all = Interest::of(wanted.keys().cloned(), PATTERNS);
        for (link, side) in &mut self.sides {
            if !side.is_parent && side.wants.is_none() {
                continue;
            }
            let alone = |pattern: &Pattern| wanted.get(pattern) == Some(&1);
            // Where there are too many patterns, one side's own make no difference.
            let differs =
                wanted.len() <= PATTERNS && side.wants.iter().any(|own| own.patterns().any(alone));
            let exact = differs.then(|| {
                let own = |pattern: &Pattern| side.wants.as_ref().is_some_and(|w| w.has(pattern));
                let others = wanted.keys().filter(|pattern| !(alone(pattern) && own(pattern)));
                Interest::of(others.cloned(), PATTERNS)
            });
            let told = exact.as_ref().unwrap_or(&all);
            if side.told.as_ref() != Some(told) {
                out.send(*link, Frame::Interest(told.clone()));
                side.told = Some(told.clone());
            }
        }
    }

    /// Who wants this subject, as far as this node knows.
    pub(crate) fn wanting(&mut self, subject: &Subject) -> &Wanting {
        let last = match self.last.take() {
            Some(last) if last.0 == *subject => last,
            _ => (subject.clone(), self.found(subject)),
        };
        &self.last.insert(last).1
    }

    fn found(&self, subject: &Subject) -> Wanting {
        let wanting = self.sides.iter().filter(|(_, side)| side.wants(subject));
        let links = wanting.map(|(link, _)| *link);
        Wanting { here: self.here.matches(subject), links: links.collect() }
    }

    /// Passes a message on, from a link or from this node, to everybody else who wants it. Returns
    /// whether it went anywhere, now or when it came before.
    pub(crate) fn pass(
        &mut self,
        from: Option<LinkId>,
        message: &Message,
        out: &mut Outbox,
    ) -> bool {
        #[cfg(feature = "sabotage")]
        if self.has(Bug::SwapMessages) && from.is_none() && message.request.is_none() {
            match self.bug.1.take() {
                None => self.bug.1 = Some(message.clone()),
                Some(before) => {
                    self.pass_on(from, message, out);
                    self.pass_on(from, &before, out);
                }
            }
            return true;
        }
        self.pass_on(from, message, out)
    }

    fn pass_on(&mut self, from: Option<LinkId>, message: &Message, out: &mut Outbox) -> bool {
        let sender = if self.has(Bug::ForgetSender) { HostId::ROOT } else { message.from };
        // Whoever has moved may be reached by the old way and the new one.
        if !self.recent.is_new((sender, message.id)) && !self.has(Bug::HearTwice) {
            return true;
        }
        let from = from.filter(|_| !self.has(Bug::EchoMessage));
        let wanting = self.wanting(&message.subject);
        if wanting.here {
            out.push(Output::Deliver(message.clone()));
        }
        let links = wanting.links.iter().filter(|link| from != Some(**link));
        let mut is_heard = wanting.here;
        for link in links {
            out.send(*link, Frame::Message(message.clone()));
            is_heard = true;
        }
        is_heard
    }
}

#[cfg(test)]
mod tests;
