//! Old orders and tokens, on their way out.

use std::collections::BTreeSet;

use mesh::OrderId;
use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::stages::drop_stage;
use super::{
    ANSWERS, BODIES, COUNTS, ORDERS, OrderRow, Result, STOPPED, TOKENS, Tables, TokenRow, parse,
};
use crate::retention::{Keep, SILENCE_MS};

/// How many orders go in one transaction.
const AT_ONCE: usize = 500;
/// How long after the youngest order it may be, for the age of the others.
const AHEAD_MS: u64 = 7 * 24 * 3600 * 1000;
const RETIRED: &str = "retired";
const RETIRED_UNTIL: &str = "retired-until";

impl Tables {
    /// Drops orders that are over and exceed what is kept, the oldest first. Returns how many.
    pub(crate) fn retire(&self, keep: Keep, now_ms: u64) -> Result<usize> {
        let gone = self.excess(keep, now_ms)?;
        for some in gone.chunks(AT_ONCE) {
            let txn = self.journal.begin()?;
            let mut last = 0;
            for (id, issued_ms) in some {
                drop_order(&txn, *id)?;
                last = last.max(*issued_ms);
            }
            {
                let mut counts = txn.open_table(COUNTS)?;
                let count = counts.get(RETIRED)?.map_or(0, |count| count.value());
                counts.insert(RETIRED, count + some.len() as u64)?;
                let until = counts.get(RETIRED_UNTIL)?.map_or(0, |until| until.value());
                counts.insert(RETIRED_UNTIL, until.max(last))?;
            }
            txn.commit()?;
        }
        Ok(gone.len())
    }

    /// How many orders were dropped in all, and when the youngest of them was given.
    pub(crate) fn retired(&self) -> Result<(u64, u64)> {
        let table = self.journal.read()?.open_table(COUNTS)?;
        let count = |name| -> Result<u64> { Ok(table.get(name)?.map_or(0, |count| count.value())) };
        Ok((count(RETIRED)?, count(RETIRED_UNTIL)?))
    }

    /// The orders that are to go, with when they were given.
    fn excess(&self, keep: Keep, now_ms: u64) -> Result<Vec<(OrderId, u64)>> {
        let txn = self.journal.read()?;
        let (orders, bodies) = (txn.open_table(ORDERS)?, txn.open_table(BODIES)?);
        let mut output = 0;
        for row in bodies.iter()? {
            output += row?.1.value().len() as u64;
        }
        // A clock that has run far ahead must not throw the past away.
        let newest = orders.last()?.map_or(now_ms, |(_, row)| {
            parse::<OrderRow>(row.value()).issued_ms.saturating_add(AHEAD_MS)
        });
        let now_ms = now_ms.min(newest);
        // What a rollout that may go on has given says who has it.
        let rollouts = self.rollouts()?.into_iter().filter(|(_, row)| !row.is_done());
        let open = rollouts.flat_map(|(_, row)| row.orders);
        let open: BTreeSet<OrderId> = open.filter_map(|order| order.id()).collect();
        let mut count = usize::try_from(orders.len()?).unwrap_or(usize::MAX);
        let mut gone = Vec::new();
        for row in orders.iter()? {
            let (id, row) = row?;
            let (id, row) = (id.value(), parse::<OrderRow>(row.value()));
            let aged = row.issued_ms.saturating_add(keep.age_ms) <= now_ms;
            if !aged && count <= keep.orders && output <= keep.output {
                // Ids sort by time: the rest is younger.
                break;
            }
            let is_over = row.closed_ms != 0 && !open.contains(&OrderId(id));
            if !is_over || row.expires_ms.saturating_add(SILENCE_MS) > now_ms {
                continue;
            }
            for row in bodies.range((id, [0; 32])..=(id, [255; 32]))? {
                output -= row?.1.value().len() as u64;
            }
            count -= 1;
            gone.push((OrderId(id), row.issued_ms));
        }
        Ok(gone)
    }

    /// Drops tokens that have been good for nothing since before this time. Returns how many.
    pub(crate) fn retire_tokens(&self, before_ms: u64) -> Result<usize> {
        let old = |row: &[u8]| parse::<TokenRow>(row).expires_ms < before_ms;
        let table = self.journal.read()?.open_table(TOKENS)?;
        let mut gone = Vec::new();
        for row in table.iter()? {
            let (id, row) = row?;
            gone.extend(old(row.value()).then(|| id.value()));
        }
        if !gone.is_empty() {
            let txn = self.journal.begin()?;
            for id in &gone {
                txn.open_table(TOKENS)?.remove(id)?;
            }
            txn.commit()?;
        }
        Ok(gone.len())
    }
}

/// Drops an order with its answers and their output.
pub(super) fn drop_order(txn: &WriteTransaction, id: OrderId) -> Result<()> {
    let id = id.0;
    txn.open_table(ORDERS)?.remove(id)?;
    txn.open_table(STOPPED)?.remove(id)?;
    crate::fleet::forget_plan(txn, id)?;
    drop_stage(txn, OrderId(id))?;
    txn.open_table(ANSWERS)?.retain_in((id, 0)..=(id, u64::MAX), |_, _| false)?;
    txn.open_table(BODIES)?.retain_in((id, [0; 32])..=(id, [255; 32]), |_, _| false)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use content::{ContentId, Store};
    use mesh::{Digest, HostId, HostSet, Outcome, Report, State};
    use relay::Journal;
    use tokio::sync::RwLock;

    use super::super::{note_answers, note_closed};
    use super::*;
    use crate::retention::Cleaner;
    use crate::rollout::row::RolloutRow;
    use crate::types::PushInfo;

    const HOUR: u64 = SILENCE_MS;

    struct Desk {
        dir: tempfile::TempDir,
        tables: Tables,
        journal: Journal,
    }

    fn desk() -> Desk {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let journal = Journal::open(&dir.path().join("controller.redb"), 1 << 20);
        let journal = journal.expect("a journal");
        let tables = Tables::open(journal.clone()).expect("tables");
        Desk { dir, tables, journal }
    }

    fn id(n: u8) -> OrderId {
        OrderId([n; 16])
    }

    impl Desk {
        /// An order of hour `n`, valid for one hour, with so much output.
        fn order(&self, n: u8, output: usize, closed: bool, push: Option<PushInfo>) {
            let issued_ms = u64::from(n) * HOUR;
            let row =
                OrderRow { issued_ms, expires_ms: issued_ms + HOUR, push, ..OrderRow::default() };
            self.tables.add_order(id(n), &row, b"", None).expect("it is kept");
            let digest = Digest([n; 32]);
            let mut report = Report::new(id(n));
            let outcome = Outcome { state: State::Ok, body: Some(digest) };
            report.tally.record(outcome, &HostSet::one(HostId(1)));
            report.bodies.insert(digest, Bytes::from(vec![0; output]));
            let txn = self.journal.begin().expect("it begins");
            note_answers(&txn, &report).expect("noted");
            if closed {
                note_closed(&txn, id(n), issued_ms + 1).expect("noted");
            }
            txn.commit().expect("committed");
        }

        fn left(&self) -> Vec<u8> {
            let orders = self.tables.orders(100).expect("they are read");
            orders.iter().rev().map(|(id, _)| id.0[0]).collect()
        }
    }

    const ALL: Keep = Keep { age_ms: 1_000 * HOUR, orders: 1_000, output: 1 << 30 };

    #[test]
    fn what_is_over_goes_by_age_and_nothing_else_does() {
        let desk = desk();
        desk.order(1, 10, true, None);
        desk.order(2, 10, false, None);
        desk.order(3, 10, true, None);
        desk.order(9, 10, true, None);
        let keep = Keep { age_ms: HOUR, ..ALL };
        assert_eq!(desk.tables.retire(ALL, 10 * HOUR).expect("done"), 0);
        assert_eq!(desk.tables.retire(keep, 10 * HOUR).expect("done"), 2);
        assert_eq!(desk.left(), [2, 9], "one is open, one was valid a moment ago");
        assert_eq!(desk.tables.retired().expect("read"), (2, 3 * HOUR));
        assert!(desk.tables.body(id(1), Digest([1; 32])).expect("read").is_none());
        assert!(desk.tables.body(id(2), Digest([2; 32])).expect("read").is_some());
        assert!(desk.tables.tally(id(3)).expect("read").0.is_empty());
        assert_eq!(desk.tables.retire(keep, 12 * HOUR).expect("done"), 1);
        assert_eq!(desk.tables.retired().expect("read"), (3, 9 * HOUR));
    }

    #[test]
    fn orders_of_rollouts_that_may_go_on_stay() {
        let desk = desk();
        (1..=4).for_each(|n| desk.order(n, 10, true, None));
        let add = |rollout: u8, order: u8, change: fn(&mut RolloutRow)| {
            let mut row = RolloutRow::sample(2);
            row.add_order(id(order), 0);
            change(&mut row);
            desk.tables.add_rollout(id(rollout), &row, &[]).expect("it is kept");
        };
        add(11, 1, |row| assert!(row.course.pause()));
        add(12, 2, |row| row.course.stop("no".into()));
        add(13, 3, |row| assert!(row.course.abort()));
        let keep = Keep { age_ms: HOUR, orders: 1, output: 0 };
        assert_eq!(desk.tables.retire(keep, 100 * HOUR).expect("done"), 2);
        assert_eq!(desk.left(), [1, 2]);
    }

    #[test]
    fn a_clock_far_ahead_throws_nothing_away() {
        let desk = desk();
        (1..=3).for_each(|n| desk.order(n, 10, true, None));
        let year = 365 * 24 * HOUR;
        assert_eq!(desk.tables.retire(ALL, year).expect("done"), 0);
        let keep = Keep { age_ms: AHEAD_MS, ..ALL };
        assert_eq!(desk.tables.retire(keep, year).expect("done"), 3);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_too_much() {
        let desk = desk();
        (1..=6).for_each(|n| desk.order(n, 1_000, true, None));
        let keep = Keep { orders: 5, ..ALL };
        assert_eq!(desk.tables.retire(keep, 100 * HOUR).expect("done"), 1);
        let keep = Keep { output: 3_500, ..ALL };
        assert_eq!(desk.tables.retire(keep, 100 * HOUR).expect("done"), 2);
        assert_eq!(desk.left(), [4, 5, 6]);
    }

    #[test]
    fn content_goes_unless_a_host_has_it_in_place() {
        let desk = desk();
        let store = Arc::new(Store::open(desk.dir.path().join("store")).expect("a store"));
        let source = desk.dir.path().join("source");
        let push = |text: &str| {
            std::fs::create_dir_all(&source).expect("made");
            std::fs::write(source.join("file"), text).expect("written");
            let read = content::ingest(&source, &content::Patterns::default(), &store, &mut |_| {})
                .expect("it is read");
            let root = read.manifest.root();
            store.put(root, &read.manifest.encode()).expect("put");
            root
        };
        let (old, new) = (push("old"), push("new"));
        let chunk = |text: &str| ContentId::of(text.as_bytes());
        let info =
            PushInfo { manifest: new.to_string(), dest: "/srv".into(), ..Default::default() };
        desk.order(1, 0, true, Some(info));
        let cleaner = Cleaner {
            tables: desk.tables.clone(),
            journal: desk.journal.clone(),
            store: store.clone(),
            keep: ALL,
            pushes: Arc::new(RwLock::new(())),
            fleet: crate::fleet::Fleet::open(desk.journal.clone(), store.clone()).expect("opens"),
        };
        cleaner.clean(2 * HOUR).expect("done");
        let has = |id| store.has(&id).expect("read");
        assert!(has(new) && has(chunk("new")), "host 1 has said that it is in place");
        assert!(!has(old) && !has(chunk("old")));
    }
}
