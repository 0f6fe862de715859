//! `barid nodes`: sets by themselves. Fold, expand, count, and the groups that there are.
//!
//! Names and operators are worked off here, without a controller and whether or not such hosts
//! exist. Groups, globs and regular expressions are asked of the controller, as are `-w -a -g`.

use std::collections::HashMap;

use controller::sets::{self, Algebra, Group, Names, Set, What, fold, fold_stepped, natural_cmp};
use controller::types::{GroupInfo, GroupQuery, Targets};
use serde_json::json;

use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::hostfile;
use crate::render::table;
use crate::screen::Screen;
use crate::targets::{TargetArgs, resolve};
use crate::units::{show_count, show_duration};

const EXAMPLES: &str = "\
Examples:
  barid nodes fold web1 web2 web3 web5          web[1-3,5]
  barid nodes expand 'rack[1-2]n[01-16]!rack1n03'
  barid nodes count '@lyon&@up'
  sort hosts.txt | barid nodes fold -           names from standard input
  barid nodes fold -r -a -x @down               with whole groups where they fit
  barid nodes groups -s '*' web7                the groups that web7 is in

docs/sets.md has the whole grammar.";

/// Options of `barid nodes`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

/// What `barid nodes` can do.
#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Write a set as briefly as possible
    Fold(FoldArgs),
    /// Write the names of a set, a line each
    Expand(ExpandArgs),
    /// Write how many names a set has
    Count(SetArgs),
    /// List groups, or those of some hosts
    Groups(GroupArgs),
}

/// Which set.
#[derive(Clone, Debug, clap::Args)]
struct SetArgs {
    /// Sets, all of them together; `-` is standard input, a set a line
    #[arg(value_name = "SET")]
    given: Vec<String>,
    #[command(flatten)]
    targets: TargetArgs,
}

#[derive(Clone, Debug, clap::Args)]
struct FoldArgs {
    #[command(flatten)]
    set: SetArgs,
    /// Write groups instead of their members where they fit whole
    #[arg(short = 'r', long)]
    regroup: bool,
    /// The source of the groups [default: groups.toml and the sites]
    #[arg(short = 's', long, value_name = "SOURCE", default_value = "", hide_default_value = true)]
    source: String,
    /// Write so many numbers or more with steps between them as a range: n[0-20/2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..))]
    #[arg(conflicts_with = "regroup")]
    autostep: Option<u32>,
}

#[derive(Clone, Debug, clap::Args)]
struct ExpandArgs {
    #[command(flatten)]
    set: SetArgs,
    /// What stands between names [default: a newline]
    #[arg(short = 'S', long, value_name = "TEXT", default_value = "\n", hide_default_value = true)]
    separator: String,
}

#[derive(Clone, Debug, clap::Args)]
struct GroupArgs {
    #[command(flatten)]
    set: SetArgs,
    /// The source, `*` for each: site, relay, role, or one of groups.toml
    /// [default: groups.toml and the sites]
    #[arg(short = 's', long, value_name = "SOURCE", default_value = "", hide_default_value = true)]
    source: String,
}

/// Works a set off, and shows it.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    match args.verb {
        Verb::Fold(args) => {
            let names = names(args.set, client, screen).await?;
            let set = match args.regroup {
                true => {
                    let groups = known_groups(client, &args.source).await?;
                    sets::regroup(names.iter().map(String::as_str), &groups)
                }
                false => match args.autostep {
                    Some(least) => fold_stepped(&names, least as usize),
                    None => fold(&names),
                },
            };
            match screen.json {
                true => screen.json(&json!({ "set": set, "count": names.len() }))?,
                false => screen.print(&format!("{set}\n"))?,
            }
        }
        Verb::Expand(args) => {
            let mut names = names(args.set, client, screen).await?;
            names.sort_by(|a, b| natural_cmp(a, b));
            match screen.json {
                true => screen.json(&json!({ "hosts": names, "count": names.len() }))?,
                false if names.is_empty() => {}
                false => screen.print(&format!("{}\n", names.join(&args.separator)))?,
            }
        }
        Verb::Count(args) => {
            let count = names(args, client, screen).await?.len();
            match screen.json {
                true => screen.json(&json!({ "count": count }))?,
                false => screen.print(&format!("{count}\n"))?,
            }
        }
        Verb::Groups(args) => groups(args, client, screen).await?,
    }
    Ok(Exit::Ok)
}

async fn groups(args: GroupArgs, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
    let asks = !args.set.given.is_empty() || !args.set.targets.is_empty();
    let of = match asks {
        true => {
            let names = names(args.set, client, screen).await?;
            Some(Targets { sets: vec![fold(names)], ..Targets::default() })
        }
        false => None,
    };
    let query = GroupQuery { source: args.source, of };
    let groups: Vec<GroupInfo> = client.post("/v1/groups", &query).await?;
    if screen.json {
        return Ok(screen.json(&groups)?);
    }
    let row = |group: &GroupInfo| {
        let age = match group.age_ms {
            0 => "-".into(),
            ms => show_duration(std::time::Duration::from_millis(ms)),
        };
        let set = match group.error.as_str() {
            "" => group.set.clone(),
            error => format!("error: {error}"),
        };
        vec![group.name.clone(), show_count(group.count), age, set]
    };
    let rows: Vec<Vec<String>> = groups.iter().map(row).collect();
    Ok(screen.print(&table(&["GROUP", "HOSTS", "AGE", "SET"], &rows))?)
}

/// Groups with their members, for writing sets with them.
pub(crate) async fn known_groups(client: &Client, source: &str) -> Result<Vec<Group>, Failure> {
    let query = GroupQuery { source: source.into(), of: None };
    let infos: Vec<GroupInfo> = client.post("/v1/groups", &query).await?;
    let group = |info: GroupInfo| Group {
        name: info.name,
        hosts: sets::expand(&info.set).unwrap_or_default(),
    };
    Ok(infos.into_iter().map(group).collect())
}

/// The names that are meant, each once.
async fn names(
    args: SetArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Vec<String>, Failure> {
    if args.targets.is_empty() && args.targets.narrows() {
        return Err(Failure::usage(
            "-x, -X, --limit and --pick are for -w, -g and -a",
            "in a set itself the same is written 'a[1-9]!a3' and 'a[1-9]&b'",
        ));
    }
    if args.targets.is_empty() && args.given.is_empty() {
        return Err(Failure::usage(
            "no set is given",
            "barid nodes fold web1 web2, or - for stdin",
        ));
    }
    let mut parts = Vec::new();
    for text in &args.given {
        let text = match text.as_str() {
            "-" => hostfile::read("-")?,
            text => hostfile::put_in(text)?.into_owned(),
        };
        parts.push(worked_off(&text, client).await?);
    }
    if !args.targets.is_empty() {
        let targets = args.targets.targets(screen)?;
        parts.push(resolve(client, &targets).await?.hosts.into());
    }
    Ok(Names::any(parts).into_vec())
}

async fn worked_off(text: &str, client: &Client) -> Result<Names, Failure> {
    let wrong =
        |error: sets::SetError| Failure::usage(error.to_string(), "for example web[1-3]!web2");
    let set = sets::parse(text).map_err(wrong)?;
    let mut asked = Vec::new();
    find_asked(&set, &mut asked);
    let mut known: HashMap<&str, Vec<String>> = HashMap::new();
    for term in asked {
        if known.contains_key(term) {
            continue;
        }
        let targets = Targets { sets: vec![term.into()], ..Targets::default() };
        let hosts = match resolve(client, &targets).await {
            Ok(resolved) => resolved.hosts,
            // A group may be empty; it is not what is asked for in the end.
            Err(failure) if failure.error.code == "empty-set" => Vec::new(),
            Err(failure) => return Err(failure),
        };
        known.insert(term, hosts);
    }
    sets::evaluate(&set, &mut |term| {
        Ok(match &term.what {
            What::Names(pattern) => pattern.names().into(),
            _ => known.get(term.text).cloned().unwrap_or_default().into(),
        })
    })
}

/// The terms that only the controller knows.
fn find_asked<'a>(set: &Set<'a>, asked: &mut Vec<&'a str>) {
    for (_, term) in &set.terms {
        match &term.what {
            What::Names(_) => {}
            What::Set(set) => find_asked(set, asked),
            _ => asked.push(term.text),
        }
    }
}
