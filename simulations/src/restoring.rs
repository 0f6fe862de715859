//! The root's machine is lost, and comes back as it was in an older backup.
//!
//! The shells' part is played here as they do it: a restored root begins an epoch; nodes pass the
//! news on by every link, up and down, keep it, and have their core tell everything again, also
//! after a restart if that was not on disk yet; and whoever would carry out an order of an epoch
//! that is over refuses it. Operators give nothing again that the root ever had.
//!
//! From outside it is known what stands on each host's own disk: in the end the root must know all
//! of it again of orders that are still valid, those included that its backup does not know. That
//! no command starts twice is looked at as ever, with the starts from before the loss.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::{HostSet, Input, LinkId, Order, OrderId, Outcome, State};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::checks::Violation;
use crate::coverage::Strike;
use crate::dice::Dice;
use crate::disk::{Entry, Image};
use crate::events::Storm;
use crate::net::{Item, Side};
use crate::plan::{Fault, Plan};
use crate::queue::Event;
use crate::sim::Sim;

/// What there is of backups and epochs.
#[derive(Default)]
pub(crate) struct Restoring {
    /// How often the root was restored.
    epoch: u64,
    /// The root's disk as it was, by the number of the fault that will bring it back.
    backups: BTreeMap<usize, Image>,
    /// The epoch in which an order was given.
    given: BTreeMap<OrderId, u64>,
}

/// Lets the root be restored so often, unless something is due by clocks. Dice of its own: a plan
/// without is what it was before. With it nothing has a pace, goes out in waves or is noticed: of
/// these, and of what is due, a root that was restored does not know all that it did.
pub(crate) fn draw(plan: &mut Plan, restores: &Dice) {
    let mut rng = SmallRng::seed_from_u64(plan.seed ^ 0x7265_7374);
    let rng = &mut rng;
    let count = restores.draw(rng);
    if count == 0 || plan.faults.is_empty() || !plan.calendar.edicts.is_empty() {
        return;
    }
    let horizon = plan.horizon.as_millis() as u64;
    for _ in 0..count {
        let mut at = Duration::from_millis(rng.random_range(horizon / 8..horizon));
        // Some are lost just when an order has come, and something is on its way.
        if rng.random_bool(0.5) && !plan.work.is_empty() {
            let soon = [30, 3_000][rng.random_range(0..2)];
            let given = plan.work[rng.random_range(0..plan.work.len())].at;
            at = (given + Duration::from_millis(rng.random_range(0..soon))).min(plan.horizon);
        }
        let age = Duration::from_millis(rng.random_range(0..horizon / 2));
        let down = Duration::from_millis(rng.random_range(0..10_000));
        plan.faults.push((at, Fault::Restore { age, down }));
    }
    plan.faults.sort_by_key(|(at, _)| *at);
    plain(plan);
}

/// Takes out of a plan what a restored root is not asked to keep.
fn plain(plan: &mut Plan) {
    plan.rollouts.clear();
    plan.events = Storm::default();
    for work in &mut plan.work {
        if work.order.gate.is_some() {
            work.order = Order { gate: None, ..Order::clone(&work.order) }.into();
        }
    }
}

impl Sim {
    /// Backups are made when they must be for the restorations to come.
    pub(crate) fn plan_backups(&mut self) {
        for (index, (at, fault)) in self.plan.faults.iter().enumerate() {
            if let Fault::Restore { age, .. } = fault {
                self.queue.push(at.saturating_sub(*age), Event::Backup { index });
            }
        }
    }

    /// What is on the root's disk now is kept elsewhere.
    pub(crate) fn back_up(&mut self, index: usize) {
        self.restoring.backups.insert(index, self.seats[0].disk.image.clone());
    }

    /// The root's machine is lost; another has the backup, and starts after a while.
    pub(crate) fn restore(&mut self, index: usize, down: Duration) -> Result<(), Violation> {
        let Some(image) = self.restoring.backups.remove(&index) else { return Ok(()) };
        self.struck(Strike::Restore, 0);
        self.kill(0, down)?;
        self.note(0, "is lost, and will be what its backup is");
        self.restoring.epoch += 1;
        let seat = &mut self.seats[0];
        seat.disk.image = image;
        seat.epoch = self.restoring.epoch;
        seat.disk.image.retold = seat.epoch;
        self.checks.restored();
        Ok(())
    }

    /// An operator gives an order. Returns whether he does not, since the root that had it is lost.
    pub(crate) fn gave(&mut self, id: OrderId) -> bool {
        let epoch = self.restoring.epoch;
        *self.restoring.given.entry(id).or_insert(epoch) < epoch
    }

    /// Whether nobody can give an order, since what it takes back is lost.
    pub(crate) fn is_pointless(&self, order: &Order) -> bool {
        order.cancels.is_some_and(|older| self.is_lost(older))
    }

    /// Whether the root was ever restored.
    pub(crate) fn was_restored(&self) -> bool {
        self.restoring.epoch > 0
    }

    /// Whether the root knows an order that somebody wants taken back.
    pub(crate) fn is_at_hand(&self, id: OrderId) -> bool {
        !self.was_restored() || self.seats[0].disk.image.orders.contains_key(&id)
    }

    /// What a node says of an order instead of beginning it, if it may not begin it any more.
    pub(crate) fn refusal(&self, node: usize, id: OrderId) -> Option<Outcome> {
        let epoch = self.restoring.given.get(&id).copied().unwrap_or_default();
        let is_over = id.giver().is_none() && epoch < self.seats[node].epoch;
        is_over.then(|| Outcome::bare(State::Refused))
    }

    /// A link stands at this end: the other one is told of the epoch.
    pub(crate) fn tell_epoch(&mut self, node: usize, link: LinkId, to: Side) {
        let epoch = self.seats[node].epoch;
        if epoch > 0 {
            let dice = (&mut self.rng, &mut self.queue);
            self.net.send(self.now, link, to, Item::Epoch(epoch), dice);
        }
    }

    /// A node hears that the root was restored.
    pub(crate) fn hear_epoch(&mut self, node: usize, epoch: u64) -> Result<(), Violation> {
        if epoch <= self.seats[node].epoch {
            return Ok(());
        }
        self.seats[node].epoch = epoch;
        self.note(node, &format!("hears of epoch {epoch}"));
        for side in Side::BOTH {
            for link in self.net.open_links(node, side) {
                self.tell_epoch(node, link, side.other());
            }
        }
        self.retell(node)
    }

    /// The core tells everything again. That it has been told to is noted behind what it saves.
    pub(crate) fn retell(&mut self, node: usize) -> Result<(), Violation> {
        let seat = &self.seats[node];
        if node == 0 || seat.epoch <= seat.disk.image.retold {
            return Ok(());
        }
        let epoch = seat.epoch;
        self.feed(node, Input::Restored)?;
        let entry = Entry::Retold(epoch);
        self.seats[node].disk.push(self.now, Duration::ZERO, entry);
        Ok(())
    }

    /// What hosts have on disk about an order that the root's backup does not know, and the root
    /// was not told again.
    pub(crate) fn untold(&self, id: OrderId) -> Option<String> {
        let image = &self.seats[0].disk.image;
        // Who was short of room has forgotten it.
        let known = &self.checks.known;
        if known.is_crowded_out(id) || known.is_forgotten(id) {
            return None;
        }
        let targets = &self.work(id)?.order.targets;
        let everybody = HostSet::from_ranges([(1, (self.seats.len() - 1) as u32)]);
        for host in targets.intersection(&everybody).iter() {
            let own = self.checks.words.own(id, host);
            let own = own.and_then(|words| words.iter().max_by_key(|word| word.state.weight()));
            let Some(own) = own.filter(|own| !own.state.is_provisional()) else { continue };
            let told = image.unheard.get(&id).and_then(|tally| tally.outcome(host));
            if told.is_none_or(|told| told.state.weight() < own.state.weight()) {
                return Some(format!("{host:?} says {own:?} of {id:?}, the root heard {told:?}"));
            }
        }
        None
    }

    /// Whether an order was given to a root that is lost, and the present one does not know it.
    pub(crate) fn is_lost(&self, id: OrderId) -> bool {
        let given = self.restoring.given.get(&id);
        let is_old = given.is_some_and(|epoch| *epoch < self.restoring.epoch);
        is_old && id.giver().is_none() && !self.seats[0].disk.image.orders.contains_key(&id)
    }
}
