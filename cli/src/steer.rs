//! `barid tree move` and `barid tree drain`: which parent nodes are to have.

use std::time::Duration;

use controller::types::{NewDrain, NewMove, OrderInfo};

use crate::cancel::REACH;
use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::follow::Follow;
use crate::guard::{self, GuardArgs};
use crate::render::View;
use crate::run::detached;
use crate::screen::Screen;
use crate::targets::TargetArgs;
use crate::units::{millis, parse_duration};

const MOVING: &str = "\
A node keeps the parent that it has until the new one has spoken, and answers with the one that it
has then. Its configured parents stay behind the new ones, so that a wrong address cuts nobody off.
It is kept over restarts, until `--back`.

Examples:
  barid tree move -w 'web[1-40]' --to relay2.lyon.example:7400
  barid tree move -w relay3 --to relay1.lyon.example:7400,controller.example:7400
  barid tree move -w @lyon --back";

const DRAINING: &str = "\
Its children find another parent and stay away from it while they have one, also after a restart,
until `--undo`. Who has no other parent says so and stays. When nobody is left it can be stopped.";

/// Options of `barid tree move`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = MOVING)]
pub(crate) struct MoveArgs {
    #[command(flatten)]
    targets: TargetArgs,
    /// The parents that they are to have, as host:port, the best first; at most 8
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    #[arg(required_unless_present = "back", conflicts_with = "back")]
    to: Vec<String>,
    /// The parents of their own configuration again
    #[arg(long)]
    back: bool,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    guard: GuardArgs,
}

/// Options of `barid tree drain`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = DRAINING)]
pub(crate) struct DrainArgs {
    /// The relay that its children are to leave
    #[arg(value_name = "RELAY")]
    relay: String,
    /// They may have it again
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// How the answers are waited for.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct WaitArgs {
    /// How long to wait for a node that cannot be reached
    #[arg(short = 't', long, value_name = "REACH", default_value = "15s")]
    #[arg(value_parser = parse_duration)]
    pub(crate) reach: Duration,
    /// Do not wait: print the id of the order
    #[arg(long = "async")]
    detach: bool,
    /// No progress and no last line
    #[arg(short = 'q', long)]
    quiet: bool,
}

impl Default for WaitArgs {
    fn default() -> WaitArgs {
        WaitArgs { reach: REACH, detach: false, quiet: false }
    }
}

/// Gives nodes other parents.
pub(crate) async fn move_to(
    args: MoveArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let targets = args.targets.required(screen)?;
    let targets = guard::confirmed(args.guard, client, screen, targets, "move").await?;
    let new = NewMove { targets, to: args.to, reach_ms: millis(args.wait.reach) };
    let order = client.post("/v1/tree/move", &new).await?;
    watch(order, args.wait, client, screen).await
}

/// Empties a relay, or lets its children return.
pub(crate) async fn drain(
    args: DrainArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let new = NewDrain { relay: args.relay, undo: args.undo, reach_ms: millis(args.wait.reach) };
    let order = client.post("/v1/tree/drain", &new).await?;
    watch(order, args.wait, client, screen).await
}

/// Waits for the answers of an order about the tree.
pub(crate) async fn watch(
    order: OrderInfo,
    args: WaitArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    if args.detach {
        return detached(screen, &order);
    }
    let view = View { gather: true, quiet: args.quiet, ..View::default() };
    let mut follow = Follow::new(client, screen, view, order)?;
    let ended = follow.watch().await?;
    follow.finish(ended)
}
