//! Distributing, and when it is due.

use std::io::Write;
use std::path::{Path, PathBuf};

use controller::fleet::types::{Distribution, HostTurn, NewDist, Question, Scheduled, TableText};
use controller::types::{OrderEvent, OrderInfo, PlanQuery};

use super::ask;
use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::render::table;
use crate::rollout;
use crate::screen::Screen;
use crate::units::{show_count, show_time};

/// What `dist` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DistArgs {
    /// Wait until each host has an outcome, and say by the exit code whether all is well
    #[arg(long)]
    wait: bool,
    /// Compare all files that are due, not only those that somebody lacks
    #[arg(short = 'c', long)]
    compare: bool,
    /// Print answers as they arrive; waits, too
    #[arg(long)]
    show: bool,
    /// In waves, as for `barid push` [default: those of the frequency]
    #[arg(long, value_name = "LIST", conflicts_with = "all_at_once")]
    waves: Option<String>,
    /// What a wave must have come to before the next one opens, as for `barid push`
    #[arg(long, value_name = "GATE", conflicts_with = "all_at_once")]
    gate: Option<String>,
    /// To everybody at once, whatever waves the frequency has
    #[arg(long)]
    all_at_once: bool,
    /// Distribute nothing: say who would get which files, in which waves, and the bytes on links
    #[arg(long, conflicts_with_all = ["wait", "show"])]
    plan: bool,
    /// The name of a frequency, or `all`
    #[arg(value_name = "FREQUENCY")]
    frequency: String,
    /// Only to these hosts, and then all of their files are compared
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
}

pub(crate) async fn dist(
    args: DistArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let DistArgs { wait, compare, show, waves, gate, all_at_once, plan, frequency, hosts } = args;
    let waves = crate::push::waves(waves, gate);
    let usual = NewDist::of(&frequency);
    let new = NewDist { hosts, compare, waves, all_at_once, ..usual };
    if plan {
        return crate::plan::show(client, screen, &PlanQuery::Dist(Box::new(new))).await;
    }
    let told: Distribution = client.post("/v1/fleet/dist", &new).await?;
    if screen.json {
        screen.json(&told)?;
    } else {
        told.notes.iter().try_for_each(|note| screen.say(note))?;
        let (files, hosts) = (show_count(told.files), show_count(told.hosts));
        if let Some(rollout) = &told.rollout {
            let short = rollout.get(rollout.len().saturating_sub(6)..).unwrap_or(rollout);
            screen.say(&format!("{files} files to {hosts} hosts in waves: rollout {short}"))?;
        } else if !told.orders.is_empty() {
            screen.say(&format!("{files} files to {hosts} hosts"))?;
        } else if told.notes.is_empty() {
            screen.say("nobody lacks anything")?;
        }
    }
    // Whatever there is to say of it is something that was not distributed.
    let mut all_well = !wait || (told.notes.is_empty() && !told.queued);
    if let Some(rollout) = told.rollout.filter(|_| wait || show) {
        return rollout::watch_id(client, screen, &rollout).await;
    }
    if wait || show {
        for order in &told.orders {
            all_well &= is_well(order, show, client, screen).await?;
        }
    }
    Ok(if all_well { Exit::Ok } else { Exit::Failed })
}

/// Waits for an order's end, and says on the way what came of it, if that is to be shown.
async fn is_well(
    order: &str,
    show: bool,
    client: &Client,
    screen: &mut Screen,
) -> Result<bool, Failure> {
    let said = until_closed(order, client, |event| match event {
        OrderEvent::Answer(answer) if show && screen.json => {
            Ok(screen.json(&OrderEvent::Answer(answer))?)
        }
        OrderEvent::Answer(answer) if show => {
            let what = if answer.fault.is_empty() { "" } else { ": " };
            Ok(screen.say(&format!("{}: {}{what}{}", answer.set, answer.state, answer.fault))?)
        }
        _ => Ok(()),
    });
    Ok(is_ok(&said.await?))
}

/// Waits for an order's end. What happens before goes to `each`, some of it again if the
/// controller had to begin anew.
pub(super) async fn until_closed(
    order: &str,
    client: &Client,
    mut each: impl FnMut(OrderEvent) -> Result<(), Failure>,
) -> Result<OrderInfo, Failure> {
    let path = format!("/v1/orders/{order}/events");
    loop {
        let mut events = client.get_lines::<OrderEvent>(&path).await?;
        while let Some(event) = events.next().await? {
            match event {
                OrderEvent::Closed { order } => return Ok(*order),
                OrderEvent::Lagged => break,
                event => each(event)?,
            }
        }
    }
}

fn is_ok(order: &OrderInfo) -> bool {
    order.states.iter().all(|(state, count)| state == "ok" || *count == 0)
}

/// What `build` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BuildArgs {
    /// Only for the members of this domain
    #[arg(short = 'd', long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Write it there [default: standard output]
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The name of a frequency, or `all`
    #[arg(value_name = "FREQUENCY")]
    frequency: String,
}

pub(crate) async fn build(
    BuildArgs { domain, file, frequency }: BuildArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let built: TableText = ask(client, &Question::Build { frequency, domain }).await?;
    let Some(path) = file else {
        match screen.json {
            true => screen.json(&built)?,
            false => screen.print(&built.text)?,
        }
        return Ok(Exit::Ok);
    };
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Failed, "file", format!("{}: {error}", path.display()))
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The whole text or none of it.
    let mut beside = tempfile::NamedTempFile::new_in(dir).map_err(|error| failed(&error))?;
    beside.write_all(built.text.as_bytes()).map_err(|error| failed(&error))?;
    beside.persist(&path).map_err(|error| failed(&error.error))?;
    Ok(Exit::Ok)
}

/// What `schedule` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ScheduleArgs {
    /// Show when these hosts have their next turns
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
}

pub(crate) async fn schedule(
    ScheduleArgs { hosts }: ScheduleArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let is_of_hosts = !hosts.is_empty();
    let all: Vec<Scheduled> = ask(client, &Question::Schedule { hosts }).await?;
    if screen.json {
        screen.json(&all)?;
        return Ok(Exit::Ok);
    }
    let time = |ms: u64| if ms == 0 { "-".into() } else { show_time(ms) };
    if is_of_hosts {
        let of = |one: &Scheduled| -> Vec<Vec<String>> {
            let row =
                |turn: &HostTurn| vec![one.frequency.clone(), turn.host.clone(), time(turn.at_ms)];
            one.turns.iter().map(row).collect()
        };
        let rows: Vec<Vec<String>> = all.iter().flat_map(of).collect();
        screen.print(&table(&["FREQUENCY", "HOST", "NEXT"], &rows))?;
        return Ok(Exit::Ok);
    }
    let row = |one: &Scheduled| {
        let state = match (one.running, one.automatic) {
            (true, _) => "running".to_owned(),
            (false, _) if one.waiting > 0 => format!("{} wait", show_count(one.waiting)),
            (false, true) => "on".into(),
            (false, false) => "off".into(),
        };
        vec![
            one.frequency.clone(),
            one.cron.clone(),
            one.zone.clone(),
            state,
            time(one.last_ms),
            time(one.next_ms),
            one.missed.to_string(),
            match (&one.rollout, one.waves.as_str()) {
                (Some(rollout), _) => format!("rollout {rollout}"),
                (None, "") => "-".into(),
                (None, waves) => waves.to_owned(),
            },
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let heads = ["FREQUENCY", "CRON", "ZONE", "STATE", "LAST", "NEXT", "MISSED", "WAVES"];
    screen.print(&table(&heads, &rows))?;
    Ok(Exit::Ok)
}
