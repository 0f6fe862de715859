//! What is said of a host is true: it did happen there, it stands on that host's own disk, and a
//! host has one final answer.

use std::collections::{BTreeMap, BTreeSet};

use mesh::{HostId, Order, OrderId, Outcome, Report, State};

use super::{Job, Violation};
use crate::disk::Image;
use crate::gated::Gated;

/// What hosts may say of orders, and what they have said.
#[derive(Default)]
pub(crate) struct Words {
    /// What a host may say of an order: what its command really did, or that it was interrupted.
    words: BTreeSet<(Job, Outcome)>,
    /// What is, or once was, on the disk of the host itself.
    durable: BTreeMap<Job, BTreeSet<Outcome>>,
}

impl Words {
    /// What is or was on a host's own disk about an order.
    pub(crate) fn own(&self, id: OrderId, host: HostId) -> Option<&BTreeSet<Outcome>> {
        self.durable.get(&(id, host))
    }

    /// What really became of a command: its host may say so from now on.
    pub(crate) fn happened(&mut self, order: OrderId, host: HostId, outcome: Outcome) {
        self.words.insert(((order, host), outcome));
    }

    /// The root has an older disk: what it has said of itself stands nowhere any more.
    pub(super) fn restored(&mut self) {
        self.durable.retain(|(_, host), _| *host != HostId::ROOT);
    }

    /// A process is about to start with this disk: what it was in the middle of is interrupted,
    /// whatever had been supposed of it before it began.
    pub(super) fn restarted(&mut self, me: HostId, image: &Image) {
        for (id, order) in image.orders.iter().filter(|(_, order)| !order.again) {
            let said = image.tallies.get(id).and_then(|tally| tally.outcome(me));
            let said = said.filter(|said| !said.state.is_provisional());
            if image.intents.contains(id) && said.is_none() && order.targets.contains(me) {
                self.words.insert(((*id, me), Outcome::bare(State::Interrupted)));
            }
        }
    }

    /// A host that knows that an order was taken back may say so of the older one.
    pub(super) fn may_be_cancelled(&mut self, me: HostId, order: &Order) {
        if let Some(older) = order.cancels.filter(|_| order.targets.contains(me)) {
            let states = match order.lapses {
                true => &[State::Expired, State::Cancelled][..],
                false => &[State::Cancelled],
            };
            self.words.extend(states.iter().map(|state| ((older, me), Outcome::bare(*state))));
        }
        let mine = order.supersedes.iter().filter(|(_, hosts)| hosts.contains(me));
        let skipped = Outcome::bare(State::Skipped);
        self.words.extend(mine.map(|(older, _)| ((*older, me), skipped)));
    }

    /// A host that was released and could not begin in time may say so.
    pub(super) fn may_be_late(&mut self, me: HostId, order: OrderId) {
        self.words.insert(((order, me), Outcome::bare(State::Expired)));
    }

    /// A host keeps its own answer.
    pub(super) fn keep(
        &mut self,
        order: OrderId,
        me: HostId,
        said: Outcome,
        gated: &mut Gated,
    ) -> Result<(), Violation> {
        if !self.words.contains(&((order, me), said)) {
            let detail = format!("{me:?} keeps {said:?} for {order:?}, which did not happen");
            return Err(Violation::new("an answer is true", detail));
        }
        let words = self.durable.entry((order, me)).or_default();
        if words.insert(said) {
            gated.kept(order, said)?;
        }
        if words.iter().filter(|word| word.state.weight() >= 4).count() > 1 {
            let detail = format!("{me:?} has several for {order:?}: {words:?}");
            return Err(Violation::new("one final answer", detail));
        }
        Ok(())
    }

    /// Somebody else than its host has the right to say this of these hosts.
    pub(super) fn keep_for(
        &mut self,
        order: OrderId,
        hosts: impl Iterator<Item = HostId>,
        outcome: Outcome,
    ) {
        for host in hosts {
            self.durable.entry((order, host)).or_default().insert(outcome);
        }
    }

    /// What is said of a host stands, or stood, on that host's own disk.
    pub(super) fn is_true(&self, me: HostId, report: &Report) -> Result<(), Violation> {
        let own = |outcome: &&Outcome| !outcome.state.is_provisional();
        for (outcome, hosts) in report.tally.lines().filter(|(outcome, _)| own(outcome)) {
            for host in hosts.iter() {
                let words = self.durable.get(&(report.order, host));
                if !words.is_some_and(|words| words.contains(outcome)) {
                    let detail = format!("{me:?} says {outcome:?} of {host:?}, which did not");
                    return Err(Violation::new("a receipt is true", detail));
                }
            }
        }
        Ok(())
    }
}

/// Every line has its hosts for itself.
pub(super) fn sums_up(report: &Report) -> Result<(), Violation> {
    let sum: u64 = report.tally.lines().map(|(_, hosts)| hosts.len()).sum();
    if sum != report.tally.hosts().len() {
        let detail = format!("{sum} hosts in the lines of {:?}", report.tally);
        return Err(Violation::new("a tally sums up", detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mesh::{HostSet, Tally};

    use super::*;
    use crate::plan;

    #[test]
    fn a_supposition_is_no_answer_and_its_host_may_be_interrupted() {
        let me = HostId(3);
        let order = plan::run(1, HostSet::one(me));
        let interrupted = Outcome::bare(State::Interrupted);
        for (said, allowed) in [(State::NotReached, true), (State::Expired, false)] {
            let (mut words, mut image, mut tally) =
                (Words::default(), Image::default(), Tally::new());
            tally.record(Outcome::bare(said), &HostSet::one(me));
            image.intents.insert(order.id);
            image.tallies.insert(order.id, tally);
            image.orders.insert(order.id, order.clone().into());
            words.restarted(me, &image);
            assert_eq!(words.words.contains(&((order.id, me), interrupted)), allowed, "{said:?}");
        }
    }
}
