//! How fast the links are that content for some hosts goes over.
//!
//! The controller knows what its own links have carried, and nothing of those between relays. So
//! the slowest is known only where each host is behind a link that has shown what it carries, and
//! behind no other relay than the one at its end. That one is taken to be at its hosts' site,
//! unless it is beside the controller: then it may be there for hosts that are far away. Whatever
//! is not known counts as slow.

use mesh::HostSet;
use relay::LinkStatus;

use crate::live::{Live, State};
use crate::traffic::Meter;

/// What knows the links; in tests there are none.
#[derive(Clone, Default)]
pub(crate) struct Slowest(pub(crate) Option<(Meter, Live)>);

impl Slowest {
    /// Bytes a second of the slowest link on the way to these hosts, if all of them are known.
    pub(crate) fn towards(&self, hosts: &HostSet) -> Option<u64> {
        let (meter, live) = self.0.as_ref()?;
        let links = meter.read().0;
        slowest(&links, &live.state(), hosts)
    }
}

fn slowest(links: &[LinkStatus], state: &State, hosts: &HostSet) -> Option<u64> {
    let (mut rest, mut least) = (hosts.clone(), None);
    for (child, below) in &state.below {
        let there = rest.intersection(below);
        if there.is_empty() {
            continue;
        }
        rest = rest.difference(&there);
        let own = state.branches.get(child).cloned().unwrap_or_default();
        if there.iter().any(|id| id != *child && !own.contains(id)) {
            return None;
        }
        let link = links.iter().find(|link| link.host == *child && link.rate > 0)?;
        if link.is_short && there.iter().any(|id| id != *child) {
            return None;
        }
        let cap = if link.cap == 0 { u64::MAX } else { link.cap / 8 };
        let rate = link.rate.min(cap);
        least = Some(least.map_or(rate, |least: u64| least.min(rate)));
    }
    least.filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use mesh::HostId;

    use super::*;

    fn link(host: u32, rate: u64, cap: u64) -> LinkStatus {
        LinkStatus {
            host: HostId(host),
            name: format!("relay{host}"),
            is_parent: false,
            address: String::new(),
            since: SystemTime::UNIX_EPOCH,
            rtt_us: 80_000,
            wire_sent: 0,
            wire_received: 0,
            content_sent: 0,
            content_received: 0,
            cap,
            yields: false,
            rate,
            is_short: false,
            silent: Duration::ZERO,
            suspect: false,
        }
    }

    #[test]
    fn it_is_known_where_every_link_is() {
        let set = |from, to| HostSet::from_ranges([(from, to)]);
        let mut state = State::default();
        // Relays 1 and 2 with hosts of their own, relay 3 with a relay and a host behind that.
        for (child, below, own) in [
            (1, set(10, 19), set(10, 19)),
            (2, set(20, 29), set(20, 29)),
            (3, set(30, 31), set(30, 30)),
        ] {
            state.below.insert(HostId(child), below.union(&set(child, child)));
            state.branches.insert(HostId(child), own);
        }
        state.branches.insert(HostId(30), set(31, 31));
        let links = [link(1, 500_000, 0), link(2, 90_000, 0), link(3, 70_000, 0)];
        let find = |links: &[LinkStatus], hosts| slowest(links, &state, &hosts);
        assert_eq!(find(&links, set(10, 12)), Some(500_000));
        assert_eq!(find(&links, set(12, 25)), Some(90_000), "the slowest");
        assert_eq!(find(&links, set(1, 2)), Some(90_000), "relays themselves");
        assert_eq!(find(&links, set(30, 30)), Some(70_000));
        assert_eq!(find(&links, set(31, 31)), None, "behind a second link");
        assert_eq!(find(&links, set(99, 99)), None, "behind no link");
        assert_eq!(find(&links, HostSet::new()), None);
        assert_eq!(find(&links[1..], set(10, 12)), None, "not linked");
        assert_eq!(find(&[link(1, 0, 0)], set(10, 12)), None, "not known");
        assert_eq!(find(&[link(1, 500_000, 800_000)], set(10, 12)), Some(100_000), "by its cap");
        let beside = [LinkStatus { is_short: true, ..link(1, 500_000, 0) }];
        assert_eq!(find(&beside, set(10, 12)), None, "they may be far away");
        assert_eq!(find(&beside, set(1, 1)), Some(500_000));
    }
}
