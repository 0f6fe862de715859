//! A run once more, for those hosts of it that ended in certain states.
//!
//! It is a new order with the same words and its own id: a host that runs it has begun it once, as
//! any other order.

use std::collections::BTreeSet;

use mesh::{HostSet, State, Tally};

use crate::fault::Failure;
use crate::tables::OrderRow;
use crate::types::{NewRetry, NewRun};

/// The words for states by which hosts are chosen, and what they stand for.
const WORDS: &str = "failed, missed, timeout, skipped, cancelled, all, or a state such as \
                     not-reached";

/// What to run once more, and where.
pub(crate) fn again(
    row: &OrderRow,
    tally: &Tally,
    new: &NewRetry,
) -> Result<(NewRun, HostSet), Failure> {
    let Some(run) = &row.run else {
        let message = format!("a {} cannot be given again by its id", row.kind);
        return Err(Failure::conflict(message, "give it anew, with the targets that it needs"));
    };
    let states: BTreeSet<&str> = new.states.iter().map(String::as_str).collect();
    if let Some(word) = states.iter().find(|word| !is_word(word)) {
        return Err(Failure::bad(format!("{word:?} is no state"), WORDS));
    }
    let mut targets = HostSet::new();
    for (outcome, hosts) in tally.lines() {
        if states.iter().any(|word| means(word, outcome.state)) {
            targets = targets.union(&hosts.intersection(&row.targets()));
        }
    }
    if targets.is_empty() {
        let message = format!("no host of the run has ended as {}", join(&states));
        return Err(Failure::conflict(message, "`barid runs show` tells how they ended"));
    }
    let mut run = NewRun::clone(run);
    run.reach_ms = new.reach_ms.unwrap_or(run.reach_ms);
    run.timeout_ms = new.timeout_ms.unwrap_or(run.timeout_ms);
    Ok((run, targets))
}

fn join(states: &BTreeSet<&str>) -> String {
    states.iter().copied().collect::<Vec<_>>().join(" or ")
}

fn is_word(word: &str) -> bool {
    let groups = ["failed", "missed", "timeout", "skipped", "cancelled", "all"];
    let states = [
        "timed-out",
        "interrupted",
        "not-reached",
        "relay-lost",
        "expired",
        "refused",
        "signalled",
        "pending",
    ];
    groups.contains(&word) || states.contains(&word)
}

/// Whether a word takes in hosts that ended so.
fn means(word: &str, state: State) -> bool {
    match word {
        "all" => state != State::Ok,
        "failed" => matches!(state, State::Failed(_) | State::Signalled(_) | State::Refused),
        "missed" => state.is_missed(),
        "timeout" => state == State::TimedOut,
        word => crate::answers::word(state) == word,
    }
}

#[cfg(test)]
mod tests {
    use mesh::Outcome;

    use super::*;

    fn row(run: Option<NewRun>) -> OrderRow {
        OrderRow {
            kind: "run".into(),
            what: "x".into(),
            targets: vec![(1, 9)],
            run: run.map(Box::new),
            ..OrderRow::default()
        }
    }

    fn tally() -> Tally {
        let one = |n| HostSet::from_ranges([(n, n)]);
        [
            (State::Ok, 1),
            (State::Failed(2), 2),
            (State::TimedOut, 3),
            (State::NotReached, 4),
            (State::Interrupted, 5),
            (State::Skipped, 6),
            (State::Signalled(9), 7),
        ]
        .into_iter()
        .map(|(state, n)| (Outcome::bare(state), one(n)))
        .collect()
    }

    fn run() -> NewRun {
        serde_json::from_str(
            r#"{"targets":{},"argv":["x"],"reach_ms":1,"timeout_ms":1,"output_limit":1}"#,
        )
        .expect("it is valid")
    }

    fn of(states: &[&str]) -> NewRetry {
        let states = states.iter().map(|s| (*s).to_owned()).collect();
        NewRetry { states, reach_ms: None, timeout_ms: None }
    }

    #[test]
    fn times_are_those_of_the_run_unless_others_are_given() {
        let row = row(Some(run()));
        let times = |new: &NewRetry| {
            let (run, _) = again(&row, &tally(), new).expect("there are some");
            (run.reach_ms, run.timeout_ms)
        };
        let new = of(&["timeout"]);
        assert_eq!(times(&new), (1, 1));
        assert_eq!(times(&NewRetry { timeout_ms: Some(9), ..new.clone() }), (1, 9));
        assert_eq!(times(&NewRetry { reach_ms: Some(7), ..new }), (7, 1));
    }

    #[test]
    fn states_choose_hosts() {
        let row = row(Some(run()));
        let check = |states: &[&str], expected: &[(u32, u32)]| {
            let (_, targets) = again(&row, &tally(), &of(states)).expect("there are some");
            assert_eq!(targets.ranges(), expected, "{states:?}");
        };
        check(&["failed"], &[(2, 2), (7, 7)]);
        check(&["missed"], &[(3, 5)]);
        check(&["timeout"], &[(3, 3)]);
        check(&["all"], &[(2, 7)]);
        check(&["not-reached", "skipped"], &[(4, 4), (6, 6)]);
        let none = again(&row, &tally(), &of(&["cancelled"])).expect_err("nobody is");
        assert_eq!(none.status, 409);
        assert_eq!(again(&row, &tally(), &of(&["late"])).expect_err("no word").status, 400);
    }

    #[test]
    fn only_runs_are_given_again() {
        let error = again(&row(None), &tally(), &of(&["failed"])).expect_err("a push");
        assert!(error.error.message.contains("cannot be given again"));
    }
}
