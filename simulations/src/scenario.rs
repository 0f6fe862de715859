//! Scenarios: the files from which each seed draws a [`Plan`].
//!
//! A scenario says what a run is made of: the shape of the tree, the links, the work, the mix of
//! faults. Swarm style: a seed switches features on and off by itself, so that some runs have
//! nothing but crashes, some nothing but slow disks, some tiny limits, and some no fault at all.
//! What a file does not mention does not happen; what it misspells is an error with its line.
//!
//! A file with a `seed` is no scenario but one run, as [`crate::script`] writes it.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::dice::{Dice, Odds, Share, Tight, one_share};
use crate::plan::{Options, Plan};
use crate::script;

/// What each seed draws a plan from. `docs/simulator.md` says what every key means.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it tries, in a sentence.
    pub about: String,
    pub(crate) tree: TreeDice,
    pub(crate) time: TimeDice,
    #[serde(default)]
    pub(crate) links: LinksDice,
    #[serde(default)]
    pub(crate) work: WorkDice,
    #[serde(default)]
    pub(crate) faults: FaultDice,
    #[serde(default)]
    pub(crate) odds: OddsDice,
    #[serde(default)]
    pub(crate) limits: LimitDice,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TreeDice {
    pub(crate) nodes: Dice,
    #[serde(default = "no_number")]
    pub(crate) relays: Dice,
    #[serde(default = "never")]
    pub(crate) second_tier: Share,
    #[serde(default = "never")]
    pub(crate) direct: Share,
    #[serde(default = "never")]
    pub(crate) spare: Share,
    #[serde(default = "never")]
    pub(crate) crowded: Share,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TimeDice {
    pub(crate) horizon_s: Dice,
    #[serde(default = "never")]
    pub(crate) calm: Share,
    pub(crate) beat_ms: Dice,
    pub(crate) flush_ms: Dice,
    pub(crate) redial_base_ms: Dice,
    pub(crate) redial_cap_ms: Dice,
    pub(crate) redial_settled_ms: Dice,
    pub(crate) climb_ms: Dice,
    pub(crate) climb_cap_ms: Dice,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinksDice {
    pub(crate) wan: LinkDice,
    /// From hosts to their relays; as `wan` if not given.
    pub(crate) lan: Option<LinkDice>,
    #[serde(default = "soon")]
    pub(crate) save_ms: Dice,
    #[serde(default = "soon")]
    pub(crate) transfer_ms: Dice,
    #[serde(default = "no_number")]
    pub(crate) content_kb: Dice,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkDice {
    pub(crate) delay_ms: Dice,
    #[serde(default = "no_number")]
    pub(crate) jitter_ms: Dice,
    #[serde(default = "never")]
    pub(crate) loss: Share,
    /// 0: as much as comes.
    #[serde(default = "no_number")]
    pub(crate) rate_kbit: Dice,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WorkDice {
    pub(crate) orders: Dice,
    pub(crate) early: Share,
    pub(crate) pushes: Share,
    pub(crate) gated: Share,
    pub(crate) cancelled: Share,
    pub(crate) targets: Share,
    pub(crate) strangers: Share,
    pub(crate) reach_ms: Dice,
    pub(crate) run_hold_s: Dice,
    pub(crate) push_hold_s: Dice,
    pub(crate) ttl_s: Dice,
    pub(crate) short_lived: Share,
    pub(crate) short_ttl_s: Dice,
    pub(crate) takes_ms: Dice,
    pub(crate) viewers: Share,
    pub(crate) last_gated: Share,
    pub(crate) rollouts: Dice,
    /// How many of the runs are given by relays.
    pub(crate) given: Share,
    pub(crate) superseded: Share,
    /// To how many hosts a parent sends content itself.
    pub(crate) fanout: Dice,
    /// In which share of runs hosts notice things.
    #[serde(deserialize_with = "one_share")]
    pub(crate) events: f64,
    /// How many frequencies there are.
    pub(crate) schedules: Dice,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FaultDice {
    pub(crate) count: Dice,
    pub(crate) kinds: Vec<FaultKind>,
    pub(crate) each: Share,
    pub(crate) lasts_ms: Dice,
    /// How often clocks jump, where something is due by them.
    pub(crate) clocks: Dice,
    /// How often the root is restored from a backup.
    pub(crate) restores: Dice,
}

/// A kind of fault that a seed may draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FaultKind {
    Kill,
    KillRoot,
    Cut,
    Part,
    IsolateRoot,
    IsolateRelay,
    IsolateHost,
    Steer,
    FullDisk,
    FailDisk,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OddsDice {
    pub(crate) half_open: Odds,
    pub(crate) torn: Odds,
    pub(crate) corrupt: Odds,
    pub(crate) trip: Odds,
    pub(crate) twice: Odds,
    pub(crate) kept: Odds,
    pub(crate) snap: Odds,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitDice {
    pub(crate) window: Option<Tight>,
    pub(crate) pulls: Option<Tight>,
    pub(crate) orders: Option<Tight>,
    pub(crate) report_bytes: Option<Tight>,
    pub(crate) body_bytes: Option<Tight>,
}

fn never() -> Share {
    Share::fixed(0.0)
}

fn no_number() -> Dice {
    Dice::fixed(0)
}

fn soon() -> Dice {
    Dice::fixed(5)
}

impl Default for LinksDice {
    fn default() -> LinksDice {
        let (delay_ms, jitter_ms) = (Dice::fixed(1), Dice::fixed(19));
        let wan = LinkDice { delay_ms, jitter_ms, loss: never(), rate_kbit: no_number() };
        let content_kb = no_number();
        LinksDice { wan, lan: None, save_ms: soon(), transfer_ms: soon(), content_kb }
    }
}

impl Default for WorkDice {
    fn default() -> WorkDice {
        WorkDice {
            orders: no_number(),
            early: never(),
            pushes: never(),
            gated: never(),
            cancelled: never(),
            targets: Share::fixed(1.0),
            strangers: never(),
            reach_ms: Dice::fixed(5_000),
            run_hold_s: no_number(),
            push_hold_s: Dice::fixed(30),
            ttl_s: Dice::fixed(3_600),
            short_lived: never(),
            short_ttl_s: Dice::fixed(30),
            takes_ms: Dice::fixed(1_000),
            viewers: never(),
            last_gated: never(),
            rollouts: no_number(),
            given: never(),
            superseded: never(),
            fanout: no_number(),
            events: 0.0,
            schedules: no_number(),
        }
    }
}

impl Default for FaultDice {
    fn default() -> FaultDice {
        let kinds = Vec::new();
        let each = Share::fixed(1.0);
        let (count, clocks, restores) = (no_number(), no_number(), no_number());
        FaultDice { count, kinds, each, lasts_ms: soon(), clocks, restores }
    }
}

/// The plans that the program brings along.
pub const BUILT_IN: [(&str, &str); 6] = [
    ("default", include_str!("../plans/default.toml")),
    ("crashes", include_str!("../plans/crashes.toml")),
    ("delegated", include_str!("../plans/delegated.toml")),
    ("disks", include_str!("../plans/disks.toml")),
    ("outage", include_str!("../plans/outage.toml")),
    ("wan", include_str!("../plans/wan.toml")),
];

/// A file of either kind, read.
#[derive(Clone, Debug)]
pub enum Source {
    /// Each seed draws a plan.
    Scenario {
        /// How it is called on the command line.
        name: String,
        /// What it says.
        scenario: Box<Scenario>,
    },
    /// One run.
    Script {
        /// How it is called on the command line.
        name: String,
        /// The run.
        plan: Box<Plan>,
    },
}

/// Why a plan cannot be used. Nothing has run.
#[derive(Debug, Error)]
pub enum PlanError {
    /// Neither a file nor a plan that the program brings along.
    #[error("there is no plan and no file {0:?}; plans are {names}", names = names())]
    Unknown(String),
    /// The file cannot be read.
    #[error("plan {path} cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML, or has a key or a value that no plan has. With the line.
    #[error("plan {name}: {message}")]
    Syntax {
        /// Which.
        name: String,
        /// What, with the line.
        message: String,
    },
    /// The parts do not fit together.
    #[error("plan {name}: {what}")]
    Wrong {
        /// Which.
        name: String,
        /// What is wrong.
        what: String,
    },
}

fn names() -> String {
    BUILT_IN.map(|(name, _)| name).join(", ")
}

impl Source {
    /// Finds a plan that the program brings along, by its name, or a file.
    pub fn find(name: &str) -> Result<Source, PlanError> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Source::parse(name, text);
        }
        let path = Path::new(name);
        if !path.exists() {
            return Err(PlanError::Unknown(name.to_owned()));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|source| PlanError::Read { path: path.to_owned(), source })?;
        Source::parse(name, &text)
    }

    /// Reads a plan.
    pub fn parse(name: &str, text: &str) -> Result<Source, PlanError> {
        let syntax = |error: toml::de::Error| PlanError::Syntax {
            name: name.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        };
        let table: toml::Table = toml::from_str(text).map_err(syntax)?;
        let name = name.to_owned();
        if table.contains_key("seed") {
            let script: script::Script = toml::from_str(text).map_err(syntax)?;
            let plan = script.plan();
            let plan = plan.map_err(|what| PlanError::Wrong { name: name.clone(), what })?;
            return Ok(Source::Script { name, plan: Box::new(plan) });
        }
        let scenario: Scenario = toml::from_str(text).map_err(syntax)?;
        Ok(Source::Scenario { name, scenario: Box::new(scenario) })
    }

    /// How it is called on the command line.
    pub fn name(&self) -> &str {
        match self {
            Source::Scenario { name, .. } | Source::Script { name, .. } => name,
        }
    }

    /// The plan of a seed. A file that is one run is that run, whatever the seed.
    pub fn plan(&self, seed: u64, options: &Options) -> Plan {
        match self {
            Source::Scenario { scenario, .. } => scenario.draw(seed, options),
            Source::Script { plan, .. } => {
                let mut plan = Plan::clone(plan);
                plan.bug = options.bug.or(plan.bug);
                plan
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "about = \"little\"\n[tree]\nnodes = 3\n[time]\nhorizon_s = 40\n\
        beat_ms = 2000\nflush_ms = 10\nredial_base_ms = 500\nredial_cap_ms = 8000\n\
        redial_settled_ms = 10000\nclimb_ms = 10000\nclimb_cap_ms = 40000\n";

    #[test]
    fn every_plan_that_is_brought_along_can_be_drawn_from() {
        for (name, _) in BUILT_IN {
            let source = Source::find(name).unwrap_or_else(|error| panic!("{error}"));
            for seed in 0..50 {
                let plan = source.plan(seed, &Options::default());
                assert!(plan.tree.len() > 1 && plan.tree[0].parents.is_empty(), "{name} {seed}");
                let ids: std::collections::BTreeSet<_> =
                    plan.work.iter().map(|work| work.order.id).collect();
                assert_eq!(plan.work.len(), ids.len(), "{name} {seed}");
            }
        }
    }

    #[track_caller]
    fn refused(text: &str, parts: &[&str]) {
        let error = Source::parse("mine.toml", text).expect_err("it is refused").to_string();
        for part in parts {
            assert!(error.contains(part), "{error:?} lacks {part:?}");
        }
    }

    #[test]
    fn what_is_misspelt_is_refused_with_its_line() {
        assert!(Source::parse("mine.toml", LEAST).is_ok());
        let with = |line: &str| format!("{LEAST}{line}\n");
        refused(&with("[wrok]\norders = 3"), &["mine.toml", "line 13", "wrok"]);
        refused(&with("[work]\norder = 3"), &["line 14", "order"]);
        refused(&with("[work]\norders = \"5 to 3\""), &["line 14", "ends before"]);
        refused(&with("[work]\norders = \"many\""), &["line 14", "3 to 21"]);
        refused(&with("[work]\norders = -1"), &["line 14", "-1"]);
        refused(&with("[work]\npushes = 1.5"), &["line 14", "0 to 1"]);
        refused(&with("[work]\npushes = []"), &["line 14", "nothing to choose"]);
        refused(&with("[work]\nevents = 2"), &["line 14", "0 to 1"]);
        refused(&with("[work]\nschedules = \"some\""), &["line 14", "3 to 21"]);
        refused(&with("[faults]\nkinds = [\"meteor\"]"), &["line 14", "meteor"]);
        refused("about = \"no tree\"\n", &["tree"]);
        let error = Source::find("no/such").expect_err("there is none").to_string();
        assert!(error.contains("no/such") && error.contains("default"), "{error}");
    }
}
