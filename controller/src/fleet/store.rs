//! The fleet's tables, beside the controller's others in the same file.
//!
//! The book is written row by row: whatever differs from the book before goes into one commit,
//! together with who lacks what because of it. Confirmations are written in the node's own
//! commits, so what was acknowledged to a relay is in these tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use mesh::{Digest, HostSet, OrderId, Report};
use redb::{ReadableTable, TableDefinition, TableHandle, WriteTransaction};
use relay::{Journal, JournalError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use timing::LastRun;

use super::book::{Book, Config, Entry, Revision, Source};
use super::domain::DomainPath;
use super::levels::Levels;
use super::missing::Standing;
use crate::clock::now_ms;
use crate::tables::reached::{Reached, note_reached};

const BOOK: TableDefinition<&str, &[u8]> = TableDefinition::new("controller.fleet.book.v1");
const HOSTS: TableDefinition<&str, &[u8]> = TableDefinition::new("controller.fleet.hosts.v1");
const ENROLLED: TableDefinition<&str, &[u8]> = TableDefinition::new("controller.fleet.enrolled.v1");
const ENTRIES: TableDefinition<&str, &[u8]> = TableDefinition::new("controller.fleet.entries.v1");
const SOURCES: TableDefinition<u64, &[u8]> = TableDefinition::new("controller.fleet.sources.v1");
const REVISIONS: TableDefinition<(u64, u32), &[u8]> =
    TableDefinition::new("controller.fleet.revisions.v1");
const STANDING: TableDefinition<&str, &[u8]> = TableDefinition::new("controller.fleet.standing.v1");
/// What orders of distributions bring, for as long as the orders are kept.
const PLANS: TableDefinition<[u8; 16], &[u8]> = TableDefinition::new("controller.fleet.plans.v1");

/// How many revisions of one source are kept.
pub(crate) const REVISIONS_KEPT: usize = 50;

type Result<T> = std::result::Result<T, JournalError>;

/// What an order of a distribution brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlanRow {
    /// The number of the last change when it was planned.
    pub(crate) planned: u64,
    /// The files in the sequence of the order: the entry and the root hash.
    pub(crate) files: Vec<(DomainPath, String)>,
    /// Whether hosts only look.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) verify: bool,
}

/// Hosts at which a file is not as it should be, though they were thought to have it.
pub(crate) struct Drifted {
    pub(crate) path: DomainPath,
    pub(crate) hosts: HostSet,
    /// How, in their words.
    pub(crate) how: String,
}

/// The counters of a book.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Counts {
    change: u64,
    last_source: u64,
}

/// Who has to be entered among those who lack a file, and who does not get it any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moves {
    pub(crate) enter: BTreeMap<DomainPath, HostSet>,
    pub(crate) leave: BTreeMap<DomainPath, HostSet>,
    pub(crate) gone: Vec<DomainPath>,
}

/// Access to the fleet's tables. Calls block.
#[derive(Clone)]
pub(crate) struct Store {
    journal: Journal,
}

impl Store {
    pub(crate) fn open(journal: Journal) -> Result<Store> {
        let names = [
            BOOK.name(),
            HOSTS.name(),
            ENROLLED.name(),
            ENTRIES.name(),
            SOURCES.name(),
            REVISIONS.name(),
            STANDING.name(),
            PLANS.name(),
        ];
        if !journal.has_tables(&names)? {
            let txn = journal.begin()?;
            txn.open_table(BOOK)?;
            for table in [HOSTS, ENROLLED, ENTRIES, STANDING] {
                txn.open_table(table)?;
            }
            txn.open_table(SOURCES)?;
            txn.open_table(REVISIONS)?;
            txn.open_table(PLANS)?;
            txn.commit()?;
        }
        Ok(Store { journal })
    }

    /// The book as it was written last.
    pub(crate) fn book(&self) -> Result<Book> {
        let txn = self.journal.read()?;
        let mut book = Book::default();
        let rows = txn.open_table(BOOK)?;
        if let Some(config) = rows.get("config")? {
            let config: Config = parse(config.value());
            book.levels = Arc::new(Levels { levels: config.level, domains: config.domains });
            book.frequencies = Arc::new(config.frequency);
            book.sites = Arc::new(config.site);
        }
        if let Some(counts) = rows.get("counts")? {
            let counts: Counts = parse(counts.value());
            (book.change, book.last_source) = (counts.change, counts.last_source);
        }
        book.hosts = Arc::new(by_name(&txn.open_table(HOSTS)?)?);
        book.enrolled = Arc::new(by_name(&txn.open_table(ENROLLED)?)?);
        let mut entries = BTreeMap::new();
        for row in txn.open_table(ENTRIES)?.iter()? {
            let (path, row) = row?;
            entries.insert(path_of(path.value()), Arc::new(parse::<Entry>(row.value())));
        }
        book.entries = Arc::new(entries);
        let mut sources = BTreeMap::new();
        for row in txn.open_table(SOURCES)?.iter()? {
            let (number, row) = row?;
            sources.insert(number.value(), Arc::new(parse::<Source>(row.value())));
        }
        book.sources = Arc::new(sources);
        Ok(book)
    }

    /// Writes what is another in the new book than in the old, with who lacks what by it.
    pub(crate) fn write(
        &self,
        old: &Book,
        new: &Book,
        revisions: &[(u64, Revision)],
        moves: &Moves,
    ) -> Result<()> {
        let txn = self.journal.begin()?;
        {
            let mut rows = txn.open_table(BOOK)?;
            let counts = Counts { change: new.change, last_source: new.last_source };
            rows.insert("counts", json(&counts).as_slice())?;
            rows.insert("config", json(&new.config()).as_slice())?;
            difference(&mut txn.open_table(HOSTS)?, &old.hosts, &new.hosts, String::clone)?;
            let mut enrolled = txn.open_table(ENROLLED)?;
            difference(&mut enrolled, &old.enrolled, &new.enrolled, String::clone)?;
            let mut entries = txn.open_table(ENTRIES)?;
            difference(&mut entries, &old.entries, &new.entries, DomainPath::to_string)?;
        }
        write_sources(&txn, old, new, revisions)?;
        write_moves(&txn, moves, new.change)?;
        txn.commit()?;
        Ok(())
    }

    /// How entries stand.
    pub(crate) fn standing(&self, path: &DomainPath) -> Result<Standing> {
        let table = self.journal.read()?.open_table(STANDING)?;
        let row = table.get(path.to_string().as_str())?;
        Ok(row.map(|row| parse(row.value())).unwrap_or_default())
    }

    /// How all entries stand of which anything is to be said.
    pub(crate) fn standings(&self) -> Result<BTreeMap<DomainPath, Standing>> {
        let table = self.journal.read()?.open_table(STANDING)?;
        let mut found = BTreeMap::new();
        for row in table.iter()? {
            let (path, row) = row?;
            found.insert(path_of(path.value()), parse(row.value()));
        }
        Ok(found)
    }

    /// The revisions of a source that are kept, newest first.
    pub(crate) fn revisions(&self, source: u64) -> Result<Vec<Revision>> {
        let table = self.journal.read()?.open_table(REVISIONS)?;
        let rows = table.range((source, 0)..=(source, u32::MAX))?.rev();
        rows.map(|row| Ok(parse(row?.1.value()))).collect()
    }

    /// The hashes of all manifests that are kept, or that hosts are known to have.
    pub(crate) fn roots(&self) -> Result<BTreeSet<String>> {
        let mut roots = BTreeSet::new();
        for row in self.journal.read()?.open_table(REVISIONS)?.iter()? {
            roots.insert(parse::<Revision>(row?.1.value()).content.root);
        }
        for standing in self.standings()?.values() {
            roots.extend(standing.has().keys().cloned());
        }
        Ok(roots)
    }

    /// When frequencies were last begun.
    pub(crate) fn runs(&self) -> Result<BTreeMap<String, LastRun>> {
        let table = self.journal.read()?.open_table(BOOK)?;
        Ok(table.get("runs")?.map(|row| parse(row.value())).unwrap_or_default())
    }

    pub(crate) fn set_runs(&self, runs: &BTreeMap<String, LastRun>) -> Result<()> {
        let txn = self.journal.begin()?;
        txn.open_table(BOOK)?.insert("runs", json(runs).as_slice())?;
        txn.commit()?;
        Ok(())
    }

    /// Notes that these hosts have had their turn of a frequency.
    pub(crate) fn note_turns(&self, frequency: &str, hosts: &HostSet) -> Result<()> {
        self.note_run(frequency, |run| run.had(hosts))
    }

    /// Notes that what was due has begun, and that what was missed is told.
    pub(crate) fn note_begun(&self, frequency: &str) -> Result<()> {
        self.note_run(frequency, |run| run.open = false)
    }

    fn note_run(&self, frequency: &str, note: impl FnOnce(&mut LastRun)) -> Result<()> {
        let txn = self.journal.begin()?;
        {
            let mut table = txn.open_table(BOOK)?;
            let runs = table.get("runs")?.map(|row| parse(row.value()));
            let mut runs: BTreeMap<String, LastRun> = runs.unwrap_or_default();
            if let Some(run) = runs.get_mut(frequency) {
                note(run);
                table.insert("runs", json(&runs).as_slice())?;
            }
        }
        txn.commit()?;
        Ok(())
    }

    /// Notes what an order will bring, before it leaves.
    pub(crate) fn note_plan(txn: &WriteTransaction, id: OrderId, plan: &PlanRow) -> Result<()> {
        txn.open_table(PLANS)?.insert(id.0, json(plan).as_slice())?;
        Ok(())
    }
}

/// Hosts have answered an order. If it is of a distribution, they are known from here on to have
/// those of its files that they have not named otherwise. `body`: what was said, by its digest.
/// Returns what was found not to be as it should be, where nobody knew that yet.
pub(crate) fn note_answers(
    txn: &WriteTransaction,
    report: &Report,
    body: &dyn Fn(Digest) -> Result<Option<Bytes>>,
) -> Result<Vec<Drifted>> {
    let Some(plan) = plan_of(txn, report.order)? else { return Ok(Vec::new()) };
    let mut of_file: BTreeMap<usize, HostSet> = BTreeMap::new();
    // By file, and how it differs.
    let mut differs: BTreeMap<usize, BTreeMap<String, HostSet>> = BTreeMap::new();
    let mut reached = Reached::default();
    for (outcome, hosts) in report.tally.lines() {
        // Without a body nobody knows which files are meant: then none is.
        let Some(digest) = outcome.body else { continue };
        let Some(Ok(answer)) = body(digest)?.map(protos::Answer::decode) else { continue };
        if answer.push.is_none() {
            continue;
        }
        if !plan.verify {
            reached.hosts = reached.hosts.union(hosts);
        }
        let said = answer.dist.unwrap_or_default();
        let faults = said.failed.iter().chain(&said.drifted).map(|fault| fault.item);
        let other: BTreeSet<u32> = faults.chain(said.superseded.iter().copied()).collect();
        for fault in said.drifted.into_iter().filter(|_| plan.verify) {
            let set = differs.entry(fault.item as usize).or_default().entry(fault.detail);
            let set = set.or_default();
            *set = set.union(hosts);
        }
        for file in 0..plan.files.len() {
            if u32::try_from(file).is_ok_and(|file| !other.contains(&file)) {
                let set = of_file.entry(file).or_default();
                *set = set.union(hosts);
            }
        }
    }
    let mut table = txn.open_table(STANDING)?;
    for (file, hosts) in of_file {
        let (path, root) = &plan.files[file];
        let key = path.to_string();
        // Without a row the entry has gone.
        let row = table.get(key.as_str())?.map(|row| parse::<Standing>(row.value()));
        let Some(mut standing) = row else { continue };
        let known = standing.has().get(root).map_or(0, |has| has.intersection(&hosts).len());
        reached.files += hosts.len() - known;
        standing.confirm(&hosts, (plan.planned, report.order), root);
        table.insert(key.as_str(), json(&standing).as_slice())?;
    }
    let mut drifted = Vec::new();
    for (file, ways) in differs {
        let Some((path, _)) = plan.files.get(file) else { continue };
        let key = path.to_string();
        let row = table.get(key.as_str())?.map(|row| parse::<Standing>(row.value()));
        let Some(mut standing) = row else { continue };
        let all = ways.values().fold(HostSet::new(), |all, hosts| all.union(hosts));
        let new = standing.drift(&all, (plan.planned, report.order));
        table.insert(key.as_str(), json(&standing).as_slice())?;
        let told = ways.into_iter().map(|(how, hosts)| (how, hosts.intersection(&new)));
        let told = told.filter(|(_, hosts)| !hosts.is_empty());
        drifted.extend(told.map(|(how, hosts)| Drifted { path: path.clone(), hosts, how }));
    }
    drop(table);
    if !reached.hosts.is_empty() {
        note_reached(txn, &reached, now_ms())?;
    }
    Ok(drifted)
}

/// What an order brings, if it is of a distribution.
pub(crate) fn plan_of(txn: &WriteTransaction, id: OrderId) -> Result<Option<PlanRow>> {
    let plans = txn.open_table(PLANS)?;
    Ok(plans.get(id.0)?.map(|row| parse(row.value())))
}

/// Forgets what an order has brought.
pub(crate) fn forget_plan(txn: &WriteTransaction, id: [u8; 16]) -> Result<()> {
    txn.open_table(PLANS)?.remove(id)?;
    Ok(())
}

fn by_name<T: DeserializeOwned>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<BTreeMap<String, Arc<T>>> {
    let mut found = BTreeMap::new();
    for row in table.iter()? {
        let (name, row) = row?;
        found.insert(name.value().to_owned(), Arc::new(parse(row.value())));
    }
    Ok(found)
}

fn difference<K: Ord, V: Serialize + PartialEq>(
    table: &mut redb::Table<'_, &'static str, &'static [u8]>,
    old: &Arc<BTreeMap<K, Arc<V>>>,
    new: &Arc<BTreeMap<K, Arc<V>>>,
    name: impl Fn(&K) -> String,
) -> Result<()> {
    if Arc::ptr_eq(old, new) {
        return Ok(());
    }
    for gone in old.keys().filter(|key| !new.contains_key(*key)) {
        table.remove(name(gone).as_str())?;
    }
    for (key, value) in new.iter().filter(|(key, value)| old.get(*key) != Some(*value)) {
        table.insert(name(key).as_str(), json(&**value).as_slice())?;
    }
    Ok(())
}

fn write_sources(
    txn: &WriteTransaction,
    old: &Book,
    new: &Book,
    revisions: &[(u64, Revision)],
) -> Result<()> {
    let mut table = txn.open_table(REVISIONS)?;
    for (source, revision) in revisions {
        table.insert((*source, revision.number), json(revision).as_slice())?;
        let kept = table.range((*source, 0)..=(*source, u32::MAX))?;
        let numbers = kept.map(|row| Ok(row?.0.value().1)).collect::<Result<Vec<u32>>>()?;
        for number in &numbers[..numbers.len().saturating_sub(REVISIONS_KEPT)] {
            table.remove((*source, *number))?;
        }
    }
    if Arc::ptr_eq(&old.sources, &new.sources) {
        return Ok(());
    }
    let mut rows = txn.open_table(SOURCES)?;
    for gone in old.sources.keys().filter(|source| !new.sources.contains_key(*source)) {
        rows.remove(*gone)?;
        table.retain_in((*gone, 0)..=(*gone, u32::MAX), |_, _| false)?;
    }
    for (source, row) in new.sources.iter() {
        if old.sources.get(source) != Some(row) {
            rows.insert(*source, json(&**row).as_slice())?;
        }
    }
    Ok(())
}

fn write_moves(txn: &WriteTransaction, moves: &Moves, change: u64) -> Result<()> {
    let mut table = txn.open_table(STANDING)?;
    for path in &moves.gone {
        table.remove(path.to_string().as_str())?;
    }
    let touched: BTreeSet<&DomainPath> = moves.enter.keys().chain(moves.leave.keys()).collect();
    for path in touched.into_iter().filter(|path| !moves.gone.contains(path)) {
        let key = path.to_string();
        let row = table.get(key.as_str())?.map(|row| parse::<Standing>(row.value()));
        let mut standing = row.unwrap_or_default();
        if let Some(hosts) = moves.leave.get(path) {
            standing.leave(hosts);
        }
        if let Some(hosts) = moves.enter.get(path) {
            standing.enter(hosts, change);
        }
        table.insert(key.as_str(), json(&standing).as_slice())?;
    }
    Ok(())
}

fn path_of(text: &str) -> DomainPath {
    text.parse().expect("the controller reads the names that it wrote")
}

fn json(row: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(row).expect("a plain row is valid JSON")
}

/// Rows are written by this program under a versioned table name: they are readable.
fn parse<T: DeserializeOwned>(row: &[u8]) -> T {
    serde_json::from_slice(row).expect("the controller reads the rows that it wrote")
}
