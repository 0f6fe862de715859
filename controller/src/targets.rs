//! Which hosts an operator means: names, folded sets, groups, everybody, and who is left out.
//!
//! A name or group that does not exist is an error that names it, and nothing runs anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mesh::{HostId, HostSet};

use crate::fault::Failure;
use crate::sets;
use crate::tables::HostRow;
use crate::types::Targets;

/// How deep groups may refer to groups.
const DEPTH: usize = 16;

/// The names that exist.
pub(crate) struct Namespace<'a> {
    hosts: &'a BTreeMap<HostId, HostRow>,
    by_name: BTreeMap<&'a str, HostId>,
    groups: BTreeMap<String, String>,
}

impl<'a> Namespace<'a> {
    /// The inventory, with the groups of `groups.toml` in the state folder.
    pub(crate) fn new(
        hosts: &'a BTreeMap<HostId, HostRow>,
        state: &Path,
    ) -> Result<Namespace<'a>, Failure> {
        let by_name = hosts.iter().map(|(id, row)| (row.name.as_str(), *id)).collect();
        Ok(Namespace { hosts, by_name, groups: read_groups(&state.join("groups.toml"))? })
    }

    /// The hosts that are meant.
    pub(crate) fn resolve(&self, targets: &Targets) -> Result<HostSet, Failure> {
        let given = targets.all || !targets.sets.is_empty() || !targets.groups.is_empty();
        if !given {
            return Err(Failure::bad(
                "no targets are given",
                "say where: -w SET, -g GROUP, or -a for every host",
            ));
        }
        let mut set = HostSet::new();
        if targets.all {
            let leaves = self.hosts.iter().filter(|(_, row)| row.role == "host");
            set = leaves.map(|(id, _)| *id).collect();
        }
        for text in &targets.sets {
            set = set.union(&self.set(text, DEPTH)?);
        }
        for group in &targets.groups {
            set = set.union(&self.group(group, DEPTH)?);
        }
        for text in &targets.exclude {
            set = set.difference(&self.set(text, DEPTH)?);
        }
        if set.is_empty() {
            let message = "the targets are an empty set: nobody is left";
            let help = "`barid hosts` lists who is enrolled; -x may have left everybody out";
            return Err(Failure::unknown("empty-set", message, help));
        }
        Ok(set)
    }

    fn set(&self, text: &str, depth: usize) -> Result<HostSet, Failure> {
        let bad =
            |error: sets::SetError| Failure::bad(error.to_string(), "for example web[1-3],db1");
        let mut set = HostSet::new();
        for term in sets::terms(text).map_err(bad)? {
            let part = match term.strip_prefix('@') {
                Some("*") => self.hosts.keys().copied().collect(),
                Some(group) => self.group(group, depth)?,
                None => self.names(&sets::expand(term).map_err(bad)?)?,
            };
            set = set.union(&part);
        }
        Ok(set)
    }

    fn names(&self, names: &[String]) -> Result<HostSet, Failure> {
        let mut set = BTreeSet::new();
        let mut unknown = Vec::new();
        for name in names {
            match self.by_name.get(name.as_str()) {
                Some(id) => drop(set.insert(*id)),
                None => unknown.push(name.as_str()),
            }
        }
        if unknown.is_empty() {
            return Ok(set.into_iter().collect());
        }
        let known = self.by_name.keys().copied();
        let hint = match unknown.as_slice() {
            [one] => sets::suggest(one, known).map(|near| format!("did you mean {near}?")),
            _ => None,
        };
        let what = if unknown.len() == 1 { "host" } else { "hosts" };
        let message = format!("unknown {what} {}", sets::fold(&unknown));
        let help = hint.unwrap_or_else(|| "`barid hosts` lists who is enrolled".into());
        Err(Failure::unknown("unknown-host", message, help))
    }

    fn group(&self, group: &str, depth: usize) -> Result<HostSet, Failure> {
        if let Some(text) = self.groups.get(group) {
            if depth == 0 {
                let message = format!("group {group} refers to itself, or groups nest too deep");
                return Err(Failure::bad(message, "see groups.toml in the controller's state"));
            }
            return self.set(text, depth - 1);
        }
        let site = group.strip_prefix("site:").unwrap_or(group);
        let members = self.hosts.iter().filter(|(_, r)| r.site == site && r.role == "host");
        let members: HostSet = members.map(|(id, _)| *id).collect();
        if members.is_empty() || site.is_empty() {
            let sites: BTreeSet<_> = self.hosts.values().map(|row| row.site.as_str()).collect();
            let known = sites.into_iter().chain(self.groups.keys().map(String::as_str));
            let hint = sets::suggest(group, known).map(|near| format!("did you mean {near}?"));
            let message = format!("unknown group {group}: neither a site nor in groups.toml");
            return Err(Failure::unknown("unknown-group", message, hint.unwrap_or_default()));
        }
        Ok(members)
    }
}

fn read_groups(path: &PathBuf) -> Result<BTreeMap<String, String>, Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => {
            let message = format!("{}: cannot be read: {error}", path.display());
            return Err(Failure::internal(message));
        }
    };
    toml::from_str(&text).map_err(|error| {
        let message = format!("{}: {}", path.display(), error.message());
        Failure::bad(message, "each line is NAME = \"SET\", for example web = \"web[1-9]\"")
    })
}

/// The names of hosts, in natural order.
pub(crate) fn names(hosts: &BTreeMap<HostId, HostRow>, set: &HostSet) -> Vec<String> {
    let name = |id: HostId| hosts.get(&id).map_or_else(|| format!("#{id}"), |r| r.name.clone());
    let mut names: Vec<String> = set.iter().map(name).collect();
    names.sort_by(|a, b| sets::natural_cmp(a, b));
    names
}
