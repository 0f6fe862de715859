//! `barid rollback`: hosts go back to what they had before a push.

use std::path::PathBuf;
use std::time::Duration;

use controller::types::NewRollback;

use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::guard::{self, GuardArgs};
use crate::push::{Order, destination, follow, text};
use crate::screen::Screen;
use crate::targets::TargetArgs;
use crate::units::{millis, parse_duration, parse_some_duration};

const DETAILS: &str = "\
Examples:
  barid rollback 7k3q2a                      undo this push wherever it is in place
  barid rollback last -w 'web[1-9]'          the last order, at some hosts only
  barid rollback --dest /srv/www -w @lyon    whatever is there now, the version before

After `push --tree` hosts exchange two names, at once and without a byte; else the version before is
pushed again, and what the later one had added and nobody has changed since goes. Rolling back once
more goes forward again.";

/// Options of `barid rollback`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub(crate) struct Args {
    /// The id of the push, its short form, or `last`
    #[arg(value_name = "PUSH", required_unless_present = "dest", conflicts_with = "dest")]
    push: Option<String>,
    #[command(flatten)]
    targets: TargetArgs,
    /// Where to go back, instead of naming a push
    #[arg(long, value_name = "PATH")]
    dest: Option<PathBuf>,
    /// How long to wait for a host that cannot be reached before saying so
    #[arg(short = 't', long, value_name = "REACH", default_value = "15s")]
    #[arg(value_parser = parse_duration)]
    reach: Duration,
    /// How long the order waits for hosts that are away
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_some_duration)]
    hold: Duration,
    /// Do not wait: print the order's id, as for `barid runs show ID`
    #[arg(long = "async")]
    detach: bool,
    /// No progress and no last line
    #[arg(short = 'q', long)]
    quiet: bool,
    #[command(flatten)]
    guard: GuardArgs,
}

/// Goes back, and tells how it goes.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let dest = args.dest.as_deref().map(destination).transpose()?;
    let mut named = args.targets;
    let mut everywhere = false;
    if let Some(push) = args.push.as_ref().filter(|_| named.is_empty()) {
        everywhere = !named.narrows();
        named.sets.push(format!("@run:{push}/ok"));
    }
    let meant = named.required(screen)?;
    let meant = guard::confirmed(args.guard, client, screen, meant, "rollback").await?;
    // Without a choice the controller takes those that still have it in place.
    let targets = (!everywhere).then_some(meant);
    let new = NewRollback {
        push: args.push.unwrap_or_default(),
        dest: dest.map_or(Ok(String::new()), |dest| text(&dest))?,
        targets,
        reach_ms: millis(args.reach),
        hold_ms: millis(args.hold),
    };
    let (quiet, detach) = (args.quiet, args.detach);
    let order = Order { path: "/v1/rollbacks", quiet, detach, usual: false };
    follow(client, screen, &order, &new).await
}
