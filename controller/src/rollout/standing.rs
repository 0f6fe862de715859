//! How the hosts of a rollout stand, by what they have answered to its orders.
//!
//! Of the orders of one round a host must be ok in all that it is a target of; a later round takes
//! the place of an earlier one for the hosts that it was given to. Where a newer push has taken the
//! place of an order that was not begun, the host has what is newer or will: it counts in no gate.

use std::collections::BTreeMap;

use mesh::{HostId, HostSet, State, Tally};

use super::gate::Count;
use super::row::{RolloutRow, order_id};
use crate::fault::Failure;
use crate::tables::{HostRow, Tables};

/// Who stands how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Whoever was given anything.
    pub(crate) given: HostSet,
    pub(crate) errors: HostSet,
    pub(crate) missed: HostSet,
    pub(crate) pending: HostSet,
    /// Who was to get something in the last round.
    pub(crate) round: HostSet,
    /// Whether each order of the wave that went last is closed, and nobody is owed it again.
    pub(crate) ended: bool,
    /// Whoever had it taken back by a pause and is owed it again.
    pub(crate) owed: HostSet,
    /// Whoever a pause would have it taken back from and may have begun it.
    pub(crate) waits: HostSet,
    /// Whoever has not begun it and gets a newer push in its place.
    pub(super) superseded: HostSet,
    /// Of those who were missed: who had it taken back.
    pub(super) cancelled: HostSet,
    /// Of those who were missed: who has said nothing himself.
    pub(super) unheard: HostSet,
}

impl Standing {
    /// Reads how the hosts stand. Blocks.
    pub(crate) fn read(tables: &Tables, row: &RolloutRow) -> Result<Standing, Failure> {
        let mut standing = Standing { ended: true, ..Standing::default() };
        let last = row.orders.last().map(|order| order.wave);
        let mut round = None;
        let mut seen = HostSet::new();
        for given in &row.orders {
            let Some(id) = given.id() else { continue };
            // An order that is not kept any more is over.
            let Some(order) = tables.order(id)? else { continue };
            if round != Some(given.round) {
                (round, seen) = (Some(given.round), HostSet::new());
            }
            standing.ended &= order.closed_ms > 0 || Some(given.wave) != last;
            let targets = order.targets();
            standing.renew(&targets.difference(&seen));
            let tally = tables.tally(id)?.0;
            standing.add(&targets, &tally, &order.not_begun(&tally));
            seen = seen.union(&targets);
        }
        standing.round = seen;
        standing.give_back(row, &confirmed(tables, row)?);
        Ok(standing)
    }

    /// A new round: what these hosts have said before counts no more.
    fn renew(&mut self, targets: &HostSet) {
        self.given = self.given.union(targets);
        let sets = [&mut self.errors, &mut self.missed, &mut self.pending, &mut self.superseded];
        for set in sets.into_iter().chain([&mut self.cancelled, &mut self.unheard]) {
            *set = set.difference(targets);
        }
    }

    /// `superseded`: who has not begun this order, since a newer one has taken its place.
    fn add(&mut self, targets: &HostSet, tally: &Tally, superseded: &HostSet) {
        self.superseded = self.superseded.union(&superseded.intersection(targets));
        let targets = &targets.difference(superseded);
        for (outcome, hosts) in tally.lines() {
            let hosts = hosts.intersection(targets);
            match outcome.state {
                State::Ok => {}
                State::Failed(_) | State::Signalled(_) | State::Refused => {
                    self.errors = self.errors.union(&hosts);
                }
                state => {
                    self.missed = self.missed.union(&hosts);
                    if state == State::Cancelled {
                        self.cancelled = self.cancelled.union(&hosts);
                    }
                    if state.is_provisional() {
                        self.unheard = self.unheard.union(&hosts);
                    }
                }
            }
        }
        self.pending = self.pending.union(&targets.difference(tally.hosts()));
    }

    /// Whoever had it taken back by a pause has not missed it: he is to get it again, if he has
    /// said so or is away. `confirmed`: who has said that he begins no more; without another word
    /// he had begun before, and goes on.
    fn give_back(&mut self, row: &RolloutRow, confirmed: &HostSet) {
        let recalled = HostSet::from_ranges(row.recalled.iter().copied());
        let unheard = self.unheard.intersection(&recalled);
        self.owed = self.cancelled.intersection(&recalled).union(&unheard.difference(confirmed));
        self.waits = self.pending.intersection(&recalled).union(&unheard.intersection(confirmed));
        let all = self.owed.union(&self.waits);
        self.missed = self.missed.difference(&all);
        self.pending = self.pending.union(&all);
        self.waits = self.waits.difference(&self.owed);
        self.ended &= all.is_empty();
    }

    /// Whoever has what was rolled out.
    pub(crate) fn ok(&self) -> HostSet {
        let not = self.errors.union(&self.missed).union(&self.pending).union(&self.superseded);
        self.given.difference(&not)
    }

    /// How a part of the hosts stands: all of them were to get it, and those who get something
    /// newer instead are none of them any more.
    pub(crate) fn count(&self, hosts: &HostSet) -> Count {
        let hosts = &hosts.difference(&self.superseded);
        let errors = self.errors.intersection(hosts);
        let missed = self.missed.difference(&errors).intersection(hosts);
        let pending = self.pending.intersection(hosts);
        let pending = pending.difference(&errors).difference(&missed);
        let not = errors.len() + missed.len() + pending.len();
        Count {
            hosts: hosts.len(),
            ok: hosts.len() - not,
            errors: errors.len(),
            missed: missed.len(),
        }
    }

    /// The sites of which more hosts have failed than a gate allows.
    pub(crate) fn broken_sites(
        &self,
        row: &RolloutRow,
        all: &HostSet,
        hosts: &BTreeMap<HostId, HostRow>,
    ) -> Vec<String> {
        let Some(limit) = row.gate().site_errors else { return Vec::new() };
        let site = |host: HostId| hosts.get(&host).map_or("", |row| row.site.as_str());
        let mut sizes = BTreeMap::<&str, (u64, u64)>::new();
        for host in all.iter() {
            let (size, errors) = sizes.entry(site(host)).or_default();
            *size += 1;
            *errors += u64::from(self.errors.contains(host));
        }
        let broken = |(site, (size, errors)): (&str, (u64, u64))| {
            let is_broken = !site.is_empty() && errors > limit.at_most(size);
            is_broken.then(|| site.to_owned())
        };
        sizes.into_iter().filter_map(broken).collect()
    }
}

/// Who has confirmed what the orders of a pause have told him.
fn confirmed(tables: &Tables, row: &RolloutRow) -> Result<HostSet, Failure> {
    let mut confirmed = HostSet::new();
    for id in row.recalls.iter().filter_map(|id| order_id(id)) {
        let tally = tables.tally(id)?.0;
        let lines = tally.lines().filter(|(outcome, _)| outcome.state == State::Ok);
        confirmed = lines.fold(confirmed, |all, (_, hosts)| all.union(hosts));
    }
    Ok(confirmed)
}

/// Those of these hosts that are at one of these sites.
pub(crate) fn at_sites(
    hosts: &HostSet,
    sites: &[String],
    inventory: &BTreeMap<HostId, HostRow>,
) -> HostSet {
    let is_there = |host: &HostId| inventory.get(host).is_some_and(|row| sites.contains(&row.site));
    hosts.iter().filter(is_there).collect()
}

/// The hosts of the wave that goes on, and those of it that are left out with their sites.
pub(crate) fn going_on(
    row: &RolloutRow,
    waves: &[HostSet],
    inventory: &BTreeMap<HostId, HostRow>,
) -> (HostSet, HostSet) {
    let wave = waves.get(row.course.wave()).cloned().unwrap_or_default();
    let left_out = at_sites(&wave, &row.left_out, inventory);
    (wave.difference(&left_out), left_out)
}

#[cfg(test)]
mod tests {
    use mesh::{OrderId, Outcome};

    use super::*;

    fn hosts(first: u32, last: u32) -> HostSet {
        HostSet::from_ranges([(first, last)])
    }

    #[test]
    fn a_host_is_ok_in_all_orders_of_a_round_and_the_last_round_counts() {
        let tally = |lines: &[(State, HostSet)]| {
            let mut tally = Tally::new();
            for (state, hosts) in lines {
                tally.record(Outcome::bare(*state), hosts);
            }
            tally
        };
        let mut standing = Standing::default();
        standing.renew(&hosts(1, 6));
        let first = [(State::Ok, hosts(1, 3)), (State::Failed(1), hosts(4, 4))];
        standing.add(&hosts(1, 6), &tally(&first), &HostSet::new());
        standing.add(&hosts(3, 4), &tally(&[(State::NotReached, hosts(3, 3))]), &HostSet::new());
        assert_eq!((standing.ok(), standing.errors.clone()), (hosts(1, 2), hosts(4, 4)));
        // Host 7 was not given anything, since it lacked nothing.
        let count = standing.count(&hosts(1, 7));
        assert_eq!(count, Count { hosts: 7, ok: 3, errors: 1, missed: 1 });
        assert_eq!(count.pending(), 2);
        standing.renew(&hosts(3, 6));
        standing.add(&hosts(3, 6), &tally(&[(State::Ok, hosts(3, 6))]), &HostSet::new());
        assert_eq!(standing.count(&hosts(1, 7)).ok, 7);
    }

    #[test]
    fn who_gets_a_newer_push_instead_counts_in_no_gate() {
        let mut tally = Tally::new();
        let lines = [
            (State::Ok, hosts(1, 2)),
            (State::Failed(1), hosts(3, 3)),
            (State::Skipped, hosts(4, 4)),
            (State::NotReached, hosts(5, 5)),
        ];
        for (state, hosts) in &lines {
            tally.record(Outcome::bare(*state), hosts);
        }
        let mut standing = Standing::default();
        standing.renew(&hosts(1, 7));
        // Of 6 there is no word yet, and 7 was given the older one alone.
        standing.add(&hosts(1, 7), &tally, &hosts(4, 6));
        let count = standing.count(&hosts(1, 7));
        assert_eq!(count, Count { hosts: 4, ok: 2, errors: 1, missed: 0 });
        assert_eq!(standing.ok(), hosts(1, 2), "who has something else does not have this");
        // Whoever is given it once more is no longer among them.
        standing.renew(&hosts(4, 6));
        assert_eq!(standing.count(&hosts(4, 6)).hosts, 3);
    }

    #[test]
    fn who_had_it_taken_back_by_a_pause_is_owed_it_unless_he_had_begun() {
        let mut row = RolloutRow::sample(1);
        row.note_recall(&hosts(3, 6), OrderId([1; 16]));
        row.note_recall(&hosts(7, 8), OrderId([2; 16]));
        let mut standing = Standing { ended: true, ..Standing::default() };
        standing.renew(&hosts(1, 9));
        let lines = [
            (State::Ok, hosts(1, 3)),
            (State::Cancelled, hosts(4, 4)),
            (State::NotReached, hosts(5, 5)),
            (State::Failed(1), hosts(8, 8)),
            (State::NotReached, hosts(9, 9)),
        ];
        let mut tally = Tally::new();
        for (state, hosts) in &lines {
            tally.record(Outcome::bare(*state), hosts);
        }
        standing.add(&hosts(1, 9), &tally, &HostSet::new());
        // 6 goes on, 7 is on its way to say so or not, and of 9 it was never taken back.
        standing.give_back(&row, &hosts(3, 6).difference(&hosts(5, 5)));
        assert_eq!((standing.owed.clone(), standing.waits.clone()), (hosts(4, 5), hosts(6, 7)));
        assert!(!standing.ended);
        let count = standing.count(&hosts(1, 9));
        assert_eq!(count, Count { hosts: 9, ok: 3, errors: 1, missed: 1 });
        assert_eq!(standing.ok(), hosts(1, 3));
    }
}
