//! The report of an hour or a day, with the traditional arguments.

use clap::ValueEnum;

use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::report::{Parts, of};
use crate::screen::Screen;

/// What `report` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Which kind
    kind: Kind,
    /// The hour (0 to 23) or day of the month (1 to 31), or how many back (-1); none: the present
    #[arg(value_name = "TIME", allow_negative_numbers = true)]
    time: Option<i64>,
    #[command(flatten)]
    parts: Parts,
}

/// The kinds.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// What is urgent, of an hour
    Hour,
    /// Everything of a day
    Day,
}

pub(crate) async fn report(
    args: ReportArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let (kind, first, last) = match args.kind {
        Kind::Hour => ("hour", 0, 23),
        Kind::Day => ("day", 1, 31),
    };
    // A time that never is: a mistake of the line, where the controller would say "no report".
    if let Some(time) = args.time.filter(|time| *time >= 0 && !(first..=last).contains(time)) {
        let message = format!("{time} is no {kind}: write {first} to {last}, or -1, -2, ... back");
        return Err(Failure::usage(message, ""));
    }
    of(kind, args.time, args.parts, client, screen).await
}
