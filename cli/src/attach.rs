//! `barid attach`: shows an order that goes on as if this terminal had given it.

use controller::types::OrderDetail;

use crate::client::{Client, segment};
use crate::exit::Exit;
use crate::fail::Failure;
use crate::follow::Follow;
use crate::render::View;
use crate::save::SaveArgs;
use crate::screen::Screen;

/// Options of `barid attach`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The id of a run, push or cancel, its short form, or `last`
    #[arg(value_name = "ID", default_value = "last")]
    id: String,
    #[command(flatten)]
    view: View,
    #[command(flatten)]
    save: SaveArgs,
}

/// Watches the order to its end; of one that has ended, shows what was answered.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let path = format!("/v1/orders/{}", segment(&args.id)?);
    let OrderDetail { order, .. } = client.get(&path).await?;
    // Only what runs says something on the way.
    let gather = args.view.gather || order.kind != "run";
    args.save.ready()?;
    let view = View { gather, ..args.view }.with_groups(client).await?;
    let mut follow = Follow::new(client, screen, view, order)?.with_files(args.save);
    let ended = follow.watch().await?;
    follow.finish(ended)
}
