//! Orders that relays give themselves, as their own operators do.
//!
//! Some of the runs of a plan, with the orders that take them back, are given at a relay instead of
//! the root. Their targets are who they were: of hosts that do not live below the relay it must say
//! so. What is promised of all orders is promised of these, but that the relay, and not the root,
//! knows what became of them.

use std::sync::Arc;

use mesh::{HostId, Order, OrderId};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::dice::Share;
use crate::plan::Plan;

/// Lets relays give some of the orders. Dice of its own: a plan without any is what it was before.
pub(crate) fn draw(plan: &mut Plan, share: &Share) {
    let mut rng = SmallRng::seed_from_u64(plan.seed ^ 0x6769_7665);
    let share = share.draw(&mut rng);
    let relays: Vec<_> = (1..plan.tree.len()).filter(|node| plan.tree[*node].serves).collect();
    if relays.is_empty() {
        return;
    }
    let runs = plan.work.iter().map(|work| &work.order);
    let runs = runs.filter(|order| !order.again && order.gate.is_none());
    let runs: Vec<OrderId> = runs.map(|order| order.id).collect();
    for run in runs {
        if rng.random_bool(share) {
            let relay = relays[rng.random_range(0..relays.len())];
            give(plan, run, HostId(relay as u32));
        }
    }
}

/// Has an order, and those that take it back, given by this relay.
fn give(plan: &mut Plan, id: OrderId, relay: HostId) {
    for work in &mut plan.work {
        let order = &work.order;
        if order.id == id || order.cancels == Some(id) {
            let (own, cancels) = (order.id.given_by(relay), order.cancels);
            let cancels = cancels.map(|older| older.given_by(relay));
            work.order = Arc::new(Order { id: own, cancels, ..Order::clone(order) });
        }
    }
}

/// The plan without a node: what that has given nobody gives, and others have new numbers.
pub(crate) fn without_node(plan: &mut Plan, gone: usize) {
    let gone = gone as u32;
    plan.work.retain(|work| work.order.id.giver() != Some(HostId(gone)));
    let moved = |id: OrderId| match id.giver() {
        Some(relay) if relay.0 > gone => id.given_by(HostId(relay.0 - 1)),
        _ => id,
    };
    for work in &mut plan.work {
        let order = &work.order;
        let (id, cancels) = (moved(order.id), order.cancels.map(moved));
        work.order = Arc::new(Order { id, cancels, ..Order::clone(order) });
    }
}
