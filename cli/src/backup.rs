//! `barid controller backup`, `restore` and `show`: a controller that outlives its machine.
//!
//! A backup is made by the controller itself while it works; a restore needs nothing else than one.

use std::path::PathBuf;

use controller::types::{Backup, ControllerInfo, NewBackup, Restored, RestoredOrder};

use crate::client::Client;
use crate::escape::escape_line;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::Screen;
use crate::units::{show_bytes, show_count, show_duration, since};

/// How many orders are named.
const NAMED: usize = 20;

/// What can be done with a controller beside being one.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Make a backup of all that another machine needs to go on in its place, while it works
    Backup {
        /// The folder of the backups, on the controller's machine; content that is there already
        /// is not copied again
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// How many backups are kept there
        #[arg(long, value_name = "N", default_value_t = 7)]
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        keep: u64,
    },
    /// Make a controller out of a backup, that takes the place of the one it came from: nodes that
    /// hear of it refuse the old one, and what that has ordered and they have not begun
    Restore {
        /// The folder of the backups
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// The new controller's state folder, which must be empty or not there
        #[arg(long, value_name = "STATE")]
        state: PathBuf,
        /// Which backup [default: the newest]
        #[arg(long, value_name = "TIME")]
        name: Option<String>,
    },
    /// Whether the controller was restored from a backup, and what the backup lacks
    Show,
}

pub(crate) async fn main(
    verb: Option<Verb>,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    match verb {
        Some(Verb::Backup { dir, keep }) => {
            let dir = std::path::absolute(&dir).map_err(|error| Failure::local(&error))?;
            let dir = dir.to_str().map(String::from).ok_or_else(|| {
                Failure::usage(format!("{}: not UTF-8", dir.display()), "use another folder")
            })?;
            let made: Backup = client.post("/v1/backups", &NewBackup { dir, keep }).await?;
            show_made(&made, screen)
        }
        Some(Verb::Restore { dir, state, name }) => {
            let restored = tokio::task::spawn_blocking(move || {
                controller::restore(&dir, name.as_deref(), &state)
            });
            let restored = restored.await.map_err(|error| Failure::local(&error))?;
            let restored = restored.map_err(|error| Failure::local(&error))?;
            show_restored(&restored, screen)
        }
        Some(Verb::Show) | None => show(&client.get("/v1/controller").await?, screen),
    }
}

fn show_made(made: &Backup, screen: &mut Screen) -> Result<Exit, Failure> {
    let exit = if made.lacking > 0 { Exit::Failed } else { Exit::Ok };
    if screen.json {
        screen.json(made)?;
        return Ok(exit);
    }
    screen.print(&format!("{}\n", made.path))?;
    screen.say(&format!(
        "{} nodes, {} objects of content, of which {} are new here ({})",
        show_count(made.nodes),
        show_count(made.objects),
        show_count(made.new_objects),
        show_bytes(made.new_bytes),
    ))?;
    if made.dropped > 0 {
        screen.say(&format!("{} older backups were dropped", made.dropped))?;
    }
    if made.lacking > 0 {
        screen.say(&format!(
            "{} objects are not in the controller's store or damaged there, and so not in the \
             backup: `barid store check`, and `barid file cp` brings files in again",
            show_count(made.lacking)
        ))?;
    }
    Ok(exit)
}

fn show_restored(restored: &Restored, screen: &mut Screen) -> Result<Exit, Failure> {
    let exit = if restored.missing > 0 { Exit::Failed } else { Exit::Ok };
    if screen.json {
        screen.json(restored)?;
        return Ok(exit);
    }
    let mut text =
        format!("{} is a controller, as of {} ago\n", restored.state, age(restored.taken_ms));
    if !restored.orders.is_empty() {
        text.push_str("not closed then; whoever has not begun one of these refuses it now:\n");
        name(&restored.orders, &mut text);
    }
    if !restored.paused.is_empty() {
        text.push_str("paused; `barid rollout resume ID` goes on:\n");
        name(&restored.paused, &mut text);
    }
    if restored.tokens > 0 {
        text.push_str(&format!("{} join tokens are void: make new ones\n", restored.tokens));
    }
    if restored.missing > 0 {
        text.push_str(&format!(
            "{} objects of content are missing from the backup or damaged in it: files that need \
             them are named when they are distributed, `barid file cp` brings them in again\n",
            restored.missing
        ));
    }
    text.push_str(&format!(
        "stop the old controller if it runs, then: barid controller --state {}\n",
        restored.state
    ));
    screen.print(&text)?;
    Ok(exit)
}

fn name(orders: &[RestoredOrder], text: &mut String) {
    for order in orders.iter().take(NAMED) {
        let age = age(order.issued_ms);
        text.push_str(&format!(
            "  {}  {} ago  {}: {}\n",
            order.id,
            age,
            order.kind,
            escape_line(&order.what)
        ));
    }
    if orders.len() > NAMED {
        text.push_str(&format!("  and {} more\n", orders.len() - NAMED));
    }
}

fn show(info: &ControllerInfo, screen: &mut Screen) -> Result<Exit, Failure> {
    let exit = if info.superseded_ms > 0 { Exit::Failed } else { Exit::Ok };
    if screen.json {
        screen.json(info)?;
        return Ok(exit);
    }
    let mut text = format!("mesh {}\n", info.mesh);
    if info.superseded_ms > 0 {
        text.push_str(&format!(
            "over: another controller was restored {} ago and has the nodes\n",
            age(info.superseded_ms)
        ));
    }
    match info.epoch {
        0 => text.push_str("never restored\n"),
        epoch => text.push_str(&format!(
            "restored {} ago from a backup that is {} old\n",
            age(epoch),
            age(info.backup_ms)
        )),
    }
    if !info.lost.is_empty() {
        text.push_str("given after the backup, as nodes have told (`barid runs show ID`):\n");
        info.lost.iter().for_each(|id| text.push_str(&format!("  {id}\n")));
    }
    if !info.unknown_nodes.is_empty() {
        let numbers: Vec<_> = info.unknown_nodes.iter().map(ToString::to_string).collect();
        text.push_str(&format!(
            "enrolled after the backup, and to be enrolled again: nodes {}\n",
            numbers.join(", ")
        ));
    }
    screen.print(&text)?;
    Ok(exit)
}

/// How long ago a moment is.
fn age(unix_ms: u64) -> String {
    show_duration(since(unix_ms))
}
