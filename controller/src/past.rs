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

/// Whoever has not begun it, and gets what a newer order brings instead.
const SUPERSEDED: &str = "superseded";

/// Whoever did not do it, or of whom nobody knows: what exit code 3 stands for.
const MISSED: &str = "missed";

impl Past for Tables {
    fn targets(&self, order: &str, state: Option<&str>) -> Result<HostSet, Failure> {
        if let Some((id, rollout)) = rollout(self, order)? {
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
            let help = "there are ok, failed, missed, pending";
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
