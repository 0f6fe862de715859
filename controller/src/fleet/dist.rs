//! Distributing: what is due and lacking goes out, one order for each group of hosts that get the
//! same files.
//!
//! What may go on at the same time is the matter of [`super::running`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use content::{ContentId, Manifest};
use mesh::{Class, HostSet, Kind, Need, OrderId, Severity};
use protos::{Delete, DistItem, Terms};
use tokio::sync::RwLock;
use tracing::{info, warn};

use super::batch::{Batch, weight};
use super::desk::{Fleet, Known};
use super::domain::DomainPath;
use super::missing::Standing;
use super::plan::{Group, groups};
use super::precedence::place;
use super::running::{Running, Turn};
use super::store::{PlanRow, Store};
use super::types::{Distribution, NewDist};
use crate::fault::Failure;
use crate::live::{Live, Update};
use crate::orders::{Desk, Draft, blocking};
use crate::outcomes::under;
use crate::push::Packer;

/// The word for every frequency.
pub(crate) const ALL: &str = "all";
/// Content that is not in the store as it should be, as an event.
const BROKEN: Kind =
    Kind { subject: "dist.source", severity: Severity::Error, class: Class::Controller };
/// How many orders one distribution may make. Who is left over gets its files the next time.
const ORDERS: usize = 1_000;
/// How many different versions hosts may have for which deltas are made.
const BASES: usize = 8;
/// How often to look whether a distribution has ended, should its end be missed.
const LOOK: Duration = Duration::from_secs(10);

/// Makes distributions.
#[derive(Clone)]
pub(crate) struct Distributor {
    pub(crate) fleet: Fleet,
    pub(crate) packer: Packer,
    pub(crate) desk: Desk,
    pub(crate) live: Live,
    /// Held for reading while one is made, so that nothing of it is cleaned away.
    pub(crate) pushes: Arc<RwLock<()>>,
    pub(crate) running: Running,
}

/// What became of those who had their turn.
pub(crate) struct Taken {
    /// Who has not been given what he lacks, and still is to get it.
    pub(crate) left: HostSet,
    pub(crate) told: Result<Distribution, Failure>,
}

/// The orders that were given.
#[derive(Default)]
struct Given {
    orders: Vec<OrderId>,
    /// Of those who have their turn: who waits for an order.
    left: HostSet,
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
struct Made {
    drafts: Vec<(Draft, PlanRow)>,
    /// Files that cannot be delivered, and why.
    broken: Vec<(DomainPath, String)>,
}

/// What is to be distributed.
struct Due {
    planned: u64,
    begin_by_ms: u64,
    /// Whether hosts only look.
    verify: bool,
    /// The files, with how each stands.
    files: Vec<(DomainPath, Standing)>,
    groups: Vec<Group>,
    notes: Vec<String>,
}

impl Distributor {
    /// The same; the orders that it gives name this one, if it is known.
    pub(crate) fn on_behalf_of(&self, by: &str) -> Distributor {
        Distributor { desk: self.desk.on_behalf_of(by), ..self.clone() }
    }

    /// Distributes now, or once the one that goes on has ended.
    pub(crate) async fn distribute(&self, new: NewDist) -> Result<Distribution, Failure> {
        let new = NewDist { by: self.desk.by.to_string(), ..new };
        self.check(&new)?;
        if new.verify {
            // It changes nothing at hosts, so it goes on beside everything else.
            return self.begin(&new, &mut Given::default()).await;
        }
        if new.hosts.is_empty() {
            self.check_rolled(&new.frequency)?;
        }
        match self.running.begin(&new) {
            Turn::Now => {}
            turn => {
                let what = match turn {
                    Turn::Later => "goes on: this one begins when it has ended",
                    _ => "goes on, and one waits already: this one is dropped",
                };
                let notes = vec![format!("a distribution of {} {what}", new.frequency)];
                let queued = turn == Turn::Later;
                return Ok(Distribution { queued, notes, ..Distribution::default() });
            }
        }
        self.make(new).await.told
    }

    /// Brings those who have their turn what they lack, if they may begin now. A host that cannot
    /// begin by then does not; 0: whenever it can.
    pub(crate) async fn take_turns(
        &self,
        frequency: &str,
        hosts: HostSet,
        begin_by_ms: u64,
    ) -> Taken {
        let new = NewDist { only: Some(hosts.clone()), begin_by_ms, ..NewDist::of(frequency) };
        if let Err(failure) = self.check_rolled(frequency) {
            return Taken { left: hosts, told: Err(failure) };
        }
        match self.running.begin(&new) {
            Turn::Now => self.make(new).await,
            _ => Taken { left: hosts, told: Ok(Distribution::default()) },
        }
    }

    /// Brings a host these files, whatever it is known to have. Of two orders to one file the
    /// later counts at the host, so this goes on beside everything else.
    pub(crate) async fn bring(
        &self,
        host: &str,
        files: Vec<DomainPath>,
    ) -> Result<(Distribution, Vec<OrderId>), Failure> {
        let hosts = vec![host.to_owned()];
        let new = NewDist { hosts, wanted: Some(files), ..NewDist::of(ALL) };
        let mut given = Given::default();
        let told = self.begin(&new, &mut given).await?;
        Ok((told, given.orders))
    }

    /// Makes one that may begin. Whoever asked may leave meanwhile; its end is seen to all the
    /// same.
    async fn make(&self, new: NewDist) -> Taken {
        let (maker, all) = (self.clone(), new.only.clone().unwrap_or_default());
        let mut given = Given { orders: Vec::new(), left: all.clone() };
        let made = tokio::spawn(async move {
            let told = maker.begin(&new, &mut given).await;
            tokio::spawn(maker.see_to_its_end(new, given.orders));
            Taken { left: given.left, told }
        });
        made.await.unwrap_or_else(|error| {
            let told = Err(Failure::internal(format!("a worker failed: {error}")));
            Taken { left: all, told }
        })
    }

    /// Plans, packs and gives the orders, and notes each one that is given.
    async fn begin(&self, new: &NewDist, given: &mut Given) -> Result<Distribution, Failure> {
        let _held = self.pushes.read().await;
        // It may have waited for one of somebody else.
        let desk = self.desk.on_behalf_of(&new.by);
        let (maker, asked) = (self.clone(), new.clone());
        let due = blocking(move || maker.due(&asked, None)).await?;
        let mut told = Distribution { notes: due.notes.clone(), ..Distribution::default() };
        let due = Arc::new(due);
        if new.only.is_some() {
            // Whoever lacks nothing has had his turn.
            given.left = everybody(&due.groups);
        }
        let (mut sent, mut broken) = (BTreeSet::new(), BTreeMap::new());
        for at in 0..due.groups.len() {
            let hosts = &due.groups[at].hosts;
            if given.orders.len() >= ORDERS {
                let left: u64 = due.groups[at..].iter().map(|group| group.hosts.len()).sum();
                told.notes.push(match new.verify {
                    true => format!("{left} hosts were not looked at; name them"),
                    false => format!("{left} hosts wait for the next distribution"),
                });
                told.left = left;
                break;
            }
            let (maker, due_now, name) = (self.clone(), due.clone(), new.frequency.clone());
            let made = blocking(move || maker.drafts(&due_now, at, &name)).await?;
            broken.extend(made.broken);
            for (draft, plan) in made.drafts {
                sent.extend(plan.files.iter().map(|(path, _)| path.clone()));
                let note = move |txn: &redb::WriteTransaction, id| Store::note_plan(txn, id, &plan);
                let (id, _) = desk.give_noting(draft, Some(Box::new(note))).await?;
                told.orders.push(id.to_string());
                given.orders.push(id);
            }
            given.left = given.left.difference(hosts);
            told.hosts += hosts.len();
        }
        told.files = sent.len() as u64;
        for (path, why) in broken {
            let line = under(&path.to_string(), &format!("not delivered: {why}"));
            warn!(%path, why, "the content of a file cannot be read");
            self.desk.node.notice(BROKEN, &line).await;
            told.notes.push(line);
        }
        let Distribution { hosts, files, .. } = told;
        let orders = given.orders.len();
        info!(frequency = new.frequency, hosts, files, orders, "distributing");
        Ok(told)
    }

    /// Whether what is asked for is there.
    fn check(&self, new: &NewDist) -> Result<(), Failure> {
        let known = self.fleet.known();
        if new.frequency != ALL && !known.book.frequencies.contains_key(&new.frequency) {
            let names = known.book.frequencies.keys().cloned().collect::<Vec<_>>().join(", ");
            let message = format!("unknown frequency {}: there are {names}", new.frequency);
            return Err(Failure::bad(message, "`all` is every frequency"));
        }
        places(&known, &new.hosts).map(drop)
    }

    /// What goes out in waves must not go to everybody meanwhile.
    pub(crate) fn check_rolled(&self, frequency: &str) -> Result<(), Failure> {
        let Some(rollout) = self.running.rolled(frequency) else { return Ok(()) };
        let message = format!("rollout {rollout} of {frequency} is unfinished");
        let help = format!("`barid rollout show {rollout}`; whoever is named gets it all the same");
        Err(Failure::conflict(message, help))
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
    fn due(&self, new: &NewDist, part: Option<&Part>) -> Result<Due, Failure> {
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
        let (planned, begin_by_ms, verify) = (book.change, new.begin_by_ms, new.verify);
        Ok(Due { planned, begin_by_ms, verify, files, groups: groups(&of_file), notes })
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
    fn drafts(&self, due: &Due, at: usize, frequency: &str) -> Result<Made, Failure> {
        let group = &due.groups[at];
        let known = self.fleet.known();
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
                drafts.push(batch.draft((due.planned, due.begin_by_ms), &group.hosts, frequency));
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
            drafts.push(batch.draft((due.planned, due.begin_by_ms), &group.hosts, frequency));
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

    /// Waits until each host has an outcome; then the one that has waited for that goes on.
    async fn see_to_its_end(self, mut new: NewDist, mut orders: Vec<OrderId>) {
        loop {
            self.wait_for(orders.into_iter().collect()).await;
            let Some(next) = self.running.end(&new) else { return };
            let mut given = Given::default();
            if let Err(failure) = self.begin(&next, &mut given).await {
                let (frequency, error) = (&next.frequency, failure.error.message);
                warn!(frequency, %error, "not distributed in full");
            }
            (new, orders) = (next, given.orders);
        }
    }

    /// Waits until these orders are closed.
    pub(super) async fn wait_for(&self, mut open: BTreeSet<OrderId>) {
        let mut updates = self.live.watch();
        while !open.is_empty() {
            let (tables, asked) = (self.desk.tables.clone(), open.clone());
            let still_open = blocking(move || {
                let mut still_open = BTreeSet::new();
                for id in asked {
                    if tables.order(id)?.is_some_and(|row| row.closed_ms == 0) {
                        still_open.insert(id);
                    }
                }
                Ok(still_open)
            });
            if let Ok(still_open) = still_open.await {
                open = still_open;
            }
            let until = tokio::time::sleep(LOOK);
            tokio::pin!(until);
            while !open.is_empty() {
                tokio::select! {
                    () = &mut until => break,
                    update = updates.recv() => match update {
                        Ok(Update::Closed(id)) => drop(open.remove(&id)),
                        Ok(Update::Answers(_)) => {}
                        // Some were missed, or the controller stops: the tables are asked again.
                        Err(_) => {
                            (&mut until).await;
                            break;
                        }
                    },
                }
            }
        }
    }
}

/// The hosts of all groups.
fn everybody(groups: &[Group]) -> HostSet {
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
