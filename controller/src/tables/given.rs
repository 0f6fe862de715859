//! Orders of relays' own operators: what was delegated, what a relay has given and has still to
//! hand over, and what the controller was told.
//!
//! A relay keeps its orders and their answers in the tables that the controller has for its own,
//! and beside them the envelopes and how far each was handed over. What was handed over is the
//! first to go; what was not never does, so there is a limit to what may be given meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mesh::{Frame, HostId, OrderId, Report};
use protos::Incoming;
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use relay::Journal;
use serde::{Deserialize, Serialize};

use super::retire::drop_order;
use super::{
    ANSWERS, BODIES, COUNTS, HostRow, OPEN, ORDERS, OrderRow, REMOVED, RemovedRow, Result, Tables,
    json, note_answers, note_closed, order_row, parse,
};
use crate::outcomes;

/// What relays may order, by the delegation's number.
pub(crate) const DELEGATIONS: TableDefinition<[u8; 32], &[u8]> =
    TableDefinition::new("controller.delegations.v1");
/// Relay: the envelopes of its orders.
pub(crate) const GIVEN: TableDefinition<[u8; 16], &[u8]> =
    TableDefinition::new("controller.given.v1");
/// Relay: of each order that the controller knows, the first answer that it does not, and when it
/// was closed as far as the controller knows.
pub(crate) const HANDED: TableDefinition<[u8; 16], (u64, u64)> =
    TableDefinition::new("controller.handed.v1");
/// How much a relay has told on a day: the day, orders, bytes.
pub(crate) const RECORDED: TableDefinition<u32, (u64, u64, u64)> =
    TableDefinition::new("controller.recorded.v1");

/// Orders that a relay keeps.
const KEPT: u64 = 1_000;
/// Bytes of output that a relay keeps of them.
const KEPT_BYTES: u64 = 256 << 20;
/// What a relay may tell on one day, so that it cannot drive out what others have done.
const DAILY_ORDERS: u64 = 5_000;
const DAILY_BYTES: u64 = 256 << 20;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// The version of the list of removed keys.
const REMOVALS: &str = "removals";

/// What a relay may order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DelegationRow {
    pub(crate) relay: u32,
    pub(crate) name: String,
    pub(crate) scope: Vec<(u32, u32)>,
    pub(crate) kinds: Vec<String>,
    pub(crate) from_ms: u64,
    pub(crate) until_ms: u64,
    /// When it was taken back.
    #[serde(default)]
    pub(crate) taken_back_ms: u64,
}

impl DelegationRow {
    /// Whether it still holds.
    pub(crate) fn holds(&self, now_ms: u64) -> bool {
        self.taken_back_ms == 0 && now_ms < self.until_ms
    }
}

/// What a relay has still to hand over of one order.
pub(crate) struct Unhanded {
    pub(crate) id: OrderId,
    /// The order itself, if the controller does not know it.
    pub(crate) envelope: Option<Bytes>,
    /// Answers, each with its number and what it says.
    pub(crate) answers: Vec<(u64, Bytes)>,
    /// The bodies that these speak of.
    pub(crate) bodies: Vec<Bytes>,
    pub(crate) closed_ms: u64,
}

/// What the controller is told of one order.
pub(crate) struct Told {
    pub(crate) id: OrderId,
    pub(crate) relay: u32,
    /// The order, in the first part.
    pub(crate) order: Option<OrderRow>,
    pub(crate) bodies: Vec<Bytes>,
    pub(crate) reports: Vec<Report>,
    pub(crate) closed_ms: u64,
}

/// Why a part is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotKept {
    /// The order is not known, and is not in this part.
    Unknown,
    /// The relay has told too much today.
    Daily,
}

impl Tables {
    /// Enters what a relay may order, and takes back what it might before.
    pub(crate) fn delegate(&self, id: [u8; 32], row: &DelegationRow, now_ms: u64) -> Result<()> {
        let txn = self.journal.begin()?;
        take_back(&txn, row.relay, now_ms)?;
        txn.open_table(DELEGATIONS)?.insert(id, json(row).as_slice())?;
        txn.commit()?;
        Ok(())
    }

    /// Takes back all that a relay may order. Returns what that was.
    pub(crate) fn take_back(&self, relay: u32, now_ms: u64) -> Result<Vec<DelegationRow>> {
        let txn = self.journal.begin()?;
        let gone = take_back(&txn, relay, now_ms)?;
        txn.commit()?;
        Ok(gone)
    }

    /// What relays may order, and what they might, for as long as it is remembered.
    pub(crate) fn delegations(&self) -> Result<Vec<DelegationRow>> {
        let table = self.journal.read()?.open_table(DELEGATIONS)?;
        let mut rows = Vec::new();
        for row in table.iter()? {
            rows.push(parse::<DelegationRow>(row?.1.value()));
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.from_ms));
        Ok(rows)
    }

    /// Relay: enters an order of its operator. `false`: too much waits to be handed over.
    pub(crate) fn add_given(&self, id: OrderId, row: &OrderRow, envelope: &[u8]) -> Result<bool> {
        let txn = self.journal.begin()?;
        if !make_room(&txn, (KEPT, KEPT_BYTES))? {
            return Ok(false);
        }
        Journal::keep_order(&txn, id, envelope)?;
        txn.open_table(ORDERS)?.insert(id.0, json(row).as_slice())?;
        txn.open_table(OPEN)?.insert(id.0, ())?;
        txn.open_table(GIVEN)?.insert(id.0, envelope)?;
        txn.commit()?;
        Ok(true)
    }

    /// Relay: what is to be handed over next, of the oldest order of which there is anything, with
    /// about so many bytes of answers. Orders in `but` are passed over.
    pub(crate) fn unhanded(
        &self,
        most: usize,
        but: &BTreeSet<OrderId>,
    ) -> Result<Option<Unhanded>> {
        let txn = self.journal.read()?;
        let (given, handed) = (txn.open_table(GIVEN)?, txn.open_table(HANDED)?);
        let (orders, answers) = (txn.open_table(ORDERS)?, txn.open_table(ANSWERS)?);
        let bodies = txn.open_table(BODIES)?;
        for row in given.iter()? {
            let (id, envelope) = row?;
            let id = OrderId(id.value());
            if but.contains(&id) {
                continue;
            }
            let done = handed.get(id.0)?.map(|done| done.value());
            let (next, told_closed) = done.unwrap_or_default();
            let closed_ms = match orders.get(id.0)? {
                Some(row) => parse::<OrderRow>(row.value()).closed_ms,
                None => continue,
            };
            let mut found = Unhanded {
                id,
                envelope: done.is_none().then(|| Bytes::copy_from_slice(envelope.value())),
                answers: Vec::new(),
                bodies: Vec::new(),
                closed_ms,
            };
            let (mut bytes, mut seen) = (0, BTreeSet::new());
            for row in answers.range((id.0, next)..=(id.0, u64::MAX))? {
                let (key, frame) = row?;
                let frame = Bytes::copy_from_slice(frame.value());
                bytes += frame.len();
                for digest in named(&frame).filter(|digest| seen.insert(*digest)) {
                    if let Some(body) = bodies.get((id.0, digest))? {
                        bytes += body.value().len();
                        found.bodies.push(Bytes::copy_from_slice(body.value()));
                    }
                }
                found.answers.push((key.value().1, frame));
                if bytes >= most {
                    // It is not known yet whether this is all.
                    found.closed_ms = told_closed;
                    break;
                }
            }
            let news = found.envelope.is_some() || !found.answers.is_empty();
            if news || found.closed_ms != told_closed {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Relay: the controller has all of this on its disk.
    pub(crate) fn note_handed(&self, handed: &Unhanded) -> Result<()> {
        let txn = self.journal.begin()?;
        {
            let mut table = txn.open_table(HANDED)?;
            let before = table.get(handed.id.0)?.map_or(0, |row| row.value().0);
            let next = handed.answers.last().map_or(before, |(no, _)| no + 1);
            table.insert(handed.id.0, (next, handed.closed_ms))?;
        }
        txn.commit()?;
        Ok(())
    }

    /// Controller: keeps what a relay tells of an order. What comes twice changes nothing.
    pub(crate) fn note_record(
        &self,
        told: &Told,
        hosts: &BTreeMap<HostId, HostRow>,
        now_ms: u64,
    ) -> Result<std::result::Result<(), NotKept>> {
        let txn = self.journal.begin()?;
        let known = order_row(&txn, told.id)?.is_some();
        if !known && told.order.is_none() {
            return Ok(Err(NotKept::Unknown));
        }
        let bytes: usize = told.bodies.iter().map(Bytes::len).sum();
        let size = bytes as u64 + 1024 * (1 + told.reports.len() as u64);
        if !spend(&txn, told.relay, (u64::from(!known), size), now_ms)? {
            return Ok(Err(NotKept::Daily));
        }
        if let Some(order) = told.order.as_ref().filter(|_| !known) {
            txn.open_table(ORDERS)?.insert(told.id.0, json(order).as_slice())?;
            txn.open_table(OPEN)?.insert(told.id.0, ())?;
        }
        {
            let mut bodies = txn.open_table(BODIES)?;
            for body in &told.bodies {
                bodies.insert((told.id.0, relay::hash(body).0), body.as_ref())?;
            }
        }
        for report in &told.reports {
            note_answers(&txn, report)?;
            outcomes::note(&txn, report, hosts, now_ms)?;
        }
        let is_open = order_row(&txn, told.id)?.is_some_and(|row| row.closed_ms == 0);
        if told.closed_ms > 0 && is_open {
            note_closed(&txn, told.id, told.closed_ms)?;
            outcomes::note_closed(&txn, told.id, now_ms)?;
        }
        txn.commit()?;
        Ok(Ok(()))
    }
}

fn take_back(txn: &WriteTransaction, relay: u32, now_ms: u64) -> Result<Vec<DelegationRow>> {
    let mut gone = Vec::new();
    let mut table = txn.open_table(DELEGATIONS)?;
    for row in table.iter()? {
        let (id, row) = row?;
        let row: DelegationRow = parse(row.value());
        if row.relay == relay && row.holds(now_ms) {
            gone.push((id.value(), DelegationRow { taken_back_ms: now_ms, ..row }));
        }
    }
    for (id, row) in &gone {
        table.insert(id, json(row).as_slice())?;
        let name = format!("what {} might order", row.name);
        let removed = RemovedRow { id: relay, name, removed_ms: now_ms };
        txn.open_table(REMOVED)?.insert(id, json(&removed).as_slice())?;
    }
    if !gone.is_empty() {
        let mut counts = txn.open_table(COUNTS)?;
        let version = counts.get(REMOVALS)?.map_or(0, |version| version.value());
        counts.insert(REMOVALS, version + 1)?;
    }
    Ok(gone.into_iter().map(|(_, row)| row).collect())
}

/// Drops what was handed over, the oldest first, until there is room for one order more within so
/// many and so many bytes. `false`: there is none.
fn make_room(txn: &WriteTransaction, (most, most_bytes): (u64, u64)) -> Result<bool> {
    let (mut count, mut bytes) = (txn.open_table(GIVEN)?.len()?, 0);
    for row in txn.open_table(BODIES)?.iter()? {
        bytes += row?.1.value().len() as u64;
    }
    if count < most && bytes < most_bytes {
        return Ok(true);
    }
    let mut over = Vec::new();
    {
        let (given, handed) = (txn.open_table(GIVEN)?, txn.open_table(HANDED)?);
        let (open, answers) = (txn.open_table(OPEN)?, txn.open_table(ANSWERS)?);
        for row in given.iter()? {
            let id = row?.0.value();
            let next = handed.get(id)?.map(|row| row.value().0);
            let Some(next) = next else { continue };
            let all = answers.range((id, next)..=(id, u64::MAX))?.next().is_none();
            if all && open.get(id)?.is_none() {
                over.push(OrderId(id));
            }
        }
    }
    for id in over {
        if count < most && bytes < most_bytes {
            break;
        }
        for row in txn.open_table(BODIES)?.range((id.0, [0; 32])..=(id.0, [255; 32]))? {
            bytes -= row?.1.value().len() as u64;
        }
        drop_order(txn, id)?;
        txn.open_table(GIVEN)?.remove(id.0)?;
        txn.open_table(HANDED)?.remove(id.0)?;
        count -= 1;
    }
    Ok(count < most && bytes < most_bytes)
}

/// Counts what a relay tells on a day. `false`: it is too much.
fn spend(
    txn: &WriteTransaction,
    relay: u32,
    (orders, bytes): (u64, u64),
    now_ms: u64,
) -> Result<bool> {
    let mut table = txn.open_table(RECORDED)?;
    let today = now_ms / DAY_MS;
    let before = table.get(relay)?.map(|row| row.value()).filter(|row| row.0 == today);
    let (_, orders_before, bytes_before) = before.unwrap_or((today, 0, 0));
    let (orders, bytes) = (orders_before + orders, bytes_before + bytes);
    if orders > DAILY_ORDERS || bytes > DAILY_BYTES {
        return Ok(false);
    }
    table.insert(relay, (today, orders, bytes))?;
    Ok(true)
}

/// The bodies that a report speaks of.
fn named(frame: &Bytes) -> impl Iterator<Item = [u8; 32]> {
    let report = match protos::decode_frame(frame.clone(), relay::hash) {
        Ok(Incoming::Frame(Frame::Report { report, .. })) => Some(report),
        _ => None,
    };
    let lines = report.map(|report| report.tally).unwrap_or_default();
    let named: Vec<_> = lines.lines().filter_map(|(outcome, _)| outcome.body).collect();
    named.into_iter().map(|digest| digest.0)
}

#[cfg(test)]
mod tests {
    use mesh::{Digest, HostSet, Outcome, State};

    use super::*;

    fn tables() -> (tempfile::TempDir, Tables) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let journal = Journal::open(&dir.path().join("node.redb"), 1 << 20).expect("it is made");
        (dir, Tables::open(journal).expect("they are made"))
    }

    fn id(n: u16) -> OrderId {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        OrderId(id).given_by(HostId(7))
    }

    fn report(n: u16, host: u32, text: &'static str) -> Report {
        let body = Bytes::from_static(text.as_bytes());
        let digest: Digest = relay::hash(&body);
        let mut report = Report::new(id(n));
        let outcome = Outcome { state: State::Ok, body: Some(digest) };
        report.tally.record(outcome, &HostSet::one(HostId(host)));
        report.bodies.insert(digest, body);
        report
    }

    fn answer(tables: &Tables, report: &Report) {
        tables.write(|txn| note_answers(txn, report)).expect("written");
    }

    fn next(tables: &Tables) -> Option<Unhanded> {
        tables.unhanded(1 << 20, &BTreeSet::new()).expect("read")
    }

    #[test]
    fn what_was_not_handed_over_is_found_until_it_was() {
        let (_dir, tables) = tables();
        assert!(next(&tables).is_none());
        assert!(tables.add_given(id(1), &OrderRow::default(), b"signed").expect("written"));
        let first = next(&tables).expect("the order itself");
        assert_eq!((first.id, first.envelope.as_deref()), (id(1), Some(&b"signed"[..])));
        assert!(first.answers.is_empty());
        tables.note_handed(&first).expect("written");
        assert!(next(&tables).is_none());

        answer(&tables, &report(1, 11, "a"));
        answer(&tables, &report(1, 12, "a"));
        let answers = next(&tables).expect("answers");
        assert_eq!((answers.answers.len(), answers.envelope), (2, None));
        assert_eq!(answers.bodies, [Bytes::from_static(b"a")], "once");
        let but = BTreeSet::from([id(1)]);
        assert!(tables.unhanded(1, &but).expect("read").is_none());
        tables.note_handed(&next(&tables).expect("still")).expect("written");
        assert!(next(&tables).is_none());

        tables.write(|txn| note_closed(txn, id(1), 99)).expect("written");
        let closed = next(&tables).expect("that it is closed");
        assert_eq!((closed.closed_ms, closed.answers.len()), (99, 0));
        tables.note_handed(&closed).expect("written");
        assert!(next(&tables).is_none());
    }

    #[test]
    fn a_long_record_goes_in_parts_and_says_last_that_it_is_closed() {
        let (_dir, tables) = tables();
        tables.add_given(id(1), &OrderRow::default(), b"signed").expect("written");
        answer(&tables, &report(1, 11, "a"));
        answer(&tables, &report(1, 12, "b"));
        tables.write(|txn| note_closed(txn, id(1), 99)).expect("written");
        let mut parts = Vec::new();
        while let Some(part) = tables.unhanded(1, &BTreeSet::new()).expect("read") {
            tables.note_handed(&part).expect("written");
            parts.push((part.answers.len(), part.closed_ms));
        }
        assert_eq!(parts, [(1, 0), (1, 0), (0, 99)]);
    }

    #[test]
    fn only_what_was_handed_over_makes_room() {
        let (_dir, tables) = tables();
        for n in 0..4 {
            assert!(tables.add_given(id(n), &OrderRow::default(), b"e").expect("written"), "{n}");
        }
        answer(&tables, &report(3, 11, "a"));
        let has_room = |limits| {
            let txn = tables.journal.begin().expect("it begins");
            let room = make_room(&txn, limits).expect("read");
            txn.commit().expect("written");
            room
        };
        assert!(has_room((5, 2)) && !has_room((4, 2)) && !has_room((5, 1)));
        tables.write(|txn| note_closed(txn, id(3), 99)).expect("written");
        let mut all = BTreeSet::new();
        for n in 0..4 {
            assert!(!has_room((4, 2)), "{n} are handed over");
            let part = tables.unhanded(1, &all).expect("read").expect("there is more");
            assert_eq!(part.id, id(n));
            all.insert(part.id);
            tables.note_handed(&part).expect("written");
        }
        // Of those that the controller knows only one is over.
        assert!(has_room((4, 2)));
        assert!(tables.order(id(3)).expect("read").is_none());
        assert!(tables.order(id(0)).expect("read").is_some());
        assert!(has_room((4, 1)) && !has_room((3, 1)));
    }

    #[test]
    fn what_comes_twice_changes_nothing_and_a_relay_cannot_fill_the_controller() {
        let (_dir, tables) = tables();
        let keep = |told: &Told, now_ms| {
            tables.note_record(told, &BTreeMap::new(), now_ms).expect("written")
        };
        let row = OrderRow { kind: "run".into(), targets: vec![(11, 12)], ..OrderRow::default() };
        let bare = |report: Report| Report { bodies: BTreeMap::new(), ..report };
        let told = |order| Told {
            id: id(1),
            relay: 7,
            order,
            bodies: vec![Bytes::from_static(b"a")],
            reports: vec![bare(report(1, 11, "a"))],
            closed_ms: 99,
        };
        assert_eq!(keep(&told(None), 5), Err(NotKept::Unknown));
        for _ in 0..2 {
            assert_eq!(keep(&told(Some(row.clone())), 5), Ok(()));
        }
        let (tally, _) = tables.tally(id(1)).expect("read");
        assert_eq!(tally.hosts(), &HostSet::one(HostId(11)));
        let body = tables.body(id(1), relay::hash(b"a")).expect("read");
        assert_eq!(body, Some(Bytes::from_static(b"a")));
        assert_eq!(tables.order(id(1)).expect("read").map(|row| row.closed_ms), Some(99));
        assert_eq!(tables.open_orders().expect("read"), 0);

        let much = Told {
            bodies: vec![Bytes::from(vec![0; usize::try_from(DAILY_BYTES).expect("it fits")])],
            ..told(None)
        };
        assert_eq!(keep(&much, 5), Err(NotKept::Daily));
        assert_eq!(keep(&told(None), 5), Ok(()), "what fits does");
    }

    #[test]
    fn what_a_relay_may_order_is_taken_back_with_the_next_and_for_good() {
        let (_dir, tables) = tables();
        let row = |from_ms| DelegationRow {
            relay: 7,
            name: "r1".into(),
            scope: vec![(7, 9)],
            kinds: vec!["run".into()],
            from_ms,
            until_ms: 1_000,
            taken_back_ms: 0,
        };
        let holding = |now_ms| {
            let rows = tables.delegations().expect("read");
            rows.iter().filter(|row| row.holds(now_ms)).map(|row| row.from_ms).collect::<Vec<_>>()
        };
        let removed = || tables.removed(0).expect("read");
        tables.delegate([1; 32], &row(1), 1).expect("written");
        tables.delegate([3; 32], &DelegationRow { relay: 8, ..row(5) }, 2).expect("written");
        assert_eq!((holding(3), removed().0), (vec![5, 1], 0));
        tables.delegate([2; 32], &row(2), 3).expect("written");
        assert_eq!(holding(3), [5, 2]);
        assert_eq!(removed(), (1, BTreeSet::from([[1; 32]])));
        let gone = tables.take_back(7, 4).expect("written");
        assert_eq!((gone.len(), holding(4)), (1, vec![5]));
        assert_eq!(removed().1, BTreeSet::from([[1; 32], [2; 32]]));
        assert!(tables.take_back(7, 5).expect("written").is_empty(), "once");
        assert!(holding(1_000).is_empty(), "it ends by itself");
    }
}
