//! [`HostSet`]: a set of hosts as sorted, disjoint, inclusive ranges.
//!
//! Host numbers are dense and a subtree's numbers lie together, so "everybody at this site" is one
//! range however many hosts it has, and every operation costs the number of ranges, not of hosts.

use std::fmt;

use crate::HostId;

/// A set of hosts. Equal sets are equal values: ranges are sorted, disjoint and never adjacent.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HostSet {
    ranges: Vec<(u32, u32)>,
}

impl HostSet {
    /// The empty set.
    pub fn new() -> HostSet {
        HostSet::default()
    }

    /// The set of one host.
    pub fn one(host: HostId) -> HostSet {
        HostSet { ranges: vec![(host.0, host.0)] }
    }

    /// The set of these inclusive ranges, in any order; a range that runs backwards is ignored.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u32, u32)>) -> HostSet {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|(a, b)| a <= b).collect();
        ranges.sort_unstable();
        let mut set = HostSet::new();
        for range in ranges {
            set.push(range);
        }
        set
    }

    /// The ranges, in ascending order.
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.ranges
    }

    /// How many hosts.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|(a, b)| u64::from(b - a) + 1).sum()
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether `host` is in it.
    pub fn contains(&self, host: HostId) -> bool {
        let after = self.ranges.partition_point(|&(first, _)| first <= host.0);
        after > 0 && self.ranges[after - 1].1 >= host.0
    }

    /// Adds a host.
    pub fn insert(&mut self, host: HostId) {
        if !self.contains(host) {
            *self = self.union(&HostSet::one(host));
        }
    }

    /// The hosts, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = HostId> + '_ {
        self.ranges.iter().flat_map(|&(a, b)| (a..=b).map(HostId))
    }

    /// Those in either set.
    pub fn union(&self, other: &HostSet) -> HostSet {
        let (mut a, mut b) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        let mut set = HostSet::new();
        loop {
            let left = match (a.peek(), b.peek()) {
                (None, None) => return set,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some(x), Some(y)) => x.0 <= y.0,
            };
            let next = if left { a.next() } else { b.next() };
            set.push(*next.expect("the peeked side has a range"));
        }
    }

    /// Those in both sets.
    pub fn intersection(&self, other: &HostSet) -> HostSet {
        let (a, b) = (&self.ranges, &other.ranges);
        let (mut i, mut j) = (0, 0);
        let mut set = HostSet::new();
        while i < a.len() && j < b.len() {
            let (first, last) = (a[i].0.max(b[j].0), a[i].1.min(b[j].1));
            if first <= last {
                set.push((first, last));
            }
            if a[i].1 < b[j].1 {
                i += 1;
            } else {
                j += 1;
            }
        }
        set
    }

    /// Those in this set and not in `other`.
    pub fn difference(&self, other: &HostSet) -> HostSet {
        let mut set = HostSet::new();
        let mut j = 0;
        for &(mut first, last) in &self.ranges {
            while j < other.ranges.len() && other.ranges[j].1 < first {
                j += 1;
            }
            let mut k = j;
            loop {
                match other.ranges.get(k) {
                    Some(&(cut, end)) if cut <= last => {
                        if cut > first {
                            set.push((first, cut - 1));
                        }
                        if end >= last {
                            break;
                        }
                        first = first.max(end + 1);
                        k += 1;
                    }
                    _ => {
                        set.push((first, last));
                        break;
                    }
                }
            }
        }
        set
    }

    /// Whether every member of this set is in `other`.
    pub fn is_subset(&self, other: &HostSet) -> bool {
        self.difference(other).is_empty()
    }

    /// Appends a range that starts no earlier than the last one does.
    fn push(&mut self, (first, last): (u32, u32)) {
        match self.ranges.last_mut() {
            Some(end) if end.1 == u32::MAX || first <= end.1 + 1 => end.1 = end.1.max(last),
            _ => self.ranges.push((first, last)),
        }
    }
}

impl FromIterator<HostId> for HostSet {
    fn from_iter<I: IntoIterator<Item = HostId>>(hosts: I) -> HostSet {
        HostSet::from_ranges(hosts.into_iter().map(|host| (host.0, host.0)))
    }
}

impl fmt::Display for HostSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for HostSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn hosts() -> impl Strategy<Value = BTreeSet<u32>> {
        let near_the_end = (0u32..4).prop_map(|n| u32::MAX - n);
        proptest::collection::btree_set(prop_oneof![9 => 0u32..60, 1 => near_the_end], 0..40)
    }

    fn set(hosts: &BTreeSet<u32>) -> HostSet {
        hosts.iter().copied().map(HostId).collect()
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(a in hosts(), b in hosts()) {
            let (x, y) = (set(&a), set(&b));
            prop_assert_eq!(x.union(&y), set(&a.union(&b).copied().collect()));
            prop_assert_eq!(x.intersection(&y), set(&a.intersection(&b).copied().collect()));
            prop_assert_eq!(x.difference(&y), set(&a.difference(&b).copied().collect()));
            prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
            prop_assert_eq!(x.len(), a.len() as u64);
            prop_assert_eq!(x.iter().map(|h| h.0).collect::<BTreeSet<_>>(), a.clone());
            for host in 0..60 {
                prop_assert_eq!(x.contains(HostId(host)), a.contains(&host));
            }
        }
    }

    #[test]
    fn prints_folded() {
        let set = HostSet::from_ranges([(7, 7), (1, 3), (4, 5)]);
        assert_eq!(set.to_string(), "1-5,7");
        assert_eq!(HostSet::new().to_string(), "");
    }
}
