//! `barid cancel`: takes a run or push back, at every host, and waits until each has confirmed.

use std::time::Duration;

use controller::types::{NewCancel, OrderDetail, OrderInfo};

use crate::client::{Client, segment};
use crate::exit::Exit;
use crate::fail::Failure;
use crate::follow::{Ended, Follow, age};
use crate::gathered::Gathered;
use crate::render::{self, View};
use crate::run::detached;
use crate::screen::Screen;
use crate::units::{millis, parse_duration, show_count};

/// How long to wait for hosts that cannot be reached, unless somebody says otherwise.
pub(crate) const REACH: Duration = Duration::from_secs(15);

const DETAILS: &str = "\
What was not begun never is. What runs is ended: its process group gets TERM, and KILL 2 s later.
Files that are being put in place are put in place to the end. A host that is away is told when it
is back, for as long as the order that is taken back is valid.

Exit codes: 0 every host has confirmed, 3 some could not be reached, 1 there is nothing to cancel.";

/// Options of `barid cancel`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub(crate) struct Args {
    /// The id of the run or push, its short form, or `last`
    #[arg(value_name = "ID")]
    id: String,
    /// How long to wait for a host that cannot be reached
    #[arg(short = 't', long, value_name = "REACH", default_value = "15s")]
    #[arg(value_parser = parse_duration)]
    reach: Duration,
    /// Do not wait: print the id of the order that cancels
    #[arg(long = "async")]
    detach: bool,
    /// No progress and no last line
    #[arg(short = 'q', long)]
    quiet: bool,
}

/// Cancels, and tells who has confirmed.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let order = give(client, &args.id, args.reach).await?;
    if args.detach {
        return detached(screen, &order);
    }
    let older = order.cancels.clone().unwrap_or_default();
    if !args.quiet && !screen.json {
        let noun = if order.count == 1 { "host" } else { "hosts" };
        screen.say(&format!("cancelling at {} {noun}: {}", show_count(order.count), order.what))?;
    }
    let view = View { gather: true, quiet: args.quiet, ..View::default() };
    let mut follow = Follow::new(client, screen, view, order)?;
    let ended = follow.watch().await?;
    let exit = follow.finish(ended)?;
    if ended == Ended::Closed && !args.quiet && !screen.json {
        let detail: OrderDetail = client.get(&format!("/v1/orders/{}", segment(&older)?)).await?;
        let mut gathered = Gathered::default();
        for answer in detail.answers {
            gathered.add(answer);
        }
        screen.say(&render::summary(&detail.order, &gathered, age(&detail.order)))?;
    }
    Ok(exit)
}

/// Orders that an order be taken back.
pub(crate) async fn give(client: &Client, id: &str, reach: Duration) -> Result<OrderInfo, Failure> {
    let path = format!("/v1/orders/{}/cancel", segment(id)?);
    client.post(&path, &NewCancel { reach_ms: millis(reach) }).await
}
