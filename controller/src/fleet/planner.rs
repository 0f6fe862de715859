//! Who is to get which files, and the orders that bring them.
//!
//! A plan is made of the book as it is at one moment, and packing takes its time; whether it still
//! brings what the book says is asked before it is given ([`Planner::is_current`]).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use content::{ContentId, Manifest};
use mesh::{HostSet, Need};
use protos::{Delete, DistItem, Terms};
use tracing::warn;

use super::batch::{Batch, weight};
use super::desk::{Fleet, Known};
use super::dist::ALL;
use super::domain::DomainPath;
use super::missing::Standing;
use super::plan::{Group, groups};
use super::precedence::place;
use super::store::PlanRow;
use super::types::NewDist;
use crate::fault::Failure;
use crate::orders::Draft;
use crate::push::Packer;

/// How many orders one distribution may make. Who is left over gets its files the next time.
pub(super) const ORDERS: usize = 1_000;
/// How many different versions hosts may have for which deltas are made.
const BASES: usize = 8;

/// Plans distributions.
#[derive(Clone)]
pub(crate) struct Planner {
    pub(crate) fleet: Fleet,
    pub(crate) packer: Packer,
}

/// A part of a distribution that goes out in waves.
pub(crate) struct Part {
    /// Who gets it.
    pub(crate) hosts: HostSet,
    /// The files, and the root of what each was when it began.
    pub(crate) files: BTreeMap<String, String>,
}

/// What a distribution would bring, and to whom.
pub(crate) struct Survey {
    pub(crate) part: Part,
    pub(crate) notes: Vec<String>,
}

/// What was made for one group.
pub(super) struct Made {
    pub(super) drafts: Vec<(Draft, PlanRow)>,
    /// Files that cannot be delivered, and why.
    pub(super) broken: Vec<(DomainPath, String)>,
}

/// What is to be distributed.
pub(super) struct Due {
    begin_by_ms: u64,
    /// Whether hosts only look.
    verify: bool,
    /// The files, with how each stands.
    files: Vec<(DomainPath, Standing)>,
    pub(super) groups: Vec<Group>,
    pub(super) notes: Vec<String>,
}

impl Planner {
    /// Whether what is asked for is there.
    pub(super) fn check(&self, new: &NewDist) -> Result<(), Failure> {
        let known = self.fleet.known();
        if new.frequency != ALL && !known.book.frequencies.contains_key(&new.frequency) {
            let names = known.book.frequencies.keys().cloned().collect::<Vec<_>>().join(", ");
            let message = format!("unknown frequency {}: there are {names}", new.frequency);
            return Err(Failure::bad(message, "`all` is every frequency"));
        }
        places(&known, &new.hosts).map(drop)
    }

    /// What would go out now, and to whom. Blocks.
    pub(crate) fn survey(&self, new: &NewDist) -> Result<Survey, Failure> {
        self.check(new)?;
        let due = self.due(new, None)?;
        let hosts = everybody(&due.groups);
        let known = self.fleet.known();
        let mut files = BTreeMap::new();
        for (path, _) in &due.files {
            if let Some(entry) = known.book.entries.get(path) {
                let root = known.book.sources[&entry.source].revision.content.root.clone();
                files.insert(path.to_string(), root);
            }
        }
        Ok(Survey { part: Part { hosts, files }, notes: due.notes })
    }

    /// The orders of a part of a distribution. Blocks.
    pub(crate) fn orders(
        &self,
        new: &NewDist,
        part: &Part,
    ) -> Result<Vec<(Draft, PlanRow)>, Failure> {
        let due = self.due(new, Some(part))?;
        let mut drafts = Vec::new();
        for at in 0..due.groups.len() {
            let made = self.drafts(&due, at, &new.frequency)?;
            // What its first wave has not tried the others must not get.
            if let Some((path, why)) = made.broken.first() {
                return Err(Failure::internal(format!("{path}: {why}")));
            }
            drafts.extend(made.drafts);
            if drafts.len() > ORDERS {
                let message = format!("the wave takes more than {ORDERS} orders");
                return Err(Failure::bad(message, "make it smaller"));
            }
        }
        Ok(drafts)
    }

    /// Who is to get what. Blocks.
    pub(super) fn due(&self, new: &NewDist, part: Option<&Part>) -> Result<Due, Failure> {
        let known = self.fleet.known();
        let Known { book, roll } = &known;
        let only = places(&known, &new.hosts)?;
        // Whoever names hosts wants them right, whatever they are known to have.
        let compares = new.compare || new.verify || only.is_some();
        let mut standings = self.standings(new)?;
        let (mut files, mut of_file) = (Vec::new(), Vec::new());
        let mut missing = BTreeSet::new();
        for (at, path) in roll.paths.iter().enumerate() {
            if new.frequency != ALL && book.entries[path].frequency != new.frequency {
                continue;
            }
            if let Some(part) = part {
                let Some(before) = part.files.get(&path.to_string()) else { continue };
                if *before != book.sources[&book.entries[path].source].revision.content.root {
                    let message = format!("{path} was changed since the rollout began");
                    return Err(Failure::bad(message, "abort it, and begin another"));
                }
            }
            if new.wanted.as_ref().is_some_and(|wanted| !wanted.contains(path)) {
                continue;
            }
            let mut members = roll.winners.of_entry[at].clone();
            if let Some(only) = &only {
                // Whether they may have what they want was asked before: without subscribing, too.
                let all = new.wanted.is_some() && book.entries[path].subscribers.is_some();
                members = if all { only.clone() } else { members.intersection(only) };
            }
            if new.only.is_none() {
                missing.extend(roll.not_enrolled(&members));
            }
            let standing = standings.remove(path).unwrap_or_default();
            let mut hosts = roll.ids(&members);
            if !compares {
                hosts = hosts.intersection(&standing.lacking());
            }
            let limits = [part.map(|part| &part.hosts), new.only.as_ref()];
            for limit in limits.into_iter().flatten() {
                hosts = hosts.intersection(limit);
            }
            if !hosts.is_empty() {
                files.push((path.clone(), standing));
                of_file.push(hosts);
            }
        }
        let mut notes = Vec::new();
        if !missing.is_empty() {
            let names: Vec<String> = missing.into_iter().collect();
            notes.push(format!("not enrolled: {}", crate::sets::fold(&names)));
        }
        // Who has his turn has it often: that is said when it concerns everybody.
        for clash in roll.winners.clashes.iter().take(20).filter(|_| new.only.is_none()) {
            let (one, other) = (&roll.paths[clash.one], &roll.paths[clash.other]);
            let host = &roll.members[clash.host].name;
            warn!(host, %one, %other, "two entries clash: nothing is delivered");
            notes.push(format!("{host}: {one} and {other} clash: nothing is delivered"));
        }
        let (begin_by_ms, verify) = (new.begin_by_ms, new.verify);
        Ok(Due { begin_by_ms, verify, files, groups: groups(&of_file), notes })
    }

    /// Whether what a plan brings these hosts is still what the book says: each file is as it was,
    /// and none of them gets another one in its place.
    pub(super) fn is_current(&self, plan: &PlanRow, hosts: &HostSet) -> bool {
        let Known { book, roll } = &self.fleet.known();
        if book.change == plan.planned {
            return true;
        }
        let is_same = |(path, root): &(DomainPath, String)| {
            let entry = book.entries.get(path);
            entry.is_some_and(|e| book.sources[&e.source].revision.content.root == *root)
        };
        let brings: BTreeMap<&str, &DomainPath> =
            plan.files.iter().map(|(path, _)| (path.path.as_str(), path)).collect();
        let is_other =
            |path: &DomainPath| brings.get(path.path.as_str()).is_some_and(|own| **own != *path);
        let others = roll.paths.iter().zip(&roll.winners.of_entry);
        let mut others = others.filter(|(path, _)| is_other(path));
        plan.files.iter().all(is_same)
            && others.all(|(_, places)| roll.ids(places).intersection(hosts).is_empty())
    }

    /// How the files stand that may be meant. Blocks.
    fn standings(&self, new: &NewDist) -> Result<BTreeMap<DomainPath, Standing>, Failure> {
        let store = &self.fleet.store;
        let Some(wanted) = &new.wanted else { return Ok(store.standings()?) };
        let of = |path: &DomainPath| Ok((path.clone(), store.standing(path)?));
        wanted.iter().map(of).collect()
    }

    /// The orders for one group. A file whose content cannot be read keeps no other from it.
    /// Blocks.
    pub(super) fn drafts(&self, due: &Due, at: usize, frequency: &str) -> Result<Made, Failure> {
        let group = &due.groups[at];
        let known = self.fleet.known();
        let planned = known.book.change;
        let (mut drafts, mut broken) = (Vec::new(), Vec::new());
        let mut batch = Batch::default();
        for file in &group.files {
            let (path, standing) = &due.files[*file];
            // Removed since this was planned: then nobody is to get it.
            let Some(entry) = known.book.entries.get(path) else { continue };
            let root = &known.book.sources[&entry.source].revision.content.root;
            let mut room = batch.room();
            let hosts = &group.hosts;
            let made = self.push((path, root), standing, (hosts, due.verify), &mut room);
            let (push, needs, bytes) = match made {
                Ok(made) => made,
                Err(failure) if failure.is_about_room() => return Err(failure),
                Err(failure) => {
                    broken.push((path.clone(), failure.error.message));
                    continue;
                }
            };
            let delete = if entry.delete { Delete::All } else { Delete::Nothing };
            let (exclude, verify) = (entry.exclude.clone(), due.verify);
            let terms = Terms { delete, exclude, verify, ..Terms::default() };
            let push = protos::Push { terms, ..push };
            let weight = weight(&push);
            if batch.is_full(weight, &needs) {
                drafts.push(batch.draft((planned, due.begin_by_ms), &group.hosts, frequency));
                batch = Batch::default();
            }
            let command = if verify { "" } else { &entry.command };
            let command = Bytes::copy_from_slice(command.as_bytes());
            // Of an order of every frequency each host notes of which one a file is.
            let is_told = entry.frequency == frequency;
            let frequency = if is_told { String::new() } else { entry.frequency.clone() };
            batch.take(DistItem { push, command, frequency }, needs, bytes + weight as u64);
            batch.files.push((path.clone(), root.clone()));
        }
        if !batch.items.is_empty() {
            drafts.push(batch.draft((planned, due.begin_by_ms), &group.hosts, frequency));
        }
        Ok(Made { drafts, broken })
    }

    fn push(
        &self,
        (path, root): (&DomainPath, &str),
        standing: &Standing,
        (hosts, verify): (&HostSet, bool),
        room: &mut usize,
    ) -> Result<(protos::Push, Vec<Need>, u64), Failure> {
        let target = self.fleet.shelf.manifest(root)?;
        let mut versions: Vec<(&String, HostSet)> = standing
            .has()
            .iter()
            .map(|(root, has)| (root, has.intersection(hosts)))
            .filter(|(_, has)| !has.is_empty())
            .collect();
        versions.sort_by_key(|(_, has)| std::cmp::Reverse(has.len()));
        let mut bases: Vec<(Option<(ContentId, Manifest)>, HostSet)> = Vec::new();
        let mut rest = hosts.clone();
        for (root, has) in versions.into_iter().take(BASES) {
            // One that is not in the store any more is as good as none.
            let (Ok(id), Ok(manifest)) = (root.parse(), self.fleet.shelf.manifest(root)) else {
                continue;
            };
            rest = rest.difference(&has);
            bases.push((Some((id, manifest)), has));
        }
        if !rest.is_empty() {
            bases.push((None, rest));
        }
        self.packer.push_of(&path.path, &target, bases, verify, room)
    }
}

/// The hosts of all groups.
pub(super) fn everybody(groups: &[Group]) -> HostSet {
    groups.iter().fold(HostSet::new(), |all, group| all.union(&group.hosts))
}

/// The places of hosts that were named.
fn places(known: &Known, names: &[String]) -> Result<Option<HostSet>, Failure> {
    if names.is_empty() {
        return Ok(None);
    }
    let mut found = HostSet::new();
    for name in names {
        let at = known.book.host(name).and_then(|name| known.roll.place(name));
        let at = at.ok_or_else(|| {
            let help = "`barid host list` lists them";
            Failure::unknown("unknown-host", format!("unknown host {name}"), help)
        })?;
        found.insert(place(at));
    }
    Ok(Some(found))
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
