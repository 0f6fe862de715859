//! Which of several entries with the same path a host gets.
//!
//! The winner has more words, then fewer wildcards, then the view that the host's record has
//! first; an entry for the host alone beats all, and what the host has subscribed to all others.
//! Two that remain equal are a clash, and then nobody wins. Hosts with the same domains get the
//! same files, so the work is done once for each such profile: entries hang in a tree of words,
//! which a profile walks down.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use mesh::{HostId, HostSet};

use super::domain::{COMMON, Domain, DomainPath};
use super::levels::Levels;

/// A host as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its full domains, in the order of its record.
    pub domains: Vec<Domain>,
}

/// Two entries that a host would get at one path, neither before the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The host, by its place among the members.
    pub host: usize,
    /// One entry, by its place.
    pub one: usize,
    /// The other.
    pub other: usize,
}

/// Who gets what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Winners {
    /// For each entry the members that get it, by their places.
    pub of_entry: Vec<HostSet>,
    /// Where nobody wins; one for each host and path.
    pub clashes: Vec<Clash>,
}

/// An entry, and to whom it goes.
#[derive(Clone, Debug)]
pub struct Offer<'a> {
    /// What it is called.
    pub path: &'a DomainPath,
    /// The names of those who have subscribed to it, if it goes to nobody else.
    pub only: Option<Vec<&'a str>>,
}

/// How well an entry fits: the greatest wins.
type Rank = (bool, usize, Reverse<usize>, Reverse<usize>);

/// Entries for a host alone, and those that it has subscribed to.
const ALONE: Rank = (true, 1, Reverse(0), Reverse(0));
const SUBSCRIBED: Rank = (true, 0, Reverse(0), Reverse(0));

#[derive(Default)]
struct Node<'a> {
    below: HashMap<&'a str, Node<'a>>,
    entries: Vec<usize>,
}

impl<'a> Node<'a> {
    /// Calls for each entry whose domain contains this one.
    fn visit(&self, words: &[String], found: &mut impl FnMut(usize)) {
        self.entries.iter().for_each(|entry| found(*entry));
        let Some((word, rest)) = words.split_first() else { return };
        for word in [word.as_str(), COMMON] {
            if let Some(node) = self.below.get(word) {
                node.visit(rest, found);
            }
        }
    }

    fn hang(&mut self, words: &'a [String], entry: usize) {
        let mut node = self;
        for word in words {
            node = node.below.entry(word.as_str()).or_default();
        }
        node.entries.push(entry);
    }
}

/// Whether a host with these domains is in a domain, whose name has its defaults already.
pub fn is_in(member: &Member, domain: &Domain) -> bool {
    if let Some(host) = domain.host() {
        return host == member.name;
    }
    let lies = |own: &Domain| super::domain::contained(own, domain, super::domain::Wild::On);
    member.domains.iter().any(lies)
}

/// The best entries so far of one profile, by path.
#[derive(Clone, Copy)]
struct Best {
    profile: usize,
    rank: Rank,
    entry: usize,
    tie: Option<usize>,
}

/// Works out who gets what, where nobody has to subscribe.
pub fn winners(levels: &Levels, members: &[Member], entries: &[&DomainPath]) -> Winners {
    let offers: Vec<Offer<'_>> = entries.iter().map(|path| Offer { path, only: None }).collect();
    offered(levels, members, &offers)
}

/// Works out who gets what.
pub fn offered(levels: &Levels, members: &[Member], entries: &[Offer<'_>]) -> Winners {
    let normal = |entry: &Offer<'_>| levels.normal(&entry.path.domain);
    let domains: Vec<Domain> = entries.iter().map(normal).collect();
    let (root, alone) = hung(&domains, entries);
    let mut ids: HashMap<&str, usize> = HashMap::new();
    let mut paths = Vec::with_capacity(entries.len());
    for entry in entries {
        let next = ids.len();
        paths.push(*ids.entry(entry.path.path.as_str()).or_insert(next));
    }
    let mut profiles: BTreeMap<(&[Domain], Option<&str>), Vec<u32>> = BTreeMap::new();
    for (n, member) in members.iter().enumerate() {
        let own = alone.contains_key(member.name.as_str()).then_some(member.name.as_str());
        let n = u32::try_from(n).expect("there are fewer hosts than that");
        profiles.entry((&member.domains, own)).or_default().push(n);
    }
    let mut best: Vec<Option<Best>> = vec![None; ids.len()];
    let mut touched = Vec::new();
    let mut ranges: Vec<Vec<(u32, u32)>> = vec![Vec::new(); entries.len()];
    let mut clashes = Vec::new();
    for (profile, ((own_domains, own), hosts)) in profiles.into_iter().enumerate() {
        touched.clear();
        let mut offer = |entry: usize, rank: Rank| {
            let path = paths[entry];
            let new = Best { profile, rank, entry, tie: None };
            match &mut best[path] {
                Some(best) if best.profile == profile => match rank.cmp(&best.rank) {
                    _ if best.entry == entry => best.rank = best.rank.max(rank),
                    std::cmp::Ordering::Greater => *best = new,
                    std::cmp::Ordering::Equal => best.tie = Some(entry),
                    std::cmp::Ordering::Less => {}
                },
                slot => {
                    *slot = Some(new);
                    touched.push(path);
                }
            }
        };
        for (entry, rank) in own.and_then(|own| alone.get(own)).into_iter().flatten() {
            offer(*entry, *rank);
        }
        for (view, domain) in own_domains.iter().enumerate() {
            root.visit(domain.words(), &mut |entry| {
                let domain = &domains[entry];
                offer(entry, (false, domain.depth(), Reverse(domain.commons()), Reverse(view)));
            });
        }
        let hosts_ranges = HostSet::from_ranges(hosts.iter().map(|host| (*host, *host)));
        for path in &touched {
            let best = best[*path].expect("it was touched");
            match best.tie {
                None => ranges[best.entry].extend(hosts_ranges.ranges()),
                Some(tie) => clashes.extend(hosts.iter().map(|host| Clash {
                    host: *host as usize,
                    one: best.entry.min(tie),
                    other: best.entry.max(tie),
                })),
            }
        }
    }
    clashes.sort_by_key(|clash: &Clash| (clash.host, clash.one, clash.other));
    Winners { of_entry: ranges.into_iter().map(HostSet::from_ranges).collect(), clashes }
}

/// For each host by its name the entries that are for it alone, or that it has subscribed to.
type Alone<'a> = HashMap<&'a str, Vec<(usize, Rank)>>;

/// All entries in the tree of words, or with the hosts that they are for. `domains`: theirs.
fn hung<'a>(domains: &'a [Domain], entries: &'a [Offer<'a>]) -> (Node<'a>, Alone<'a>) {
    let (mut root, mut alone) = (Node::default(), Alone::new());
    for (n, (domain, entry)) in domains.iter().zip(entries).enumerate() {
        match (&entry.only, domain.host()) {
            (Some(hosts), _) => {
                for host in hosts {
                    alone.entry(host).or_default().push((n, SUBSCRIBED));
                }
            }
            (None, Some(host)) => alone.entry(host).or_default().push((n, ALONE)),
            (None, None) => root.hang(domain.words(), n),
        }
    }
    (root, alone)
}

/// The member at a place, as a set of hosts has it.
pub fn place(n: usize) -> HostId {
    HostId(u32::try_from(n).expect("there are fewer hosts than that"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::domain::testing::domain;
    use crate::fleet::hostdata;
    use crate::fleet::levels::testing::levels;

    fn members() -> Vec<Member> {
        let levels = levels();
        let records = hostdata::read(hostdata::testing::HOSTS, &levels).expect("it is right");
        let member = |record: &hostdata::Record| Member {
            name: record.name.clone(),
            domains: record.domains(&levels),
        };
        records.iter().map(member).collect()
    }

    /// Who gets which of these entries, and which hosts and entries clash.
    fn who(entries: &[&str]) -> (Vec<String>, Vec<String>) {
        let paths: Vec<DomainPath> = entries.iter().map(|e| e.parse().expect(e)).collect();
        let members = members();
        let winners = winners(&levels(), &members, &paths.iter().collect::<Vec<_>>());
        let names = |set: &HostSet| {
            let names = set.iter().map(|id| members[id.0 as usize].name.clone());
            names.collect::<Vec<_>>().join(" ")
        };
        let clash = |clash: &Clash| {
            let Clash { host, one, other } = *clash;
            format!("{} {} {}", members[host].name, entries[one], entries[other])
        };
        (winners.of_entry.iter().map(names).collect(), winners.clashes.iter().map(clash).collect())
    }

    #[test]
    fn more_words_then_fewer_wildcards() {
        let (got, clashes) = who(&["common.adm:/etc/motd", "osgrp.adm:/etc/motd"]);
        assert_eq!((got, clashes.len()), (vec!["h1 h2".into(), "h3 h4".into()], 0));
        let three = ["common.adm:/m", "osgrp.adm:/m", "riscos.common.adm:/m"];
        assert_eq!(who(&three).0, ["h1 h2", "", "h3 h4"]);
        let (got, clashes) =
            who(&["common.adm:/m", "osgrp.adm:/m", "riscos.common.adm:/m", "common.osgrp.adm:/m"]);
        assert_eq!(got, ["h1 h2", "", "", ""]);
        assert_eq!(
            clashes,
            ["h3", "h4"].map(|h| format!("{h} riscos.common.adm:/m common.osgrp.adm:/m"))
        );
    }

    #[test]
    fn the_view_that_comes_first_decides() {
        // Both have two words and no wildcard; h4 is in adm first.
        assert_eq!(who(&["lab1.prt:/m", "osgrp.adm:/m"]).0, ["", "h3 h4"]);
        assert_eq!(who(&["lab1.prt:/m", "adm:/m"]).0, ["h4", "h1 h2 h3"]);
    }

    #[test]
    fn defaults_and_single_hosts() {
        assert_eq!(who(&["sun4.sunos.cc.adm:/m", "cc.adm:/m"]).0, ["h1", "h2"]);
        assert_eq!(who(&["disked.ws.riscos.osgrp.adm:/m", "h4.host:/m"]).0, ["h3", "h4"]);
        // The same name, written out and not.
        let (_, clashes) = who(&["sun4.sunos.cc.adm:/m", "disked.sun4.sunos.cc.adm:/m"]);
        assert_eq!(clashes.len(), 1);
    }

    #[test]
    fn what_is_subscribed_to_goes_before_what_a_domain_gives() {
        let paths = ["cc.adm:/t", "sun4.sunos.cc.adm:/t", "h1.host:/t", "osgrp.adm:/t"];
        let paths: Vec<DomainPath> = paths.iter().map(|path| path.parse().expect(path)).collect();
        let who = |taken: &[usize], only: &[(usize, &[&'static str])]| {
            let members = members();
            let offer = |n: &usize| Offer {
                path: &paths[*n],
                only: only.iter().find(|(of, _)| of == n).map(|(_, hosts)| hosts.to_vec()),
            };
            let offers: Vec<Offer<'_>> = taken.iter().map(offer).collect();
            let winners = offered(&levels(), &members, &offers);
            let names = |set: &HostSet| {
                let names = set.iter().map(|id| members[id.0 as usize].name.clone());
                names.collect::<Vec<_>>().join(" ")
            };
            let of_entry: Vec<String> = winners.of_entry.iter().map(names).collect();
            (of_entry, winners.clashes.len())
        };
        // Nobody gets it without, and whoever has it before what is more exact.
        assert_eq!(who(&[0, 1], &[(1, &[])]), (vec!["h1 h2".into(), "".into()], 0));
        assert_eq!(who(&[0, 1], &[(0, &["h1"])]), (vec!["h1".into(), "".into()], 0));
        // Also from outside of its domain; what is for the host alone stays.
        let taken = who(&[0, 2, 3], &[(3, &["h1", "h2", "nobody"])]);
        assert_eq!(taken, (vec!["".into(), "h1".into(), "h2".into()], 0));
        // Two at one path are alike.
        assert_eq!(who(&[0, 3], &[(0, &["h2"]), (3, &["h2"])]).1, 1);
    }

    /// What the text of the specification says, without any tree or profile.
    fn plainly(levels: &Levels, members: &[Member], entries: &[&DomainPath]) -> Winners {
        let mut of_entry = vec![HostSet::new(); entries.len()];
        let mut clashes = Vec::new();
        let paths: std::collections::BTreeSet<&str> = entries.iter().map(|e| &*e.path).collect();
        for (host, member) in members.iter().enumerate() {
            for path in &paths {
                let rank = |n: usize| -> Option<Rank> {
                    let domain = levels.normal(&entries[n].domain);
                    let lies = |own: &&Domain| {
                        super::super::domain::contained(
                            own,
                            &domain,
                            super::super::domain::Wild::On,
                        )
                    };
                    let view = member.domains.iter().position(|own| lies(&own))?;
                    Some((false, domain.depth(), Reverse(domain.commons()), Reverse(view)))
                };
                let fitting = (0..entries.len()).filter(|n| entries[*n].path == *path);
                let ranked: Vec<(Rank, usize)> =
                    fitting.filter_map(|n| Some((rank(n)?, n))).collect();
                let Some((most, _)) = ranked.iter().max() else { continue };
                let first: Vec<usize> =
                    ranked.iter().filter(|(rank, _)| rank == most).map(|(_, n)| *n).collect();
                match first.as_slice() {
                    [n] => of_entry[*n].insert(place(host)),
                    _ => clashes.push(host),
                }
            }
        }
        clashes.sort_unstable();
        let clash = |host| Clash { host, one: 0, other: 0 };
        Winners { of_entry, clashes: clashes.into_iter().map(clash).collect() }
    }

    proptest! {
        #[test]
        fn it_is_as_if_it_was_done_plainly(
            hosts in proptest::collection::vec(proptest::collection::vec(domain(4), 0..3), 0..8),
            entries in proptest::collection::btree_set((domain(4), 0..3_u8), 0..12),
        ) {
            // Hosts have plain words.
            let plain = |domain: &Domain| !domain.is_wild();
            let members: Vec<Member> = hosts.into_iter().enumerate().map(|(n, domains)| Member {
                name: format!("n{n}"),
                domains: domains.into_iter().filter(plain).collect(),
            }).collect();
            let entries: Vec<DomainPath> = entries.into_iter().map(|(domain, path)| {
                DomainPath { path: format!("/{path}"), domain }
            }).collect();
            let entries: Vec<&DomainPath> = entries.iter().collect();
            let mut levels = Levels::default();
            levels.levels.truncate(4);
            levels.levels[3].default = Some("a".into());
            let (fast, plain) =
                (winners(&levels, &members, &entries), plainly(&levels, &members, &entries));
            prop_assert_eq!(fast.of_entry, plain.of_entry);
            let hosts =
                |clashes: &[Clash]| clashes.iter().map(|clash| clash.host).collect::<Vec<_>>();
            prop_assert_eq!(hosts(&fast.clashes), hosts(&plain.clashes));
        }
    }
}
