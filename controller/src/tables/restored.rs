//! What a backup cannot know, and how the tables go on from one.
//!
//! A controller that is restored begins an epoch: a number that only rises, the time by its clock
//! unless something here is later already. Whatever the old controller may have done after the
//! backup must stay done: numbers that it may have given are given to nobody, tokens that it may
//! have seen used are void, its list of removed keys is older than the one that begins here, and
//! what goes out in waves waits until somebody has looked.
//!
//! Answers to orders that are not in the backup are kept all the same, under a row that says so.

use std::collections::BTreeSet;

use mesh::{HostId, HostSet, OrderId, Report};
use redb::{ReadableTable, WriteTransaction};

use super::hosts::{LAST_HOST, REMOVALS};
use super::rollouts::note_rollout;
use super::{
    COUNTS, HOSTS, OPEN, ORDERS, OrderRow, REMOVED, RemovedRow, Result, TOKENS, Tables, TokenRow,
    json, note_answers, parse,
};
use crate::rollout::row::RolloutRow;

/// The kind of an order that only its answers tell of.
pub(crate) const LOST: &str = "lost";
/// How many such orders are kept: nothing proves that there ever was one.
const LOST_LIMIT: u64 = 1_000;
/// How much before the backup an order may be made that is not in it: clocks are set.
const LOST_SLACK_MS: u64 = 600_000;
/// So many numbers of hosts are passed over, since the old controller may have given them.
const PASSED_OVER: u64 = 65_536;

const EPOCH: &str = "epoch";
const TAKEN: &str = "backup-ms";
const LOST_COUNT: &str = "lost";

/// From what a controller was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Its epoch; 0: it never was.
    pub(crate) epoch: u64,
    /// When the backup was made.
    pub(crate) taken_ms: u64,
}

/// What has become of things by a restore.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    pub(crate) origin: Origin,
    /// Orders that were not closed at the time of the backup, the oldest first.
    pub(crate) open: Vec<(OrderId, OrderRow)>,
    /// Rollouts that wait now.
    pub(crate) paused: Vec<(OrderId, RolloutRow)>,
    /// How many join tokens are void.
    pub(crate) tokens: u64,
}

impl Tables {
    /// From what this controller was restored, if it was.
    pub(crate) fn origin(&self) -> Result<Origin> {
        let counts = self.journal.read()?.open_table(COUNTS)?;
        let count = |name| -> Result<u64> { Ok(counts.get(name)?.map_or(0, |row| row.value())) };
        Ok(Origin { epoch: count(EPOCH)?, taken_ms: count(TAKEN)? })
    }

    /// Begins an epoch: these are the tables of a backup that was made then.
    pub(crate) fn begin_epoch(&self, taken_ms: u64, now_ms: u64) -> Result<Begun> {
        let mut begun = Begun::default();
        for (id, row) in self.rollouts()? {
            let mut next = row;
            if !next.is_over() && next.pause() {
                begun.paused.push((id, next));
            }
        }
        let txn = self.journal.begin()?;
        {
            let (open, orders) = (txn.open_table(OPEN)?, txn.open_table(ORDERS)?);
            for row in open.iter()? {
                let id = row?.0.value();
                if let Some(row) = orders.get(id)? {
                    begun.open.push((OrderId(id), parse(row.value())));
                }
            }
            let newest = orders.last()?.map_or(0, |(id, _)| born_ms(OrderId(id.value())));
            let mut counts = txn.open_table(COUNTS)?;
            let count = |name| -> Result<u64> { Ok(counts.get(name)?.map_or(0, |n| n.value())) };
            let (epoch, version, most) = (count(EPOCH)?, count(REMOVALS)?, count(LAST_HOST)?);
            let epoch = now_ms.max(epoch.max(version).max(newest) + 1);
            let last = txn.open_table(HOSTS)?.last()?.map_or(0, |(id, _)| id.value());
            counts.insert(EPOCH, epoch)?;
            counts.insert(TAKEN, taken_ms)?;
            counts.remove(LOST_COUNT)?;
            // Whatever the old one has come to, it is less than this.
            counts.insert(REMOVALS, epoch)?;
            counts.insert(LAST_HOST, most.max(last.into()) + PASSED_OVER)?;
            begun.origin = Origin { epoch, taken_ms };
            let mut tokens = txn.open_table(TOKENS)?;
            tokens.retain(|_, row| {
                let used = parse::<TokenRow>(row).used_by.is_some();
                begun.tokens += u64::from(!used);
                used
            })?;
        }
        for (id, row) in &begun.paused {
            note_rollout(&txn, *id, row)?;
        }
        txn.commit()?;
        Ok(begun)
    }

    /// Enters keys that were removed after the backup, at most so many. Returns the hosts that have
    /// them, which are still in the inventory, and how many keys were new.
    pub(crate) fn recall_keys(
        &self,
        keys: &BTreeSet<[u8; 32]>,
        (now_ms, most): (u64, usize),
    ) -> Result<(HostSet, usize)> {
        let txn = self.journal.begin()?;
        let (mut hosts, mut new) = (HostSet::new(), 0);
        {
            let mut removed = txn.open_table(REMOVED)?;
            let mut holders = Vec::new();
            for row in txn.open_table(HOSTS)?.iter()? {
                let (id, row) = row?;
                let row: super::HostRow = parse(row.value());
                if keys.contains(&row.key) {
                    holders.push((id.value(), row));
                }
            }
            for key in keys {
                if new == most || removed.get(key)?.is_some() {
                    continue;
                }
                let holder = holders.iter().find(|(_, row)| row.key == *key);
                let (id, name) = holder.map_or((0, ""), |(id, row)| (*id, row.name.as_str()));
                let row = RemovedRow { id, name: name.into(), removed_ms: now_ms };
                removed.insert(key, json(&row).as_slice())?;
                new += 1;
            }
            holders.iter().for_each(|(id, _)| hosts = hosts.union(&HostSet::one(HostId(*id))));
            if new > 0 {
                let mut counts = txn.open_table(COUNTS)?;
                let version = counts.get(REMOVALS)?.map_or(0, |version| version.value());
                counts.insert(REMOVALS, version + 1)?;
            }
        }
        txn.commit()?;
        Ok((hosts, new))
    }

    /// The numbers of nodes of which some key was removed.
    pub(crate) fn removed_nodes(&self) -> Result<BTreeSet<u32>> {
        let table = self.journal.read()?.open_table(REMOVED)?;
        table.iter()?.map(|row| Ok(parse::<RemovedRow>(row?.1.value()).id)).collect()
    }

    /// The orders that only their answers tell of, newest first.
    pub(crate) fn lost(&self) -> Result<Vec<(OrderId, OrderRow)>> {
        let table = self.journal.read()?.open_table(ORDERS)?;
        let mut lost = Vec::new();
        for row in table.iter()?.rev() {
            let (id, row) = row?;
            let row: OrderRow = parse(row.value());
            if row.kind == LOST {
                lost.push((OrderId(id.value()), row));
            }
        }
        Ok(lost)
    }
}

/// Notes answers to an order that the node does not know: one that is over, or one that was given
/// after the backup. What has no place in either is somebody's invention.
pub(crate) fn note_unheard(
    txn: &WriteTransaction,
    report: &Report,
    origin: Origin,
    now_ms: u64,
) -> Result<()> {
    let id = report.order;
    let known = super::order_row(txn, id)?;
    let born = born_ms(id);
    let row = match known {
        Some(row) if row.kind != LOST => return note_answers(txn, report),
        Some(row) => row,
        None if id.giver().is_some() || born.saturating_add(LOST_SLACK_MS) < origin.taken_ms => {
            return Ok(());
        }
        None => {
            let mut counts = txn.open_table(COUNTS)?;
            let count = counts.get(LOST_COUNT)?.map_or(0, |count| count.value());
            if count >= LOST_LIMIT {
                return Ok(());
            }
            counts.insert(LOST_COUNT, count + 1)?;
            OrderRow::lost(born, now_ms)
        }
    };
    let targets = row.targets().union(report.tally.hosts());
    let row = OrderRow { targets: targets.ranges().to_vec(), ..row };
    txn.open_table(ORDERS)?.insert(id.0, json(&row).as_slice())?;
    note_answers(txn, report)
}

/// When an order was made, by the clock of who has made it.
fn born_ms(id: OrderId) -> u64 {
    let [a, b, c, d, e, f, ..] = id.0;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

impl OrderRow {
    /// An order that only its answers tell of.
    fn lost(issued_ms: u64, now_ms: u64) -> OrderRow {
        OrderRow {
            kind: LOST.into(),
            what: "given after the backup from which the controller was restored".into(),
            targets: Vec::new(),
            issued_ms,
            closed_ms: now_ms,
            expires_ms: now_ms,
            cancels: None,
            push: None,
            run: None,
            stopped: None,
            retries: None,
            closer: None,
            given_by: None,
            by: String::new(),
            superseded: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh::{Outcome, State};

    use super::*;
    use crate::tables::HostRow;

    fn tables(dir: &std::path::Path) -> Tables {
        let journal = relay::Journal::open(&dir.join("db"), 1 << 20).expect("opens");
        Tables::open(journal).expect("opens")
    }

    fn id(ms: u64, end: u8) -> OrderId {
        let mut id = [end; 16];
        id[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
        id[6] = 0x70;
        OrderId(id)
    }

    fn host(key: u8) -> HostRow {
        let (name, site, role) = (format!("h{key}"), String::new(), "host".into());
        HostRow { name, site, role, key: [key; 32], enrolled_ms: 1 }
    }

    fn report(order: OrderId, host: u32) -> Report {
        let mut report = Report::new(order);
        report.tally.record(Outcome::bare(State::Ok), &HostSet::one(HostId(host)));
        report
    }

    #[test]
    fn an_epoch_is_later_than_anything_that_was_before() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let tables = tables(dir.path());
        assert_eq!(tables.origin().expect("it is read"), Origin::default());
        let token = |used_by| TokenRow {
            check: [0; 32],
            role: "host".into(),
            site: String::new(),
            name: String::new(),
            expires_ms: 9,
            used_by,
        };
        tables.set_token([1; 8], &token(None)).expect("kept");
        tables.set_token([2; 8], &token(Some(3))).expect("kept");
        tables
            .write(|txn| {
                txn.open_table(HOSTS)?.insert(7, json(&host(7)).as_slice())?;
                let row = OrderRow { kind: "run".into(), ..OrderRow::default() };
                txn.open_table(ORDERS)?.insert(id(5_000, 1).0, json(&row).as_slice())?;
                txn.open_table(OPEN)?.insert(id(5_000, 1).0, ())?;
                Ok(())
            })
            .expect("written");
        tables.add_rollout(id(1, 1), &RolloutRow::sample(2), &[]).expect("kept");

        // The clock of the new machine is behind.
        let begun = tables.begin_epoch(4_000, 3_000).expect("it begins");
        assert_eq!(begun.origin, Origin { epoch: 5_001, taken_ms: 4_000 });
        assert_eq!((begun.tokens, begun.open.len(), begun.paused.len()), (1, 1, 1));
        assert_eq!(tables.origin().expect("it is read"), begun.origin);
        assert_eq!(tables.removed(0).expect("it is read").0, 5_001);
        assert_eq!(tables.tokens().expect("it is read").len(), 1, "the one that was used");
        let paused = tables.rollout(id(1, 1)).expect("it is read").expect("it is there");
        assert_eq!(paused.state(), "paused");
        let next = tables.enrol([2; 8], "new", (0, || ()), |_, _, next| {
            assert_eq!(next, 7 + 65_536 + 1);
            super::super::Enrolment::Refuse(())
        });
        assert_eq!(next.expect("it is asked"), Err(()));
        // Once more, from a backup of the restored one.
        let again = tables.begin_epoch(4_000, 3_000).expect("it begins");
        assert_eq!(again.origin.epoch, 5_002);
        assert!(again.paused.is_empty() && again.tokens == 0);
        assert_eq!(tables.begin_epoch(9, 8_000).expect("it begins").origin.epoch, 8_000);
    }

    #[test]
    fn what_was_removed_after_the_backup_is_removed_again() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let tables = tables(dir.path());
        let put = |txn: &WriteTransaction| {
            txn.open_table(HOSTS)?.insert(7, json(&host(7)).as_slice())?;
            Ok(())
        };
        tables.write(put).expect("written");
        let keys = BTreeSet::from([[7; 32], [8; 32]]);
        let (hosts, new) = tables.recall_keys(&keys, (5, 9)).expect("it is written");
        assert_eq!((hosts, new), (HostSet::one(HostId(7)), 2));
        assert_eq!(tables.removed(0).expect("it is read"), (1, keys.clone()));
        let (_, new) = tables.recall_keys(&keys, (6, 9)).expect("it is written");
        assert_eq!((new, tables.removed(0).expect("it is read").0), (0, 1), "nothing is new");
        let more = BTreeSet::from([[1; 32], [2; 32]]);
        let (_, new) = tables.recall_keys(&more, (6, 1)).expect("it is written");
        assert_eq!(new, 1, "there is room for one");
    }

    #[test]
    fn answers_to_orders_that_are_not_in_the_backup_are_kept() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let tables = tables(dir.path());
        let origin = Origin { epoch: 20_000_000, taken_ms: 10_000_000 };
        let note = |order, host| {
            tables
                .write(|txn| note_unheard(txn, &report(order, host), origin, 20_000_500))
                .expect("it is written");
        };
        let (late, old, foreign) = (id(15_000_000, 1), id(6_000_000, 2), id(15_000_000, 3));
        note(late, 7);
        note(late, 8);
        note(late, 8);
        note(old, 7);
        note(foreign.given_by(HostId(9)), 7);
        let lost = tables.lost().expect("it is read");
        let [(order, row)] = &lost[..] else { panic!("{lost:?}") };
        assert_eq!((*order, row.issued_ms, row.closed_ms), (late, 15_000_000, 20_000_500));
        assert_eq!(row.targets(), HostSet::from_ranges([(7, 8)]));
        let (tally, _) = tables.tally(late).expect("it is read");
        assert_eq!(tally.hosts(), &HostSet::from_ranges([(7, 8)]));
        assert!(tables.tally(old).expect("it is read").0.is_empty(), "it would be in the backup");
    }
}
