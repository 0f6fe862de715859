//! Hosts that fetch content from each other, as their parent says.
//!
//! Who is sent to whom the core's [`mesh::Fanout`] decides; here are the shells around it: the
//! parent's, which hears what became of it and serves the rest, and the hosts', which ask a sibling
//! for what it has or is getting. A sibling may be dead, cut off, or lie. No parent may send hosts
//! around in a circle, nor a host again to somebody who has just failed it. By the words of two
//! parents, of which one has not noticed that a host has left it, there may be a circle: nothing
//! comes, and each host soon asks its parent.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::{Ask, Digest, FanoutLimits, HostId, Input, LinkId, Lost, Way};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::checks::Violation;
use crate::coverage::Strike;
use crate::dice::Dice;
use crate::net::{Item, Side, draw};
use crate::plan::Plan;
use crate::queue::Event;
use crate::sim::Sim;

/// How long a sibling that does not answer is waited for.
const REACH: Duration = Duration::from_secs(1);
/// How often is looked whether a sibling has more.
const LOOK: Duration = Duration::from_millis(100);
/// After how many looks at a sibling that is still getting it a host gives up.
const LOOKS: u32 = 100;
/// Who has failed is not to be asked again for so long.
const MEMORY: Duration = Duration::from_secs(600);

/// A host that fetches from a sibling.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch {
    pub(crate) node: usize,
    pub(crate) life: u64,
    pub(crate) link: LinkId,
    pub(crate) content: Digest,
    pub(crate) sibling: usize,
    pub(crate) looks: u32,
}

/// Who was failed by whom, by the process that has heard of it.
pub(crate) type Failures = BTreeMap<(usize, u64, usize, usize), Duration>;

/// Lets parents of some plans send hosts to siblings. Dice of its own: a plan without is what it
/// was before.
pub(crate) fn draw_width(plan: &mut Plan, width: &Dice) {
    let mut rng = SmallRng::seed_from_u64(plan.seed ^ 0x6661_6e6f_7574);
    plan.fanout = width.draw(&mut rng) as usize;
}

/// What a plan says of it. Content is one byte, of which the port carries one a second.
pub(crate) fn limits(plan: &Plan) -> FanoutLimits {
    FanoutLimits { width: plan.fanout, port: 1, worth: Duration::ZERO, least: 0 }
}

impl Sim {
    /// A child has gone from a parent, which has noticed it, on this link.
    pub(crate) fn part(&mut self, node: usize, link: LinkId) {
        let child = |link: LinkId| self.net.links.get(&link).map(|link| link.end(Side::Child).node);
        let mut others = self.net.open_links(node, Side::Parent).into_iter();
        let (Some(gone), Some(process)) = (child(link), &mut self.seats[node].process) else {
            return;
        };
        // It may have come again meanwhile.
        if !others.any(|other| other != link && child(other) == Some(gone)) {
            process.fanout.part(HostId(gone as u32));
        }
    }

    /// Sends a child that asks for content that is here, or arriving, to a sibling, if the core
    /// says so.
    pub(crate) fn turn(
        &mut self,
        node: usize,
        link: LinkId,
        content: Digest,
    ) -> Result<bool, Violation> {
        let Some(child) = self.net.open_child(link) else { return Ok(false) };
        let life = self.seats[node].life;
        let Some(process) = &mut self.seats[node].process else { return Ok(false) };
        if self.plan.fanout == 0 || self.plan.tree[child].serves {
            return Ok(false);
        }
        let (now, host) = (process.time(self.now), HostId(child as u32));
        process.fanout.meet(host);
        let way = process.fanout.ask(now, &Ask { child: host, content, bytes: 1, willing: true });
        let Way::Sibling { host, .. } = way else { return Ok(false) };
        let sibling = host.0 as usize;
        process.away.insert((link, content));
        if let Some(failed) = self.failures.get(&(node, life, child, sibling))
            && *failed + MEMORY > self.now
        {
            let detail = format!("node {node} sends {child} to {sibling}, who has failed it");
            return Err(Violation::new("who has failed is not asked again", detail));
        }
        let dice = (&mut self.rng, &mut self.queue);
        self.net.send(self.now, link, Side::Child, Item::Elsewhere(content, sibling), dice);
        Ok(true)
    }

    /// A host learns that it is to fetch from a sibling.
    pub(crate) fn elsewhere(
        &mut self,
        node: usize,
        link: LinkId,
        content: Digest,
        sibling: usize,
    ) -> Result<(), Violation> {
        let Some(process) = &mut self.seats[node].process else { return Ok(()) };
        if process.pulling.get(&content) != Some(&link) {
            return Ok(());
        }
        let Some(by) = self.net.open_process(link, Side::Parent) else { return Ok(()) };
        process.fetching.insert(content, (sibling, link));
        let mut at = sibling;
        for _ in 0..self.seats.len() {
            if at == node {
                let detail = format!("node {node} waits for {content:?} from {sibling}");
                return Err(Violation::new("content goes in no circle", detail));
            }
            let next = self.seats[at].process.as_ref().and_then(|process| {
                let (next, link) = process.fetching.get(&content)?;
                let still = process.pulling.get(&content) == Some(link);
                (still && self.net.open_process(*link, Side::Parent) == Some(by)).then_some(*next)
            });
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        let life = self.seats[node].life;
        let takes = draw(&mut self.rng, self.plan.weather.transfer);
        let fetch = Fetch { node, life, link, content, sibling, looks: 0 };
        self.queue.push(self.now + takes, Event::Fetch(fetch));
        Ok(())
    }

    /// A host looks how far it has come with its sibling.
    pub(crate) fn fetch(&mut self, fetch: Fetch) -> Result<(), Violation> {
        let Fetch { node, link, content, sibling, looks, .. } = fetch;
        let Some(process) = &self.seats[node].process else { return Ok(()) };
        let still = process.pulling.get(&content) == Some(&link)
            && process.fetching.get(&content) == Some(&(sibling, link));
        if !still {
            return Ok(());
        }
        let blocked = self.net.is_blocked(node, sibling) || self.net.is_blocked(sibling, node);
        let other = self.seats[sibling].process.as_ref().filter(|_| !blocked);
        let Some(other) = other else {
            let lost = if looks == 0 { Lost::Unreached } else { Lost::Broken };
            let takes = REACH.mul_f64(self.rng.random_range(0.0..1.0));
            return self.tell_parent(fetch, Some(lost), takes);
        };
        if self.seats[sibling].disk.image.store.contains(&content) {
            let weather = &self.plan.weather;
            let (torn, corrupt) = (weather.torn, weather.corrupt);
            if self.rough && self.rng.random_bool(torn) {
                self.struck(Strike::Torn, node);
                return self.tell_parent(fetch, Some(Lost::Broken), Duration::ZERO);
            }
            if self.rough && self.rng.random_bool(corrupt) {
                self.struck(Strike::Corrupt, node);
                return self.tell_parent(fetch, Some(Lost::Altered), Duration::ZERO);
            }
            self.tell_parent(fetch, None, Duration::ZERO)?;
            return self.got(node, Some(link), content, Ok(()));
        }
        let (pulls, front) =
            (other.pulling.contains_key(&content), other.fronts.contains(&content));
        if !pulls {
            return self.tell_parent(fetch, Some(Lost::Absent), Duration::ZERO);
        }
        if looks >= LOOKS {
            return self.tell_parent(fetch, Some(Lost::Slow), Duration::ZERO);
        }
        self.queue.push(self.now + LOOK, Event::Fetch(Fetch { looks: looks + 1, ..fetch }));
        if front { self.front(node, link, content) } else { Ok(()) }
    }

    /// A host tells its parent what came of it.
    fn tell_parent(
        &mut self,
        fetch: Fetch,
        lost: Option<Lost>,
        late: Duration,
    ) -> Result<(), Violation> {
        let Fetch { node, link, content, .. } = fetch;
        if let Some(process) = &mut self.seats[node].process {
            process.fetching.remove(&content);
        }
        let takes = late + draw(&mut self.rng, self.net.profile(link).delay);
        let word = Item::Word(content, lost);
        self.net.send_after(self.now, takes, link, Side::Parent, word, &mut self.queue);
        Ok(())
    }

    /// A parent hears what came of it, and serves the rest.
    pub(crate) fn came_of(
        &mut self,
        node: usize,
        link: LinkId,
        content: Digest,
        lost: Option<Lost>,
    ) -> Result<(), Violation> {
        let (Some(child), life) = (self.net.open_child(link), self.seats[node].life) else {
            return Ok(());
        };
        let whole = self.seats[node].disk.image.store.contains(&content);
        let Some(process) = &mut self.seats[node].process else { return Ok(()) };
        if !process.away.remove(&(link, content)) {
            return Ok(());
        }
        let (now, host) = (process.time(self.now), HostId(child as u32));
        let Some(why) = lost else {
            process.fanout.got(host, content);
            return Ok(());
        };
        let blamed = why != Lost::Absent && (why != Lost::Slow || whole);
        if blamed && let Some(sibling) = process.fanout.source(host, content) {
            let failed = (node, life, child, sibling.0 as usize);
            self.failures.insert(failed, self.now);
        }
        process.fanout.lost(now, host, content, why, whole);
        if whole {
            self.give(link, content, Ok(()), self.plan.weather.content_bytes);
        } else if process.fronts.contains(&content) {
            process.streams.push((link, content));
        } else {
            let request = process.request();
            process.asks.insert(request, (link, content));
            let by = mesh::Asker::Child(link, request);
            self.feed(node, Input::Wanted { by, content })?;
        }
        Ok(())
    }

    /// Content has come to a child, or does not come, on the link to its parent.
    pub(crate) fn fanned(&mut self, link: LinkId, content: Digest, got: bool) {
        let Some(parent) = self.net.open_end(link, Side::Parent) else { return };
        let child = self.net.open_child(link);
        if let (Some(process), Some(child)) = (&mut self.seats[parent].process, child) {
            match got {
                true => process.fanout.got(HostId(child as u32), content),
                false => process.fanout.left(HostId(child as u32), content),
            }
        }
    }

    /// A parent cannot bring the rest: children who are elsewhere for it come back. Returns whether
    /// there are any.
    pub(crate) fn call_back(&mut self, node: usize, content: Digest) -> bool {
        let Some(process) = &mut self.seats[node].process else { return false };
        let away: Vec<_> =
            process.away.iter().filter(|(_, what)| *what == content).copied().collect();
        for (link, content) in &away {
            let dice = (&mut self.rng, &mut self.queue);
            self.net.send(self.now, *link, Side::Child, Item::Recall(*content), dice);
        }
        !away.is_empty()
    }

    /// A host is called back.
    pub(crate) fn recalled(
        &mut self,
        node: usize,
        link: LinkId,
        content: Digest,
    ) -> Result<(), Violation> {
        let Some(process) = &self.seats[node].process else { return Ok(()) };
        let Some((sibling, _)) = process.fetching.get(&content).copied() else { return Ok(()) };
        let life = self.seats[node].life;
        let fetch = Fetch { node, life, link, content, sibling, looks: 0 };
        self.tell_parent(fetch, Some(Lost::Slow), Duration::ZERO)
    }
}
