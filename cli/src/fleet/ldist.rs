//! `ldist`, at a relay: its clients put right what distributions have brought them, though nobody
//! above is there.

use std::path::PathBuf;
use std::time::Duration;

use local::{NewRestore, RestoreDone, RestoreLine};

use crate::client::Client;
use crate::escape::escape_line;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::Screen;
use crate::units::parse_some_duration;

/// What `ldist` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LdistArgs {
    /// Return at once, and say nothing
    #[arg(short = 'r', long)]
    background: bool,
    /// How long to wait for all to be done
    #[arg(long, value_name = "TIME", value_parser = parse_some_duration, default_value = "60s")]
    within: Duration,
    /// The node's state folder
    #[arg(long, value_name = "DIR", default_value = "/var/lib/barid")]
    state: PathBuf,
    /// The name of a frequency, or `all`
    #[arg(value_name = "FREQUENCY")]
    frequency: String,
    /// Only these clients
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
}

pub(crate) async fn ldist(args: LdistArgs, screen: &mut Screen) -> Result<Exit, Failure> {
    let socket = args.state.join("node.sock");
    let client = Client::new(Some(socket.clone()));
    let within = if args.background { Duration::ZERO } else { args.within };
    let path = format!("/v1/restore?deadline_ms={}", within.as_millis());
    let frequency = if args.frequency == "all" { String::new() } else { args.frequency };
    let new = NewRestore { frequency, hosts: args.hosts };
    let asked = client.post_lines::<RestoreLine>(&path, &new).await;
    let mut lines = asked.map_err(|failure| match failure.exit {
        Exit::Unreachable => {
            let message = format!("no node answers at {}", socket.display());
            Failure::new(Exit::Unreachable, "no-node", message)
        }
        _ => failure,
    })?;
    let mut all_well = true;
    while let Some(line) = lines.next().await? {
        if args.background {
            continue;
        }
        if screen.json {
            screen.json(&line)?;
        }
        match line {
            RestoreLine::Host { host, done } => {
                all_well &= done.failed.is_empty();
                if !screen.json {
                    show(&host, &done, screen)?;
                }
            }
            RestoreLine::End { silent } => {
                all_well &= silent.is_empty();
                if !silent.is_empty() && !screen.json {
                    let silent = controller::sets::fold(&silent);
                    screen.warn(&format!("no word of {silent}"))?;
                }
            }
        }
    }
    Ok(if all_well { Exit::Ok } else { Exit::Failed })
}

fn show(host: &str, done: &RestoreDone, screen: &mut Screen) -> Result<(), Failure> {
    let host = escape_line(host);
    for dest in &done.restored {
        screen.print(&format!("{host}: {} is right again\n", escape_line(dest)))?;
    }
    for (dest, why) in &done.failed {
        screen.warn(&format!("{host}: {}: {}", escape_line(dest), escape_line(why)))?;
    }
    if done.more > 0 {
        screen.print(&format!("{host}: and {} more\n", done.more))?;
    }
    Ok(())
}
