//! Alerts are true, over many seeds of faults.

use simulations::alerting::{Told, run};

/// How many seeds a test run plays; more with `BARID_SEEDS`.
const SEEDS: u64 = 300;

#[test]
fn alerts_are_the_causes_within_the_time() {
    let seeds = std::env::var("BARID_SEEDS").map_or(SEEDS, |text| text.parse().expect("a number"));
    let mut sum = Told::default();
    for seed in 0..seeds {
        match run(seed) {
            Ok(told) => {
                sum.root += told.root;
                sum.nodes += told.nodes;
                sum.causes += told.causes;
            }
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }
    println!("{seeds} seeds: {sum:?}");
    assert!(sum.causes > seeds / 4 && sum.nodes > seeds / 4, "too fine to prove anything: {sum:?}");
    // A cause that ends soon may be told and counts as none here.
    assert!(sum.root < 2 * sum.causes, "a storm: {sum:?}");
}
