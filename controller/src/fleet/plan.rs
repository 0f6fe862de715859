//! Which hosts get the same files: they share an order.
//!
//! Pure: from the hosts of each file to groups of hosts, each with its files. A host is known by
//! the sum of random numbers of its files, so that the work grows with who gets what and not with
//! pairs of groups.

use std::collections::{BTreeMap, HashMap};

use mesh::HostSet;

/// Hosts, and the files that all of them get, by their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The hosts.
    pub hosts: HostSet,
    /// The files, ascending.
    pub files: Vec<usize>,
}

/// Puts hosts together that get the same files. `of_file`: the hosts of each.
pub fn groups(of_file: &[HostSet]) -> Vec<Group> {
    let mut sums: HashMap<u32, u128> = HashMap::new();
    for (file, hosts) in of_file.iter().enumerate() {
        let number = number(file);
        for host in hosts.iter() {
            let sum = sums.entry(host.0).or_default();
            *sum = sum.wrapping_add(number);
        }
    }
    let mut members: BTreeMap<u128, Vec<u32>> = BTreeMap::new();
    for (host, sum) in sums {
        members.entry(sum).or_default().push(host);
    }
    let group = |hosts: Vec<u32>| {
        let first = mesh::HostId(hosts[0]);
        let files = of_file.iter().enumerate().filter(|(_, set)| set.contains(first));
        let files = files.map(|(file, _)| file).collect();
        Group { hosts: HostSet::from_ranges(hosts.iter().map(|host| (*host, *host))), files }
    };
    let mut groups: Vec<Group> = members.into_values().map(group).collect();
    groups.sort_by(|a, b| a.hosts.ranges().cmp(b.hosts.ranges()));
    groups
}

/// A number for each file, the same each time, by which sums of different files differ.
fn number(file: usize) -> u128 {
    let hash = blake3::hash(&(file as u64).to_le_bytes());
    u128::from_le_bytes(hash.as_bytes()[..16].try_into().expect("sixteen bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set() -> impl Strategy<Value = HostSet> {
        proptest::collection::vec(0..12_u32, 0..8)
            .prop_map(|hosts| HostSet::from_ranges(hosts.into_iter().map(|host| (host, host))))
    }

    proptest! {
        /// Every host gets exactly its files, and two groups never get the same ones.
        #[test]
        fn nobody_gets_more_or_less(of_file in proptest::collection::vec(set(), 0..8)) {
            let groups = groups(&of_file);
            let mut seen: Vec<(u32, Vec<usize>)> = Vec::new();
            for group in &groups {
                prop_assert!(!group.files.is_empty());
                seen.extend(group.hosts.iter().map(|host| (host.0, group.files.clone())));
            }
            seen.sort();
            let mut wanted: Vec<(u32, Vec<usize>)> = Vec::new();
            for host in 0..12 {
                let has = |n: &usize| of_file[*n].contains(mesh::HostId(host));
                let files: Vec<usize> = (0..of_file.len()).filter(has).collect();
                wanted.extend((!files.is_empty()).then_some((host, files)));
            }
            prop_assert_eq!(seen, wanted);
            let files: std::collections::BTreeSet<_> = groups.iter().map(|g| &g.files).collect();
            prop_assert_eq!(files.len(), groups.len());
        }
    }
}
