//! Distributing: what is due and lacking goes out, one order for each group of hosts that get the
//! same files.
//!
//! Of one frequency one distribution goes on at a time. A second is kept until the first has
//! ended, which is when each of its hosts has an outcome; a third is dropped, since the second
//! will do what it wants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use content::{ContentId, Manifest};
use mesh::{HostSet, Need, OrderId};
use protos::{Delete, Dist, DistItem, Terms, Work};
use tokio::sync::RwLock;
use tracing::{info, warn};

use super::desk::{Fleet, Known};
use super::domain::DomainPath;
use super::missing::Standing;
use super::plan::{Group, groups};
use super::precedence::place;
use super::store::{PlanRow, Store};
use super::types::{Distribution, NewDist};
use crate::fault::Failure;
use crate::live::{Live, Update};
use crate::orders::{Desk, Draft, blocking};
use crate::push::{INLINE, Packer};

/// The word for every frequency.
pub(crate) const ALL: &str = "all";
/// How long to wait for a host that cannot be reached before saying so.
const REACH: Duration = Duration::from_secs(15);
/// How long an order waits for hosts that are away. Whoever comes later gets it when it is due.
const HOLD: Duration = Duration::from_secs(60);
/// How long putting files in place may take, with their commands.
const LONGEST: Duration = Duration::from_secs(3600);
/// How many orders one distribution may make. Who is left over gets its files the next time.
const ORDERS: usize = 1_000;
/// Beyond these an order is closed and the next one begun: files, content beside it, bytes.
const FILES: usize = 256;
const NEEDS: usize = 3_000;
const BYTES: usize = 256 << 10;
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

/// What goes on.
#[derive(Clone, Default)]
pub(crate) struct Running {
    /// The frequencies of which a distribution goes on, and the one that waits for its end.
    on: Arc<Mutex<BTreeMap<String, Option<NewDist>>>>,
    /// Those of which a rollout is unfinished, and which one.
    rolled: Arc<Mutex<BTreeMap<String, String>>>,
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

/// Whether a distribution may begin.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Now,
    Later,
    Dropped,
}

impl Running {
    /// Whether one of this frequency goes on.
    pub(crate) fn is_on(&self, frequency: &str) -> bool {
        self.lock().contains_key(frequency)
    }

    fn begin(&self, new: &NewDist) -> Turn {
        let mut running = self.lock();
        match running.get_mut(&new.frequency) {
            None => {
                running.insert(new.frequency.clone(), None);
                Turn::Now
            }
            Some(next @ None) => {
                *next = Some(new.clone());
                Turn::Later
            }
            // More hosts have their turn before the one that waits could begin.
            Some(Some(NewDist { only: Some(waiting), .. })) if new.only.is_some() => {
                *waiting = waiting.union(new.only.as_ref().expect("it was just looked at"));
                Turn::Later
            }
            // Everybody is more than those who have their turn.
            Some(Some(next)) if next.only.is_some() => {
                *next = new.clone();
                Turn::Later
            }
            Some(Some(_)) => Turn::Dropped,
        }
    }

    /// It has ended. Returns the one that has waited for that, which goes on now.
    fn end(&self, frequency: &str) -> Option<NewDist> {
        let mut running = self.lock();
        let next = running.remove(frequency).flatten();
        if next.is_some() {
            running.insert(frequency.to_owned(), None);
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Option<NewDist>>> {
        self.on.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The unfinished rollout of a frequency, or, for all of them, of any.
    pub(crate) fn rolled(&self, frequency: &str) -> Option<String> {
        let rolled = self.rolled.lock().unwrap_or_else(PoisonError::into_inner);
        let own = rolled.get(frequency).or(rolled.get(ALL));
        own.or(rolled.values().next().filter(|_| frequency == ALL)).cloned()
    }

    /// Notes that a rollout of a frequency is unfinished, or is over.
    pub(crate) fn note_rollout(&self, frequency: &str, rollout: &str, is_over: bool) {
        let mut rolled = self.rolled.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_over {
            rolled.insert(frequency.into(), rollout.into());
        } else if rolled.get(frequency).is_some_and(|known| known == rollout) {
            rolled.remove(frequency);
        }
    }
}

/// What is to be distributed.
struct Due {
    planned: u64,
    /// The files, with how each stands.
    files: Vec<(DomainPath, Standing)>,
    groups: Vec<Group>,
    notes: Vec<String>,
}

impl Distributor {
    /// Distributes now, or once the one that goes on has ended.
    pub(crate) async fn distribute(&self, new: NewDist) -> Result<Distribution, Failure> {
        self.check(&new)?;
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
        // Whoever asked may leave while it is made; its end is seen to all the same.
        let maker = self.clone();
        let made = tokio::spawn(async move {
            let (frequency, mut ids) = (new.frequency.clone(), Vec::new());
            let begun = maker.begin(new, &mut ids).await;
            tokio::spawn(maker.see_to_its_end(frequency, ids));
            begun
        });
        match made.await {
            Ok(begun) => begun,
            Err(error) => Err(Failure::internal(format!("a worker failed: {error}"))),
        }
    }

    /// Plans, packs and gives the orders, and notes each one that is given.
    async fn begin(&self, new: NewDist, ids: &mut Vec<OrderId>) -> Result<Distribution, Failure> {
        let _held = self.pushes.read().await;
        let (maker, asked) = (self.clone(), new.clone());
        let due = blocking(move || maker.due(&asked, None)).await?;
        let mut told = Distribution { notes: due.notes.clone(), ..Distribution::default() };
        let due = Arc::new(due);
        let mut sent = BTreeSet::new();
        for at in 0..due.groups.len() {
            let hosts = due.groups[at].hosts.len();
            if ids.len() >= ORDERS {
                let left: u64 = due.groups[at..].iter().map(|group| group.hosts.len()).sum();
                told.notes.push(format!("{left} hosts wait for the next distribution"));
                break;
            }
            let (maker, due_now, name) = (self.clone(), due.clone(), new.frequency.clone());
            let drafts = blocking(move || maker.drafts(&due_now, at, &name)).await?;
            for (draft, plan) in drafts {
                sent.extend(plan.files.iter().map(|(path, _)| path.clone()));
                let note = move |txn: &redb::WriteTransaction, id| Store::note_plan(txn, id, &plan);
                let (id, _) = self.desk.give_noting(draft, Some(Box::new(note))).await?;
                told.orders.push(id.to_string());
                ids.push(id);
            }
            told.hosts += hosts;
        }
        told.files = sent.len() as u64;
        let Distribution { hosts, files, .. } = told;
        info!(frequency = new.frequency, hosts, files, orders = ids.len(), "distributing");
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
        let hosts = due.groups.iter().fold(HostSet::new(), |all, group| all.union(&group.hosts));
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
            drafts.extend(self.drafts(&due, at, &new.frequency)?);
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
        let compares = new.compare || only.is_some();
        let mut standings = self.fleet.store.standings()?;
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
            let mut members = roll.winners.of_entry[at].clone();
            if let Some(only) = &only {
                members = members.intersection(only);
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
        for clash in roll.winners.clashes.iter().take(20) {
            let (one, other) = (&roll.paths[clash.one], &roll.paths[clash.other]);
            let host = &roll.members[clash.host].name;
            warn!(host, %one, %other, "two entries clash: nothing is delivered");
            notes.push(format!("{host}: {one} and {other} clash: nothing is delivered"));
        }
        Ok(Due { planned: book.change, files, groups: groups(&of_file), notes })
    }

    /// The orders for one group. Blocks.
    fn drafts(
        &self,
        due: &Due,
        at: usize,
        frequency: &str,
    ) -> Result<Vec<(Draft, PlanRow)>, Failure> {
        let group = &due.groups[at];
        let known = self.fleet.known();
        let mut drafts = Vec::new();
        let mut batch = Batch::default();
        for file in &group.files {
            let (path, standing) = &due.files[*file];
            // Removed since this was planned: then nobody is to get it.
            let Some(entry) = known.book.entries.get(path) else { continue };
            let root = &known.book.sources[&entry.source].revision.content.root;
            let mut room = batch.room();
            let (push, needs, bytes) = self.push(path, root, standing, &group.hosts, &mut room)?;
            let delete = if entry.delete { Delete::All } else { Delete::Nothing };
            let terms = Terms { delete, exclude: entry.exclude.clone(), ..Terms::default() };
            let push = protos::Push { terms, ..push };
            let weight = weight(&push);
            if batch.is_full(weight, &needs) {
                drafts.push(batch.draft(due.planned, &group.hosts, frequency));
                batch = Batch::default();
            }
            let command = Bytes::copy_from_slice(entry.command.as_bytes());
            batch.take(DistItem { push, command }, needs, bytes + weight as u64);
            batch.files.push((path.clone(), root.clone()));
        }
        if !batch.items.is_empty() {
            drafts.push(batch.draft(due.planned, &group.hosts, frequency));
        }
        Ok(drafts)
    }

    fn push(
        &self,
        path: &DomainPath,
        root: &str,
        standing: &Standing,
        hosts: &HostSet,
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
        self.packer.push_of(&path.path, &target, bases, room)
    }

    /// Waits until each host has an outcome; then the one that has waited for that goes on.
    async fn see_to_its_end(self, frequency: String, mut orders: Vec<OrderId>) {
        loop {
            self.wait_for(orders.into_iter().collect()).await;
            let Some(next) = self.running.end(&frequency) else { return };
            orders = Vec::new();
            if let Err(failure) = self.begin(next, &mut orders).await {
                warn!(frequency, error = %failure.error.message, "not distributed in full");
            }
        }
    }

    /// Waits until these orders are closed.
    async fn wait_for(&self, mut open: BTreeSet<OrderId>) {
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

/// What goes into one order.
#[derive(Default)]
struct Batch {
    items: Vec<DistItem>,
    files: Vec<(DomainPath, String)>,
    needs: Vec<Need>,
    content: usize,
    bytes: usize,
    inline: usize,
    weight: u64,
}

impl Batch {
    /// How much content may still travel inside the order.
    fn room(&self) -> usize {
        INLINE.saturating_sub(self.inline)
    }

    fn is_full(&self, weight: usize, needs: &[Need]) -> bool {
        let content: usize = needs.iter().map(|need| need.content.len()).sum();
        !self.items.is_empty()
            && (self.items.len() >= FILES
                || self.content + content > NEEDS
                || self.bytes + weight > BYTES)
    }

    fn take(&mut self, item: DistItem, needs: Vec<Need>, bytes: u64) {
        self.content += needs.iter().map(|need| need.content.len()).sum::<usize>();
        self.bytes += weight(&item.push) + item.command.len();
        self.inline += item.push.inline.iter().map(Bytes::len).sum::<usize>();
        self.weight += bytes;
        self.needs.extend(needs);
        self.items.push(item);
    }

    fn draft(self, planned: u64, hosts: &HostSet, frequency: &str) -> (Draft, PlanRow) {
        let count = self.items.len();
        let noun = if count == 1 { "file" } else { "files" };
        let what = match (count, self.files.first()) {
            (1, Some((path, _))) => format!("{frequency}: {path}"),
            _ => format!("{frequency}: {count} {noun}"),
        };
        let draft = Draft {
            targets: hosts.clone(),
            needs: self.needs,
            reach: REACH,
            hold: HOLD,
            longest: LONGEST,
            kind: "dist",
            what,
            until: None,
            gate: None,
            run: None,
            retries: None,
            work: Work::Dist(Dist { items: self.items }),
            push: None,
        };
        (draft, PlanRow { planned, files: self.files })
    }
}

/// About how many bytes a push has in an order.
fn weight(push: &protos::Push) -> usize {
    let bundle = |bundle: &protos::Bundle| {
        160 + 12 * bundle.hosts.ranges().len() + 44 * (bundle.segments.len() + bundle.deltas.len())
    };
    let bundles: usize = push.bundles.iter().map(bundle).sum();
    let inline: usize = push.inline.iter().map(|part| part.len() + 8).sum();
    let exclude: usize = push.terms.exclude.iter().map(|pattern| pattern.len() + 8).sum();
    128 + push.dest.len() + exclude + bundles + inline
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
mod tests {
    use mesh::HostId;

    use super::*;

    #[test]
    fn a_second_waits_and_a_third_is_dropped() {
        let running = Running::default();
        let new = |frequency: &str, host: &str| NewDist {
            frequency: frequency.into(),
            hosts: vec![host.into()],
            ..NewDist::of("")
        };
        assert_eq!(running.begin(&new("hour", "a")), Turn::Now);
        assert_eq!(running.begin(&new("day", "a")), Turn::Now, "they are independent");
        assert_eq!(running.begin(&new("hour", "b")), Turn::Later);
        assert_eq!(running.begin(&new("hour", "c")), Turn::Dropped);
        assert_eq!(running.end("hour"), Some(new("hour", "b")));
        assert_eq!(running.begin(&new("hour", "d")), Turn::Later, "the one that waited goes on");
        assert_eq!(running.end("hour"), Some(new("hour", "d")));
        assert_eq!(running.end("hour"), None);
        assert!(!running.is_on("hour") && running.is_on("day"));
    }

    #[test]
    fn those_who_have_their_turn_meanwhile_wait_together() {
        let running = Running::default();
        let turn = |host| NewDist { only: Some(HostSet::one(HostId(host))), ..NewDist::of("hour") };
        assert_eq!(running.begin(&turn(1)), Turn::Now);
        assert_eq!(running.begin(&turn(2)), Turn::Later);
        assert_eq!(running.begin(&turn(3)), Turn::Later);
        let both = Some(HostSet::from_ranges([(2, 3)]));
        assert_eq!(running.end("hour").and_then(|next| next.only), both);
        assert_eq!(running.begin(&turn(4)), Turn::Later);
        assert_eq!(running.begin(&NewDist::of("hour")), Turn::Later, "it is for them, too");
        assert_eq!(running.begin(&turn(5)), Turn::Dropped, "everybody is waited for already");
        assert_eq!(running.end("hour"), Some(NewDist::of("hour")));
    }

    #[test]
    fn a_rollout_holds_its_frequency_and_all() {
        let running = Running::default();
        running.note_rollout("hour", "a", false);
        let rolled = |frequency| running.rolled(frequency);
        assert_eq!((rolled("hour").as_deref(), rolled(ALL).as_deref()), (Some("a"), Some("a")));
        assert_eq!(rolled("day"), None);
        running.note_rollout("hour", "b", true);
        assert!(rolled("hour").is_some(), "that one is another's");
        running.note_rollout("hour", "a", true);
        running.note_rollout(ALL, "c", false);
        assert_eq!(rolled("day").as_deref(), Some("c"));
    }
}
