//! Options of a run that say how many hosts run at a time, and when to stop.

use std::time::Duration;

use controller::types::{Amount, Pace};

use crate::units::{millis, parse_duration, parse_some_duration};

/// How a run goes on.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "How many at a time, and when to stop")]
pub(crate) struct PaceArgs {
    /// At most N hosts, or N% of them, at any time in the whole run [default: all, or with a
    /// budget 64]
    #[arg(short = 'f', long, value_name = "N|N%", value_parser = parse_some)]
    fanout: Option<Amount>,
    /// At most N of them, or N% of those there, behind each of the controller's own relays
    #[arg(long, value_name = "N|N%", value_parser = parse_some)]
    per_relay: Option<Amount>,
    /// At most N of them, or N% of those there, of each site
    #[arg(long, value_name = "N|N%", value_parser = parse_some)]
    per_site: Option<Amount>,
    /// So many hosts, and the next ones when all of these have ended
    #[arg(long, value_name = "N|N%", value_parser = parse_amount)]
    batch: Option<String>,
    /// How long to wait between two batches
    #[arg(long, value_name = "TIME", requires = "batch", value_parser = parse_duration)]
    batch_wait: Option<Duration>,
    /// Skip the rest once more than so many have failed
    #[arg(long, value_name = "N|N%", value_parser = parse_amount)]
    max_errors: Option<String>,
    /// Skip the rest once more than so many were missed
    #[arg(long, value_name = "N|N%", value_parser = parse_amount)]
    max_missed: Option<String>,
    /// Skip the rest once a single host has failed or was missed
    #[arg(short = 'k', long, conflicts_with_all = ["max_errors", "max_missed"])]
    fail_fast: bool,
    /// Skip whoever has not begun after this time
    #[arg(long, value_name = "TIME", value_parser = parse_some_duration)]
    deadline: Option<Duration>,
}

impl PaceArgs {
    /// As the API wants it.
    pub(crate) fn pace(self) -> Pace {
        let fast = self.fail_fast.then(|| "0".to_owned());
        Pace {
            window: self.fanout,
            per_relay: self.per_relay,
            per_site: self.per_site,
            batch: self.batch,
            batch_wait_ms: self.batch_wait.map_or(0, millis),
            max_errors: self.max_errors.or_else(|| fast.clone()),
            max_missed: self.max_missed.or(fast),
            deadline_ms: self.deadline.map(millis),
        }
    }
}

/// An amount that is not nothing.
fn parse_some(text: &str) -> Result<Amount, String> {
    let text = parse_amount(text)?;
    match text.trim_end_matches('%').parse::<u64>() {
        Ok(0) => Err("with none at a time nobody would begin".into()),
        Ok(number) if !text.ends_with('%') => Ok(Amount::Number(number)),
        _ => Ok(Amount::Text(text)),
    }
}

fn parse_amount(text: &str) -> Result<String, String> {
    let (number, most) = match text.strip_suffix('%') {
        Some(percent) => (percent, 100),
        None => (text, u64::MAX),
    };
    match number.parse::<u64>() {
        Ok(number) if number <= most => Ok(text.to_owned()),
        _ => Err("write a number, or a percentage such as 10%".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for good in ["0", "3", "10%", "100%"] {
            assert_eq!(parse_amount(good), Ok(good.to_owned()));
        }
        for bad in ["", "%", "-1", "101%", "x", "1.5%"] {
            assert!(parse_amount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn some_at_a_time() {
        assert_eq!(parse_some("3"), Ok(Amount::Number(3)));
        assert_eq!(parse_some("10%"), Ok(Amount::Text("10%".into())));
        for bad in ["0", "0%", "x", "101%"] {
            assert!(parse_some(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn failing_fast_is_two_budgets_of_nothing() {
        let fast = PaceArgs { fail_fast: true, ..PaceArgs::default() }.pace();
        assert_eq!(
            (fast.max_errors.as_deref(), fast.max_missed.as_deref()),
            (Some("0"), Some("0"))
        );
        assert_eq!(PaceArgs::default().pace(), Pace::default());
    }
}
