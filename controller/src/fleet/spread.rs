//! Who waits for a turn: the hosts of a frequency that is spread, with what their turns depend on.

use std::collections::BTreeMap;

use mesh::{HostId, HostSet};

use timing::{Cron, LastRun, Turns, Waiting, moment, places};

use super::desk::Known;
use super::hostdata::is_place_holder;
use super::types::{Frequency, HostTurn};
use crate::tables::HostRow;

/// The hosts that get files of a frequency, with what their turns depend on.
pub(crate) fn hosts(
    known: &Known,
    rows: &BTreeMap<HostId, HostRow>,
    (name, frequency): (&str, &Frequency),
) -> Vec<Waiting> {
    let members = members(known, name);
    let link = |row: &'_ HostRow| -> String {
        let record = known.book.hosts.get(&row.name).and_then(|records| records.first());
        let relay = record.map(|record| record.relay.as_str());
        relay.filter(|relay| !is_place_holder(relay)).unwrap_or(&row.site).to_owned()
    };
    let rows: Vec<(HostId, &HostRow, String)> =
        members.iter().filter_map(|id| rows.get(&id).map(|row| (id, row, link(row)))).collect();
    let hash = |name: &str| {
        let mut start = [0; 8];
        start.copy_from_slice(&relay::hash(name.as_bytes()).0[..8]);
        start
    };
    let named = rows.iter().map(|(id, row, link)| (*id, row.name.as_str(), link.as_str()));
    let places = places(named, hash);
    // The clocks of a site: its own, or those of the frequency.
    let zone = |site: &str| {
        let own = known.book.sites.get(site).map(|site| site.zone.as_str());
        timing::zone(own.unwrap_or(&frequency.zone))
    };
    let waiting = |(id, row, _): &(HostId, &HostRow, String)| Waiting {
        id: *id,
        place: places.get(id).copied().unwrap_or((0, 1)),
        zone: zone(&row.site),
    };
    rows.iter().map(waiting).collect()
}

/// The enrolled hosts that get a file of a frequency.
pub(crate) fn members(known: &Known, name: &str) -> HostSet {
    let of_it = known.roll.paths.iter().zip(&known.roll.winners.of_entry);
    let of_it = of_it.filter(|(path, _)| known.book.entries[*path].frequency == name);
    of_it.fold(HostSet::new(), |all, (_, places)| all.union(&known.roll.ids(places)))
}

/// When hosts have their next turns.
pub(crate) fn next_turns(
    run: &LastRun,
    frequency: &Frequency,
    hosts: &[Waiting],
    asked: &[(HostId, String)],
    now_ms: u64,
) -> Vec<HostTurn> {
    let times = frequency.times();
    let turns = Turns::of(&times).ok().flatten().unwrap_or_default();
    let next = Cron::new(&times).ok().and_then(|cron| cron.next(moment(now_ms)));
    let next = next.and_then(|next| u64::try_from(next.as_millisecond()).ok());
    let pending = run.waiting();
    let turn = |(id, name): &(HostId, String)| {
        let host = hosts.iter().find(|host| host.id == *id)?;
        let at = match pending.contains(*id) {
            true => turns.turn_from(run.due_ms, host, now_ms),
            false => next.and_then(|next| turns.turn(next, host)),
        };
        let at = at.filter(|_| frequency.automatic);
        Some(HostTurn { host: name.clone(), at_ms: at.unwrap_or(0) })
    };
    asked.iter().filter_map(turn).collect()
}
