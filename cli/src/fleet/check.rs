//! `check`, at a relay: is it still being fed, and does it still reach those below it?
//!
//! For a cron job that trusts the node with nothing: it is asked how it stands, and if it does not
//! answer that is an answer as well. With `-m` the alert leaves from here, by the node's own
//! channels, so that it depends neither on the node nor on the controller; a file beside the node's
//! alerts remembers that it was told, so that its end is told as well.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alerts::{Message, Sender, Settings, Told, short};
use local::Standing;
use serde_json::json;

use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::Screen;
use crate::units::{millis, parse_some_duration, show_duration, since};

/// What `check` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Only whether it is fed, not whether it reaches anybody
    #[arg(short = 'c', long)]
    clients_not: bool,
    /// Tell by the node's channels if something is stale, and once more when it is over
    #[arg(short = 'm', long)]
    mail: bool,
    /// Print nothing
    #[arg(short = 'q', long, conflicts_with = "ages")]
    quiet: bool,
    /// Print all ages, also of what is fresh
    #[arg(short = 'a', long)]
    ages: bool,
    /// How old the controller's word may be
    #[arg(long, value_name = "TIME", value_parser = parse_some_duration, default_value = "75m")]
    limit: Duration,
    /// The node's state folder
    #[arg(long, value_name = "DIR", default_value = "/var/lib/barid")]
    state: PathBuf,
}

/// What was found.
struct Found {
    /// What is stale, a line each.
    stale: Vec<String>,
    /// What is fresh.
    fresh: Vec<String>,
}

pub(crate) async fn check(args: CheckArgs, screen: &mut Screen) -> Result<Exit, Failure> {
    let socket = args.state.join("node.sock");
    let client = Client::new(Some(socket.clone()));
    let asked: Result<Standing, Failure> = client.get("/v1/standing").await;
    let found = match &asked {
        Ok(standing) => judge(standing, args.limit, !args.clients_not),
        Err(_) => {
            let stale = format!("the node does not answer at {}", socket.display());
            Found { stale: vec![stale], fresh: Vec::new() }
        }
    };
    let is_stale = !found.stale.is_empty();
    if args.mail {
        match tell(&args.state, &found.stale).await {
            Err(failure) if args.quiet && is_stale => drop(failure),
            told => told?,
        }
    }
    if screen.json && !args.quiet {
        let standing = asked.ok();
        screen.json(&json!({ "stale": found.stale, "standing": standing }))?;
    } else if !args.quiet {
        let fresh = found.fresh.iter().filter(|_| args.ages || screen.verbose);
        let lines: Vec<&String> = found.stale.iter().chain(fresh).collect();
        lines.into_iter().try_for_each(|line| screen.print(&format!("{line}\n")))?;
    }
    Ok(if is_stale { Exit::Failed } else { Exit::Ok })
}

/// What is stale. What is as old as the limit is fresh.
fn judge(standing: &Standing, limit: Duration, clients: bool) -> Found {
    let mut found = Found { stale: Vec::new(), fresh: Vec::new() };
    let age = Duration::from_millis(standing.controller_age_ms);
    let heard = format!("controller: heard {} ago", show_duration(age));
    match age > limit {
        true => found.stale.push(format!("{heard}, more than {}", show_duration(limit))),
        false => found.fresh.push(heard),
    }
    let reached = format!("clients: {} of {} reached", standing.up, standing.below);
    match clients && standing.below > 0 && standing.up == 0 {
        true => found.stale.push(reached),
        false if clients => found.fresh.push(reached),
        false => {}
    }
    found
}

/// Tells what is stale, or that nothing is any more, by all channels of the node.
async fn tell(state: &Path, stale: &[String]) -> Result<(), Failure> {
    let mark = state.join("alerts").join("check.told");
    let began = std::fs::read_to_string(&mark).ok().and_then(|text| text.trim().parse().ok());
    if stale.is_empty() && began.is_none() {
        return Ok(());
    }
    let settings = Settings::load(&state.join("alerts.toml"));
    let settings = settings.map_err(|error| Failure::local(&error))?;
    let channels: Vec<&str> = settings.channels().collect();
    if channels.is_empty() {
        let file = state.join("alerts.toml");
        let message = format!("nobody is told: there are no channels in {}", file.display());
        return Err(Failure::new(Exit::Failed, "no-channel", message));
    }
    let message = message(state, stale, began)?;
    let mut errors = Vec::new();
    for channel in &channels {
        if let Err(error) = settings.test(channel, &message).await {
            errors.push(relay::chain(&error));
        }
    }
    // As long as one has taken it somebody knows.
    if errors.len() == channels.len() {
        return Err(Failure::new(Exit::Failed, "channel", errors.join("; ")));
    }
    let noted = match stale.is_empty() {
        true => std::fs::remove_file(&mark),
        false => std::fs::create_dir_all(state.join("alerts"))
            .and_then(|()| std::fs::write(&mark, format!("{}\n", message.alerts[0].began_ms))),
    };
    noted.map_err(|error| Failure::local(&error))
}

fn message(state: &Path, stale: &[String], began: Option<u64>) -> Result<Message, Failure> {
    let node = crate::join::load(state)?.map(|known| known.identity().clone());
    let (name, site, mesh) =
        node.map_or_else(Default::default, |node| (node.name, node.site, node.mesh.to_string()));
    let now = millis(since(0));
    let is_over = stale.is_empty();
    let labels = [("host", &name), ("site", &site)].into_iter();
    let labels = labels.filter(|(_, value)| !value.is_empty());
    let labels: BTreeMap<String, String> =
        labels.map(|(label, value)| (label.into(), value.clone())).collect();
    let key = format!("check/{name}");
    let told = Told {
        id: short(&key),
        key,
        kind: "check".into(),
        severity: "critical".into(),
        status: if is_over { "resolved" } else { "firing" }.into(),
        again: began.is_some() && !is_over,
        labels,
        summary: match is_over {
            true => format!("{name} is fed again, and reaches those below it"),
            false => format!("{name}: {}", stale.join("; ")),
        },
        help: "look at the controller, then at the line to it, then at this node".into(),
        began_ms: began.unwrap_or(now),
        ended_ms: if is_over { now } else { 0 },
    };
    Ok(Message::of_one(&Sender { node: name, mesh }, &site, told, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_as_old_as_the_limit_is_fresh() {
        let limit = Duration::from_secs(75 * 60);
        let standing = |age: Duration, below, up| Standing {
            controller_age_ms: millis(age),
            linked: true,
            below,
            up,
        };
        let stale = |standing: &Standing, clients| judge(standing, limit, clients).stale;
        assert!(stale(&standing(limit, 3, 1), true).is_empty());
        let over = limit + Duration::from_millis(1);
        assert!(stale(&standing(over, 3, 1), true)[0].starts_with("controller: heard "));
        // Nobody below is no trouble, nobody reached is.
        assert!(stale(&standing(Duration::ZERO, 0, 0), true).is_empty());
        let unreached = standing(Duration::ZERO, 3, 0);
        assert_eq!(stale(&unreached, true), ["clients: 0 of 3 reached"]);
        assert!(stale(&unreached, false).is_empty());
        let fresh = judge(&standing(Duration::from_secs(2), 3, 3), limit, true).fresh;
        assert_eq!(fresh[1], "clients: 3 of 3 reached");
    }
}
