//! The seeds of every test run, and the proof that they would find something.

use mesh::sabotage::Bug;
use simulations::trace::Sink;
use simulations::{Options, run, scale};

/// How many seeds a test run plays; more with `BARID_SEEDS`.
const SEEDS: u64 = 2_000;
/// Within how many seeds a planted bug must be found.
const BUG_SEEDS: u64 = 1_000;

fn seeds() -> u64 {
    match std::env::var("BARID_SEEDS") {
        Ok(text) => text.parse().expect("BARID_SEEDS is a number"),
        Err(_) => SEEDS,
    }
}

#[test]
fn every_promise_holds() {
    let (mut deaths, mut previews) = (0, 0);
    for seed in 0..seeds() {
        match run(seed, &Options::default(), Sink::Hash) {
            Ok((stats, _)) => {
                deaths += stats.deaths;
                previews += stats.previews;
            }
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(deaths > 0, "the weather was too fine to prove anything");
    // Each host of each seed is heard at least in the last order.
    assert!(previews > seeds(), "nobody looked on");
}

#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        let options = Options { bug: Some(bug), nodes: None };
        let found = (0..BUG_SEEDS).find_map(|seed| run(seed, &options, Sink::Hash).err());
        match found {
            Some(failure) => println!("{bug:?}: {}", failure.to_string().replace('\n', "\n  ")),
            None => panic!("{bug:?} lives through {BUG_SEEDS} seeds"),
        }
    }
}

#[test]
fn a_seed_is_a_run() {
    for seed in 0..20 {
        let lines = || {
            let played = run(seed, &Options::default(), Sink::Keep(String::new()));
            let (stats, trace) = played.expect("the seed passes");
            match trace.sink {
                Sink::Keep(lines) => (stats, lines),
                _ => unreachable!("the lines were to be kept"),
            }
        };
        let (first, second) = (lines(), lines());
        assert!(first == second, "seed {seed} was two different runs");
        // Whether somebody reads along changes nothing.
        let quiet = run(seed, &Options::default(), Sink::Hash).expect("the seed passes").0;
        assert_eq!(quiet, first.0);
    }
}

#[test]
fn a_failure_names_its_replay() {
    let options = Options { bug: Some(Bug::StartBeforeIntent), nodes: Some(5) };
    let found =
        (0..BUG_SEEDS).find_map(|seed| Some((seed, run(seed, &options, Sink::Hash).err()?)));
    let (seed, failure) = found.expect("the bug is found");
    let command = format!("--seed {seed} --trace --nodes 5 --bug StartBeforeIntent");
    assert!(failure.to_string().ends_with(&command), "{failure}");
    let again = run(seed, &options, Sink::Hash).err().expect("it fails again");
    assert_eq!(again.to_string(), failure.to_string());
}

#[test]
fn a_thousand_hosts_answer() {
    let found = scale::scale(1, 10, 990).unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(found.stats.nodes, 1001);
    assert_eq!(found.stats.starts, 1000);
}
