//! `barid tree cap`: how much content the link of a site or node may carry.

use std::time::Duration;

use controller::types::{Cap, NewCap};

use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::Screen;
use crate::steer::{WaitArgs, watch};
use crate::units::{millis, parse_some_duration};

const CAPPING: &str = "\
A cap belongs to the link of a node to its parent and holds in both directions, from now on and
over restarts, in the place of the node's own calendar (`[[cap]]` in its node.toml). Of a site it
is that of those nodes whose parents are elsewhere. Orders, answers, events and beats are not
counted. Without RATE the nodes say what holds.

Examples:
  barid tree cap lyon 2M                  content at 2 Mbit/s at most, until it is changed
  barid tree cap relay3 500k --for 4h
  barid tree cap lyon none --for 30m      as much as the link carries, whatever the calendar says
  barid tree cap lyon --clear             as the calendar says
  barid tree cap lyon                     what holds now";

/// Options of `barid tree cap`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = CAPPING)]
pub(crate) struct CapArgs {
    /// A relay, a host or a site
    #[arg(value_name = "SITE|NODE")]
    name: String,
    /// Bits a second, as 500k or 2M; none: as much as the link carries
    #[arg(value_name = "RATE", value_parser = rate, conflicts_with = "clear")]
    rate: Option<u64>,
    /// For how long; then the calendar holds again
    #[arg(long = "for", value_name = "TIME", value_parser = parse_some_duration)]
    #[arg(requires = "rate")]
    lasts: Option<Duration>,
    /// Let the calendar hold again
    #[arg(long)]
    clear: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

fn rate(text: &str) -> Result<u64, relay::RateError> {
    if text == "none" { Ok(0) } else { relay::parse_rate(text) }
}

/// Changes a cap, or asks for it.
pub(crate) async fn main(
    args: CapArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let for_ms = args.lasts.map_or(0, millis);
    let cap = match args.rate {
        Some(rate) => Some(Cap::Set { rate, for_ms }),
        None => args.clear.then_some(Cap::Clear),
    };
    let new = NewCap { name: args.name, cap, reach_ms: millis(args.wait.reach) };
    let order = client.post("/v1/tree/cap", &new).await?;
    watch(order, args.wait, client, screen).await
}
