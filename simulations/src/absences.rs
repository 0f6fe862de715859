//! Whether anybody is called down too soon.
//!
//! Before an order's time to reach a host is over, a node may say that it was not reached only of a
//! host that some node has lost for as long as the grace, or if a node on the way has no room for
//! the order. [`Absences`] sees every link come and go and knows who was reached by it, whatever
//! the nodes make of that.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::{HostId, HostSet, Input, LinkId, Outcome, Peer, Report, State};

use crate::checks::Violation;
use crate::plan::Work;

/// When who was lost.
#[derive(Default)]
pub(crate) struct Absences {
    /// Who was ever said to live behind each open link.
    behind: BTreeMap<(HostId, LinkId), HostSet>,
    /// When each host was first lost by any node.
    lost: BTreeMap<HostId, Duration>,
    /// Who has been seen, and who was reached, by the root that lives now, and since when it may
    /// live.
    seen: HostSet,
    reached: HostSet,
    root_since: Duration,
}

impl Absences {
    /// Something is about to happen to a node.
    pub(crate) fn input(&mut self, me: HostId, input: &Input, now: Duration) {
        match input {
            Input::LinkUp { link, peer: Peer::Child { host, .. } } => {
                self.behind.insert((me, *link), HostSet::one(*host));
            }
            Input::Frame { link, frame: mesh::Frame::Below(tree) } => {
                // What still comes by a link that the node has closed is not taken.
                let Some(behind) = self.behind.get_mut(&(me, *link)) else { return };
                *behind = behind.union(&tree.below);
                if me == HostId::ROOT {
                    self.seen = self.seen.union(&tree.below);
                    self.reached = self.reached.union(&tree.up);
                }
            }
            Input::LinkDown { link } => self.parted(me, *link, now),
            _ => {}
        }
    }

    /// A link is no more, as far as one end of it knows.
    pub(crate) fn parted(&mut self, me: HostId, link: LinkId, now: Duration) {
        for host in self.behind.remove(&(me, link)).unwrap_or_default().iter() {
            self.lost.entry(host).or_insert(now);
        }
    }

    /// A process died, and with it all links that it had.
    pub(crate) fn died(&mut self, me: HostId, now: Duration) {
        let links: Vec<_> = self.behind.keys().filter(|(node, _)| *node == me).copied().collect();
        links.into_iter().for_each(|(me, link)| self.parted(me, link, now));
        if me == HostId::ROOT {
            (self.seen, self.reached) = Default::default();
            self.root_since = now;
        }
    }

    /// The root's watcher is told something of an order. `grace`: that of every node. Whom
    /// the root has never reached has had it since the root's start.
    pub(crate) fn told(
        &self,
        report: &Report,
        work: &Work,
        grace: Duration,
        now: Duration,
    ) -> Result<(), Violation> {
        let mut lines = report.tally.lines();
        let missed = lines.find(|(outcome, _)| **outcome == Outcome::bare(State::NotReached));
        let Some((_, missed)) = missed.filter(|_| now < work.at + work.order.reach) else {
            return Ok(());
        };
        let since = |host: &HostId| {
            let lost = match self.seen.contains(*host) {
                true => self.lost.get(host).copied().unwrap_or_default(),
                false => self.root_since,
            };
            match self.reached.contains(*host) {
                true => lost,
                false => lost.min(self.root_since),
            }
        };
        match missed.iter().find(|host| now < since(host) + grace) {
            None => Ok(()),
            Some(host) => {
                let detail = format!(
                    "{host:?}, first lost at {:?}, is down at {now:?} for {:?}",
                    since(&host),
                    report.order
                );
                Err(Violation::new("a grace", detail))
            }
        }
    }
}
