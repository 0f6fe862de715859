//! Which hosts an operator means: names, folded sets, groups, everybody, and who is left out.
//!
//! A name, a pattern or a group that means nobody is an error that says so, and nothing runs
//! anywhere: what was meant to be left out and is spelt wrongly would run, too. Groups that are a
//! state (`@down`, `@run:last/failed`) may be empty.
//!
//! Groups by place and state hold hosts. A relay is meant by its name, by a pattern that its name
//! fits, by a group that names it, by `@role:relay`, and by `@*`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use mesh::{HostId, HostSet};

use crate::fault::Failure;
use crate::fleet::change::Refusal;
use crate::fleet::desk::Known;
use crate::groups::{BUILT_IN_GROUPS, BUILT_IN_SOURCES, Book};
use crate::sets::{self, Algebra, Pattern, Pick, Predicate, Term, What};
use crate::tables::facts::AllFacts;
use crate::tables::{HostRow, Labels};
use crate::types::Targets;

/// How deep groups may refer to groups.
const DEPTH: usize = 16;
/// How many unknown names an error suggests others for.
const SUGGESTED: usize = 3;
/// How long a set within an error may be.
const SET_IN_ERROR: usize = 400;

/// Who is enrolled, and how the fleet stands now.
#[derive(Clone, Default)]
pub(crate) struct Scene {
    pub(crate) hosts: Arc<BTreeMap<HostId, HostRow>>,
    pub(crate) up: HostSet,
    /// Of those who are not up, who has fallen silent.
    pub(crate) silent: HostSet,
    /// The labels of those that have some.
    pub(crate) labels: Arc<BTreeMap<HostId, Labels>>,
    /// What hosts say of themselves.
    pub(crate) facts: Arc<AllFacts>,
    /// The subtrees of the controller's own children.
    pub(crate) below: BTreeMap<HostId, HostSet>,
    /// Who is in which domain.
    pub(crate) fleet: Known,
}

/// Who has answered what to past orders.
pub(crate) trait Past {
    /// The targets of an order that are in this state; without one, all of them.
    fn targets(&self, order: &str, state: Option<&str>) -> Result<HostSet, Failure>;
}

/// The names that exist.
pub(crate) struct Namespace<'a> {
    scene: &'a Scene,
    by_name: HashMap<&'a str, HostId>,
    book: &'a Book,
    past: &'a dyn Past,
    /// Groups that were looked up already, by source and name.
    known: RefCell<HashMap<(String, String), HostSet>>,
}

impl Algebra for HostSet {
    fn any(sets: Vec<HostSet>) -> HostSet {
        HostSet::from_ranges(sets.iter().flat_map(HostSet::ranges).copied())
    }

    fn minus(self, other: HostSet) -> HostSet {
        self.difference(&other)
    }

    fn both(self, other: HostSet) -> HostSet {
        self.intersection(&other)
    }

    fn either(self, other: HostSet) -> HostSet {
        self.difference(&other).union(&other.difference(&self))
    }
}

impl<'a> Namespace<'a> {
    /// The names of this fleet, with these groups and these past orders.
    pub(crate) fn new(scene: &'a Scene, book: &'a Book, past: &'a dyn Past) -> Namespace<'a> {
        let by_name = scene.hosts.iter().map(|(id, row)| (row.name.as_str(), *id)).collect();
        Namespace { scene, by_name, book, past, known: RefCell::default() }
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
        let mut set = if targets.all { self.of_role("host") } else { HostSet::new() };
        for text in &targets.sets {
            set = set.union(&self.set(text, DEPTH)?);
        }
        for group in &targets.groups {
            set = set.union(&self.set(&format!("@{group}"), DEPTH)?);
        }
        for text in &targets.limit {
            set = set.intersection(&self.set(text, DEPTH)?);
        }
        for text in &targets.exclude {
            set = set.difference(&self.set(text, DEPTH)?);
        }
        for group in &targets.exclude_groups {
            set = set.difference(&self.set(&format!("@{group}"), DEPTH)?);
        }
        set = self.picked(set, &targets.pick, targets.seed)?;
        if set.is_empty() {
            let message = "the targets are an empty set: nobody is left";
            let help =
                "`barid hosts` lists who is enrolled; -x or --limit may have left everybody out";
            return Err(Failure::unknown("empty-set", message, help));
        }
        Ok(set)
    }

    /// The groups of a source, each as it is written in a set.
    pub(crate) fn listed(&self, source: &str) -> Result<Vec<String>, Failure> {
        let known = match source {
            "" => return Ok(self.own_groups()),
            "site" => self.sites().into_iter().map(str::to_owned).collect(),
            "role" => vec!["host".into(), "relay".into()],
            "relay" => {
                let children = self.scene.below.keys().filter_map(|id| self.scene.hosts.get(id));
                let relays = children.filter(|row| row.role == "relay");
                relays.map(|row| row.name.clone()).collect()
            }
            "run" => Vec::new(),
            "os" => self.systems().into_iter().map(str::to_owned).collect(),
            "domain" => self.scene.fleet.reader().domains(None)?,
            source => self.book.list(source)?.ok_or_else(|| self.cannot_list(source))?,
        };
        Ok(known.into_iter().map(|group| format!("@{source}:{group}")).collect())
    }

    /// The groups of a source in which a host is; none if the source can only list its groups.
    pub(crate) fn groups_of(
        &self,
        source: &str,
        host: &str,
    ) -> Result<Option<Vec<String>>, Failure> {
        let groups = self.book.reverse(source, host)?;
        Ok(groups.map(|groups| groups.iter().map(|group| written(source, group)).collect()))
    }

    /// Who is in a group that was listed, and how long ago its source said so.
    pub(crate) fn group_set(&self, group: &str) -> Result<(HostSet, Duration), Failure> {
        let name = group.strip_prefix('@').unwrap_or(group);
        let (source, name) = name.split_once(':').unwrap_or(("", name));
        let set = self.group(source, name, DEPTH)?;
        Ok((set, self.book.age(source, name)))
    }

    fn set(&self, text: &str, depth: usize) -> Result<HostSet, Failure> {
        let bad =
            |error: sets::SetError| Failure::bad(error.to_string(), "for example web[1-3],db1");
        let set = sets::parse(text).map_err(bad)?;
        sets::evaluate(&set, &mut |term| self.term(term, depth))
    }

    fn term(&self, term: &Term<'_>, depth: usize) -> Result<HostSet, Failure> {
        let every = || self.by_name.keys().copied();
        match &term.what {
            What::Names(pattern) => self.names(&pattern.names()),
            What::Glob(pattern) => {
                let mut set = BTreeSet::new();
                for glob in pattern.names() {
                    let fitting = sets::matching(&glob, every());
                    set.extend(self.fitting(&glob, fitting)?);
                }
                Ok(set.into_iter().collect())
            }
            What::Regex(regex) => {
                let fitting = sets::found(regex, every());
                Ok(self.fitting(term.text, fitting)?.into_iter().collect())
            }
            What::Group(source, pattern) => self.groups(source.unwrap_or(""), pattern, depth),
            What::Labels(predicate) => self.labelled(term.text, predicate),
            What::File(path) => {
                let message = format!("^{path}: files are read where the command is given");
                Err(Failure::bad(message, "`barid -w ^FILE` reads it, as does --hostfile"))
            }
            What::Set(_) => Ok(HostSet::new()),
        }
    }

    fn labelled(&self, text: &str, predicate: &Predicate<'_>) -> Result<HostSet, Failure> {
        let Scene { labels, facts, .. } = self.scene;
        let known = labels.values().flatten().chain(facts.values().flat_map(|row| &row.facts));
        let known: BTreeSet<&str> = known.map(|(name, _)| &**name).collect();
        if let Some(unknown) = predicate.labels().into_iter().find(|name| !known.contains(name)) {
            let near = sets::suggest(unknown, known).map(|near| did_you_mean([near]));
            let help = near.unwrap_or_else(|| "`barid hosts label` gives hosts labels".into());
            let message = format!("{text}: no host has a label or fact {unknown}");
            return Err(Failure::unknown("unknown-label", message, help));
        }
        let holds = |id: &HostId| predicate.holds(&|name| self.said(*id, name));
        let set: HostSet = self.scene.hosts.keys().copied().filter(holds).collect();
        if set.is_empty() {
            let help = "`barid hosts -a --facts` shows labels and facts";
            return Err(Failure::unknown("unknown-label", format!("nobody is {text}"), help));
        }
        Ok(set)
    }

    /// What is said of a host under a name: by operators, else by itself.
    fn said(&self, id: HostId, name: &str) -> Option<&str> {
        let label = self.scene.labels.get(&id).and_then(|labels| labels.get(name));
        let fact = || self.scene.facts.get(&id).and_then(|row| row.facts.get(name));
        label.or_else(fact).map(String::as_str)
    }

    fn fitting(&self, pattern: &str, names: Vec<&str>) -> Result<Vec<HostId>, Failure> {
        if names.is_empty() {
            let message = format!("no name fits {pattern}");
            let help = "`barid hosts` lists who is enrolled";
            return Err(Failure::unknown("unknown-host", message, help));
        }
        Ok(names.iter().filter_map(|name| self.by_name.get(name).copied()).collect())
    }

    fn names(&self, names: &[String]) -> Result<HostSet, Failure> {
        let mut set = Vec::with_capacity(names.len());
        let mut unknown = Vec::new();
        for name in names {
            match self.by_name.get(name.as_str()) {
                Some(id) => set.push(*id),
                None => unknown.push(name.as_str()),
            }
        }
        if unknown.is_empty() {
            return Ok(set.into_iter().collect());
        }
        let near = |name: &&str| sets::suggest(name, self.by_name.keys());
        let near: BTreeSet<String> = unknown.iter().take(SUGGESTED).filter_map(near).collect();
        let what = if unknown.len() == 1 { "host" } else { "hosts" };
        let message = format!("unknown {what} {}", shortened(sets::fold(&unknown)));
        let help = match unknown.len() {
            1..=SUGGESTED if !near.is_empty() => did_you_mean(near),
            _ => "`barid hosts` lists who is enrolled".into(),
        };
        Err(Failure::unknown("unknown-host", message, help))
    }

    fn groups(
        &self,
        source: &str,
        pattern: &Pattern<'_>,
        depth: usize,
    ) -> Result<HostSet, Failure> {
        let mut sets = Vec::new();
        for group in pattern.names() {
            let is_glob = source != "run" && group.contains(['*', '?']);
            if group == "*" && source != "run" {
                sets.push(self.all(source, depth)?);
            } else if is_glob {
                let written = if source.is_empty() { "@".into() } else { format!("@{source}:") };
                let glob = format!("{written}{group}");
                let listed = self.listed(source)?;
                let fitting = sets::matching(&glob, listed.iter().map(String::as_str));
                if fitting.is_empty() {
                    let message = format!("no group fits {glob}");
                    let help = "`barid nodes groups` lists them";
                    return Err(Failure::unknown("unknown-group", message, help));
                }
                for group in fitting {
                    sets.push(self.group(source, &group[written.len()..], depth)?);
                }
            } else {
                sets.push(self.group(source, &group, depth)?);
            }
        }
        Ok(HostSet::any(sets))
    }

    fn group(&self, source: &str, group: &str, depth: usize) -> Result<HostSet, Failure> {
        let key = (source.to_owned(), group.to_owned());
        if let Some(set) = self.known.borrow().get(&key) {
            return Ok(set.clone());
        }
        let set = self.group_anew(source, group, depth)?;
        self.known.borrow_mut().insert(key, set.clone());
        Ok(set)
    }

    fn group_anew(&self, source: &str, group: &str, depth: usize) -> Result<HostSet, Failure> {
        let text = match (source, group) {
            ("", "up") => return Ok(self.of_role("host").intersection(&self.scene.up)),
            ("", "stale") => return Ok(self.of_role("host").intersection(&self.scene.silent)),
            ("", "down") => return Ok(self.of_role("host").difference(&self.scene.up)),
            ("", _) => match self.book.own().get(group) {
                Some(text) => text.clone(),
                None => return self.site("", group),
            },
            ("site", _) => return self.site("site", group),
            ("role", "host" | "relay") => return Ok(self.of_role(group)),
            ("relay", _) => return self.relay(group),
            ("run", _) => {
                let (order, state) = match group.split_once('/') {
                    Some((order, state)) => (order, Some(state).filter(|state| *state != "*")),
                    None => (group, None),
                };
                let enrolled: HostSet = self.scene.hosts.keys().copied().collect();
                return Ok(self.past.targets(order, state)?.intersection(&enrolled));
            }
            ("role", _) => return Err(self.unknown_group(source, group)),
            ("domain", _) => return self.domain(group),
            ("os", _) => return self.system(group),
            _ => {
                self.check_source(source)?;
                match self.book.map(source, group)? {
                    Some(text) => text,
                    None => return Err(self.unknown_group(source, group)),
                }
            }
        };
        self.inner(&text, &written(source, group), depth)
    }

    /// The set that a group is said to be.
    fn inner(&self, text: &str, group: &str, depth: usize) -> Result<HostSet, Failure> {
        let Some(depth) = depth.checked_sub(1) else {
            let message = format!("group {group} refers to itself, or groups nest too deep");
            return Err(Failure::bad(message, "see groups.toml in the controller's state"));
        };
        self.set(text, depth).map_err(|failure| failure.within(&format!("group {group}")))
    }

    fn all(&self, source: &str, depth: usize) -> Result<HostSet, Failure> {
        match source {
            "" | "role" => return Ok(self.scene.hosts.keys().copied().collect()),
            "domain" => {}
            "site" => {
                let hosts = self.scene.hosts.iter();
                let hosts = hosts.filter(|(_, row)| row.role == "host" && !row.site.is_empty());
                return Ok(hosts.map(|(id, _)| *id).collect());
            }
            "relay" | "os" => {}
            _ => {
                self.check_source(source)?;
                if let Some(text) = self.book.all(source)? {
                    return self.inner(&text, &format!("@{source}:*"), depth);
                }
            }
        }
        let prefix = source.len() + "@:".len();
        let groups = self.listed(source)?;
        let sets = groups.iter().map(|group| self.group(source, &group[prefix..], depth));
        Ok(HostSet::any(sets.collect::<Result<_, _>>()?))
    }

    fn site(&self, source: &str, site: &str) -> Result<HostSet, Failure> {
        let members = self.scene.hosts.iter().filter(|(_, r)| r.site == site && r.role == "host");
        let members: HostSet = members.map(|(id, _)| *id).collect();
        if members.is_empty() || site.is_empty() {
            return Err(self.unknown_group(source, site));
        }
        Ok(members)
    }

    /// The hosts that run this operating system.
    fn system(&self, os: &str) -> Result<HostSet, Failure> {
        let hosts = self.of_role("host");
        let set: HostSet = hosts.iter().filter(|id| self.said(*id, "os") == Some(os)).collect();
        if set.is_empty() { Err(self.unknown_group("os", os)) } else { Ok(set) }
    }

    fn systems(&self) -> BTreeSet<&str> {
        let hosts = self.of_role("host");
        hosts.iter().filter_map(|id| self.said(id, "os")).filter(|os| !os.is_empty()).collect()
    }

    fn relay(&self, name: &str) -> Result<HostSet, Failure> {
        let id = self.by_name.get(name).copied();
        let Some(id) = id.filter(|id| self.scene.hosts[id].role == "relay") else {
            return Err(self.unknown_group("relay", name));
        };
        if let Some(below) = self.scene.below.get(&id).filter(|below| !below.is_empty()) {
            return Ok(below.intersection(&self.of_role("host")));
        }
        let over = self.scene.below.iter().find(|(_, below)| below.contains(id));
        let message = match over.and_then(|(over, _)| self.scene.hosts.get(over)) {
            Some(over) => format!(
                "who is behind {name} is not known here: it is linked to {}, not to the controller",
                over.name
            ),
            None => format!("who is behind {name} is not known: it was never linked"),
        };
        Err(Failure::unknown("unknown-group", message, "@site:NAME goes by where hosts enrolled"))
    }

    /// Those who have enrolled of the members of a domain; it may have none.
    fn domain(&self, name: &str) -> Result<HostSet, Failure> {
        let fleet = &self.scene.fleet;
        let members = name.parse().map_err(Refusal::Name);
        let members = members.and_then(|domain| fleet.reader().members(&domain));
        let members = members.map_err(|refusal| {
            let message = format!("@domain:{name}: {refusal}");
            Failure::unknown("unknown-group", message, "`barid domain tree` shows all domains")
        })?;
        Ok(fleet.roll.ids(&members))
    }

    fn of_role(&self, role: &str) -> HostSet {
        let hosts = self.scene.hosts.iter().filter(|(_, row)| row.role == role);
        hosts.map(|(id, _)| *id).collect()
    }

    fn sites(&self) -> BTreeSet<&str> {
        let hosts = self.scene.hosts.values().filter(|row| row.role == "host");
        hosts.map(|row| row.site.as_str()).filter(|site| !site.is_empty()).collect()
    }

    /// The groups without a source, but for those that are built in.
    fn own_groups(&self) -> Vec<String> {
        let own = self.book.own().keys().map(String::as_str);
        let all: BTreeSet<&str> = own.chain(self.sites()).collect();
        all.into_iter().map(|group| format!("@{group}")).collect()
    }

    fn check_source(&self, source: &str) -> Result<(), Failure> {
        if self.book.sources().any(|known| known == source) {
            return Ok(());
        }
        let near = sets::suggest(source, self.book.sources().chain(BUILT_IN_SOURCES));
        let message = format!("unknown source of groups {source}: not in groups.toml");
        let help = near.map_or_else(String::new, |near| did_you_mean([near]));
        Err(Failure::unknown("unknown-group", message, help))
    }

    fn unknown_group(&self, source: &str, group: &str) -> Failure {
        let listed = self.listed(source).unwrap_or_default();
        let built_in = BUILT_IN_GROUPS.iter().filter(|_| source.is_empty());
        let known = listed.into_iter().chain(built_in.map(|name| format!("@{name}")));
        let near = sets::suggest(&written(source, group), known);
        let message = match source {
            "" => format!("unknown group {group}: neither a site nor in groups.toml"),
            "site" => format!("unknown site {group}: no host has enrolled there"),
            "relay" => format!("{group} is no relay"),
            "os" => format!("no host says that its system is {group}"),
            "role" => format!("unknown role {group}: there are host and relay"),
            source => format!("unknown group {group}: {source} does not know it"),
        };
        let help = near.map_or_else(String::new, |near| did_you_mean([near]));
        Failure::unknown("unknown-group", message, help)
    }

    fn cannot_list(&self, source: &str) -> Failure {
        if let Err(failure) = self.check_source(source) {
            return failure;
        }
        let message = format!("source {source} cannot say which groups it has");
        Failure::bad(message, "give it a `list` program in groups.toml")
    }

    fn picked(&self, set: HostSet, pick: &str, seed: u64) -> Result<HostSet, Failure> {
        if pick.is_empty() {
            return Ok(set);
        }
        let pick: Pick = pick.parse().map_err(|error: sets::PickError| {
            Failure::bad(error.to_string(), "`--pick 5%` chooses every twentieth")
        })?;
        let ids: Vec<HostId> = set.iter().collect();
        let row = |id: &HostId| &self.scene.hosts[id];
        let hosts: Vec<(&str, &str)> =
            ids.iter().map(|id| (row(id).name.as_str(), row(id).site.as_str())).collect();
        Ok(pick.choose(seed, &hosts).into_iter().map(|at| ids[at]).collect())
    }
}

/// A group as it stands in a set.
fn written(source: &str, group: &str) -> String {
    if source.is_empty() { format!("@{group}") } else { format!("@{source}:{group}") }
}

fn did_you_mean(near: impl IntoIterator<Item = String>) -> String {
    format!("did you mean {}?", near.into_iter().collect::<Vec<_>>().join(", "))
}

fn shortened(mut set: String) -> String {
    if set.len() > SET_IN_ERROR {
        let cut = (0..=SET_IN_ERROR).rev().find(|at| set.is_char_boundary(*at)).unwrap_or(0);
        set.truncate(cut);
        set.push_str("...");
    }
    set
}

/// The names of hosts, in natural order.
pub(crate) fn names(hosts: &BTreeMap<HostId, HostRow>, set: &HostSet) -> Vec<String> {
    let name = |id: HostId| hosts.get(&id).map_or_else(|| format!("#{id}"), |r| r.name.clone());
    let mut names: Vec<String> = set.iter().map(name).collect();
    names.sort_by(|a, b| sets::natural_cmp(a, b));
    names
}

#[cfg(test)]
#[path = "targets_tests.rs"]
mod tests;
