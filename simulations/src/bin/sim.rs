//! The simulator's command: `barid sim` runs it.
//!
//! It plays the seeds of a plan, or one with its trace, with or without a planted bug; makes a
//! failure as small as it can and leaves it as a file; and counts what faults have struck.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use mesh::sabotage::Bug;
use simulations::scenario::BUILT_IN;
use simulations::script::{Script, named};
use simulations::shrink::shrink;
use simulations::trace::Sink;
use simulations::{Coverage, Failure, Options, Source, run, scale};

/// How many plans are played to make a failure small.
const SHRINK: u32 = 4_000;

const EXAMPLES: &str = "\
Examples:
  barid sim                               500 seeds of the default plan
  barid sim outage --seeds 1..101         100 seeds of another one
  barid sim --seed 17 --trace             one seed, a line for each step
  barid sim mine.toml --coverage          which fault struck whom in which state
  barid sim --bug ForgetIntents           a planted bug: found, and made small

Exit codes: 0 every promise held, 1 one was broken, 2 usage or a plan that cannot be read";

/// Play the real core of the mesh through bad weather, in virtual time, and check its promises.
#[derive(Parser)]
#[command(name = "barid sim", bin_name = "barid sim", after_help = EXAMPLES)]
struct Args {
    /// A plan: a file, or one that the program brings along (see --list)
    #[arg(default_value = "default")]
    plan: String,
    /// Seeds to play, as FIRST..LAST (LAST is not played)
    #[arg(long, value_parser = seeds, default_value = "0..500", value_name = "A..B")]
    seeds: Range<u64>,
    /// One seed instead
    #[arg(long, conflicts_with = "seeds", value_name = "N")]
    seed: Option<u64>,
    /// Print a line for each step; docs/simulator.md says how to read it
    #[arg(long)]
    trace: bool,
    /// Print which fault has struck nodes in which state, how often
    #[arg(long)]
    coverage: bool,
    /// Do not look for the smallest plan that fails
    #[arg(long)]
    no_shrink: bool,
    /// Count failures by their check instead of stopping at the first
    #[arg(long)]
    survey: bool,
    /// Plant a bug in the core; then the run should fail
    #[arg(long, value_parser = named, value_name = "NAME")]
    bug: Option<Bug>,
    /// How many nodes each tree has, instead of a drawn number
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// List the plans that the program brings along
    #[arg(long)]
    list: bool,
    /// Link this many nodes (a root, relays, hosts) and run one order over all
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "10000")]
    scale: Option<usize>,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (first, last) = text.split_once("..").ok_or("write FIRST..LAST")?;
    let number = |text: &str| text.parse::<u64>().map_err(|err| format!("{text:?}: {err}"));
    let range = number(first)?..number(last)?;
    match range.is_empty() {
        true => Err(format!("there is no seed in {text}; LAST is not played")),
        false => Ok(range),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut out = io::stdout();
    if args.list {
        return list(&mut out);
    }
    if let Some(nodes) = args.scale {
        return ended(grow(nodes, &mut out));
    }
    let source = match Source::find(&args.plan) {
        Ok(source) => source,
        Err(error) => {
            eprintln!("barid sim: {}", chain(&error));
            return ExitCode::from(2);
        }
    };
    ended(play(&source, &args, &mut out))
}

/// Nobody who does not read any more is told how it went.
fn ended(told: io::Result<bool>) -> ExitCode {
    match told {
        Ok(true) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn list(out: &mut impl Write) -> ExitCode {
    for (name, _) in BUILT_IN {
        let about = match Source::find(name) {
            Ok(Source::Scenario { scenario, .. }) => scenario.about.clone(),
            _ => String::new(),
        };
        let _ = writeln!(out, "{name:<9} {about}");
    }
    ExitCode::SUCCESS
}

fn grow(nodes: usize, out: &mut impl Write) -> io::Result<bool> {
    let relays = 100.min(nodes / 3).max(1);
    let hosts = nodes.saturating_sub(relays + 1).max(1);
    match scale::scale(1, relays, hosts) {
        Ok(found) => {
            writeln!(out, "{} nodes: 1 root, {relays} relays, {hosts} hosts", found.stats.nodes)?;
            writeln!(out, "all linked after    {:>8.2?} virtual", found.linked)?;
            writeln!(out, "all answered after  {:>8.2?} virtual", found.answered)?;
            writeln!(out, "frames              {:>8}", found.stats.frames)?;
            writeln!(out, "of them not beats   {:>8}", found.stats.talk)?;
            writeln!(out, "steps               {:>8}", found.stats.steps)?;
            writeln!(out, "real time           {:>8.2?}", found.real)?;
            if let Some(kib) = found.memory_kib {
                writeln!(out, "memory              {:>6} MiB", kib >> 10)?;
            }
            Ok(true)
        }
        Err(violation) => {
            writeln!(out, "{violation}")?;
            Ok(false)
        }
    }
}

/// What all seeds have cost together.
#[derive(Default)]
struct Sum {
    seeds: u64,
    steps: u64,
    deaths: u64,
    links: u64,
    starts: u64,
    time: Duration,
    coverage: Coverage,
    failures: BTreeMap<&'static str, (u64, u64)>,
}

fn play(source: &Source, args: &Args, out: &mut impl Write) -> io::Result<bool> {
    let options = Options { nodes: args.nodes, bug: args.bug };
    let seeds = match source {
        Source::Script { plan, .. } => plan.seed..plan.seed + 1,
        Source::Scenario { .. } => args.seed.map_or(args.seeds.clone(), |seed| seed..seed + 1),
    };
    let alone = seeds.end - seeds.start == 1;
    let (begun, mut sum) = (Instant::now(), Sum::default());
    for seed in seeds {
        let sink = if args.trace && alone { Sink::Print } else { Sink::Hash };
        let stats = match run(source, seed, &options, sink) {
            Ok(played) => {
                sum.coverage.add(&played.coverage);
                played.stats
            }
            Err(failure) if args.survey => {
                let check = failure.violation.check;
                sum.failures.entry(check).or_insert((0, seed)).0 += 1;
                failure.stats
            }
            Err(failure) => {
                writeln!(out, "{failure}")?;
                if !args.trace && !args.no_shrink {
                    make_small(source, failure, out)?;
                }
                return Ok(false);
            }
        };
        sum.seeds += 1;
        (sum.steps, sum.deaths) = (sum.steps + stats.steps, sum.deaths + stats.deaths);
        (sum.links, sum.starts) = (sum.links + stats.links, sum.starts + stats.starts);
        sum.time += stats.virtual_time;
    }
    sum.write(begun.elapsed(), out)?;
    if args.coverage {
        writeln!(out, "\n{}", sum.coverage)?;
        for cell in sum.coverage.missing() {
            writeln!(out, "never: {cell}")?;
        }
    }
    out.flush()?;
    Ok(sum.failures.is_empty())
}

impl Sum {
    fn write(&self, real: Duration, out: &mut impl Write) -> io::Result<()> {
        let Sum { seeds, steps, links, deaths, starts, .. } = self;
        let (hours, real) = (self.time.as_secs() / 3600, real.as_secs_f64());
        let rate = *seeds as f64 / real.max(f64::EPSILON);
        writeln!(out, "{seeds} seeds in {real:.1} s, {rate:.0} a second, {hours} h virtual")?;
        writeln!(out, "{steps} steps, {links} links, {deaths} deaths, {starts} starts")?;
        for (check, (count, first)) in &self.failures {
            writeln!(out, "{count:>6} x [{check}], first seed {first}")?;
        }
        Ok(())
    }
}

/// Leaves the smallest plan that still fails as a file, and prints it.
fn make_small(source: &Source, failure: Box<Failure>, out: &mut impl Write) -> io::Result<()> {
    let (seed, from) = (failure.plan.seed, source.name().to_owned());
    let shrunk = shrink(failure, SHRINK);
    let stem = std::path::Path::new(&from).file_stem().unwrap_or_default().to_string_lossy();
    let file = format!("sim-{stem}-{seed}.toml");
    let plan = &shrunk.failure.plan;
    let text = format!(
        "# Left of seed {seed} of {from}: {}\n# barid sim {file} --trace\n{}",
        shrunk.failure.violation,
        Script::of(plan).text()
    );
    let (nodes, orders, faults) = (plan.tree.len(), plan.work.len(), plan.faults.len());
    write!(out, "\nsmallest after {} plays: {nodes} nodes, {orders} orders", shrunk.played)?;
    writeln!(out, ", {faults} faults: {}\n", shrunk.failure.violation)?;
    writeln!(out, "{text}")?;
    match std::fs::write(&file, &text) {
        Ok(()) => writeln!(out, "replay: barid sim {file} --trace"),
        Err(error) => writeln!(out, "{file} cannot be written: {error}"),
    }
}
