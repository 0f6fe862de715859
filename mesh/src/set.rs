//! [`HostSet`]: a set of hosts as sorted, disjoint, inclusive ranges.
//!
//! Host numbers are dense and a subtree's numbers lie together, so "everybody at this site" is one
//! range however many hosts it has, and every operation costs the number of ranges, not of hosts.
//! What compares a small set with a large one costs little more than the small one.

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
        while let (Some(&x), Some(&y)) = (a.get(i), b.get(j)) {
            if x.1 < y.0 {
                i = skip(a, i, y.0);
            } else if y.1 < x.0 {
                j = skip(b, j, x.0);
            } else {
                set.push((x.0.max(y.0), x.1.min(y.1)));
                if x.1 < y.1 { i += 1 } else { j += 1 }
            }
        }
        set
    }

    /// Those in this set and not in `other`.
    pub fn difference(&self, other: &HostSet) -> HostSet {
        let mut set = HostSet::new();
        let mut j = 0;
        for &(mut first, last) in &self.ranges {
            j = skip(&other.ranges, j, first);
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

    /// Whether somebody is in both sets.
    pub fn intersects(&self, other: &HostSet) -> bool {
        let sorted = self.ranges.len() <= other.ranges.len();
        let (few, many) = if sorted { (self, other) } else { (other, self) };
        let mut j = 0;
        few.ranges.iter().any(|&(first, last)| {
            j = skip(&many.ranges, j, first);
            many.ranges.get(j).is_some_and(|range| range.0 <= last)
        })
    }

    /// Whether every member of this set is in `other`.
    pub fn is_subset(&self, other: &HostSet) -> bool {
        let mut j = 0;
        self.ranges.iter().all(|&(first, last)| {
            j = skip(&other.ranges, j, first);
            other.ranges.get(j).is_some_and(|range| range.0 <= first && last <= range.1)
        })
    }

    /// Appends a range that starts no earlier than the last one does.
    fn push(&mut self, (first, last): (u32, u32)) {
        match self.ranges.last_mut() {
            Some(end) if end.1 == u32::MAX || first <= end.1 + 1 => end.1 = end.1.max(last),
            _ => self.ranges.push((first, last)),
        }
    }
}

/// The first range from `from` on that does not end before `host`. Strides grow, so that a small
/// set goes through a large one in leaps, and two sets of a size step by step.
fn skip(ranges: &[(u32, u32)], from: usize, host: u32) -> usize {
    let (mut low, mut stride) = (from, 1);
    while ranges.get(low + stride - 1).is_some_and(|range| range.1 < host) {
        low += stride;
        stride *= 2;
    }
    let high = ranges.len().min(low + stride);
    low + ranges[low..high].partition_point(|range| range.1 < host)
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
            prop_assert!(x.intersection(&y).is_subset(&y));
            prop_assert_eq!(x.intersects(&y), !a.is_disjoint(&b));
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
