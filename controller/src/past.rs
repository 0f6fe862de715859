//! Past orders as sets of targets: `@run:last/failed`, `@run:7k3q/missed`.

use mesh::{HostSet, OrderId};

use crate::answers::word;
use crate::fault::Failure;
use crate::rollout::row::{self, RolloutRow};
use crate::rollout::standing::Standing;
use crate::sets;
use crate::tables::{OrderRow, Tables};
use crate::targets::Past;

/// Every state that a target can be in, as it is printed, with those that are more than one.
const WORDS: [&str; 14] = [
    "ok",
    "failed",
    "signalled",
    "timed-out",
    "interrupted",
    "cancelled",
    "refused",
    "skipped",
    "expired",
    "relay-lost",
    "not-reached",
    "pending",
    MISSED,
    SUPERSEDED,
];

/// The states that hosts of a rollout can be in, by all orders that they were given.
const OF_ROLLOUT: [&str; 4] = ["ok", "failed", MISSED, "pending"];

/// Whoever has not begun it, and gets what a newer order brings instead.
const SUPERSEDED: &str = "superseded";

/// Whoever did not do it, or of whom nobody knows: what exit code 3 stands for.
const MISSED: &str = "missed";

impl Past for Tables {
    fn targets(&self, order: &str, state: Option<&str>) -> Result<HostSet, Failure> {
        // What hosts of a rollout cannot be is asked of the wave alone that was the last order.
        let is_of_wave = order == "last" && state.is_some_and(|state| !OF_ROLLOUT.contains(&state));
        if let Some((id, rollout)) = rollout(self, order)?.filter(|_| !is_of_wave) {
            return of_rollout(self, id, &rollout, state);
        }
        let (id, row) = find(self, order).map_err(|mut failure| {
            // Of a target, not of the order that somebody asks about.
            failure.error.code = "unknown-group".into();
            failure.within(&format!("@run:{order}"))
        })?;
        let targets = row.targets();
        let Some(state) = state else { return Ok(targets) };
        if !WORDS.contains(&state) {
            let near = sets::suggest(state, WORDS);
            let message = format!("@run:{order}/{state}: {state} is no state of a target");
            let help = match near {
                Some(near) => format!("did you mean {near}?"),
                None => format!("there are {}", WORDS.join(", ")),
            };
            return Err(Failure::unknown("unknown-group", message, help));
        }
        let (tally, _) = self.tally(id)?;
        if state == SUPERSEDED {
            return Ok(row.not_begun(&tally).intersection(&targets));
        }
        let mut found = HostSet::new();
        for (outcome, hosts) in tally.lines() {
            if word(outcome.state) == state || (state == MISSED && outcome.state.is_missed()) {
                found = found.union(hosts);
            }
        }
        if state == "pending" || state == MISSED {
            found = found.union(&targets.difference(tally.hosts()));
        }
        Ok(found.intersection(&targets))
    }
}

/// The hosts of a rollout that stand so.
fn of_rollout(
    tables: &Tables,
    id: OrderId,
    rollout: &RolloutRow,
    state: Option<&str>,
) -> Result<HostSet, Failure> {
    let waves = tables.waves(id)?;
    let all = waves.iter().fold(HostSet::new(), |all, wave| all.union(wave));
    let standing = Standing::read(tables, rollout)?;
    match state {
        None => Ok(all),
        Some("ok") => Ok(standing.ok()),
        Some("failed") => Ok(standing.errors),
        Some(MISSED) => Ok(standing.missed.union(&standing.pending)),
        Some("pending") => Ok(all.difference(&standing.given).union(&standing.pending)),
        Some(state) => {
            let message = format!("{state} is no state of a rollout's hosts");
            let help = format!("there are {}", OF_ROLLOUT.join(", "));
            Err(Failure::unknown("unknown-group", message, help))
        }
    }
}

/// The rollout that a text means, if it means one; `last` does if the last order is a wave of one.
pub(crate) fn rollout(
    tables: &Tables,
    text: &str,
) -> Result<Option<(OrderId, RolloutRow)>, Failure> {
    match find(tables, text) {
        Err(_) => Ok(row::find(tables, text).ok()),
        Ok((id, _)) if text == "last" => {
            let is_wave = |wave: &row::WaveOrder| wave.id() == Some(id);
            let mut rollouts = tables.rollouts()?.into_iter();
            Ok(rollouts.find(|(_, rollout)| rollout.orders.iter().any(is_wave)))
        }
        Ok(_) => Ok(None),
    }
}

/// The order that a text means: an id, a unique beginning or end of one, or `last`.
pub(crate) fn find(tables: &Tables, text: &str) -> Result<(OrderId, OrderRow), Failure> {
    let unknown = || {
        let message = format!("no order {text}");
        Failure::unknown("unknown-order", message, "`barid runs` lists them")
    };
    let found = match text {
        "last" => tables.last_order()?.into_iter().collect(),
        _ if text.len() < 4 => return Err(unknown()),
        _ => tables.find_orders(|id| id.starts_with(text) || id.ends_with(text))?,
    };
    match found.as_slice() {
        [id] => Ok((*id, tables.order(*id)?.ok_or_else(unknown)?)),
        [] => Err(unknown()),
        some => {
            let ids: Vec<String> = some.iter().map(OrderId::to_string).collect();
            let message = format!("{text} means more than one order, such as {}", ids.join(", "));
            Err(Failure::bad(message, "give more digits"))
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh::{HostId, Outcome, Report, State};

    use super::*;
    use crate::tables::note_answers;

    fn id(n: u8) -> OrderId {
        OrderId([n; 16])
    }

    #[test]
    fn the_last_wave_stands_for_its_rollout_in_the_states_that_there_are_of_one() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let journal = relay::Journal::open(&dir.path().join("node.redb"), 1 << 20);
        let tables = Tables::open(journal.expect("it is made")).expect("they are made");
        let mut rollout = RolloutRow::sample(2);
        let waves = [HostSet::from_ranges([(11, 12)]), HostSet::from_ranges([(13, 14)])];
        let said = [[State::Ok, State::TimedOut], [State::Ok, State::TimedOut]];
        for (n, (wave, states)) in (1..).zip(waves.iter().zip(said)) {
            let row = OrderRow { targets: wave.ranges().to_vec(), ..OrderRow::default() };
            assert!(tables.add_given(id(n), &row, b"signed").expect("written"));
            let mut report = Report::new(id(n));
            for (host, state) in wave.iter().zip(states) {
                report.tally.record(Outcome { state, body: None }, &HostSet::one(host));
            }
            tables.write(|txn| note_answers(txn, &report)).expect("written");
            let round = u32::from(n);
            let order = row::WaveOrder { wave: usize::from(n) - 1, round, id: id(n).to_string() };
            rollout.orders.push(order);
        }
        tables.add_rollout(id(9), &rollout, &waves).expect("written");
        let of = |order: &str, state| tables.targets(order, state);
        let hosts = |hosts: &[u32]| hosts.iter().copied().map(HostId).collect::<HostSet>();
        assert_eq!(of("last", None).expect("all"), hosts(&[11, 12, 13, 14]));
        assert_eq!(of("last", Some("ok")).expect("of both"), hosts(&[11, 13]));
        assert_eq!(of("last", Some("missed")).expect("of both"), hosts(&[12, 14]));
        // Of a rollout this is not known.
        assert_eq!(of("last", Some("timed-out")).expect("of the wave"), hosts(&[14]));
        assert_eq!(of("last", Some("skipped")).expect("of the wave"), hosts(&[]));
        let failure = of("last", Some("fialed")).expect_err("there is none");
        assert_eq!(failure.error.help, "did you mean failed?");
        let failure = of(&id(9).to_string(), Some("timed-out")).expect_err("there is none");
        assert_eq!(failure.error.help, "there are ok, failed, missed, pending");
    }
}
