//! Schedules in a script: how clocks run, and what is due when from which moment on.

use serde::{Deserialize, Serialize};

use super::words::{millis, ms};
use crate::schedules::calendar::{Calendar, Due, Edict};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClockLines {
    /// What they show at the beginning, and how many seconds they pass in one.
    origin_ms: u64,
    haste: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleLines {
    name: String,
    at_ms: u64,
    /// None: never any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<Due>,
}

impl ClockLines {
    pub(super) fn of(calendar: &Calendar) -> Option<ClockLines> {
        let Calendar { origin_ms, haste, .. } = *calendar;
        (haste > 0).then_some(ClockLines { origin_ms, haste })
    }
}

impl ScheduleLines {
    pub(super) fn of(edict: &Edict) -> ScheduleLines {
        let Edict { at, name, due } = edict.clone();
        ScheduleLines { name, at_ms: ms(at), due }
    }
}

/// What stands there, or what is wrong with it.
pub(super) fn calendar(
    clocks: Option<ClockLines>,
    lines: Vec<ScheduleLines>,
) -> Result<Calendar, String> {
    let Some(ClockLines { origin_ms, haste }) = clocks else {
        return match lines.first() {
            Some(line) => Err(format!("[[schedule]] {} needs [clocks]", line.name)),
            None => Ok(Calendar::default()),
        };
    };
    // From 1971 to 2100, so that a clock can jump and dates can still be written.
    if !(31_536_000_000..4_102_444_800_000).contains(&origin_ms) || !(1..=3600).contains(&haste) {
        return Err("[clocks] origin_ms is from 1971 to 2100, haste from 1 to 3600".into());
    }
    let mut edicts = Vec::new();
    for ScheduleLines { name, at_ms, due } in lines {
        if let Some(due) = &due {
            due.check().map_err(|why| format!("[[schedule]] {name}: {why}"))?;
        }
        edicts.push(Edict { at: millis(at_ms), name, due });
    }
    edicts.sort_by_key(|edict| edict.at);
    Ok(Calendar { origin_ms, haste, edicts })
}
