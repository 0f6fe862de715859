//! `barid tree delegate`: what the operators of a relay may order by themselves.

use std::time::Duration;

use controller::types::{Delegated, DelegationInfo, NewDelegation};

use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::render;
use crate::run::{USUAL, USUAL_REACH};
use crate::screen::Screen;
use crate::steer::{WaitArgs, watch};
use crate::targets::TargetArgs;
use crate::units::{millis, parse_some_duration, show_count, show_time};

const DELEGATING: &str = "\
Whoever may open barid.sock in the state folder of that relay can then run commands below it:
`barid --socket /var/lib/barid/barid.sock run ...` there, with or without a link to the controller,
to which each run and what became of it is told when there is one. Commands run as they do for the
controller: as root, if nobody else is named. Hosts check each order against what the controller
has signed, and refuse what goes beyond it. Delegating again takes the place of what was delegated.

Examples:
  barid tree delegate lyon-r1 --for 7d          at the relay and at all that are below it now
  barid tree delegate lyon-r1 --for 8h -w '@lyon!db1'
  barid tree delegate lyon-r1 --revoke
  barid tree delegate                           what is delegated";

/// Of a delegation of less than this is said until when runs with the usual limit are taken.
const SHORT: Duration = Duration::from_secs(24 * 3600);

/// Options of `barid tree delegate`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = DELEGATING)]
pub(crate) struct DelegateArgs {
    /// The relay; without one, what is delegated is listed
    #[arg(value_name = "RELAY")]
    relay: Option<String>,
    /// For how long, at most 90 days
    #[arg(long = "for", value_name = "TIME", value_parser = parse_some_duration)]
    #[arg(requires = "relay", conflicts_with = "revoke")]
    lasts: Option<Duration>,
    /// Which orders
    #[arg(long, value_name = "KIND", value_delimiter = ',', default_value = "run")]
    kinds: Vec<String>,
    /// Take it back, at every node: at once where there is a link, else when it is back
    #[arg(long, requires = "relay")]
    revoke: bool,
    #[command(flatten)]
    targets: TargetArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Delegates, takes back, or lists.
pub(crate) async fn main(
    args: DelegateArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let Some(relay) = args.relay else { return list(client, screen).await };
    let for_ms = match (args.lasts, args.revoke) {
        (Some(lasts), _) => millis(lasts),
        (None, true) => 0,
        (None, false) => {
            let message = format!("nothing is said about {relay}");
            return Err(Failure::usage(message, "--for 7d delegates, --revoke takes back"));
        }
    };
    let targets = match args.targets.is_empty() {
        true if args.targets.narrows() => {
            let help = "-w SET says for whom, -x leaves some of them out";
            return Err(Failure::usage("no targets are given", help));
        }
        true => None,
        false => Some(args.targets.targets(screen)?),
    };
    let reach_ms = millis(args.wait.reach);
    let new = NewDelegation { relay, for_ms, kinds: args.kinds, targets, reach_ms };
    let done: Delegated = client.post("/v1/delegations", &new).await?;
    if screen.json && done.order.is_none() {
        screen.json(&done)?;
    } else if !screen.json {
        for one in &done.delegations {
            screen.say(&said(one))?;
        }
        for one in done.delegations.iter().filter(|one| one.state == "holds") {
            if let Some(line) = room(one.until_ms.saturating_sub(one.from_ms), one.until_ms) {
                screen.say(&line)?;
            }
        }
    }
    match done.order {
        Some(order) => watch(order, args.wait, client, screen).await,
        None => Ok(Exit::Ok),
    }
}

fn said(one: &DelegationInfo) -> String {
    let DelegationInfo { relay, kinds, targets, count, until_ms, .. } = one;
    let (kinds, count, until) = (kinds.join(", "), show_count(*count), show_time(*until_ms));
    match one.state.as_str() {
        "holds" => format!("{relay} may {kinds} at {count} nodes until {until}: {targets}"),
        _ => format!("taken back: {relay} might {kinds} at {count} nodes until {until}"),
    }
}

/// What is said of a delegation that leaves runs with the usual limit little time: a run is only
/// taken if all that it may last is over before the delegation is.
fn room(for_ms: u64, until_ms: u64) -> Option<String> {
    if for_ms >= millis(SHORT) {
        return None;
    }
    let [limit, reach] =
        [USUAL, USUAL_REACH].map(|time| parse_some_duration(time).expect("a time"));
    let needs = millis(limit + reach + controller::MARGIN);
    Some(match for_ms > needs {
        true => {
            let last = show_time(until_ms.saturating_sub(needs));
            format!("runs with -u {USUAL}, as usual, are taken until {last}, later ones with less")
        }
        false => {
            format!("it ends too soon for runs with -u {USUAL}, as usual: give them less")
        }
    })
}

async fn list(client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
    let all: Vec<DelegationInfo> = client.get("/v1/delegations").await?;
    if screen.json {
        screen.json(&all)?;
        return Ok(Exit::Ok);
    }
    if all.is_empty() {
        screen.say("nothing is delegated: no relay takes orders of its own")?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<Vec<String>> = all
        .into_iter()
        .map(|one| {
            let until = show_time(one.until_ms);
            vec![one.relay, one.kinds.join(","), one.state, until, one.targets]
        })
        .collect();
    screen.print(&render::table(&["RELAY", "KINDS", "STATE", "UNTIL", "TARGETS"], &rows))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_delegation_says_what_it_leaves_room_for() {
        let said = |minutes: u64| room(minutes * 60_000, 1_800_000_000_000 + minutes * 60_000);
        assert_eq!(said(7 * 24 * 60), None);
        let two_hours = said(120).expect("it says so");
        let last = show_time(1_800_000_000_000 + 120 * 60_000 - 3_675_000);
        assert!(two_hours.contains(&format!("are taken until {last}")), "{two_hours}");
        assert!(said(61).expect("it says so").contains("too soon"));
        assert!(said(62).expect("it says so").contains("taken until"));
    }
}
