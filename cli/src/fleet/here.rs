//! What a host asks for itself, by the socket of its own node: files now, and subscriptions.
//!
//! With a host named, or an entry whose subscribers are wanted, the controller is asked instead.

use std::path::PathBuf;
use std::time::Duration;

use bus::Why;
use bus::files::{FileAsk, FileSaid};
use controller::fleet::types::{Change, Question, Subscriptions};

use super::{ask, change};
use crate::bus::{failure, socket};
use crate::client::Client;
use crate::escape::escape_line;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::render::table;
use crate::screen::Screen;
use crate::units::parse_some_duration;

/// The node of this machine.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NodeArgs {
    /// The node's socket, as for `barid bus`
    #[arg(long, value_name = "PATH", env = "BARID_BUS", hide_env_values = true)]
    node: Option<PathBuf>,
    /// How long to wait for the files to be in place
    #[arg(long, value_name = "TIME", value_parser = parse_some_duration, default_value = "60s")]
    within: Duration,
}

/// What `request` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RequestArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Paths, or DOMAIN:PATH
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
}

/// What `barid file subscribe` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WishArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// At the controller: for this host, wherever it belongs
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// The file: a path, or DOMAIN:PATH
    #[arg(value_name = "FILE")]
    file: String,
}

/// What `fdist -o subscribe` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HostWishArgs {
    /// The host, by name or alias
    #[arg(value_name = "HOST")]
    host: String,
    /// The file: DOMAIN:PATH
    #[arg(value_name = "DOMAINPATH")]
    path: String,
}

/// What `subscriptions` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SubscriptionsArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// At the controller: who has subscribed to all that is optional
    #[arg(long)]
    all: bool,
    /// At the controller: who has subscribed to these, or asked for them [default: what is offered
    /// to this host]
    #[arg(value_name = "DOMAINPATH", conflicts_with = "all")]
    paths: Vec<String>,
}

/// What `optional` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct OptionalArgs {
    /// To everybody in its domain again; who has subscribed is forgotten
    #[arg(long)]
    off: bool,
    /// The file: DOMAIN:PATH
    #[arg(value_name = "DOMAINPATH")]
    path: String,
}

impl From<HostWishArgs> for WishArgs {
    fn from(args: HostWishArgs) -> WishArgs {
        let node = NodeArgs { node: None, within: Duration::ZERO };
        WishArgs { node, host: Some(args.host), file: args.path }
    }
}

pub(crate) async fn request(args: RequestArgs, screen: &mut Screen) -> Result<Exit, Failure> {
    say(args.node, FileAsk::Request { files: args.files }, screen).await
}

/// `wanted`: to subscribe, else to end that.
pub(crate) async fn wish(
    args: WishArgs,
    wanted: bool,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let WishArgs { node, host, file } = args;
    let Some(host) = host else {
        let ask = match wanted {
            true => FileAsk::Subscribe { file },
            false => FileAsk::Unsubscribe { file },
        };
        return say(node, ask, screen).await;
    };
    let asked = match wanted {
        true => Change::Subscribe { host, path: file },
        false => Change::Unsubscribe { host, path: file },
    };
    change(client, screen, asked).await
}

pub(crate) async fn optional(
    args: OptionalArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let wanted = Change::SetOptional { path: args.path, optional: !args.off };
    change(client, screen, wanted).await
}

pub(crate) async fn subscriptions(
    args: SubscriptionsArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    if args.paths.is_empty() && !args.all {
        return say(args.node, FileAsk::List, screen).await;
    }
    let question = Question::Subscriptions { paths: args.paths };
    let all: Vec<Subscriptions> = ask(client, &question).await?;
    if screen.json {
        screen.json(&all)?;
        return Ok(Exit::Ok);
    }
    for of in all {
        screen.print(&format!("{} revision {}\n", of.path, of.revision))?;
        let lines = [
            ("subscribers", &of.subscribers),
            ("of them lacking it", &of.lacking),
            ("not in its domain any more", &of.resting),
            ("by request, newest", &of.holders),
            ("by request, older", &of.outdated),
        ];
        for (what, hosts) in lines.into_iter().filter(|(_, hosts)| !hosts.is_empty()) {
            screen.print(&format!("  {what}: {}\n", controller::sets::fold(hosts)))?;
        }
    }
    Ok(Exit::Ok)
}

/// Asks by the node, and shows what is said to the last word.
async fn say(args: NodeArgs, ask: FileAsk, screen: &mut Screen) -> Result<Exit, Failure> {
    let client = bus::Client::new(socket(args.node));
    let mut answers = client.files(&ask, args.within).await.map_err(failure)?;
    let mut given = false;
    while let Some(said) = answers.next().await.map_err(failure)? {
        if screen.json {
            screen.json(&said)?;
        }
        match said {
            FileSaid::Given { files, .. } => {
                given = true;
                if !screen.json {
                    files.iter().try_for_each(|file| screen.say(&format!("{file} comes")))?;
                    screen.flush()?;
                }
            }
            FileSaid::Nothing(why) => return Err(nothing(why, given)),
            said => return last(said, screen),
        }
    }
    Err(nothing(Why::Stopped, given))
}

/// What the controller said last.
fn last(said: FileSaid, screen: &mut Screen) -> Result<Exit, Failure> {
    match said {
        FileSaid::Refused(fault) => {
            let failure = Failure::new(Exit::Failed, "refused", fault.message);
            return Err(if fault.help.is_empty() {
                failure
            } else {
                failure.with_help(fault.help)
            });
        }
        FileSaid::Ended { state, fault } if state != "ok" => {
            let why = if fault.is_empty() { String::new() } else { format!(": {fault}") };
            let message = format!("not in place: {state}{why}");
            return Err(Failure::new(Exit::Failed, "not-in-place", message));
        }
        FileSaid::Ended { .. } if !screen.json => screen.say("in place")?,
        FileSaid::Offered(files) if !screen.json => {
            let row = |file: &bus::files::OfferedFile| {
                let by = match file.subscribed.as_str() {
                    "" => "-".to_owned(),
                    by => format!("by {by}"),
                };
                let texts = [&file.path, &file.frequency, &by];
                texts.map(|text| escape_line(text).into_owned()).to_vec()
            };
            let rows: Vec<Vec<String>> = files.iter().map(row).collect();
            screen.print(&table(&["FILE", "FREQUENCY", "SUBSCRIBED"], &rows))?;
        }
        _ => {}
    }
    Ok(Exit::Ok)
}

/// Nobody has said the last word.
fn nothing(why: Why, given: bool) -> Failure {
    let text = match (why, given) {
        (_, true) => "it was given, and the node has not said yet that it is in place",
        (Why::Nobody, _) => "the controller cannot be reached from here",
        (Why::Deadline, _) => "the controller has not answered in time",
        (Why::Enough | Why::Stopped, _) => "the node has stopped",
    };
    let exit = if given { Exit::Missed } else { Exit::Unreachable };
    Failure::new(exit, "no-answer", text).with_help("try again later: asking twice does no harm")
}
