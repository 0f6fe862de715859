//! How the hosts of a rollout stand, by what they have answered to its orders.
//!
//! Of the orders of one round a host must be ok in all that it is a target of; a later round takes
//! the place of an earlier one for the hosts that it was given to.

use std::collections::BTreeMap;

use mesh::{HostId, HostSet, State, Tally};

use super::gate::Count;
use super::row::RolloutRow;
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
    /// Whether each order of the last round is closed.
    pub(crate) ended: bool,
}

impl Standing {
    /// Reads how the hosts stand. Blocks.
    pub(crate) fn read(tables: &Tables, row: &RolloutRow) -> Result<Standing, Failure> {
        let mut standing = Standing { ended: true, ..Standing::default() };
        let mut round = None;
        let mut seen = HostSet::new();
        for given in &row.orders {
            let Some(id) = given.id() else { continue };
            // An order that is not kept any more is over.
            let Some(order) = tables.order(id)? else { continue };
            if round != Some(given.round) {
                (round, seen, standing.ended) = (Some(given.round), HostSet::new(), true);
            }
            standing.ended &= order.closed_ms > 0;
            let targets = order.targets();
            standing.renew(&targets.difference(&seen));
            standing.add(&targets, &tables.tally(id)?.0);
            seen = seen.union(&targets);
        }
        standing.round = seen;
        Ok(standing)
    }

    /// A new round: what these hosts have said before counts no more.
    fn renew(&mut self, targets: &HostSet) {
        self.given = self.given.union(targets);
        for set in [&mut self.errors, &mut self.missed, &mut self.pending] {
            *set = set.difference(targets);
        }
    }

    fn add(&mut self, targets: &HostSet, tally: &Tally) {
        for (outcome, hosts) in tally.lines() {
            let hosts = hosts.intersection(targets);
            match outcome.state {
                State::Ok => {}
                State::Failed(_) | State::Signalled(_) | State::Refused => {
                    self.errors = self.errors.union(&hosts);
                }
                _ => self.missed = self.missed.union(&hosts),
            }
        }
        self.pending = self.pending.union(&targets.difference(tally.hosts()));
    }

    /// Whoever has what was rolled out.
    pub(crate) fn ok(&self) -> HostSet {
        let not = self.errors.union(&self.missed).union(&self.pending);
        self.given.difference(&not)
    }

    /// How a part of the hosts stands: all of them were to get it.
    pub(crate) fn count(&self, hosts: &HostSet) -> Count {
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
    use mesh::Outcome;

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
        standing.add(&hosts(1, 6), &tally(&first));
        standing.add(&hosts(3, 4), &tally(&[(State::NotReached, hosts(3, 3))]));
        assert_eq!((standing.ok(), standing.errors.clone()), (hosts(1, 2), hosts(4, 4)));
        // Host 7 was not given anything, since it lacked nothing.
        let count = standing.count(&hosts(1, 7));
        assert_eq!(count, Count { hosts: 7, ok: 3, errors: 1, missed: 1 });
        assert_eq!(count.pending(), 2);
        standing.renew(&hosts(3, 6));
        standing.add(&hosts(3, 6), &tally(&[(State::Ok, hosts(3, 6))]));
        assert_eq!(standing.count(&hosts(1, 7)).ok, 7);
    }
}
