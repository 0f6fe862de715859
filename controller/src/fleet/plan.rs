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

    /// A site of the size of the specification, ten times over: who gets what, and in which
    /// groups, with a third of all files lacking somewhere.
    #[test]
    #[ignore = "a measurement: cargo test -p controller --lib planned -- --ignored --nocapture"]
    fn a_large_fleet_is_planned() {
        use crate::fleet::domain::{Domain, DomainPath};
        use crate::fleet::levels::testing::levels;
        use crate::fleet::precedence::{Member, winners};
        for (hosts, files) in [(1_000, 400), (10_000, 2_000)] {
            let mut levels = levels();
            let group = |n: usize| format!("g{n}.adm").parse::<Domain>().expect("a name");
            (0..50).for_each(|n| levels.create(&group(n)).expect("new"));
            let hardware = [["sun3", "sunos"], ["sun4", "sunos"], ["ws", "riscos"]];
            let member = |n: usize| {
                let [hardware, os] = hardware[n % 3];
                let disk = if n.is_multiple_of(7) { "diskless" } else { "disked" };
                let domain = format!("{disk}.{hardware}.{os}.g{}.adm", n % 50);
                let domains = vec![domain.parse().expect("a name")];
                Member { name: format!("h{n:05}"), domains }
            };
            let members: Vec<Member> = (0..hosts).map(member).collect();
            let domain = |n: usize| match n % 5 {
                0 => "common.adm".to_owned(),
                1 => format!("g{}.adm", n % 50),
                2 => "sunos.common.adm".to_owned(),
                3 => format!("riscos.g{}.adm", n % 50),
                _ => "sun4.sunos.common.adm".to_owned(),
            };
            let path = |n: usize| format!("{}:/etc/f{}", domain(n), n / 2).parse();
            let paths: Vec<DomainPath> = (0..files).map(|n| path(n).expect("a path")).collect();
            let began = std::time::Instant::now();
            let winners = winners(&levels, &members, &paths.iter().collect::<Vec<_>>());
            let known = began.elapsed();
            let lacks = |n: usize| HostSet::from_ranges([(0, u32::try_from(n).expect("few"))]);
            let due = winners.of_entry.iter().enumerate();
            let due: Vec<HostSet> = due
                .map(|(n, set)| if n % 3 == 0 { set.intersection(&lacks(n)) } else { set.clone() })
                .collect();
            let groups = groups(&due);
            let pairs: u64 = due.iter().map(HostSet::len).sum();
            let (groups, all) = (groups.len(), began.elapsed());
            println!(
                "{hosts} hosts, {files} files, {pairs} pairs: who gets what {known:?}, with {groups} groups {all:?}"
            );
            assert!(pairs > 0);
        }
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
