//! Going back to what hosts had before a push.
//!
//! The controller knows what each host has at a destination and what it had there before, since
//! each has said so; going back is a push of that earlier tree, and what the later one had added
//! goes again. Hosts that keep their previous release have all of it: they exchange two names.

use std::collections::BTreeMap;

use content::ContentId;
use mesh::{Digest, HostId, HostSet};
use protos::{Delete, MaxDelete, Terms};

use crate::fault::Failure;
use crate::push::{Packed, Packer, Step};
use crate::sets;
use crate::tables::{HostRow, OrderRow};
use crate::targets::names;
use crate::types::NewRollback;

/// How many distinct trees are told apart in a message.
const NAMED: usize = 5;

impl Packer {
    /// Makes the push that takes hosts back. `of`: the push that is to be undone, else what is at
    /// `new.dest`. `chosen`: of whom, if not of all.
    pub(crate) fn roll_back(
        &self,
        new: &NewRollback,
        of: Option<&OrderRow>,
        chosen: Option<&HostSet>,
        hosts: &BTreeMap<HostId, HostRow>,
    ) -> Result<Packed, Failure> {
        let dest = match of {
            Some(row) => pushed(row)?.0,
            None => new.dest.clone(),
        };
        let placed = self.tables.placed(dest.as_bytes())?;
        let targets = match of {
            Some(row) => {
                let root = pushed(row)?.1;
                let has = |host: &HostId| placed.get(host).is_some_and(|has| has.0 == root.0);
                let all = chosen.cloned().unwrap_or_else(|| row.targets());
                let (has, not): (Vec<_>, Vec<_>) = all.iter().partition(has);
                if chosen.is_some() && !not.is_empty() {
                    let set = sets::fold(names(hosts, &not.into_iter().collect()));
                    let message = format!("{set}: something else is at {dest} there by now");
                    let help = "`barid rollback --dest` goes back from what is there";
                    return Err(Failure::conflict(message, help));
                }
                has.into_iter().collect()
            }
            None => chosen.cloned().unwrap_or_default(),
        };
        if targets.is_empty() {
            let message = format!("no host has what that push has put at {dest}");
            return Err(Failure::conflict(message, "there is nothing to go back from"));
        }
        let (root, tree) = self.one_before(&dest, &targets, hosts)?;
        let Some(manifest) = self.manifest(root)? else {
            let message = format!("the tree that was at {dest} before is no longer kept");
            return Err(Failure::unknown("content-gone", message, "push it from its source"));
        };
        let delete = if tree { Delete::Nothing } else { Delete::Installed };
        // What goes is what a push has put there and nobody has changed: all of it may.
        let max_delete = if tree { MaxDelete::Usual } else { MaxDelete::Percent(100) };
        let terms = Terms { delete, max_delete, tree, rollback: true, ..Terms::default() };
        let what = format!("roll back {dest}");
        let step = Step { dest, manifest, skipped: Vec::new(), terms, what, asked: None };
        let rate = |hosts: &HostSet| self.slowest.towards(hosts);
        self.prepare(step, targets, (new.reach_ms, new.hold_ms), &rate)
    }

    /// The one tree that all of these had before, and whether it is kept as a release.
    fn one_before(
        &self,
        dest: &str,
        targets: &HostSet,
        hosts: &BTreeMap<HostId, HostRow>,
    ) -> Result<(ContentId, bool), Failure> {
        let previous = self.tables.previous(dest.as_bytes())?;
        let mut by_tree: BTreeMap<Option<(Digest, bool)>, Vec<HostId>> = BTreeMap::new();
        for host in targets.iter() {
            by_tree.entry(previous.get(&host).copied()).or_default().push(host);
        }
        let fold =
            |hosts_of: &[HostId]| sets::fold(names(hosts, &hosts_of.iter().copied().collect()));
        if let Some(none) = by_tree.get(&None) {
            let message = format!("{}: nothing is known of what was at {dest} before", fold(none));
            return Err(Failure::conflict(message, "leave them out with -x"));
        }
        let mut trees = by_tree.into_iter();
        match (trees.next(), trees.next()) {
            (Some((Some((root, tree)), _)), None) => Ok((ContentId(root.0), tree)),
            (Some((_, first)), Some((_, second))) => {
                let rest = trees.map(|(_, hosts)| hosts).take(NAMED);
                let sets: Vec<_> = [first, second].into_iter().chain(rest).collect();
                let sets: Vec<_> = sets.iter().map(|hosts| fold(hosts)).collect();
                let message = format!("the hosts had different trees before: {}", sets.join("; "));
                Err(Failure::conflict(message, "go back one set at a time, with -w"))
            }
            _ => Err(Failure::internal("no host is left to go back")),
        }
    }
}

/// Where a push went, and the root of what it put there.
fn pushed(row: &OrderRow) -> Result<(String, ContentId), Failure> {
    let wrong = || Failure::bad("that order is not a push", "`barid runs` lists pushes too");
    let push = row.push.as_ref().filter(|push| !push.verify).ok_or_else(wrong)?;
    let root = push.manifest.parse().map_err(|_| wrong())?;
    Ok((push.dest.clone(), root))
}
