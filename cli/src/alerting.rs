//! `barid alerts`: what is wrong now, who has it in hand, and who is not to be told of what.

mod reactions;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alerts::{
    AlertInfo, ChannelInfo, Message, NewAck, NewTest, Overview, Sender, Settings, SilenceRow,
};
use serde_json::json;

use crate::client::{Client, segment};
use crate::escape::escape_line;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::render::table;
use crate::screen::Screen;
use crate::targets::{TargetArgs, resolve};
use crate::units::{millis, parse_some_duration, show_duration, show_time, since, until};

/// Options of `barid alerts`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What `barid alerts` can do; without a word it lists.
#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// List what is wrong now
    #[command(visible_alias = "list")]
    Ls {
        /// Also what is over, what a larger cause explains, and what is not yet an alert
        #[arg(short = 'A', long)]
        all: bool,
    },
    /// Show one alert, with what to do about it
    Show {
        /// Its id, the beginning of it (4 digits or more), or its key
        alert: String,
    },
    /// Take an alert upon yourself: it is not told again while it lasts
    Ack {
        /// Its id, the beginning of it (4 digits or more), or its key
        alert: String,
        /// What you do about it
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
    },
    /// Let nobody be told of some alerts for a while; with --in it is a maintenance window
    Silence(Box<SilenceArgs>),
    /// End a silence
    Unsilence {
        /// Its id, as `barid alerts silences` shows it
        id: String,
    },
    /// List the silences
    Silences,
    /// List the channels, and how they do
    Channels {
        /// The state folder of a relay or host, on its own machine [default: ask the controller]
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
    },
    /// List what is done by itself when an alert fires, and what has come of it
    Reactions {
        /// The state folder of a relay or host, on its own machine [default: ask the controller]
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
    },
    /// Send a test message by a channel
    Test {
        /// The channel's name in alerts.toml
        channel: String,
        /// The state folder of a relay or host, on its own machine [default: ask the controller]
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
    },
}

/// Options of `barid alerts silence`.
#[derive(Clone, Debug, clap::Args)]
struct SilenceArgs {
    #[command(flatten)]
    targets: TargetArgs,
    /// Alerts of this site; several with commas
    #[arg(long, value_name = "SITE", value_delimiter = ',')]
    site: Vec<String>,
    /// Alerts of this kind, as host-lost; several with commas
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    kind: Vec<String>,
    /// Every alert
    #[arg(long, conflicts_with_all = ["site", "kind"])]
    everything: bool,
    /// How long
    #[arg(long = "for", value_name = "TIME", value_parser = parse_some_duration)]
    span: Duration,
    /// In how much time it begins [default: now]
    #[arg(long = "in", value_name = "TIME", value_parser = parse_some_duration)]
    delay: Option<Duration>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Lists and changes.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    match args.verb.unwrap_or(Verb::Ls { all: false }) {
        Verb::Ls { all } => list(all, client, screen).await,
        Verb::Show { alert } => show(&alert, client, screen).await,
        Verb::Ack { alert, note } => {
            let new = NewAck { alert, by: author(), note };
            let alert: AlertInfo = client.post("/v1/alerts/ack", &new).await?;
            match screen.json {
                true => screen.json(&alert)?,
                false => screen.say(&format!("{} is yours: {}", alert.id, line(&alert)))?,
            }
            Ok(Exit::Ok)
        }
        Verb::Silence(args) => silence(*args, client, screen).await,
        Verb::Unsilence { id } => {
            client.delete(&format!("/v1/silences/{}", segment(&id)?)).await?;
            match screen.json {
                true => screen.json(&json!({ "ended": id }))?,
                false => screen.say(&format!("silence {id} is over"))?,
            }
            Ok(Exit::Ok)
        }
        Verb::Silences => silences(client, screen).await,
        Verb::Channels { state } => channels(state, client, screen).await,
        Verb::Reactions { state } => reactions::list(state, client, screen).await,
        Verb::Test { channel, state } => test(channel, state, client, screen).await,
    }
}

/// Whether an alert is one that somebody should see now.
fn is_on(alert: &AlertInfo) -> bool {
    alert.state == "firing" && alert.inhibited_by.is_none()
}

fn line(alert: &AlertInfo) -> String {
    escape_line(&alert.summary).into_owned()
}

/// How it is with an alert, in words.
fn words(alert: &AlertInfo) -> String {
    let mut words = alert.state.clone();
    if let Some(cause) = &alert.inhibited_by {
        words = format!("behind {cause}");
    } else if let Some(id) = &alert.silenced_by {
        words = format!("{words}, silenced by {id}");
    }
    if let Some(by) = &alert.acked_by {
        words = format!("{words}, with {}", escape_line(by));
    }
    if alert.flapping {
        words.push_str(", comes and goes");
    }
    words
}

async fn list(all: bool, client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
    let overview: Overview = client.get("/v1/alerts").await?;
    let mut alerts = overview.alerts;
    alerts.retain(|alert| all || is_on(alert));
    let rank = |alert: &AlertInfo| match alert.severity.as_str() {
        "critical" => 0,
        "warning" => 1,
        _ => 2,
    };
    alerts.sort_by_key(|alert| (!is_on(alert), rank(alert), alert.began_ms));
    if screen.json {
        screen.json(&alerts)?;
        return Ok(Exit::Ok);
    }
    if alerts.is_empty() {
        screen.say("nothing is wrong")?;
        return Ok(Exit::Ok);
    }
    let row = |alert: &AlertInfo| {
        let age = show_duration(since(alert.began_ms));
        vec![alert.id.clone(), alert.severity.clone(), age, words(alert), line(alert)]
    };
    let rows: Vec<Vec<String>> = alerts.iter().map(row).collect();
    screen.print(&table(&["ID", "SEVERITY", "SINCE", "STATE", "WHAT"], &rows))?;
    let failing = overview.channels.iter().filter(|channel| channel.failing_ms > 0);
    for channel in failing {
        let error = escape_line(&channel.error);
        screen.warn(&format!("channel {} takes no alerts: {error}", channel.name))?;
    }
    Ok(Exit::Ok)
}

async fn show(name: &str, client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
    let overview: Overview = client.get("/v1/alerts").await?;
    let meant =
        |alert: &&AlertInfo| alert.key == name || name.len() >= 4 && alert.id.starts_with(name);
    let Some(alert) = overview.alerts.iter().find(meant) else {
        let failure =
            Failure::new(Exit::Failed, "unknown-alert", format!("there is no alert {name}"));
        return Err(failure.with_help("barid alerts ls --all lists them"));
    };
    if screen.json {
        screen.json(alert)?;
        return Ok(Exit::Ok);
    }
    let at = |ms: u64| if ms == 0 { "-".into() } else { show_time(ms) };
    let labels = alert.labels.iter();
    let labels = labels.map(|(name, value)| format!("{name}={}", escape_line(value)));
    let note = if alert.note.is_empty() { "-" } else { &alert.note };
    let rows = [
        ("what", line(alert)),
        ("do", alert.help.clone()),
        ("state", words(alert)),
        ("severity", alert.severity.clone()),
        ("key", escape_line(&alert.key).into_owned()),
        ("labels", labels.collect::<Vec<_>>().join(" ")),
        ("since", at(alert.began_ms)),
        ("alert since", at(alert.fired_ms)),
        ("over since", at(alert.ended_ms)),
        ("last told", at(alert.told_ms)),
        ("note", escape_line(note).into_owned()),
    ];
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty() && value != "-") {
        screen.print(&format!("{name:<12} {value}\n"))?;
    }
    Ok(Exit::Ok)
}

async fn silence(args: SilenceArgs, client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    if !args.targets.is_empty() {
        let meant = resolve(client, &args.targets.targets(screen)?).await?;
        labels.insert("host".into(), meant.hosts.into_iter().collect());
    }
    for (label, values) in [("site", args.site), ("kind", args.kind)] {
        if !values.is_empty() {
            labels.insert(label.into(), values.into_iter().collect());
        }
    }
    if labels.is_empty() && !args.everything {
        let help = "-w SET, --site SITE, --kind KIND, or --everything";
        return Err(Failure::usage("which alerts are not to be told?", help));
    }
    if args.everything && !labels.is_empty() {
        return Err(Failure::usage("--everything leaves nobody out", "drop -w, or drop it"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let from_ms = args.delay.map_or(0, |delay| millis(now + delay));
    let until_ms = millis(now + args.delay.unwrap_or_default() + args.span);
    let (id, author, reason) = (String::new(), author(), args.reason);
    let new = SilenceRow { id, labels, from_ms, until_ms, author, reason };
    let taken: SilenceRow = client.post("/v1/silences", &new).await?;
    match screen.json {
        true => screen.json(&taken)?,
        false => {
            let text = format!("silence {} until {}", taken.id, show_time(taken.until_ms));
            screen.say(&text)?;
            screen.help(&format!("barid alerts unsilence {} ends it earlier", taken.id))?;
        }
    }
    Ok(Exit::Ok)
}

async fn silences(client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
    let overview: Overview = client.get("/v1/alerts").await?;
    if screen.json {
        screen.json(&overview.silences)?;
        return Ok(Exit::Ok);
    }
    let row = |silence: &SilenceRow| {
        let values = |values: &BTreeSet<String>| {
            let names: Vec<&str> = values.iter().map(String::as_str).collect();
            controller::sets::fold(&names)
        };
        let of = silence.labels.iter().map(|(label, of)| format!("{label}={}", values(of)));
        let of = of.collect::<Vec<_>>().join(" ");
        let begins = until(silence.from_ms);
        let state = match begins.is_zero() {
            true => format!("for {} more", show_duration(until(silence.until_ms))),
            false => format!("in {}", show_duration(begins)),
        };
        let what = if of.is_empty() { "everything".into() } else { of };
        let by = escape_line(&silence.author).into_owned();
        vec![silence.id.clone(), state, what, by, escape_line(&silence.reason).into_owned()]
    };
    let rows: Vec<Vec<String>> = overview.silences.iter().map(row).collect();
    screen.print(&table(&["ID", "STANDS", "WHAT", "AUTHOR", "REASON"], &rows))?;
    Ok(Exit::Ok)
}

/// What there is of alerts at the controller, or at the node of this state folder.
async fn overview(state: Option<PathBuf>, client: &Client) -> Result<Overview, Failure> {
    match state {
        None => client.get("/v1/alerts").await,
        Some(state) => Client::new(Some(state.join("node.sock"))).get("/v1/alerts").await,
    }
}

async fn channels(
    state: Option<PathBuf>,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let overview = overview(state, client).await?;
    if screen.json {
        screen.json(&overview.channels)?;
        return Ok(Exit::Ok);
    }
    let row = |channel: &ChannelInfo| {
        let stands = match channel.failing_ms {
            0 => "well".into(),
            ms => format!("fails for {}", show_duration(since(ms))),
        };
        let (waiting, sent) = (channel.waiting.to_string(), channel.sent.to_string());
        let error = escape_line(&channel.error).into_owned();
        vec![channel.name.clone(), channel.kind.clone(), stands, waiting, sent, error]
    };
    let rows: Vec<Vec<String>> = overview.channels.iter().map(row).collect();
    screen.print(&table(&["NAME", "KIND", "STANDS", "WAITING", "SENT", "ERROR"], &rows))?;
    if rows.is_empty() {
        screen.help("nobody is told: docs/operations.md says what alerts.toml holds")?;
    }
    Ok(Exit::Ok)
}

async fn test(
    channel: String,
    state: Option<PathBuf>,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    match state {
        None => {
            let new = NewTest { channel: channel.clone() };
            client.post::<()>("/v1/alerts/test", &new).await?;
        }
        Some(state) => {
            let settings = Settings::load(&state.join("alerts.toml"));
            let settings = settings.map_err(|error| Failure::local(&error))?;
            let node = crate::join::load(&state)?.map(|known| known.identity().clone());
            let from = node.map_or_else(Sender::default, |node| Sender {
                node: node.name,
                mesh: node.mesh.to_string(),
            });
            let message = Message::plain(&from, "test", "this is a test", millis(since(0)));
            settings.test(&channel, &message).await.map_err(|error| Failure::local(&error))?;
        }
    }
    match screen.json {
        true => screen.json(&json!({ "taken": channel }))?,
        false => screen.say(&format!("channel {channel} has taken a test message"))?,
    }
    Ok(Exit::Ok)
}

/// Who asks: whoever has become root to do so is named by his own name.
fn author() -> String {
    let named = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    named("SUDO_USER").or_else(|| named("USER")).unwrap_or_else(|| "unknown".into())
}
