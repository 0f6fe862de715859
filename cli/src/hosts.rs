//! `barid hosts`: who is enrolled, who is reachable, and who is to go.

use std::collections::{BTreeMap, HashSet};

use controller::sets::natural_cmp;
use controller::types::{HostInfo, NewLabels, Resolved, Targets};
use serde_json::json;

use crate::client::Client;
use crate::escape::escape_line;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::render::table;
use crate::screen::Screen;
use crate::targets::{TargetArgs, resolve};
use crate::units::{show_count, show_time};

/// Options of `barid hosts`.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    targets: TargetArgs,
    /// What each says of itself: system, kernel, processors, memory, and its own facts file
    #[arg(long)]
    facts: bool,
}

/// What `barid hosts` can do apart from listing.
#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Give hosts labels, by which sets can choose them: '{os=debian && rack<=4}'
    Label(LabelArgs),
    /// Take hosts or relays out of the mesh for good: their keys are refused everywhere
    Remove(RemoveArgs),
}

/// Options of `barid hosts label`.
#[derive(Clone, Debug, clap::Args)]
struct LabelArgs {
    #[command(flatten)]
    targets: TargetArgs,
    /// NAME=VALUE gives a label, NAME= one without a value, NAME- takes one away
    #[arg(value_name = "LABEL", required = true)]
    labels: Vec<String>,
}

/// Options of `barid hosts remove`.
#[derive(Clone, Debug, clap::Args)]
struct RemoveArgs {
    /// Names, ranges, groups, as in web[1-9],db1,@lyon
    #[arg(value_name = "SET", required = true)]
    sets: Vec<String>,
    /// More than one at once
    #[arg(long)]
    yes: bool,
}

async fn remove(args: RemoveArgs, client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
    let targets = Targets { sets: args.sets, ..Targets::default() };
    let meant = resolve(client, &targets).await?;
    if meant.hosts.len() > 1 && !args.yes {
        let message =
            format!("{} are {} nodes, and a removal is for good", meant.set, meant.hosts.len());
        return Err(Failure::usage(message, "add --yes if all of them are to go"));
    }
    let gone: Resolved = client.post("/v1/hosts/remove", &targets).await?;
    if screen.json {
        screen.json(&gone)?;
    } else {
        screen.say(&format!("removed {} ({})", gone.set, gone.hosts.len()))?;
        screen.help("whoever is cut off from the controller hears of it on coming back")?;
    }
    Ok(Exit::Ok)
}

/// Lists relays and hosts.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    match args.verb {
        Some(Verb::Label(args)) => return label(args, client, screen).await,
        Some(Verb::Remove(args)) => return remove(args, client, screen).await,
        None => {}
    }
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
    let (heads, rows): (&[&str], Vec<Vec<String>>) = match args.facts {
        true => {
            (&["NAME", "STATE", "SAID", "FACTS", "LABELS"], hosts.iter().map(facts_row).collect())
        }
        false => (
            &["NAME", "ROLE", "SITE", "STATE", "VIA", "ENROLLED", "LABELS"],
            hosts.iter().map(row).collect(),
        ),
    };
    // The table takes as many columns as it has heads.
    let shown = heads.len() - usize::from(hosts.iter().all(|host| host.labels.is_empty()));
    screen.print(&table(&heads[..shown], &rows))?;
    let up = hosts.iter().filter(|host| host.up).count() as u64;
    let total = hosts.len() as u64;
    if total == 0 {
        screen.say("nobody is enrolled yet")?;
        screen.help("`barid token create --role host` makes the token for the first")?;
    } else {
        let noun = if total == 1 { "node" } else { "nodes" };
        let (total, up, down) = (show_count(total), show_count(up), show_count(total - up));
        let degraded = hosts.iter().filter(|host| state(host) == "degraded").count() as u64;
        let degraded = match degraded {
            0 => String::new(),
            n => format!(", {} of them degraded", show_count(n)),
        };
        screen.say(&format!("{total} {noun}: {up} up{degraded}, {down} down"))?;
    }
    Ok(Exit::Ok)
}

/// How it is with a host, in a word.
pub(crate) fn state(host: &HostInfo) -> &'static str {
    match (host.up, host.degraded, host.stale) {
        (true, false, _) => "up",
        (true, true, _) => "degraded",
        (false, _, true) => "stale",
        (false, _, false) => "down",
    }
}

fn row(host: &HostInfo) -> Vec<String> {
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let via = if host.via == host.name { "controller" } else { &host.via };
    vec![
        host.name.clone(),
        host.role.clone(),
        dash(&host.site),
        state(host).to_owned(),
        dash(via),
        // A relay was not told it.
        if host.enrolled_ms == 0 { "-".to_owned() } else { show_time(host.enrolled_ms) },
        words(&host.labels),
    ]
}

fn facts_row(host: &HostInfo) -> Vec<String> {
    let said = if host.facts_ms == 0 { "never".into() } else { show_time(host.facts_ms) };
    let state = state(host).to_owned();
    vec![host.name.clone(), state, said, words(&host.facts), words(&host.labels)]
}

/// Names and values as they stand in a set.
fn words(of: &BTreeMap<String, String>) -> String {
    let word = |(name, value): (&String, &String)| match escape_line(value) {
        value if value.is_empty() => name.clone(),
        value if value.contains(char::is_whitespace) => format!("{name}=\"{value}\""),
        value => format!("{name}={value}"),
    };
    of.iter().map(word).collect::<Vec<_>>().join(" ")
}

async fn label(args: LabelArgs, client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
    let mut new = NewLabels { targets: args.targets.required(screen)?, ..NewLabels::default() };
    for text in args.labels {
        match (text.split_once('='), text.strip_suffix('-')) {
            (Some((name, value)), _) => drop(new.set.insert(name.into(), value.into())),
            (None, Some(name)) => new.remove.push(name.into()),
            (None, None) => {
                let help = format!("{text}= for one without a value, {text}- to take it away");
                return Err(Failure::usage(format!("{text}: write NAME=VALUE"), help));
            }
        }
    }
    let count: u64 = client.post("/v1/labels", &new).await?;
    match screen.json {
        true => screen.json(&json!({ "count": count }))?,
        false => screen.say(&format!("labels of {} hosts are changed", show_count(count)))?,
    }
    Ok(Exit::Ok)
}
