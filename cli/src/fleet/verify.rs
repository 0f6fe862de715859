//! `barid file verify`: which files are not as they should be, and at whom.

use controller::fleet::types::{Distribution, NewDist};
use controller::types::{OrderEvent, OrderInfo};

use super::dist::until_closed;
use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::gathered::Gathered;
use crate::render::{self, View};
use crate::screen::Screen;
use crate::units::show_count;

/// What `verify` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The name of a frequency, or `all`
    #[arg(value_name = "FREQUENCY")]
    frequency: String,
    /// Only at these hosts
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
}

/// Has hosts look, waits for all of them, and shows equal differences once.
pub(crate) async fn verify(
    VerifyArgs { frequency, hosts }: VerifyArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let new = NewDist { hosts, verify: true, ..NewDist::of(&frequency) };
    let told: Distribution = client.post("/v1/fleet/dist", &new).await?;
    if screen.json {
        screen.json(&told)?;
    } else {
        told.notes.iter().try_for_each(|note| screen.say(note))?;
    }
    let view = View { gather: true, ..View::default() };
    let (mut exits, mut entries) = (Vec::new(), 0);
    for order in &told.orders {
        let (order, answers) = looked(order, client, screen).await?;
        exits.push(render::exit(&answers, false));
        let groups = answers.groups();
        entries += groups.iter().map(|g| g.answer.drift * g.hosts.len() as u64).sum::<u64>();
        if !screen.json {
            render::gathered(screen, &view, &order, &answers)?;
        }
    }
    if !screen.json {
        screen.say(&summary(&told, entries))?;
    }
    exits.extend((told.left > 0).then_some(Exit::Missed));
    // Where somebody has not looked nobody knows; that is worse than to know that it differs.
    let worst = [Exit::Failed, Exit::Cancelled, Exit::Missed, Exit::Drift];
    Ok(worst.into_iter().find(|exit| exits.contains(exit)).unwrap_or(Exit::Ok))
}

fn summary(told: &Distribution, entries: u64) -> String {
    let (files, hosts) = (show_count(told.files), show_count(told.hosts));
    match entries {
        0 => format!("{files} files at {hosts} hosts: nothing differs where it was looked at"),
        n => format!(
            "{files} files at {hosts} hosts: {} entries differ; `file status` has who lacks what, \
             and gets it when it is due",
            show_count(n)
        ),
    }
}

/// Waits for an order's end.
async fn looked(
    order: &str,
    client: &Client,
    screen: &mut Screen,
) -> Result<(OrderInfo, Gathered), Failure> {
    let mut answers = Gathered::default();
    let closed = until_closed(order, client, |event| {
        if screen.json {
            screen.json(&event)?;
        }
        if let OrderEvent::Answer(answer) = event {
            answers.add(*answer);
        }
        Ok(())
    });
    let order = closed.await?;
    if screen.json {
        screen.json(&OrderEvent::Closed { order: Box::new(order.clone()) })?;
    }
    Ok((order, answers))
}
