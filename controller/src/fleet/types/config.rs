//! What the text form of the configuration says of times: frequencies, and the clocks of sites.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use timing::Times;

use crate::types::Waves;

/// A site, in the text form of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// By whose clocks the windows of its hosts are.
    pub zone: String,
}

/// A frequency, in the text form of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frequency {
    /// When, as cron has it: minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// By the clocks of which place; `UTC` if not given.
    #[serde(default = "Frequency::utc")]
    pub zone: String,
    /// Whether the controller starts it by itself.
    #[serde(default = "Frequency::on")]
    pub automatic: bool,
    /// The waves in which it goes, as numbers and percentages; empty: to everybody at once.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waves: String,
    /// The gate of the waves.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gate: String,
    /// Over how long the hosts of each relay are spread, as `10m`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub splay: String,
    /// Days and times outside of which a host waits, as `mon-fri 22-06`; none: it never does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<String>,
    /// Within how long it must have begun at a host, as `6h`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub expires: String,
}

impl Frequency {
    fn utc() -> String {
        "UTC".into()
    }

    fn on() -> bool {
        true
    }

    /// By such a cron line, by the clocks of such a place.
    pub fn new(cron: &str, zone: &str) -> Frequency {
        let (cron, zone) = (cron.to_owned(), zone.to_owned());
        let (waves, gate, splay) = Default::default();
        let (windows, expires) = Default::default();
        Frequency { cron, zone, automatic: true, waves, gate, splay, windows, expires }
    }

    /// What it says of its times.
    pub(crate) fn times(&self) -> Times {
        Times {
            cron: self.cron.clone(),
            zone: self.zone.clone(),
            splay: self.splay.clone(),
            windows: self.windows.clone(),
            expires: self.expires.clone(),
        }
    }

    /// The waves in which it goes, if it does.
    pub fn rolled(&self) -> Option<Waves> {
        let (waves, gate) = (self.waves.clone(), self.gate.clone());
        (!waves.is_empty()).then_some(Waves { waves, gate })
    }

    /// The frequencies that there are from the beginning.
    pub fn usual() -> BTreeMap<String, Frequency> {
        let frequency = |(name, cron): (&str, &str)| (name.to_owned(), Frequency::new(cron, "UTC"));
        [("hour", "0 * * * *"), ("day", "0 3 * * *"), ("week", "0 4 * * 0")].map(frequency).into()
    }
}
