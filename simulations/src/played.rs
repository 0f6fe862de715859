//! A run from its plan to its end: what it has cost and seen, or which promise was broken.

use std::fmt;
use std::time::Duration;

use crate::checks::Violation;
use crate::coverage::Coverage;
use crate::plan::{Options, Plan};
use crate::scenario::Source;
use crate::sim::Sim;
use crate::trace::{Sink, Trace};

/// What a run has cost and seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// How many nodes there were.
    pub nodes: usize,
    /// Inputs and timeouts that nodes have handled.
    pub steps: u64,
    /// Frames sent, beats included.
    pub frames: u64,
    /// Frames sent that were not beats.
    pub talk: u64,
    /// Commands started.
    pub starts: u64,
    /// Processes that died.
    pub deaths: u64,
    /// Links that stood.
    pub links: u64,
    /// Orders that the root took.
    pub orders: u64,
    /// Words of running commands that reached the root's viewers.
    pub previews: u64,
    /// Messages of the bus that reached programs.
    pub messages: u64,
    /// How much virtual time has passed.
    pub virtual_time: Duration,
    /// The hash of the trace.
    pub hash: u64,
}

/// A run that kept every promise.
pub struct Played {
    /// What it has cost and seen.
    pub stats: Stats,
    /// Its trace.
    pub trace: Trace,
    /// Which faults have struck whom.
    pub coverage: Coverage,
}

/// A run that broke a promise.
#[derive(Debug)]
pub struct Failure {
    /// What was broken.
    pub violation: Violation,
    /// The plan that was played.
    pub plan: Plan,
    /// The command that plays it again, if it came from one.
    pub replay: String,
    /// When, in virtual time.
    pub at: Duration,
    /// What the run was like so far.
    pub stats: Stats,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { violation, plan, replay, at, .. } = self;
        writeln!(f, "seed {}: {violation}, at {:.4} s", plan.seed, at.as_secs_f64())?;
        write!(f, "replay: {replay}")
    }
}

impl std::error::Error for Failure {}

/// Plays one seed: faults, healing, convergence, and a last order over a healthy tree.
pub fn run(
    source: &Source,
    seed: u64,
    options: &Options,
    sink: Sink,
) -> Result<Played, Box<Failure>> {
    play(source.plan(seed, options), sink).map_err(|mut failure| {
        failure.replay = format!("barid sim {}", source.name());
        if let Source::Scenario { .. } = source {
            failure.replay += &format!(" --seed {seed}");
        }
        if let Some(nodes) = options.nodes {
            failure.replay += &format!(" --nodes {nodes}");
        }
        if let Some(bug) = options.bug {
            failure.replay += &format!(" --bug {bug:?}");
        }
        failure.replay += " --trace";
        failure
    })
}

/// Plays one plan.
pub fn play(plan: Plan, sink: Sink) -> Result<Played, Box<Failure>> {
    let mut sim = Sim::new(plan.clone(), sink);
    let played = sim.play();
    let (at, stats) = (sim.now, sim.stats());
    match played {
        Ok(()) => Ok(Played { stats, trace: sim.trace, coverage: sim.coverage }),
        Err(violation) => {
            Err(Box::new(Failure { violation, plan, replay: String::new(), at, stats }))
        }
    }
}
