//! `barid hosts`: who is enrolled, and who is reachable.

use std::collections::HashSet;

use controller::sets::natural_cmp;
use controller::types::HostInfo;

use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::render::table;
use crate::screen::Screen;
use crate::targets::{TargetArgs, resolve};
use crate::units::{show_count, show_time};

/// Options of `barid hosts`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    targets: TargetArgs,
}

/// Lists relays and hosts.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let mut hosts: Vec<HostInfo> = client.get("/v1/hosts").await?;
    if !args.targets.is_empty() {
        let wanted = resolve(client, &args.targets.targets(screen)?).await?;
        let wanted: HashSet<String> = wanted.hosts.into_iter().collect();
        hosts.retain(|host| wanted.contains(&host.name));
    } else if args.targets.narrows() {
        return Err(Failure::usage(
            "-x, -X, --limit and --pick choose from whom?",
            "add -a: barid hosts -a -x SET",
        ));
    }
    hosts.sort_by(|a, b| natural_cmp(&a.name, &b.name));
    if screen.json {
        screen.json(&hosts)?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<Vec<String>> = hosts.iter().map(row).collect();
    screen.print(&table(&["NAME", "ROLE", "SITE", "STATE", "VIA", "ENROLLED"], &rows))?;
    let up = hosts.iter().filter(|host| host.up).count() as u64;
    let total = hosts.len() as u64;
    if total == 0 {
        screen.say("nobody is enrolled yet")?;
        screen.help("`barid token create --role host` makes the token for the first")?;
    } else {
        let noun = if total == 1 { "node" } else { "nodes" };
        let (total, up, down) = (show_count(total), show_count(up), show_count(total - up));
        screen.say(&format!("{total} {noun}: {up} up, {down} down"))?;
    }
    Ok(Exit::Ok)
}

fn row(host: &HostInfo) -> Vec<String> {
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let via = if host.via == host.name { "controller" } else { &host.via };
    vec![
        host.name.clone(),
        host.role.clone(),
        dash(&host.site),
        if host.up { "up" } else { "down" }.to_owned(),
        dash(via),
        show_time(host.enrolled_ms),
    ]
}
