//! A report of some hosts only, or in parts: by their sites, or by their domains.
//!
//! Counts are kept by host, so a part has its own, exactly. A host in several domains is in the
//! part of each.

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
    fn parts(&self, by: By) -> BTreeMap<HostId, Vec<String>> {
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
    let keep = |(mut sum, first): (Folded, u64)| {
        sum.counts.retain(|host, _| only.contains(*host));
        (!sum.counts.is_empty()).then_some((sum, first))
    };
    sums.into_iter().filter_map(keep).collect()
}

/// What each part had of it, beside room for what it had before.
pub(super) fn parted(sums: &Sums, by: By, whose: &Whose<'_>) -> BTreeMap<String, (Sums, Sums)> {
    let parts = whose.parts(by);
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
            part.0.push((Folded { counts, ..sum.clone() }, *first));
        }
    }
    found
}
