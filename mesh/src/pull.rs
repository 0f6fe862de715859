//! Which content is fetched from the parent, for whom.
//!
//! However many children and local orders want a piece, it is asked for once; whoever comes while
//! it is on its way joins those who wait. A bounded number of pulls is under way at a time, in the
//! order in which they were wanted. When the parent's link goes, what was under way waits for the
//! next one: nobody who waits is ever told "no" because a link broke.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::outbox::Outbox;
use crate::{Asker, Digest, Event, LinkId, OrderId, Output, PullFault};

/// How often one link may break a single pull before the pull is given up.
const TRIES: u32 = 3;

#[derive(Default)]
struct Want {
    askers: BTreeSet<Asker>,
    orders: BTreeSet<OrderId>,
    tries: u32,
    under_way: bool,
}

/// Who waits for what.
pub(crate) struct Pulls {
    is_root: bool,
    at_once: usize,
    limit: usize,
    link: Option<LinkId>,
    wants: BTreeMap<Digest, Want>,
    queue: VecDeque<Digest>,
    waiting: usize,
    active: usize,
}

impl Pulls {
    pub(crate) fn new(is_root: bool, at_once: usize, limit: usize) -> Pulls {
        Pulls {
            is_root,
            at_once,
            limit,
            link: None,
            wants: BTreeMap::new(),
            queue: VecDeque::new(),
            waiting: 0,
            active: 0,
        }
    }

    /// A child's stream or the shell wants content that is not in the store.
    pub(crate) fn handle_wanted(&mut self, by: Asker, content: Digest, out: &mut Outbox) {
        let fault = match (self.is_root, self.waiting >= self.limit) {
            (true, _) => Some(PullFault::Absent),
            (_, true) => Some(PullFault::Busy),
            _ => None,
        };
        if let Some(fault) = fault {
            return out.push(Output::Deny { by, content, fault });
        }
        self.waiting += usize::from(self.want(content).askers.insert(by));
        self.pump(out);
    }

    /// An order of this host, or of hosts below, needs content.
    pub(crate) fn handle_needed(&mut self, order: OrderId, content: Digest, out: &mut Outbox) {
        self.waiting += usize::from(self.want(content).orders.insert(order));
        self.pump(out);
    }

    /// An asker went away.
    pub(crate) fn handle_unwanted(&mut self, by: Asker) {
        self.drop_askers(|asker| *asker == by);
    }

    /// The parent's link went away with all that was under way, and that is never looked at again.
    #[cfg(feature = "sabotage")]
    pub(crate) fn lose(&mut self) {
        (self.link, self.active) = (None, 0);
    }

    /// A link went away: its askers with it, and if it was the parent's, what was under way.
    pub(crate) fn handle_down(&mut self, link: LinkId) {
        self.drop_askers(|asker| matches!(asker, Asker::Child(l, _) if *l == link));
        if self.link == Some(link) {
            self.link = None;
            self.active = 0;
            for (content, want) in self.wants.iter_mut().filter(|(_, want)| want.under_way) {
                want.under_way = false;
                self.queue.push_front(*content);
            }
        }
    }

    /// The parent answers on this link.
    pub(crate) fn handle_up(&mut self, link: LinkId, out: &mut Outbox) {
        self.handle_down_of_old(link);
        for want in self.wants.values_mut() {
            want.tries = 0;
        }
        self.pump(out);
    }

    /// A pull ended. Returns the orders that waited for it.
    pub(crate) fn handle_pulled(
        &mut self,
        content: Digest,
        result: Result<(), PullFault>,
        out: &mut Outbox,
    ) -> BTreeSet<OrderId> {
        let Some(want) = self.wants.get_mut(&content).filter(|want| want.under_way) else {
            return BTreeSet::new();
        };
        want.under_way = false;
        want.tries += 1;
        self.active -= 1;
        let again = matches!(result, Err(PullFault::Broken | PullFault::Corrupt));
        if again && want.tries < TRIES {
            self.queue.push_back(content);
            self.pump(out);
            return BTreeSet::new();
        }
        let want = self.wants.remove(&content).expect("it was just there");
        self.waiting -= want.askers.len() + want.orders.len();
        for by in want.askers {
            out.push(match result {
                Ok(()) => Output::Serve { by, content },
                Err(fault) => Output::Deny { by, content, fault },
            });
        }
        if let Err(fault) = result {
            out.push(Output::Tell(Event::PullFailed { content, fault }));
        }
        self.pump(out);
        want.orders
    }

    fn handle_down_of_old(&mut self, link: LinkId) {
        if let Some(old) = self.link.filter(|old| *old != link) {
            self.handle_down(old);
        }
        self.link = Some(link);
    }

    fn want(&mut self, content: Digest) -> &mut Want {
        self.wants.entry(content).or_insert_with(|| {
            self.queue.push_back(content);
            Want::default()
        })
    }

    /// What nobody waits for any more is not asked for; what is under way goes on into the store.
    fn drop_askers(&mut self, gone: impl Fn(&Asker) -> bool) {
        for want in self.wants.values_mut() {
            let before = want.askers.len();
            want.askers.retain(|asker| !gone(asker));
            self.waiting -= before - want.askers.len();
        }
        self.wants.retain(|_, w| w.under_way || !w.askers.is_empty() || !w.orders.is_empty());
    }

    fn pump(&mut self, out: &mut Outbox) {
        let Some(link) = self.link else { return };
        while self.active < self.at_once {
            let Some(content) = self.queue.pop_front() else { return };
            if let Some(want) = self.wants.get_mut(&content).filter(|want| !want.under_way) {
                want.under_way = true;
                self.active += 1;
                out.push(Output::Pull { link, content });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RequestId;

    const WHAT: Digest = Digest([7; 32]);

    fn child(n: u64) -> Asker {
        Asker::Child(LinkId(n), RequestId(n))
    }

    fn drain(out: &mut Outbox) -> Vec<Output> {
        std::iter::from_fn(|| out.pop()).collect()
    }

    #[test]
    fn one_request_upstream_however_many_wait() {
        let (mut pulls, mut out) = (Pulls::new(false, 8, 100), Outbox::default());
        pulls.handle_up(LinkId(9), &mut out);
        (1..=50).for_each(|n| pulls.handle_wanted(child(n), WHAT, &mut out));
        assert_eq!(drain(&mut out), [Output::Pull { link: LinkId(9), content: WHAT }]);
        pulls.handle_pulled(WHAT, Ok(()), &mut out);
        assert_eq!(drain(&mut out).len(), 50);
        assert_eq!(pulls.waiting, 0);
    }

    #[test]
    fn a_new_parent_goes_on_with_what_was_under_way() {
        let (mut pulls, mut out) = (Pulls::new(false, 1, 100), Outbox::default());
        let other = Digest([8; 32]);
        pulls.handle_up(LinkId(9), &mut out);
        pulls.handle_wanted(child(1), WHAT, &mut out);
        pulls.handle_wanted(child(2), other, &mut out);
        pulls.handle_down(LinkId(9));
        drain(&mut out);
        pulls.handle_up(LinkId(10), &mut out);
        assert_eq!(drain(&mut out), [Output::Pull { link: LinkId(10), content: WHAT }]);
        pulls.handle_pulled(WHAT, Ok(()), &mut out);
        let last = drain(&mut out).pop();
        assert_eq!(last, Some(Output::Pull { link: LinkId(10), content: other }));
    }

    #[test]
    fn a_broken_pull_is_tried_again_and_then_denied() {
        let (mut pulls, mut out) = (Pulls::new(false, 8, 100), Outbox::default());
        pulls.handle_up(LinkId(9), &mut out);
        pulls.handle_wanted(child(1), WHAT, &mut out);
        for _ in 0..TRIES {
            pulls.handle_pulled(WHAT, Err(PullFault::Corrupt), &mut out);
        }
        let denied = Output::Deny { by: child(1), content: WHAT, fault: PullFault::Corrupt };
        assert!(drain(&mut out).contains(&denied));
        // The limit and the root answer at once.
        let mut full = Pulls::new(false, 8, 0);
        full.handle_wanted(child(1), WHAT, &mut out);
        assert!(matches!(out.pop(), Some(Output::Deny { fault: PullFault::Busy, .. })));
    }
}
