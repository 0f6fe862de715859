//! A report of some hosts only, or in parts: by their sites, or by their domains.
//!
//! Counts are kept by host, so a part has its own, exactly. A host in several domains is in the
//! part of each. When something came first and last is kept of all hosts together: of a part of
//! them it is not known.

use std::collections::BTreeMap;

use mesh::{Folded, HostId, HostSet};

use super::make::Sums;
use crate::fleet::Known;
use crate::tables::HostRow;

/// The part of whoever has no site or no domain.
const NONE: &str = "-";

/// By what a report has parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Site,
    Domain,
}

/// Whose errors they are.
pub(super) struct Whose<'a> {
    pub(super) hosts: &'a BTreeMap<HostId, HostRow>,
    pub(super) fleet: &'a Known,
}

impl Whose<'_> {
    /// The parts that each host is in.
    pub(super) fn parts(&self, by: By) -> BTreeMap<HostId, Vec<String>> {
        let part = |(id, row): (&HostId, &HostRow)| {
            let names = match by {
                By::Site if row.site.is_empty() => Vec::new(),
                By::Site => vec![row.site.clone()],
                By::Domain => {
                    let domains = self.fleet.book.domains(&row.name);
                    domains.iter().map(ToString::to_string).collect()
                }
            };
            (*id, names)
        };
        self.hosts.iter().map(part).collect()
    }
}

/// What some hosts had of it.
pub(super) fn cut(sums: Sums, only: &HostSet) -> Sums {
    let keep = |(sum, first): (Folded, u64)| {
        let counts = sum.counts.iter().filter(|(host, _)| only.contains(**host));
        let counts: BTreeMap<_, _> = counts.map(|(host, count)| (*host, *count)).collect();
        (!counts.is_empty()).then(|| (of_some(&sum, counts), first))
    };
    sums.into_iter().filter_map(keep).collect()
}

/// A sum with the counts of some of its hosts only. If there are others, nobody knows when these
/// had it first and last.
fn of_some(sum: &Folded, counts: BTreeMap<HostId, u64>) -> Folded {
    let all = counts.len() == sum.counts.len();
    let (first_ms, last_ms) = if all { (sum.first_ms, sum.last_ms) } else { (0, 0) };
    let (fact, sample) = (sum.fact.clone(), sum.sample.clone());
    Folded { window: sum.window, fact, sample, first_ms, last_ms, counts }
}

/// What each part had of it, beside room for what it had before. `parts`: those of each host.
pub(super) fn parted(
    sums: &Sums,
    parts: &BTreeMap<HostId, Vec<String>>,
) -> BTreeMap<String, (Sums, Sums)> {
    let nowhere = vec![NONE.to_owned()];
    let mut found = BTreeMap::<String, (Sums, Sums)>::new();
    for (sum, first) in sums {
        let mut counts = BTreeMap::<&str, BTreeMap<HostId, u64>>::new();
        for (host, count) in &sum.counts {
            let names = parts.get(host).filter(|names| !names.is_empty()).unwrap_or(&nowhere);
            for name in names {
                counts.entry(name).or_default().insert(*host, *count);
            }
        }
        for (name, counts) in counts {
            let part = found.entry(name.to_owned()).or_default();
            part.0.push((of_some(sum, counts), *first));
        }
    }
    found
}
