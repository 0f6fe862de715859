//! Rollouts in a script.

use mesh::HostSet;
use serde::{Deserialize, Serialize};

use super::words::{hosts, is_false, millis, ms, span, spanned};
use crate::rolling::Rolling;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RolloutLines {
    at_ms: u64,
    waves: Vec<String>,
    ok_percent: u32,
    soak_ms: u64,
    resumes: u32,
    takes_ms: [u64; 2],
    #[serde(default, skip_serializing_if = "is_false")]
    careless: bool,
    /// After how long, and for how long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_ms: Option<[u64; 2]>,
}

impl RolloutLines {
    pub(super) fn of(rolling: &Rolling) -> RolloutLines {
        RolloutLines {
            at_ms: ms(rolling.at),
            waves: rolling.waves.iter().map(HostSet::to_string).collect(),
            ok_percent: rolling.ok,
            soak_ms: ms(rolling.soak),
            resumes: rolling.resumes,
            takes_ms: span(rolling.takes),
            careless: rolling.careless,
            pause_ms: rolling.pause.map(|(after, lasts)| [ms(after), ms(lasts)]),
        }
    }

    pub(super) fn rolling(self) -> Result<Rolling, String> {
        let waves = self.waves.iter().map(|text| hosts(text)).collect::<Result<Vec<_>, _>>()?;
        if waves.is_empty() || waves.iter().any(HostSet::is_empty) || self.ok_percent > 100 {
            return Err("a rollout has waves of hosts, and an ok_percent up to 100".into());
        }
        Ok(Rolling {
            at: millis(self.at_ms),
            waves,
            ok: self.ok_percent,
            soak: millis(self.soak_ms),
            resumes: self.resumes,
            takes: spanned(self.takes_ms)?,
            careless: self.careless,
            pause: self.pause_ms.map(|[after, lasts]| (millis(after), millis(lasts))),
        })
    }
}
