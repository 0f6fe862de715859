//! Exit codes: one table for every verb.
//!
//! | code | |
//! |---|---|
//! | 0 | every target ok, or nothing to do |
//! | 1 | a target failed (a code, a signal, a refusal), or the request itself failed |
//! | 2 | usage or configuration is wrong; nothing was started |
//! | 3 | nobody failed, but some were missed: not reached, timed out, expired, interrupted |
//! | 4 | stopped by a budget or a deadline: the rest was skipped |
//! | 5 | not allowed |
//! | 6 | the controller cannot be reached |
//! | 7 | not confirmed, or nobody there to confirm it |
//! | 10 | a verification has found differences |
//! | 130 | cancelled by an operator |
//! | 131 | detached; the order goes on |

use std::process::ExitCode;

/// How a verb ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Every target ok, or nothing to do.
    Ok,
    /// A target failed, or the request did.
    Failed,
    /// The command line or a file is wrong; nothing was started.
    Usage,
    /// Nobody failed, somebody was missed.
    Missed,
    /// The rest of a run was skipped.
    Stopped,
    /// Not allowed.
    Denied,
    /// No controller, or no parent, answers.
    Unreachable,
    /// Whoever was asked did not say yes, or could not be asked; nothing was started.
    Declined,
    /// What was compared differs.
    Drift,
    /// An operator cancelled it.
    Cancelled,
    /// Nobody watches any more; the order goes on.
    Detached,
    /// `-S`: the largest code of a remote command.
    Remote(u8),
}

/// What a state word means for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// As ordered, or nothing to do.
    Good,
    /// Did not happen, or nobody knows.
    Missed,
    /// Taken back.
    Cancelled,
    /// Went wrong.
    Failed,
}

impl Class {
    /// The class of a state word. A word this version does not know is a failure.
    pub(crate) fn of(state: &str) -> Class {
        match state {
            "ok" | "skipped" => Class::Good,
            "timed-out" | "interrupted" | "expired" | "relay-lost" | "not-reached" | "pending"
            | "waiting" => Class::Missed,
            "cancelled" => Class::Cancelled,
            _ => Class::Failed,
        }
    }
}

impl Exit {
    /// The exit code of an order with these states and their codes; `largest` is `-S`.
    pub(crate) fn of<'a>(
        states: impl IntoIterator<Item = (&'a str, Option<i32>)>,
        largest: bool,
    ) -> Exit {
        let mut worst = Class::Good;
        let mut remote = 0;
        for (state, code) in states {
            worst = worst.max(Class::of(state));
            remote = remote.max(remote_code(state, code));
        }
        match worst {
            Class::Good => Exit::Ok,
            Class::Missed => Exit::Missed,
            Class::Cancelled => Exit::Cancelled,
            Class::Failed if largest && remote > 0 => Exit::Remote(remote),
            Class::Failed => Exit::Failed,
        }
    }

    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Missed => 3,
            Exit::Stopped => 4,
            Exit::Denied => 5,
            Exit::Unreachable => 6,
            Exit::Declined => 7,
            Exit::Drift => 10,
            Exit::Cancelled => 130,
            Exit::Detached => 131,
            Exit::Remote(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// The code a shell would show for a remote command: a signal counts as 128 and its number.
fn remote_code(state: &str, code: Option<i32>) -> u8 {
    let shown = match (state, code) {
        ("failed", Some(code)) => code,
        ("signalled", Some(signal)) => signal.saturating_add(128),
        _ => 0,
    };
    u8::try_from(shown).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(states: &[(&str, Option<i32>)], largest: bool, expected: u8) {
        assert_eq!(Exit::of(states.iter().copied(), largest).code(), expected, "{states:?}");
    }

    #[test]
    fn the_table() {
        check(&[], false, 0);
        check(&[("ok", None), ("skipped", None)], false, 0);
        check(&[("ok", None), ("failed", Some(3))], false, 1);
        check(&[("signalled", Some(9))], false, 1);
        check(&[("refused", None)], false, 1);
        for missed in ["timed-out", "interrupted", "expired", "relay-lost", "not-reached"] {
            check(&[("ok", None), (missed, None)], false, 3);
            check(&[("failed", Some(1)), (missed, None)], false, 1);
        }
        check(&[("cancelled", None), ("not-reached", None)], false, 130);
        check(&[("cancelled", None), ("failed", Some(1))], false, 1);
        check(&[("a-word-of-tomorrow", None)], false, 1);
    }

    #[test]
    fn the_largest_code() {
        check(&[("failed", Some(3)), ("failed", Some(7)), ("ok", None)], true, 7);
        check(&[("failed", Some(3)), ("signalled", Some(15))], true, 143);
        check(&[("failed", Some(1)), ("timed-out", None)], true, 1);
        check(&[("refused", None)], true, 1);
        check(&[("failed", Some(-1))], true, 255);
        check(&[("timed-out", None)], true, 3);
        check(&[("ok", None)], true, 0);
    }

    #[test]
    fn fixed_codes() {
        let codes = [
            Exit::Usage,
            Exit::Stopped,
            Exit::Denied,
            Exit::Unreachable,
            Exit::Declined,
            Exit::Drift,
            Exit::Detached,
        ];
        assert_eq!(codes.map(Exit::code), [2, 4, 5, 6, 7, 10, 131]);
    }
}
