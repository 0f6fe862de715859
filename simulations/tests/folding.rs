//! A hundred thousand events a second of fifty kinds: ten records a second at most, and the count
//! is exact.

use simulations::folding::{SIGNATURES, Storm, storm};

#[track_caller]
fn check(storm: Storm) -> Storm {
    println!("{storm:?}");
    assert!(storm.raw >= 100_000 * storm.seconds, "no storm: {storm:?}");
    assert_eq!(storm.counted, storm.raw, "{storm:?}");
    for records in storm.records {
        assert!(records <= 10 * storm.seconds, "{storm:?}");
        assert!(records >= u64::from(SIGNATURES), "each is told at least once: {storm:?}");
    }
    storm
}

#[test]
fn a_storm_is_a_few_records_a_second_and_counted_exactly() {
    let storm = check(storm(false).unwrap_or_else(|violation| panic!("{violation}")));
    assert_eq!(storm.moved, 0);
}

#[test]
fn also_when_hosts_move_to_another_relay_in_the_middle_of_it() {
    let storm = check(storm(true).unwrap_or_else(|violation| panic!("{violation}")));
    // Half of the hundred hosts were below the relay that dies.
    assert!(storm.moved >= 40, "{storm:?}");
}
