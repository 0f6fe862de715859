//! How an order lets its targets begin, as it is signed.

use std::time::Duration;

use mesh::{Batch, Gate, HostSet, Share};

use crate::field::{at_most, ensure, millis, within};
use crate::order::LONGEST;
use crate::{FieldError, hosts, pb};

/// The most groups of hosts of one gate.
const LOTS: usize = 4096;
/// More hosts than there can be.
const HOSTS: u64 = 1 << 32;

pub(crate) fn encode(gate: &Gate) -> pb::Gate {
    let lot = |hosts: &HostSet| pb::Lot { hosts: hosts::encode(hosts) };
    pb::Gate {
        window: gate.window,
        per_child: gate.per_child.filter(|share| percent(*share) == 0).map(number),
        per_child_percent: gate.per_child.map_or(0, percent),
        lots: gate.lots.iter().map(lot).collect(),
        per_lot: number(gate.per_lot),
        per_lot_percent: percent(gate.per_lot),
        batch: gate.batch.map(|batch| batch.size),
        batch_wait_ms: gate.batch.map_or(0, |batch| millis(batch.wait)),
        max_errors: gate.max_errors,
        max_missed: gate.max_missed,
        begin_ms: millis(gate.begin),
        longest_ms: millis(gate.longest),
    }
}

/// The share as a number; of a percentage the least that it can be, for those who do not know it.
fn number(share: Share) -> u64 {
    match share {
        Share::Hosts(number) => number,
        Share::Percent(_) => 1,
    }
}

fn percent(share: Share) -> u32 {
    match share {
        Share::Hosts(_) => 0,
        Share::Percent(percent) => percent,
    }
}

pub(crate) fn decode(gate: &pb::Gate) -> Result<Gate, FieldError> {
    let lot = |lot: &pb::Lot| hosts::decode("gate.lots", &lot.hosts);
    let wait = Duration::from_millis(gate.batch_wait_ms);
    ensure(gate.batch.is_some() || wait.is_zero(), "gate.batch_wait_ms", "waits for no batch")?;
    let per_child = match (gate.per_child, gate.per_child_percent) {
        (number, 0) => number.map(Share::Hosts),
        (None, percent) => Some(Share::Percent(percent)),
        (Some(_), _) => {
            ensure(false, "gate.per_child_percent", "is given beside a number")?;
            None
        }
    };
    let per_lot = match gate.per_lot_percent {
        0 => Share::Hosts(gate.per_lot),
        percent => {
            ensure(gate.per_lot == 1, "gate.per_lot_percent", "is given beside a number")?;
            Share::Percent(percent)
        }
    };
    Ok(Gate {
        window: gate.window,
        per_child,
        lots: gate.lots.iter().map(lot).collect::<Result<_, _>>()?,
        per_lot,
        batch: gate.batch.map(|size| Batch { size, wait }),
        max_errors: gate.max_errors,
        max_missed: gate.max_missed,
        begin: Duration::from_millis(gate.begin_ms),
        longest: Duration::from_millis(gate.longest_ms),
    })
}

pub(crate) fn check(gate: &Gate) -> Result<(), FieldError> {
    let some = (1, HOSTS);
    within("gate.window", gate.window, some)?;
    for (share, field, of_hundred) in [
        (gate.per_child.unwrap_or(Share::Hosts(1)), "gate.per_child", "gate.per_child_percent"),
        (gate.per_lot, "gate.per_lot", "gate.per_lot_percent"),
    ] {
        match share {
            Share::Hosts(number) => within(field, number, some)?,
            Share::Percent(percent) => within(of_hundred, percent.into(), (1, 100))?,
        }
    }
    at_most("gate.lots", gate.lots.len(), LOTS)?;
    let ranges = gate.lots.iter().map(|lot| lot.ranges().len()).sum();
    at_most("gate.lots", ranges, hosts::RANGES)?;
    if let Some(batch) = gate.batch {
        within("gate.batch", batch.size, some)?;
        within("gate.batch_wait_ms", millis(batch.wait), (0, millis(LONGEST)))?;
    }
    within("gate.begin_ms", millis(gate.begin), (1, millis(LONGEST)))?;
    within("gate.longest_ms", millis(gate.longest), (1, millis(LONGEST)))
}
