//! Which content is fetched from the parent, for whom.
//!
//! However many children and local orders want a piece, it is asked for once; whoever comes while
//! it is on its way joins those who wait. Once the front of it is here, children are served at the
//! pace at which it arrives, so that a hop costs a moment and not the whole transfer again. A
//! bounded number of pulls is under way at a time, in the order in which they were wanted. When the
//! parent's link goes, what was under way waits for the next one: nobody who waits is ever told
//! "no" because a link broke, and whoever is being served just waits for more.

use std::collections::{BTreeMap, BTreeSet};

use crate::outbox::Outbox;
use crate::{Asker, Digest, Event, LinkId, OrderId, Output, PullFault, RequestId};

/// How often one link may break a single pull before the pull is given up.
const TRIES: u32 = 3;

/// Who waits for content: somebody who asked, or an order of this host or of hosts below.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Waiter {
    Asker(Asker),
    Order(OrderId),
}

struct Want {
    /// Each with whether it is being served from what has arrived.
    waiters: BTreeMap<Waiter, bool>,
    tries: u32,
    under_way: bool,
    /// Whether the front of it is here, by the pull that is under way.
    arriving: bool,
    /// Its place in the queue; kept while it is under way, for the case that the link breaks.
    place: u64,
}

/// Who waits for what.
pub(crate) struct Pulls {
    is_root: bool,
    at_once: usize,
    limit: usize,
    link: Option<LinkId>,
    wants: BTreeMap<Digest, Want>,
    /// The same by who waits.
    waits: BTreeSet<(Waiter, Digest)>,
    /// What is not under way yet, by its place.
    queue: BTreeMap<u64, Digest>,
    last_place: u64,
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
            waits: BTreeSet::new(),
            queue: BTreeMap::new(),
            last_place: 0,
            active: 0,
        }
    }

    /// A child's stream or the shell wants content that is not in the store.
    pub(crate) fn handle_wanted(&mut self, by: Asker, content: Digest, out: &mut Outbox) {
        let fault = match (self.is_root, self.waits.len() >= self.limit) {
            (true, _) => Some(PullFault::Absent),
            (_, true) => Some(PullFault::Busy),
            _ => None,
        };
        if let Some(fault) = fault {
            return out.push(Output::Deny { by, content, fault });
        }
        self.want(Waiter::Asker(by), content);
        self.serve_arrived(content, out);
        self.pump(out);
    }

    /// The front of content is here.
    pub(crate) fn handle_arriving(&mut self, content: Digest, out: &mut Outbox) {
        if let Some(want) = self.wants.get_mut(&content).filter(|want| want.under_way) {
            want.arriving = true;
            self.serve_arrived(content, out);
        }
    }

    /// Has children served who wait for what is arriving. They stay among those who wait.
    fn serve_arrived(&mut self, content: Digest, out: &mut Outbox) {
        let Some(want) = self.wants.get_mut(&content).filter(|want| want.arriving) else { return };
        for (waiter, served) in want.waiters.iter_mut().filter(|(_, served)| !**served) {
            if let Waiter::Asker(by @ Asker::Child(..)) = *waiter {
                *served = true;
                out.push(Output::Serve { by, content });
            }
        }
    }

    /// An order of this host, or of hosts below, needs content.
    pub(crate) fn handle_needed(&mut self, order: OrderId, content: Digest, out: &mut Outbox) {
        self.want(Waiter::Order(order), content);
        self.pump(out);
    }

    /// An asker went away.
    pub(crate) fn handle_unwanted(&mut self, by: Asker) {
        self.drop_waits(Waiter::Asker(by), |waiter| waiter == Waiter::Asker(by));
    }

    /// An order is forgotten: nothing is needed for it any more.
    pub(crate) fn forget(&mut self, order: OrderId) {
        self.drop_waits(Waiter::Order(order), |waiter| waiter == Waiter::Order(order));
    }

    /// Those who are being served count as served in full.
    #[cfg(feature = "sabotage")]
    pub(crate) fn forget_half_served(&mut self, content: Digest) {
        let Some(want) = self.wants.get_mut(&content) else { return };
        for (waiter, _) in want.waiters.extract_if(.., |_, served| *served) {
            self.waits.remove(&(waiter, content));
        }
    }

    /// The parent's link went away with all that was under way, and that is never looked at again.
    #[cfg(feature = "sabotage")]
    pub(crate) fn lose(&mut self) {
        (self.link, self.active) = (None, 0);
    }

    /// A link went away: its askers with it, and if it was the parent's, what was under way.
    pub(crate) fn handle_down(&mut self, link: LinkId) {
        self.drop_waits(
            Waiter::Asker(Asker::Child(link, RequestId(0))),
            |waiter| matches!(waiter, Waiter::Asker(Asker::Child(l, _)) if l == link),
        );
        if self.link == Some(link) {
            self.link = None;
            self.active = 0;
            self.wants.retain(|_, want| !want.waiters.is_empty());
            for (content, want) in self.wants.iter_mut().filter(|(_, want)| want.under_way) {
                (want.under_way, want.arriving) = (false, false);
                self.queue.insert(want.place, *content);
            }
        }
    }

    /// The parent answers on this link.
    pub(crate) fn handle_up(&mut self, link: LinkId, out: &mut Outbox) {
        if let Some(old) = self.link.filter(|old| *old != link) {
            self.handle_down(old);
        }
        self.link = Some(link);
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
    ) -> Vec<OrderId> {
        let Some(want) = self.wants.get_mut(&content).filter(|want| want.under_way) else {
            return Vec::new();
        };
        (want.under_way, want.arriving) = (false, false);
        want.tries += 1;
        self.active -= 1;
        let again = matches!(result, Err(PullFault::Broken | PullFault::Corrupt));
        if again && want.tries < TRIES && !want.waiters.is_empty() {
            self.last_place += 1;
            want.place = self.last_place;
            self.queue.insert(want.place, content);
            self.pump(out);
            return Vec::new();
        }
        let want = self.wants.remove(&content).expect("it was just there");
        let mut orders = Vec::new();
        let mut half_served = false;
        for (waiter, served) in want.waiters {
            self.waits.remove(&(waiter, content));
            match (waiter, result) {
                (Waiter::Order(order), _) => orders.push(order),
                (Waiter::Asker(_), _) if served => half_served = true,
                (Waiter::Asker(by), Ok(())) => out.push(Output::Serve { by, content }),
                (Waiter::Asker(by), Err(fault)) => out.push(Output::Deny { by, content, fault }),
            }
        }
        if let Err(fault) = result {
            if half_served {
                out.push(Output::Abandon { content });
            }
            out.push(Output::Tell(Event::PullFailed { content, fault }));
        }
        self.pump(out);
        orders
    }

    fn want(&mut self, waiter: Waiter, content: Digest) {
        let want = self.wants.entry(content).or_insert_with(|| {
            self.last_place += 1;
            self.queue.insert(self.last_place, content);
            let (waiters, place) = (BTreeMap::new(), self.last_place);
            Want { waiters, tries: 0, under_way: false, arriving: false, place }
        });
        want.waiters.entry(waiter).or_default();
        self.waits.insert((waiter, content));
    }

    /// Drops waiters, from the first of them on. What nobody waits for any more is not asked for;
    /// what is under way goes on into the store.
    fn drop_waits(&mut self, first: Waiter, gone: impl Fn(Waiter) -> bool) {
        let after = self.waits.range((first, Digest([0; 32]))..);
        let waits: Vec<_> = after.copied().take_while(|(waiter, _)| gone(*waiter)).collect();
        for (waiter, content) in waits {
            self.waits.remove(&(waiter, content));
            let Some(want) = self.wants.get_mut(&content) else { continue };
            want.waiters.remove(&waiter);
            if want.waiters.is_empty() && !want.under_way {
                self.queue.remove(&want.place);
                self.wants.remove(&content);
            }
        }
    }

    fn pump(&mut self, out: &mut Outbox) {
        let Some(link) = self.link else { return };
        while self.active < self.at_once
            && let Some((_, content)) = self.queue.pop_first()
        {
            let want = self.wants.get_mut(&content).expect("what is queued is wanted");
            want.under_way = true;
            self.active += 1;
            out.push(Output::Pull { link, content });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(pulls.waits.is_empty());
    }

    #[test]
    fn children_are_served_from_what_has_arrived_and_only_once() {
        let (mut pulls, mut out) = (Pulls::new(false, 8, 100), Outbox::default());
        let (order, local) = (OrderId([1; 16]), Asker::Local(RequestId(9)));
        let serve = |by| Output::Serve { by, content: WHAT };
        pulls.handle_up(LinkId(9), &mut out);
        pulls.handle_needed(order, WHAT, &mut out);
        pulls.handle_wanted(local, WHAT, &mut out);
        pulls.handle_wanted(child(1), WHAT, &mut out);
        drain(&mut out);
        pulls.handle_arriving(WHAT, &mut out);
        assert_eq!(drain(&mut out), [serve(child(1))], "the shell itself needs the whole of it");
        pulls.handle_wanted(child(2), WHAT, &mut out);
        assert_eq!(drain(&mut out), [serve(child(2))], "whoever comes late joins at once");
        // The link breaks: whoever is being served waits for more, a newcomer for the next front.
        pulls.handle_down(LinkId(9));
        pulls.handle_wanted(child(3), WHAT, &mut out);
        assert_eq!(drain(&mut out), []);
        pulls.handle_up(LinkId(10), &mut out);
        drain(&mut out);
        pulls.handle_arriving(WHAT, &mut out);
        assert_eq!(drain(&mut out), [serve(child(3))]);
        assert_eq!(pulls.handle_pulled(WHAT, Ok(()), &mut out), [order]);
        assert_eq!(drain(&mut out), [serve(local)]);
        assert!(pulls.waits.is_empty() && pulls.wants.is_empty());
    }

    #[test]
    fn who_is_half_served_learns_that_no_more_comes() {
        let (mut pulls, mut out) = (Pulls::new(false, 8, 100), Outbox::default());
        pulls.handle_arriving(WHAT, &mut out);
        assert_eq!(drain(&mut out), [], "nobody wants it");
        pulls.handle_up(LinkId(9), &mut out);
        pulls.handle_wanted(child(1), WHAT, &mut out);
        pulls.handle_arriving(WHAT, &mut out);
        drain(&mut out);
        pulls.handle_pulled(WHAT, Err(PullFault::Absent), &mut out);
        let fault = PullFault::Absent;
        let told = Output::Tell(Event::PullFailed { content: WHAT, fault });
        assert_eq!(drain(&mut out), [Output::Abandon { content: WHAT }, told]);
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_not_asked_for_again() {
        let (mut pulls, mut out) = (Pulls::new(false, 1, 100), Outbox::default());
        let order = OrderId([1; 16]);
        pulls.handle_up(LinkId(9), &mut out);
        pulls.handle_needed(order, WHAT, &mut out);
        pulls.forget(order);
        drain(&mut out);
        pulls.handle_pulled(WHAT, Err(PullFault::Broken), &mut out);
        assert!(pulls.wants.is_empty() && pulls.queue.is_empty());
        pulls.handle_down(LinkId(9));
        pulls.handle_up(LinkId(10), &mut out);
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
    fn whoever_goes_leaves_nothing_behind() {
        let (mut pulls, mut out) = (Pulls::new(false, 8, 100), Outbox::default());
        let order = OrderId([1; 16]);
        for n in 1..=50 {
            pulls.handle_needed(order, WHAT, &mut out);
            pulls.handle_wanted(child(n), WHAT, &mut out);
            pulls.handle_wanted(child(n), Digest([n as u8 + 10; 32]), &mut out);
            match n % 2 {
                0 => pulls.handle_unwanted(child(n)),
                _ => pulls.handle_down(LinkId(n)),
            }
            assert_eq!((pulls.wants.len(), pulls.queue.len(), pulls.waits.len()), (1, 1, 1));
        }
        pulls.forget(order);
        assert_eq!((pulls.wants.len(), pulls.queue.len(), pulls.waits.len()), (0, 0, 0));
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
