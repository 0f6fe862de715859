//! Alerts are true, over many seeds of faults.

use std::thread::{available_parallelism, scope};

use simulations::alerting::{Faults, Planted, Told, run};

/// How many seeds a test run plays; other ones with `BARID_SEEDS`.
const SEEDS: u64 = 2_000;

/// Plays a part of the seeds: every `step`th from the first on.
fn played(first: u64, seeds: u64, step: u64) -> Told {
    let mut sum = Told::default();
    for seed in (first..seeds).step_by(step as usize) {
        let told = run(seed, Planted::Nothing);
        add(&mut sum, told.unwrap_or_else(|violation| panic!("seed {seed}: {violation}")));
    }
    sum
}

fn add(sum: &mut Told, told: Told) {
    let Told { faults, root, nodes, causes } = told;
    let Faults { root: roots, relays, hosts, links, again } = faults;
    sum.root += root;
    sum.nodes += nodes;
    sum.causes += causes;
    sum.faults.root += roots;
    sum.faults.relays += relays;
    sum.faults.hosts += hosts;
    sum.faults.links += links;
    sum.faults.again += again;
}

#[test]
fn alerts_are_the_causes_within_the_time() {
    let seeds = std::env::var("BARID_SEEDS").map_or(SEEDS, |text| text.parse().expect("a number"));
    let threads = available_parallelism().map_or(1, |threads| threads.get() as u64);
    let mut sum = Told::default();
    scope(|scope| {
        let parts: Vec<_> =
            (0..threads).map(|first| scope.spawn(move || played(first, seeds, threads))).collect();
        // What a thread has panicked with names the seed.
        parts.into_iter().for_each(|part| add(&mut sum, part.join().expect("all seeds pass")));
    });
    println!("{seeds} seeds: {sum:?}");
    assert!(sum.causes > seeds / 4 && sum.nodes > seeds / 4, "too fine to prove anything: {sum:?}");
    let Faults { root, relays, hosts, links, again } = sum.faults;
    for faults in [root, relays, hosts, links, again] {
        assert!(faults > seeds / 8, "too little of something: {sum:?}");
    }
    // A cause that ends soon may be told and counts as none here.
    assert!(sum.root < 2 * sum.causes, "a storm: {sum:?}");
}

#[test]
fn rules_that_are_wrong_are_found_out() {
    for (planted, what) in
        [(Planted::Blind, "lost/1 is not an alert"), (Planted::Storm, "is an alert and not so")]
    {
        let found = (0..200).find_map(|seed| run(seed, planted).err());
        let found = found.unwrap_or_else(|| panic!("nothing is wrong with {planted:?}"));
        assert!(found.to_string().contains(what), "{planted:?}: {found}");
    }
}
