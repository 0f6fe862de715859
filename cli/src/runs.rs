//! `barid runs`: what was ordered, and what became of it.

use controller::types::{OrderDetail, OrderInfo, Status, Superseded};

use crate::alike;
use crate::client::{Client, segment};
use crate::exit::{Class, Exit};
use crate::fail::Failure;
use crate::follow::{age, standing};
use crate::gathered::Gathered;
use crate::push::report;
use crate::render::{self, View};
use crate::save::SaveArgs;
use crate::screen::Screen;
use crate::units::{show_count, show_duration, show_time, since};

/// How much of an order's text a list shows.
const WHAT_WIDTH: usize = 60;
/// How much of an order's targets a list shows.
const TARGETS_WIDTH: usize = 40;

/// Options of `barid runs`.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// How many, the newest first
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What `barid runs` can do apart from listing.
#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Show the answers of one run or push, gathered unless -L is given
    Show(ShowArgs),
}

/// Options of `barid runs show`.
#[derive(Clone, Debug, clap::Args)]
struct ShowArgs {
    /// The id of the order, its short form, or `last`
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    view: View,
    #[command(flatten)]
    save: SaveArgs,
}

/// Lists the orders, or shows one.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    match args.verb {
        Some(Verb::Show(args)) => show(args, client, screen).await,
        None => list(args.limit, client, screen).await,
    }
}

async fn list(limit: u32, client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
    let orders: Vec<OrderInfo> = client.get(&format!("/v1/orders?limit={limit}")).await?;
    if screen.json {
        screen.json(&orders)?;
        return Ok(Exit::Ok);
    }
    let is_terminal = screen.is_terminal();
    let rows: Vec<Vec<String>> = orders.iter().map(|order| row(order, is_terminal)).collect();
    let heads = ["ID", "KIND", "GIVEN", "BY", "STANDS", "STATES", "TARGETS", "WHAT"];
    screen.print(&render::table(&heads, &rows))?;
    let status: Status = client.get("/v1/status").await?;
    let retired = show_count(status.retired);
    if status.retired > 0 && orders.len() < limit as usize {
        let until = show_time(status.retired_until_ms);
        screen.say(&format!("{retired} older orders, up to {until}, are not kept any more"))?;
    } else if orders.is_empty() {
        screen.say("nothing was ordered yet: `barid run -a uptime` is a beginning")?;
    }
    Ok(Exit::Ok)
}

fn row(order: &OrderInfo, is_terminal: bool) -> Vec<String> {
    let given = match is_terminal {
        true => format!("{} ago", show_duration(since(order.issued_ms))),
        false => show_time(order.issued_ms),
    };
    let clip = |text: &str, width: usize| match is_terminal && text.chars().count() > width {
        true => format!("{}...", text.chars().take(width - 3).collect::<String>()),
        false => text.to_owned(),
    };
    let mut states: Vec<(&String, &u64)> = order.states.iter().filter(|(_, n)| **n > 0).collect();
    states.sort_by_key(|(state, _)| Class::of(state));
    let states = states.into_iter().map(|(state, n)| format!("{} {state}", show_count(*n)));
    vec![
        order.short.clone(),
        order.kind.clone(),
        given,
        order.by.clone(),
        standing(order),
        states.collect::<Vec<_>>().join(", "),
        clip(&order.targets, TARGETS_WIDTH),
        crate::escape::escape_line(&clip(&what(order), WHAT_WIDTH)).into_owned(),
    ]
}

/// What was ordered, and at which relay, if not here.
fn what(order: &OrderInfo) -> String {
    match &order.given_by {
        Some(relay) => format!("[{relay}] {}", order.what),
        None => order.what.clone(),
    }
}

async fn show(args: ShowArgs, client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
    let path = format!("/v1/orders/{}", segment(&args.id)?);
    args.save.ready()?;
    let detail: OrderDetail = client.get(&path).await?;
    if screen.json {
        screen.json(&detail)?;
    }
    let OrderDetail { order, answers, .. } = detail;
    let mut gathered = Gathered::default();
    for answer in answers {
        let (answer, hosts) = gathered.add(answer);
        args.save.save(&answer, &hosts)?;
    }
    let largest = args.view.largest;
    let view = View { gather: args.view.gather || !args.view.waits(), ..args.view };
    let view = view.with_groups(client).await?;
    if screen.json && view.similar {
        alike::print_json(screen, &view, &gathered.groups())?;
    }
    if !screen.json {
        if !view.quiet {
            let given = show_time(order.issued_ms);
            let what = what(&order);
            let by = match order.by.as_str() {
                "" => String::new(),
                by => format!("by {by}  "),
            };
            screen.say(&format!("{} {}  {given}  {by}{what}", order.kind, order.short))?;
        }
        render::gathered(screen, &view, &order, &gathered)?;
        if order.push.is_some() || order.stage.is_some() {
            screen.print(&report(&order, &gathered))?;
        }
        for Superseded { by, set, count } in &order.superseded {
            let count = show_count(*count);
            screen.say(&format!("not begun, and superseded by {by}: {set} ({count})"))?;
        }
        if !view.quiet {
            screen.say(&render::summary(&order, &gathered, age(&order)))?;
        }
    }
    // Showing has succeeded, whatever is shown; -S asks for the order's own exit code.
    match largest {
        true if !render::pending(&order, &gathered).is_empty() => Ok(Exit::Missed),
        true => Ok(render::exit(&gathered, true)),
        false => Ok(Exit::Ok),
    }
}
