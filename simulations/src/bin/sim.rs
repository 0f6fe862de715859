//! The simulator's command: seeds, one seed with its trace, a planted bug, size and speed.

use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use mesh::sabotage::Bug;
use simulations::trace::Sink;
use simulations::{Options, run, scale};

/// Plays seeds of the mesh simulator. Exits with 1 at the first broken promise.
#[derive(Parser)]
struct Args {
    /// Seeds to play, as FIRST..LAST (LAST is not played).
    #[arg(long, value_parser = seeds, default_value = "0..500", value_name = "A..B")]
    seeds: Range<u64>,
    /// One seed instead.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Print one line a step.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Plant a bug; then the run should fail.
    #[arg(long, value_parser = bug, value_name = "NAME")]
    bug: Option<Bug>,
    /// How many nodes each tree has, instead of a drawn number.
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Count failures by their check instead of stopping at the first.
    #[arg(long)]
    survey: bool,
    /// Link this many nodes (and their 100 relays and root) and run one order over all.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "10000")]
    scale: Option<usize>,
    /// Print seeds per second and the largest run.
    #[arg(long)]
    bench: bool,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (first, last) = text.split_once("..").ok_or("write FIRST..LAST")?;
    let number = |text: &str| text.parse::<u64>().map_err(|err| format!("{text:?}: {err}"));
    Ok(number(first)?..number(last)?)
}

fn bug(name: &str) -> Result<Bug, String> {
    let names: Vec<_> = Bug::ALL.iter().map(|bug| format!("{bug:?}")).collect();
    let found = names.iter().position(|known| known == name);
    found.map(|n| Bug::ALL[n]).ok_or_else(|| format!("known are {}", names.join(", ")))
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut out = std::io::stdout();
    let told = match args.scale {
        Some(nodes) => grow(nodes, &mut out),
        None => play(&args, &mut out),
    };
    match told {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Nobody reads any more; the run is over.
        Err(_) => ExitCode::FAILURE,
    }
}

fn grow(nodes: usize, out: &mut impl std::io::Write) -> std::io::Result<bool> {
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

fn play(args: &Args, out: &mut impl std::io::Write) -> std::io::Result<bool> {
    let options = Options { nodes: args.nodes, bug: args.bug };
    let seeds = args.seed.map_or(args.seeds.clone(), |seed| seed..seed + 1);
    let (begun, count) = (Instant::now(), seeds.end.saturating_sub(seeds.start));
    let (mut steps, mut deaths, mut links, mut starts) = (0, 0, 0, 0);
    let (mut largest, mut time) = (0, std::time::Duration::ZERO);
    let mut failures = std::collections::BTreeMap::<&str, (u64, u64)>::new();
    for seed in seeds {
        let sink = if args.trace { Sink::Print } else { Sink::Hash };
        let stats = match run(seed, &options, sink) {
            Ok((stats, _)) => stats,
            Err(failure) if args.survey => {
                failures.entry(failure.violation.check).or_insert((0, seed)).0 += 1;
                failure.stats
            }
            Err(failure) => {
                writeln!(out, "{failure}")?;
                return Ok(false);
            }
        };
        (steps, deaths) = (steps + stats.steps, deaths + stats.deaths);
        (links, starts) = (links + stats.links, starts + stats.starts);
        largest = largest.max(stats.nodes);
        time += stats.virtual_time;
    }
    let real = begun.elapsed().as_secs_f64();
    let rate = count as f64 / real.max(f64::EPSILON);
    writeln!(out, "{count} seeds in {real:.1} s, {:.0} h virtual", time.as_secs_f64() / 3600.0)?;
    writeln!(out, "{steps} steps, {links} links, {deaths} deaths, {starts} starts")?;
    if args.bench {
        writeln!(out, "{rate:.1} seeds a second, {largest} nodes in the largest run")?;
    }
    for (check, (count, first)) in &failures {
        writeln!(out, "{count:>6} x [{check}], first seed {first}")?;
    }
    out.flush()?;
    Ok(failures.is_empty())
}
