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
#[path = "../bench/delta.rs"]
mod delta;
#[path = "../bench/fleet.rs"]
mod fleet;
#[path = "../bench/idle.rs"]
mod idle;
#[path = "../bench/links.rs"]
mod links;
#[path = "../bench/machine.rs"]
mod machine;
#[path = "../bench/peers.rs"]
mod peers;
#[path = "../bench/proc.rs"]
mod proc;
#[path = "../bench/push.rs"]
mod push;
#[path = "../bench/run.rs"]
mod run;
#[path = "../bench/sets.rs"]
mod sets;
#[path = "../bench/simulator.rs"]
mod simulator;
#[path = "../bench/table.rs"]
mod table;
#[path = "../bench/tree.rs"]
mod tree;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};

/// Measures Barid. Build the release binary first: cargo build --release -p cli
#[derive(Parser)]
struct Args {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    part: Part,
    /// The old and the new version, for `delta`
    #[arg(value_name = "OLD NEW", num_args = 0..=2)]
    versions: Vec<PathBuf>,
    /// The binary to measure [default: the one beside this one]
    #[arg(long, value_name = "FILE")]
    barid: Option<PathBuf>,
    /// Push this tree instead of the generated one
    #[arg(long, value_name = "DIR")]
    tree: Option<PathBuf>,
    /// Hosts of each fleet of `run`; may be given several times [default: 100 and 300]
    #[arg(long, value_name = "N")]
    hosts: Vec<usize>,
    /// What a process that `delta` starts does
    #[arg(long, hide = true)]
    step: Option<String>,
    /// Where it does it
    #[arg(long, hide = true)]
    work: Option<PathBuf>,
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
    /// Sets of names: folding, expanding, operators
    Sets,
    /// Memory, binary size and traffic at rest
    Idle,
    /// What takes one folder or file to another: bench delta OLD NEW
    Delta,
    /// Congestion controllers and orders on emulated links
    Links,
    /// Everything
    All,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let wants = |part| args.part == part || args.part == Part::All;
    if let (Some(step), Some(work), Some(old)) = (&args.step, &args.work, args.versions.first()) {
        return delta::run_step(work, step, old);
    }
    let work = tempfile::Builder::new().prefix("barid-bench-").tempdir()?;
    machine::print(work.path())?;
    // First, while this process is small: its own memory is what a large run is measured by.
    if wants(Part::Sim) {
        simulator::measure()?;
    }
    if wants(Part::Links) {
        links::measure()?;
    }
    if matches!(args.part, Part::Sim | Part::Links) {
        return Ok(());
    }
    if args.part == Part::Delta {
        let [old, new] = args.versions.as_slice() else { bail!("bench delta OLD NEW") };
        return delta::measure(work.path(), old, new);
    }
    let barid = match &args.barid {
        Some(path) => path.clone(),
        None => tests::binary().context("build it first: cargo build --release -p cli")?,
    };
    // A copy, so that a build in between changes nothing.
    let copy = work.path().join("barid");
    std::fs::copy(&barid, &copy).with_context(|| format!("copying {}", barid.display()))?;
    if wants(Part::Run) {
        let sizes = if args.hosts.is_empty() { vec![100, 300] } else { args.hosts };
        run::measure(&copy, &sizes, args.runs)?;
    }
    if wants(Part::Sets) {
        sets::measure(&copy)?;
    }
    if wants(Part::Push) {
        push::measure(&copy, work.path(), args.tree.as_deref())?;
    }
    if wants(Part::Idle) {
        idle::measure(&copy, work.path())?;
    }
    Ok(())
}
