//! The seeds of every test run, and the proof that they would find something.

use mesh::sabotage::Bug;
use simulations::fleet::Shape;
use simulations::scenario::BUILT_IN;
use simulations::script::Script;
use simulations::shrink::shrink;
use simulations::trace::Sink;
use simulations::{Coverage, Failure, Options, Source, fleet, model, play, run, scale};

/// How many seeds of the default plan a test run plays; more with `BARID_SEEDS`.
const SEEDS: u64 = 2_000;
/// How many of each other plan; a run of thirty days costs more.
const FEWER: u64 = 250;
const OUTAGES: u64 = 40;
/// Within how many seeds a planted bug must be found.
const BUG_SEEDS: u64 = 2_000;

fn seeds() -> u64 {
    match std::env::var("BARID_SEEDS") {
        Ok(text) => text.parse().expect("BARID_SEEDS is a number"),
        Err(_) => SEEDS,
    }
}

fn plan(name: &str) -> Source {
    Source::find(name).unwrap_or_else(|error| panic!("{error}"))
}

fn find(bug: Bug) -> Option<Box<Failure>> {
    let options = Options { bug: Some(bug), nodes: None };
    // What takes a relay's own orders and more besides is rare in the plan of everything, and so is
    // a message of the bus that comes by two ways.
    ["default", "delegated", "wan"].map(plan).iter().find_map(|source| {
        (0..BUG_SEEDS).find_map(|seed| run(source, seed, &options, Sink::Hash).err())
    })
}

#[test]
fn every_promise_holds() {
    let (mut deaths, mut previews, mut coverage) = (0, 0, Coverage::default());
    let source = plan("default");
    for seed in 0..seeds() {
        match run(&source, seed, &Options::default(), Sink::Hash) {
            Ok(played) => {
                deaths += played.stats.deaths;
                previews += played.stats.previews;
                coverage.add(&played.coverage);
            }
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(deaths > 0, "the weather was too fine to prove anything");
    // Each host of each seed is heard at least in the last order.
    assert!(previews > seeds(), "nobody looked on");
    println!("{coverage}");
    if seeds() >= SEEDS {
        assert_eq!((coverage.unused(), coverage.missing()), (vec![], vec![]));
    }
}

#[test]
fn they_hold_in_every_other_plan() {
    for (name, _) in BUILT_IN.into_iter().filter(|(name, _)| *name != "default") {
        let (source, share) = (plan(name), seeds() as f64 / SEEDS as f64);
        let seeds = if name == "outage" { OUTAGES } else { FEWER };
        for seed in 0..(seeds as f64 * share) as u64 {
            if let Err(failure) = run(&source, seed, &Options::default(), Sink::Hash) {
                panic!("{failure}");
            }
        }
    }
}

#[test]
fn every_planted_bug_is_found() {
    assert!(Bug::ALL.len() >= 25);
    for bug in Bug::ALL {
        match find(bug) {
            Some(failure) => println!("{bug:?}: {}", failure.to_string().replace('\n', "\n  ")),
            None => panic!("{bug:?} lives through {BUG_SEEDS} seeds"),
        }
    }
}

#[test]
fn a_seed_is_a_run() {
    for seed in 0..20 {
        let source = plan("default");
        let lines = || {
            let sink = Sink::Keep(String::new());
            let played = run(&source, seed, &Options::default(), sink).expect("the seed passes");
            match played.trace.sink {
                Sink::Keep(lines) => (played.stats, lines),
                _ => unreachable!("the lines were to be kept"),
            }
        };
        let (first, second) = (lines(), lines());
        assert!(first == second, "seed {seed} was two different runs");
        // Whether somebody reads along changes nothing.
        let quiet = run(&source, seed, &Options::default(), Sink::Hash).expect("it passes");
        assert_eq!(quiet.stats, first.0);
    }
}

#[test]
fn a_failure_names_its_replay() {
    let source = plan("default");
    let options = Options { bug: Some(Bug::StartBeforeIntent), nodes: Some(5) };
    let found = (0..BUG_SEEDS)
        .find_map(|seed| Some((seed, run(&source, seed, &options, Sink::Hash).err()?)));
    let (seed, failure) = found.expect("the bug is found");
    let command =
        format!("barid sim default --seed {seed} --nodes 5 --bug StartBeforeIntent --trace");
    assert!(failure.to_string().ends_with(&command), "{failure}");
    let again = run(&source, seed, &options, Sink::Hash).err().expect("it fails again");
    assert_eq!(again.to_string(), failure.to_string());
}

#[test]
fn a_failure_becomes_small_and_stays_the_same() {
    for bug in [Bug::ForgetIntents, Bug::StartCancelled, Bug::BeatOnBehalf] {
        let failure = find(bug).expect("the bug is found");
        let (check, before) = (failure.violation.check, failure.plan.clone());
        let shrunk = shrink(failure, 2_000);
        let after = shrunk.failure.plan;
        let events = after.work.len() + after.faults.len();
        let sizes = (before.tree.len(), before.work.len(), before.faults.len());
        println!("{bug:?}: {sizes:?} becomes {} nodes, {events} events", after.tree.len());
        assert!(after.tree.len() <= before.tree.len() && events <= 5, "{events} events are left");
        // What is written down fails as it did, and without the bug it does not.
        let text = Script::of(&after).text();
        let read = Source::parse("it", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let mut plan = read.plan(0, &Options::default());
        let again = play(plan.clone(), Sink::Hash).err().expect("it fails again");
        assert_eq!(again.violation, shrunk.failure.violation);
        assert_eq!(again.violation.check, check);
        plan.bug = None;
        assert!(play(plan, Sink::Hash).is_ok(), "it is not the bug that fails:\n{text}");
    }
}

#[test]
fn a_thousand_hosts_answer() {
    let found = scale::scale(1, 10, 990).unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(found.stats.nodes, 1001);
    assert_eq!(found.stats.starts, 1000);
}

#[test]
fn the_model_says_what_the_simulator_does() {
    let near = |what: &str, model: f64, played: f64, most: f64| {
        let ratio = model / played;
        println!("{what}: model {model:.3}, simulator {played:.3}, ratio {ratio:.3}");
        assert!((1.0 / most..most).contains(&ratio), "{what}: {model} is not {played}");
    };
    for fans in [vec![5, 6, 40], vec![4, 4, 100]] {
        let shape = Shape::far(fans, 1_000_000);
        let played = fleet::measure(1, &shape).unwrap_or_else(|violation| panic!("{violation}"));
        let phases = [
            ("alike", model::run(&shape, false), &played.alike),
            ("mixed", model::run(&shape, true), &played.mixed),
            ("push", model::push(&shape), &played.push),
            ("rest", model::rest(&shape), &played.rest),
            ("storm", model::storm(&shape), &played.storm),
        ];
        for (what, model, played) in phases {
            near(what, model.last.as_secs_f64(), played.last.as_secs_f64(), 1.05);
            for (model, played) in model.tiers.iter().zip(&played.tiers) {
                near(what, model.up.0 as f64, played.up.0 as f64, 1.25);
                near(what, model.down.0 as f64, played.down.0 as f64, 1.25);
                near(what, model.up.1 as f64, played.up.1 as f64, 1.25);
                assert_eq!(model.content, played.content, "{what}: each link carries it once");
            }
        }
    }
}
