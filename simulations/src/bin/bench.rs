//! The benchmarks: real processes on loopback, and the simulator, as tables to be pasted into
//! `docs/benchmarks.md`.
//!
//! Each part makes what it needs below the temporary folder, is bounded in time, and leaves no
//! process and no file. Figures from one run may be compared with each other; figures from
//! different machines may not, which is why each table carries its own yardstick: the cost of the
//! same processes without Barid, the size of the same tree under zstd.
//!
//! It measures the release binary that lies beside it and does not build it.

// What cannot be shared with the simulator lives beside it, not in it.
#[path = "../bench/api.rs"]
mod api;
#[path = "../bench/fleet.rs"]
mod fleet;
#[path = "../bench/idle.rs"]
mod idle;
#[path = "../bench/kill.rs"]
mod kill;
#[path = "../bench/machine.rs"]
mod machine;
#[path = "../bench/proc.rs"]
mod proc;
#[path = "../bench/push.rs"]
mod push;
#[path = "../bench/run.rs"]
mod run;
#[path = "../bench/simulator.rs"]
mod simulator;
#[path = "../bench/table.rs"]
mod table;
#[path = "../bench/tree.rs"]
mod tree;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

/// Measures Barid. Build the release binary first: cargo build --release -p cli
#[derive(Parser)]
struct Args {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    part: Part,
    /// The binary to measure [default: the one beside this one]
    #[arg(long, value_name = "FILE")]
    barid: Option<PathBuf>,
    /// Push this tree instead of the generated one
    #[arg(long, value_name = "DIR")]
    tree: Option<PathBuf>,
    /// Hosts of each fleet of `run`; may be given several times [default: 100 and 300]
    #[arg(long, value_name = "N")]
    hosts: Vec<usize>,
    /// Runs of each kind
    #[arg(long, value_name = "N", default_value_t = 50)]
    runs: usize,
}

/// A part of the benchmarks.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Seeds per second of the simulator, and its largest run
    Sim,
    /// `true` on hundreds of hosts
    Run,
    /// A tree of 6,000 files to 20 hosts
    Push,
    /// Memory, binary size and traffic at rest
    Idle,
    /// Everything above
    All,
    /// No measurement but a trial: rounds of kill -9 during runs, as many as --runs
    Kill,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let wants = |part| args.part == part || args.part == Part::All;
    let work = tempfile::Builder::new().prefix("barid-bench-").tempdir()?;
    machine::print(work.path())?;
    // First, while this process is small: its own memory is what a large run is measured by.
    if wants(Part::Sim) {
        simulator::measure()?;
    }
    if args.part == Part::Sim {
        return Ok(());
    }
    let barid = match &args.barid {
        Some(path) => path.clone(),
        None => tests::binary().context("build it first: cargo build --release -p cli")?,
    };
    // A copy, so that a build in between changes nothing.
    let copy = work.path().join("barid");
    std::fs::copy(&barid, &copy).with_context(|| format!("copying {}", barid.display()))?;
    if args.part == Part::Kill {
        let hosts = args.hosts.first().copied().unwrap_or(30);
        return kill::trial(&copy, hosts, args.runs);
    }
    if wants(Part::Run) {
        let sizes = if args.hosts.is_empty() { vec![100, 300] } else { args.hosts };
        run::measure(&copy, &sizes, args.runs)?;
    }
    if wants(Part::Push) {
        push::measure(&copy, work.path(), args.tree.as_deref())?;
    }
    if wants(Part::Idle) {
        idle::measure(&copy, work.path())?;
    }
    Ok(())
}
