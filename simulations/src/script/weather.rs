//! Links and disks in a script: delays, losses and the odds of what goes wrong by itself.

use serde::{Deserialize, Serialize};

use super::words::{is_never, is_nothing, odds, span, spanned};
use crate::plan::{Profile, Weather};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WeatherLines {
    wan: LinkLines,
    lan: LinkLines,
    save_ms: [u64; 2],
    transfer_ms: [u64; 2],
    #[serde(default, skip_serializing_if = "is_nothing")]
    content_bytes: u64,
    #[serde(default, skip_serializing_if = "is_never")]
    half_open: f64,
    #[serde(default, skip_serializing_if = "is_never")]
    torn: f64,
    #[serde(default, skip_serializing_if = "is_never")]
    corrupt: f64,
    #[serde(default, skip_serializing_if = "is_never")]
    trip: f64,
    #[serde(default, skip_serializing_if = "is_never")]
    twice: f64,
    #[serde(default, skip_serializing_if = "is_never")]
    kept: f64,
    #[serde(default, skip_serializing_if = "is_never")]
    snap: f64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LinkLines {
    delay_ms: [u64; 2],
    #[serde(default, skip_serializing_if = "is_never")]
    loss: f64,
    /// Bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u64>,
}

impl WeatherLines {
    pub(super) fn of(weather: &Weather) -> WeatherLines {
        let link = |profile: Profile| LinkLines {
            delay_ms: span(profile.delay),
            loss: profile.loss,
            rate: profile.rate,
        };
        WeatherLines {
            wan: link(weather.wan),
            lan: link(weather.lan),
            save_ms: span(weather.save),
            transfer_ms: span(weather.transfer),
            content_bytes: weather.content_bytes,
            half_open: weather.half_open,
            torn: weather.torn,
            corrupt: weather.corrupt,
            trip: weather.trip,
            twice: weather.twice,
            kept: weather.kept,
            snap: weather.snap,
        }
    }

    pub(super) fn weather(self) -> Result<Weather, String> {
        let link = |lines: LinkLines| {
            let (delay, loss) = (spanned(lines.delay_ms)?, odds("loss", lines.loss)?);
            Ok::<_, String>(Profile { delay, loss, rate: lines.rate.filter(|rate| *rate > 0) })
        };
        Ok(Weather {
            wan: link(self.wan)?,
            lan: link(self.lan)?,
            save: spanned(self.save_ms)?,
            transfer: spanned(self.transfer_ms)?,
            content_bytes: self.content_bytes,
            half_open: odds("half_open", self.half_open)?,
            torn: odds("torn", self.torn)?,
            corrupt: odds("corrupt", self.corrupt)?,
            trip: odds("trip", self.trip)?,
            twice: odds("twice", self.twice)?,
            kept: odds("kept", self.kept)?,
            snap: odds("snap", self.snap)?,
        })
    }
}
