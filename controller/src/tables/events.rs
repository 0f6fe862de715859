//! Events in the controller's tables: each kind in each window once, with the count of each host,
//! in the order in which they have last grown, and what grew when, for reports.
//!
//! What comes in joins what is there, so that an event which is told twice changes nothing. An
//! event that has grown moves to the end of the log; whoever reads on from a cursor sees it as it
//! is then. Reports go by the time at which the controller has heard of things: by its own clock,
//! and so that what comes late is in a report that somebody still reads.
//!
//! All of it has a limit in bytes; what is over it goes, the oldest first, and is counted.

use bytes::Bytes;
use mesh::{Folded, HostId, OrderId, Severity, Signature};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::{Result, Tables};

/// By signature, window and order.
pub(super) const EVENTS: TableDefinition<&[u8], &[u8]> =
    TableDefinition::new("controller.events.v1");
/// By cursor: the key of the event.
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("controller.event_log.v1");
/// What has grown, by quarter of an hour and signature.
pub(super) const GROWTH: TableDefinition<(u32, [u8; 16]), &[u8]> =
    TableDefinition::new("controller.event_growth.v1");
/// When a signature was first and last heard of.
pub(super) const SIGNATURES: TableDefinition<[u8; 16], (u64, u64)> =
    TableDefinition::new("controller.signatures.v1");
pub(super) const EVENT_COUNTS: TableDefinition<&str, u64> =
    TableDefinition::new("controller.event_counts.v1");
pub(super) const FILTERS: TableDefinition<&str, &str> =
    TableDefinition::new("controller.filters.v1");

/// A quarter of an hour: every hour of every time zone consists of such.
pub(crate) const QUARTER_MS: u64 = 900_000;
/// How much is kept of events, and of what has grown, in bytes.
const LIMIT: u64 = 256 << 20;
/// How long signatures are known that do not come again.
const KNOWN_MS: u64 = 90 * 24 * 3600 * 1000;
/// Signatures that are known at most.
const KNOWN: usize = 100_000;

const CURSOR: &str = "cursor";
const BYTES: &str = "bytes";
const GROWTH_BYTES: &str = "growth-bytes";
const RETIRED: &str = "retired";
const RETIRED_UNTIL: &str = "retired-until";
const GROWTH_FROM: &str = "growth-from";

/// Before the name of a channel: up to which cursor it has events.
const EXPORTED: &str = "exported-";

/// Until when reports of a kind have been sent, by a word of its own.
const SENT: [(&str, &str); 2] = [("hour", "report-sent-hour"), ("day", "report-sent-day")];

/// Events that are alike, as they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventRow {
    pub(crate) cursor: u64,
    pub(crate) heard_ms: u64,
    pub(crate) heard_last_ms: u64,
    pub(crate) folded: Folded,
    pub(crate) order: Option<OrderId>,
}

/// An event's own key. Events of an order are told apart by it.
pub(crate) fn key(folded: &Folded, order: Option<OrderId>) -> [u8; 36] {
    let mut key = [0; 36];
    key[..16].copy_from_slice(&folded.fact.signature.0);
    key[16..20].copy_from_slice(&folded.window.to_be_bytes());
    key[20..].copy_from_slice(&order.map_or([0; 16], |order| order.0));
    key
}

impl EventRow {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [self.cursor, self.heard_ms, self.heard_last_ms] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&protos::encode_folded(&self.folded));
        bytes
    }

    fn decode(key: &[u8], bytes: &[u8]) -> Option<EventRow> {
        let (numbers, rest) = bytes.split_at_checked(24)?;
        let mut numbers =
            numbers.as_chunks::<8>().0.iter().map(|number| u64::from_be_bytes(*number));
        let order: [u8; 16] = key.get(20..)?.try_into().ok()?;
        Some(EventRow {
            cursor: numbers.next()?,
            heard_ms: numbers.next()?,
            heard_last_ms: numbers.next()?,
            folded: decode(rest)?,
            order: (order != [0; 16]).then_some(OrderId(order)),
        })
    }
}

fn decode(bytes: &[u8]) -> Option<Folded> {
    protos::decode_folded(Bytes::copy_from_slice(bytes), relay::hash)
}

/// Takes in events that came by the tree, or, with an order, those that follow from its answers.
pub(crate) fn note_events(
    txn: &WriteTransaction,
    events: &[Folded],
    order: Option<OrderId>,
    now_ms: u64,
) -> Result<()> {
    for folded in events {
        note_event(txn, folded, order, now_ms)?;
    }
    retire_excess(txn)
}

fn note_event(
    txn: &WriteTransaction,
    folded: &Folded,
    order: Option<OrderId>,
    now_ms: u64,
) -> Result<()> {
    let key = key(folded, order);
    let mut table = txn.open_table(EVENTS)?;
    let old = table.get(key.as_slice())?.map(|row| (row.value().len(), row.value().to_vec()));
    let old = old.and_then(|(len, bytes)| Some((len, EventRow::decode(&key, &bytes)?)));
    let (len, mut row) = match old {
        Some(old) => old,
        None => {
            let folded = Folded { counts: Default::default(), ..folded.clone() };
            (0, EventRow { cursor: 0, heard_ms: now_ms, heard_last_ms: now_ms, folded, order })
        }
    };
    let grown = row.folded.join(folded);
    if grown.is_empty() {
        return Ok(());
    }
    let mut log = txn.open_table(LOG)?;
    log.remove(row.cursor)?;
    let mut counts = txn.open_table(EVENT_COUNTS)?;
    let count = |counts: &redb::Table<'_, &str, u64>, name| -> Result<u64> {
        Ok(counts.get(name)?.map_or(0, |count| count.value()))
    };
    row.cursor = count(&counts, CURSOR)? + 1;
    row.heard_last_ms = now_ms;
    counts.insert(CURSOR, row.cursor)?;
    log.insert(row.cursor, key.as_slice())?;
    let bytes = row.encode();
    let total = count(&counts, BYTES)?.saturating_sub(len as u64) + bytes.len() as u64;
    counts.insert(BYTES, total)?;
    table.insert(key.as_slice(), bytes.as_slice())?;
    // An alert says again what its cause has said already.
    let repeats = folded.fact.subject.starts_with("alert.");
    if folded.fact.severity > Severity::Info && !repeats {
        let total = count(&counts, GROWTH_BYTES)?;
        let total = note_growth(txn, folded, &grown, (now_ms, total))?;
        counts.insert(GROWTH_BYTES, total)?;
    }
    Ok(())
}

/// Adds to what has grown in this quarter of an hour. Returns how much there is of that in all.
fn note_growth(
    txn: &WriteTransaction,
    folded: &Folded,
    grown: &[(HostId, u64)],
    (now_ms, total): (u64, u64),
) -> Result<u64> {
    let signature = folded.fact.signature.0;
    let mut known = txn.open_table(SIGNATURES)?;
    let first = known.get(signature)?.map_or(now_ms, |times| times.value().0);
    known.insert(signature, (first, now_ms))?;
    let quarter = u32::try_from(now_ms / QUARTER_MS).unwrap_or(u32::MAX);
    let mut table = txn.open_table(GROWTH)?;
    let old = table.get((quarter, signature))?.map(|row| row.value().to_vec());
    let len = old.as_ref().map_or(0, Vec::len);
    let mut sum = old.and_then(|row| decode(&row)).unwrap_or_else(|| Folded {
        counts: Default::default(),
        window: quarter,
        ..folded.clone()
    });
    add(&mut sum, folded, grown.iter().copied());
    let bytes = protos::encode_folded(&sum);
    table.insert((quarter, signature), bytes.as_ref())?;
    Ok(total.saturating_sub(len as u64) + bytes.len() as u64)
}

/// Adds counts to a sum.
pub(crate) fn add(
    sum: &mut Folded,
    folded: &Folded,
    grown: impl IntoIterator<Item = (HostId, u64)>,
) {
    sum.first_ms = sum.first_ms.min(folded.first_ms);
    sum.last_ms = sum.last_ms.max(folded.last_ms);
    if folded.sample < sum.sample {
        sum.sample = folded.sample.clone();
    }
    for (host, more) in grown {
        let count = sum.counts.entry(host).or_default();
        *count = count.saturating_add(more).min(mesh::MOST);
    }
}

/// Drops what is over the limit, the oldest first.
fn retire_excess(txn: &WriteTransaction) -> Result<()> {
    let mut counts = txn.open_table(EVENT_COUNTS)?;
    let read = |counts: &redb::Table<'_, &str, u64>, name| -> Result<u64> {
        Ok(counts.get(name)?.map_or(0, |count| count.value()))
    };
    let mut bytes = read(&counts, BYTES)?;
    if bytes > LIMIT {
        let (mut log, mut table) = (txn.open_table(LOG)?, txn.open_table(EVENTS)?);
        while bytes > LIMIT / 10 * 9
            && let Some((_, key)) = log.pop_first()?
        {
            let gone = table.remove(key.value())?;
            let Some(gone) = gone.map(|row| row.value().to_vec()) else { continue };
            bytes = bytes.saturating_sub(gone.len() as u64);
            let row = EventRow::decode(key.value(), &gone);
            let until = row.map_or(0, |row| row.heard_last_ms);
            let (retired, old) = (read(&counts, RETIRED)?, read(&counts, RETIRED_UNTIL)?);
            counts.insert(RETIRED, retired + 1)?;
            counts.insert(RETIRED_UNTIL, old.max(until))?;
        }
        counts.insert(BYTES, bytes)?;
    }
    let mut bytes = read(&counts, GROWTH_BYTES)?;
    if bytes > LIMIT {
        let mut table = txn.open_table(GROWTH)?;
        while bytes > LIMIT / 10 * 9
            && let Some((key, row)) = table.pop_first()?
        {
            bytes = bytes.saturating_sub(row.value().len() as u64);
            counts.insert(GROWTH_FROM, (u64::from(key.value().0) + 1) * QUARTER_MS)?;
        }
        counts.insert(GROWTH_BYTES, bytes)?;
    }
    Ok(())
}

/// What has grown in a while, for each signature.
pub(crate) struct Growth {
    /// The sums, with how long each signature has been known.
    pub(crate) sums: Vec<(Folded, u64)>,
    /// Whether some of it is not kept any more.
    pub(crate) is_partial: bool,
}

impl Tables {
    /// Events that have grown since this cursor, the oldest growth first, at most so many.
    pub(crate) fn events(&self, after: u64, limit: usize) -> Result<Vec<EventRow>> {
        let txn = self.journal.read()?;
        let (log, table) = (txn.open_table(LOG)?, txn.open_table(EVENTS)?);
        let mut rows = Vec::new();
        for entry in log.range(after.saturating_add(1)..)?.take(limit) {
            let (_, key) = entry?;
            let row = table.get(key.value())?;
            rows.extend(row.and_then(|row| EventRow::decode(key.value(), row.value())));
        }
        Ok(rows)
    }

    /// The cursor before the first event that has grown at this time or later.
    pub(crate) fn cursor_at(&self, since_ms: u64) -> Result<u64> {
        let txn = self.journal.read()?;
        let (log, table) = (txn.open_table(LOG)?, txn.open_table(EVENTS)?);
        let mut cursor = log.last()?.map_or(0, |(cursor, _)| cursor.value());
        for entry in log.iter()?.rev() {
            let (at, key) = entry?;
            let row = table.get(key.value())?;
            let row = row.and_then(|row| EventRow::decode(key.value(), row.value()));
            if row.is_some_and(|row| row.heard_last_ms < since_ms) {
                return Ok(at.value());
            }
            cursor = at.value().saturating_sub(1);
        }
        Ok(cursor)
    }

    /// How many events are not kept any more, and until when they had grown.
    pub(crate) fn events_retired(&self) -> Result<(u64, u64)> {
        let counts = self.journal.read()?.open_table(EVENT_COUNTS)?;
        let read = |name| -> Result<u64> { Ok(counts.get(name)?.map_or(0, |n| n.value())) };
        Ok((read(RETIRED)?, read(RETIRED_UNTIL)?))
    }

    /// What has grown from one quarter of an hour to before another.
    pub(crate) fn growth(&self, start_ms: u64, end_ms: u64) -> Result<Growth> {
        let txn = self.journal.read()?;
        let (table, known) = (txn.open_table(GROWTH)?, txn.open_table(SIGNATURES)?);
        let quarter = |ms: u64| u32::try_from(ms / QUARTER_MS).unwrap_or(u32::MAX);
        let mut sums = std::collections::BTreeMap::<Signature, Folded>::new();
        let until = quarter(end_ms.saturating_add(QUARTER_MS - 1));
        for row in table.range((quarter(start_ms), [0; 16])..(until, [0; 16]))? {
            let Some(folded) = decode(row?.1.value()) else { continue };
            let sum = sums
                .entry(folded.fact.signature)
                .or_insert_with(|| Folded { counts: Default::default(), ..folded.clone() });
            add(sum, &folded, folded.counts.iter().map(|(host, count)| (*host, *count)));
        }
        let mut growth = Growth { sums: Vec::new(), is_partial: false };
        for (signature, sum) in sums {
            let first = known.get(signature.0)?.map_or(start_ms, |times| times.value().0);
            growth.sums.push((sum, first));
        }
        let counts = txn.open_table(EVENT_COUNTS)?;
        let from = counts.get(GROWTH_FROM)?.map_or(0, |from| from.value());
        growth.is_partial = from > start_ms;
        Ok(growth)
    }

    /// Drops what has not grown since `before_ms`. Returns how many events.
    pub(crate) fn retire_events(&self, before_ms: u64, now_ms: u64) -> Result<usize> {
        let (mut keys, mut len) = (Vec::new(), 0);
        {
            let txn = self.journal.read()?;
            let (log, table) = (txn.open_table(LOG)?, txn.open_table(EVENTS)?);
            for entry in log.iter()? {
                let (cursor, key) = entry?;
                let row = table.get(key.value())?;
                let bytes = row.map_or_else(Vec::new, |row| row.value().to_vec());
                let row = EventRow::decode(key.value(), &bytes);
                if row.is_some_and(|row| row.heard_last_ms >= before_ms) {
                    break;
                }
                len += bytes.len() as u64;
                keys.push((cursor.value(), key.value().to_vec()));
            }
        }
        let txn = self.journal.begin()?;
        {
            let (mut log, mut table) = (txn.open_table(LOG)?, txn.open_table(EVENTS)?);
            for (cursor, key) in &keys {
                // Unless it has grown meanwhile.
                if log.remove(cursor)?.is_some() {
                    table.remove(key.as_slice())?;
                }
            }
            let mut counts = txn.open_table(EVENT_COUNTS)?;
            let read = |name| -> Result<u64> { Ok(counts.get(name)?.map_or(0, |n| n.value())) };
            let (bytes, retired, until) = (read(BYTES)?, read(RETIRED)?, read(RETIRED_UNTIL)?);
            let growth = read(GROWTH_BYTES)?;
            counts.insert(BYTES, bytes.saturating_sub(len))?;
            if !keys.is_empty() {
                counts.insert(RETIRED, retired + keys.len() as u64)?;
                counts.insert(RETIRED_UNTIL, until.max(before_ms))?;
            }
            let quarter = u32::try_from(before_ms / QUARTER_MS).unwrap_or(u32::MAX);
            let mut gone = 0;
            let mut table = txn.open_table(GROWTH)?;
            table.retain_in(..(quarter, [0; 16]), |_, row| {
                gone += row.len() as u64;
                false
            })?;
            counts.insert(GROWTH_BYTES, growth.saturating_sub(gone))?;
            retire_signatures(&txn, now_ms)?;
        }
        txn.commit()?;
        Ok(keys.len())
    }

    /// Until when reports of this kind have been sent, if that is known.
    pub(crate) fn report_sent(&self, kind: &str) -> Result<Option<u64>> {
        let counts = self.journal.read()?.open_table(EVENT_COUNTS)?;
        let Some((_, word)) = SENT.iter().find(|(known, _)| *known == kind) else {
            return Ok(None);
        };
        Ok(counts.get(*word)?.map(|until| until.value()))
    }

    /// Reports of this kind have been sent until then.
    pub(crate) fn note_report_sent(&self, kind: &str, until_ms: u64) -> Result<()> {
        let Some((_, word)) = SENT.iter().find(|(known, _)| *known == kind) else {
            return Ok(());
        };
        let txn = self.journal.begin()?;
        txn.open_table(EVENT_COUNTS)?.insert(*word, until_ms)?;
        txn.commit()?;
        Ok(())
    }

    /// Up to which cursor events were handed on by a channel.
    pub(crate) fn exported(&self, channel: &str) -> Result<u64> {
        let counts = self.journal.read()?.open_table(EVENT_COUNTS)?;
        Ok(counts.get(&*format!("{EXPORTED}{channel}"))?.map_or(0, |cursor| cursor.value()))
    }

    /// They were, up to this one.
    pub(crate) fn note_exported(&self, channel: &str, cursor: u64) -> Result<()> {
        let txn = self.journal.begin()?;
        txn.open_table(EVENT_COUNTS)?.insert(&*format!("{EXPORTED}{channel}"), cursor)?;
        txn.commit()?;
        Ok(())
    }

    /// A list of expressions as it was written.
    pub(crate) fn filter(&self, name: &str) -> Result<String> {
        let table = self.journal.read()?.open_table(FILTERS)?;
        Ok(table.get(name)?.map_or_else(String::new, |text| text.value().to_string()))
    }

    pub(crate) fn set_filter(&self, name: &str, text: &str) -> Result<()> {
        let txn = self.journal.begin()?;
        txn.open_table(FILTERS)?.insert(name, text)?;
        txn.commit()?;
        Ok(())
    }
}

fn retire_signatures(txn: &WriteTransaction, now_ms: u64) -> Result<()> {
    let mut table = txn.open_table(SIGNATURES)?;
    table.retain(|_, (_, last)| last.saturating_add(KNOWN_MS) > now_ms)?;
    let mut times = Vec::new();
    for row in table.iter()? {
        times.push(row?.1.value().1);
    }
    if times.len() > KNOWN {
        times.sort_unstable();
        let least = times[times.len() - KNOWN];
        table.retain(|_, (_, last)| last >= least)?;
    }
    Ok(())
}
