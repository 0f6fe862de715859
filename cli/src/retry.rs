//! `barid retry`, and `--retry` of a run: the same command once more, where it did not work.
//!
//! Each repetition is a run of its own with its own id. Those that `--retry` makes are given by the
//! terminal that watches: once it has left, there are no more.

use std::time::Duration;

use controller::types::{NewRetry, OrderInfo, PushEvent};

use crate::client::{Client, segment};
use crate::exit::Exit;
use crate::fail::Failure;
use crate::follow::{Ended, Follow};
use crate::keys::{Keys, Wish};
use crate::render::View;
use crate::run::detached;
use crate::save::SaveArgs;
use crate::screen::Screen;
use crate::units::{millis, parse_duration, parse_some_duration, show_count};

/// The ends after which a command may be given again by itself: where it has run to its end, or
/// surely has not begun. A host that died, or was lost on the way, is for people to look at.
const BY_ITSELF: [&str; 5] = ["failed", "signalled", "timed-out", "not-reached", "expired"];

const DETAILS: &str = "\
STATE is failed (also by a signal, or refused), missed (not reached, lost, interrupted, expired),
timeout, skipped, cancelled, all, or a state as `barid runs show` has it. The command, its files and
its options are those of the run, but for -t and -u; the hosts are those of its hosts that ended so.

A host that was lost or interrupted may have done some of the work already.";

/// Options of `barid retry`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub(crate) struct Args {
    /// The id of the run, its short form, or `last`
    #[arg(value_name = "ID")]
    id: String,
    /// Which of its hosts; may be a list
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    #[arg(default_value = "failed,missed,timeout")]
    state: Vec<String>,
    /// How long to wait for a host that cannot be reached [default: as the run did]
    #[arg(short = 't', long, value_name = "REACH", value_parser = parse_duration)]
    reach: Option<Duration>,
    /// How long the command may run [default: as long as in the run]
    #[arg(short = 'u', long, value_name = "TIMEOUT", value_parser = parse_some_duration)]
    timeout: Option<Duration>,
    /// Do not wait: print the new run's id
    #[arg(long = "async")]
    detach: bool,
    #[command(flatten)]
    view: View,
}

/// How often a run repeats itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retries {
    times: u32,
    delay: Duration,
}

/// Gives a run again, and shows what it says.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let new = NewRetry {
        states: args.state,
        reach_ms: args.reach.map(millis),
        timeout_ms: args.timeout.map(millis),
    };
    if args.detach {
        let order = give(client, &args.id, &new).await?;
        return detached(screen, &order);
    }
    let view = args.view.with_groups(client).await?;
    let keys = Keys::new().map_err(|error| Failure::local(&error))?;
    let order = give(client, &args.id, &new).await?;
    say(screen, &order, &view)?;
    follow(keys, client, screen, (view, SaveArgs::default()), order, Retries::default()).await
}

async fn give(client: &Client, id: &str, new: &NewRetry) -> Result<OrderInfo, Failure> {
    client.post(&format!("/v1/orders/{}/retry", segment(id)?), new).await
}

fn say(screen: &mut Screen, order: &OrderInfo, view: &View) -> Result<(), Failure> {
    if screen.json {
        let order = Box::new(order.clone());
        screen.json(&PushEvent::Ordered { order, skipped: Vec::new() })?;
    } else if !view.quiet {
        let noun = if order.count == 1 { "host" } else { "hosts" };
        screen.say(&format!("again on {} {noun}: {}", show_count(order.count), order.targets))?;
    }
    Ok(())
}

/// Watches a run to its end, and gives it again where it did not work, if it may.
pub(crate) async fn follow(
    mut keys: Keys,
    client: &Client,
    screen: &mut Screen,
    (view, save): (View, SaveArgs),
    mut order: OrderInfo,
    retries: Retries,
) -> Result<Exit, Failure> {
    // How those ended who are not tried again.
    let mut others: Vec<(String, Option<i32>)> = Vec::new();
    for attempt in 0.. {
        let mut follow = Follow::listening(keys, client, screen, view.clone(), order.clone());
        follow = follow.with_files(save.clone());
        let ended = follow.watch().await?;
        let exit = follow.finish(ended)?;
        let states = follow.gathered.groups();
        let states = states.iter().map(|group| (group.answer.state.clone(), group.answer.code));
        let (mut bad, good): (Vec<_>, Vec<_>) =
            states.partition(|(state, _)| BY_ITSELF.contains(&state.as_str()));
        others.extend(good);
        let over = attempt >= retries.times || bad.is_empty() || ended != Ended::Closed;
        if over || matches!(exit, Exit::Stopped) {
            if ended != Ended::Closed || matches!(exit, Exit::Stopped) {
                return Ok(exit);
            }
            bad.extend(others);
            let states = bad.iter().map(|(state, code)| (state.as_str(), *code));
            return Ok(Exit::of(states, view.largest));
        }
        keys = follow.into_keys();
        if !waited(&mut keys, retries.delay).await {
            return Ok(exit);
        }
        let states = BY_ITSELF.iter().map(|state| (*state).to_owned()).collect();
        let new = NewRetry { states, reach_ms: None, timeout_ms: None };
        order = give(client, &order.id, &new).await?;
        say(screen, &order, &view)?;
    }
    unreachable!("there are fewer than 2^32 attempts")
}

/// Waits. `false`: the operator does not want to go on.
async fn waited(keys: &mut Keys, delay: Duration) -> bool {
    let until = tokio::time::Instant::now() + delay;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(until) => return true,
            wish = keys.next() => if wish != Wish::Status {
                return false;
            },
        }
    }
}

/// Reads `N` or `N:DELAY`.
pub(crate) fn parse_retries(text: &str) -> Result<Retries, String> {
    let (times, delay) = text.split_once(':').unwrap_or((text, "0"));
    let times = times.parse().ok().filter(|times| (1..=100).contains(times));
    let times = times.ok_or("write N or N:DELAY, with N from 1 to 100")?;
    Ok(Retries { times, delay: parse_duration(delay)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries() {
        let check = |text, times, secs| {
            let delay = Duration::from_secs(secs);
            assert_eq!(parse_retries(text), Ok(Retries { times, delay }));
        };
        check("2", 2, 0);
        check("3:5s", 3, 5);
        check("1:1m", 1, 60);
        for bad in ["0", "x", "1:", "1:x", "", "101"] {
            assert!(parse_retries(bad).is_err(), "{bad}");
        }
    }
}
