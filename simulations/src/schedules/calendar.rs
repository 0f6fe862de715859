//! What of schedules stands in a plan: from when on a frequency is due at which times, and how
//! fast clocks run.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use timing::Times;

use super::due::hour;
use crate::dice::Dice;
use crate::plan::{Fault, Plan};

/// What is due when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    /// What clocks show at the beginning, in milliseconds since 1970.
    pub origin_ms: u64,
    /// How many seconds they pass in one second.
    pub haste: u64,
    /// What the operator sets, in sequence of time.
    pub edicts: Vec<Edict>,
}

/// From a moment on a frequency is due at these times, or not at all any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edict {
    /// When it is said.
    pub at: Duration,
    /// Of which frequency.
    pub name: String,
    /// When it is due.
    pub due: Option<Due>,
}

/// When a frequency is due, as a plan says it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Due {
    /// At which hour; none: at each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hour: Option<u8>,
    /// From this minute of the hour on, every so many minutes.
    pub minute: u8,
    /// See there.
    pub every: u8,
    /// By the clocks of which place.
    pub zone: String,
    /// Over how many minutes the hosts of a relay are spread.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub splay_min: u64,
    /// From which hour to which hosts may begin, if not always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<(u8, u8)>,
    /// Within how many minutes they must have begun; 0: until it is due again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub expires_min: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Places, and a moment some time before their clocks are put forward or back.
const PLACES: [(&str, u64); 5] = [
    ("UTC", 1_792_800_000_000),
    ("Europe/Berlin", 1_774_742_400_000),
    ("Europe/Berlin", 1_792_886_400_000),
    ("America/New_York", 1_772_949_600_000),
    ("Australia/Lord_Howe", 1_775_313_000_000),
];

impl Due {
    /// As the real thing is told it.
    pub fn times(&self) -> Times {
        let minutes = match self.minute + self.every > 59 {
            true => self.minute.to_string(),
            false => format!("{}-59/{}", self.minute, self.every),
        };
        let hour = self.hour.map_or("*".to_owned(), |hour| hour.to_string());
        let minutes_of = |minutes| match minutes {
            0 => String::new(),
            minutes => format!("{minutes}m"),
        };
        let window = self.window.map(|(from, until)| format!("{from:02}-{until:02}"));
        Times {
            cron: format!("{minutes} {hour} * * *"),
            zone: self.zone.clone(),
            splay: minutes_of(self.splay_min),
            windows: window.into_iter().collect(),
            expires: minutes_of(self.expires_min),
        }
    }

    /// Whether hosts have turns.
    pub(crate) fn is_spread(&self) -> bool {
        self.splay_min > 0 || self.window.is_some() || self.expires_min > 0
    }

    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        if self.hour.is_some_and(|hour| hour > 23) || self.minute > 59 {
            return Err("an hour is up to 23, a minute up to 59".into());
        }
        if !(1..=60).contains(&self.every) {
            return Err(format!("every = {} is not from 1 to 60", self.every));
        }
        let is_window = |(from, until): (u8, u8)| from < 24 && until <= 24 && from != until;
        if !self.window.is_none_or(is_window) {
            return Err("a window is from one hour of a day to another".into());
        }
        let times = self.times();
        timing::Cron::check(&times).map_err(|error| error.to_string())?;
        timing::check_turns(&times).map_err(|error| error.to_string())
    }

    /// Draws one; in a plan of days, `daily`, it is due once a day. At least `rare` minutes lie
    /// between two times.
    fn draw(rng: &mut SmallRng, zone: &str, (local_hour, daily, rare): (u8, bool, u8)) -> Due {
        let every = [5, 10, 15, 30, 60][if daily { 4 } else { rng.random_range(0..5) }].max(rare);
        let at_hour = daily || rng.random_bool(0.2);
        let mut due = Due {
            hour: at_hour.then(|| (local_hour + rng.random_range(0..3)) % 24),
            minute: rng.random_range(0..every),
            every,
            zone: zone.to_owned(),
            splay_min: 0,
            window: None,
            expires_min: 0,
        };
        if rng.random_bool(0.5) {
            due.splay_min = rng.random_range(0..u64::from(every));
        }
        if rng.random_bool(0.3) {
            let from = (local_hour + rng.random_range(0..4)) % 24;
            due.window = Some((from, (from + rng.random_range(1..6)) % 24));
        }
        if rng.random_bool(0.4) {
            let most = u64::from(every).max(due.splay_min + 1);
            due.expires_min = rng.random_range(due.splay_min.max(1)..=most);
        }
        due
    }
}

impl Calendar {
    /// The frequencies that there ever are.
    pub(crate) fn names(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.edicts.iter().map(|edict| &edict.name).collect();
        names.into_iter().cloned().collect()
    }
}

/// Draws schedules, and how often clocks jump. Dice of their own: a plan without any is what it
/// was before there were some.
pub(crate) fn draw(plan: &mut Plan, (schedules, clocks): (&Dice, &Dice)) {
    let mut rng = SmallRng::seed_from_u64(plan.seed ^ 0x6475_6531);
    let rng = &mut rng;
    let count = schedules.draw(rng);
    if count == 0 {
        return;
    }
    let (zone, moment) = PLACES[rng.random_range(0..PLACES.len())];
    let haste = if plan.horizon > DAY { 1 } else { 60 };
    // What is due as often as the controller speaks is left to it, or not, only once it is silent.
    let rare = if plan.beat * 2 * haste as u32 > Duration::from_secs(300) { 10 } else { 0 };
    let before = rng.random_range(0..2 * 3600) * 1000;
    let origin_ms = moment - before;
    let local_hour = hour(zone, origin_ms);
    let horizon = plan.horizon.as_millis() as u64;
    let mut edicts = Vec::new();
    for no in 0..count {
        let name = format!("f{no}");
        let mut at = Duration::from_millis(match rng.random_bool(0.7) {
            true => 0,
            false => rng.random_range(0..horizon / 2),
        });
        let changes = [0, 0, 1, 2][rng.random_range(0..4)];
        for _ in 0..=changes {
            let due = legal(rng, zone, (local_hour, haste == 1, rare));
            let due = due.filter(|_| at.is_zero() || rng.random_bool(0.85));
            edicts.push(Edict { at, name: name.clone(), due });
            at += Duration::from_millis(rng.random_range(1_000..horizon.max(1_001)));
        }
    }
    edicts.retain(|edict| edict.at < plan.horizon);
    edicts.sort_by_key(|edict| edict.at);
    plan.calendar = Calendar { origin_ms, haste, edicts };
    if plan.faults.is_empty() {
        return;
    }
    for _ in 0..clocks.draw(rng) {
        let at = Duration::from_millis(rng.random_range(0..horizon));
        let node = rng.random_range(0..plan.tree.len());
        let most = [60_000, 600_000, 3 * 3_600_000][rng.random_range(0..3)];
        let by_ms = rng.random_range(-most..=most);
        plan.faults.push((at, Fault::Clock { node, by_ms }));
    }
    plan.faults.sort_by_key(|(at, _)| *at);
}

fn legal(rng: &mut SmallRng, zone: &str, how: (u8, bool, u8)) -> Option<Due> {
    (0..20).map(|_| Due::draw(rng, zone, how)).find(|due| due.check().is_ok())
}
