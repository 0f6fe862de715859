//! Commands about host records, and the text forms.

use std::io::Read;

use clap::ValueEnum;
use controller::fleet::types::{Change, FileOf, HostDomains, Question, RelayClients, TableText};

use super::{ask, change};
use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::Screen;

/// What `domain` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DomainArgs {
    /// Also the files that each will receive
    #[arg(short = 'F', long)]
    files: bool,
    /// Hosts, by name or alias
    #[arg(value_name = "HOST", required = true)]
    hosts: Vec<String>,
}

/// What `hosts` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HostsArgs {
    /// Also the files that each will receive
    #[arg(short = 'F', long)]
    files: bool,
    /// Hosts of which something is not known, and what
    #[arg(long, conflicts_with = "files")]
    unknown: bool,
    /// The domains; `common` stands for any word
    #[arg(value_name = "DOMAIN", required_unless_present = "unknown", conflicts_with = "unknown")]
    domains: Vec<String>,
}

impl HostsArgs {
    /// Those of which something is not known.
    pub(crate) fn unknown() -> HostsArgs {
        HostsArgs { files: false, unknown: true, domains: Vec::new() }
    }
}

/// What `mkhost` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MkhostArgs {
    /// Names may stand several times
    #[arg(short = 's')]
    several: bool,
}

/// What `chslave` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ChslaveArgs {
    /// A relay, or a network such as 130.62.6 or 10.0.0.0/8
    #[arg(value_name = "FROM")]
    from: String,
    /// The new relay
    #[arg(value_name = "RELAY")]
    to: String,
}

/// What `network` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NetworkArgs {
    /// The relays [default: all]
    #[arg(value_name = "RELAY")]
    relays: Vec<String>,
}

/// What `sethost` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SetArgs {
    /// Its name, as it enrols
    #[arg(value_name = "HOST")]
    name: String,
    /// Its domains, one for each view
    #[arg(value_name = "DOMAIN")]
    domains: Vec<String>,
    /// Its address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Its hardware address
    #[arg(long, value_name = "ADDRESS")]
    ether: Option<String>,
    /// Its other names, with commas; empty: none
    #[arg(long, value_name = "NAMES")]
    aliases: Option<String>,
    /// The relay that serves it
    #[arg(long, value_name = "RELAY")]
    relay: Option<String>,
}

/// What `rmhost` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// Its name
    #[arg(value_name = "HOST")]
    name: String,
}

/// What has a text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Host records
    Hosts,
    /// Who gets which files
    Files,
    /// Levels, domains and frequencies
    Config,
}

/// What `export` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// Which text
    #[arg(value_enum)]
    pub(crate) what: What,
}

/// What `import` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// Which text
    #[arg(value_enum)]
    pub(crate) what: What,
    /// The text; `-` is standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: String,
    /// Also if something goes that is there now
    #[arg(short = 'f', long)]
    pub(crate) force: bool,
}

pub(crate) async fn domain(
    args: DomainArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let hosts: Vec<HostDomains> = ask(client, &Question::Host { hosts: args.hosts }).await?;
    let several = hosts.len() > 1;
    if screen.json {
        screen.json(&hosts)?;
    } else {
        for host in hosts.iter().filter(|host| host.known) {
            if several {
                screen.print(&format!("Host {} belongs to:\n", host.name))?;
            }
            host.domains.iter().try_for_each(|domain| screen.print(&format!("{domain}\n")))?;
            if args.files {
                host.files.iter().try_for_each(|file| screen.print(&line_of(file)))?;
            }
        }
    }
    let unknown: Vec<&str> =
        hosts.iter().filter(|host| !host.known).map(|host| host.name.as_str()).collect();
    if unknown.is_empty() {
        return Ok(Exit::Ok);
    }
    let message = format!("unknown host {}", unknown.join(", "));
    Err(Failure::new(Exit::Failed, "unknown-host", message))
}

pub(crate) async fn hosts(
    args: HostsArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let question = match args.unknown {
        true => Question::Unknown,
        false => Question::Members { domains: args.domains },
    };
    let hosts: Vec<HostDomains> = ask(client, &question).await?;
    if screen.json {
        screen.json(&hosts)?;
        return Ok(Exit::Ok);
    }
    for host in hosts {
        match args.unknown {
            true => screen.print(&format!("{} {}\n", host.name, host.unknown.join(",")))?,
            false => screen.print(&format!("{}\n", host.name))?,
        }
        for file in host.files.iter().filter(|_| args.files) {
            screen.print(&format!("\t{}", line_of(file)))?;
        }
    }
    Ok(Exit::Ok)
}

/// A file that a host gets.
fn line_of(file: &FileOf) -> String {
    let subscribed = if file.optional { " subscription" } else { "" };
    format!("{} {}{subscribed}\n", file.frequency, file.path)
}

pub(crate) async fn mkhost(
    args: MkhostArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    table(client, screen, &Question::HostsTable { several: args.several }).await
}

pub(crate) async fn mkether(client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
    table(client, screen, &Question::EthersTable).await.map(|_| Exit::Ok)
}

pub(crate) async fn chslave(
    args: ChslaveArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    table(client, screen, &Question::MoveRelay { from: args.from, to: args.to }).await
}

/// Prints a text, and what is wrong with it.
async fn table(client: &Client, screen: &mut Screen, question: &Question) -> Result<Exit, Failure> {
    let table: TableText = ask(client, question).await?;
    if screen.json {
        screen.json(&table)?;
    } else {
        screen.print(&table.text)?;
        table.complaints.iter().try_for_each(|complaint| screen.warn(complaint))?;
    }
    Ok(if table.complaints.is_empty() { Exit::Ok } else { Exit::Failed })
}

pub(crate) async fn network(
    args: NetworkArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let relays: Vec<RelayClients> = ask(client, &Question::Network { relays: args.relays }).await?;
    if screen.json {
        screen.json(&relays)?;
        return Ok(Exit::Ok);
    }
    for RelayClients { relay, clients } in relays {
        screen.print(&format!("Clients of relay {relay}:\n"))?;
        for (ip, name) in clients {
            screen.print(&format!("{ip} {name}\n"))?;
        }
    }
    Ok(Exit::Ok)
}

pub(crate) async fn set(
    args: SetArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let SetArgs { name, domains, ip, ether, aliases, relay } = args;
    let domains = (!domains.is_empty()).then_some(domains);
    let list = |text: String| {
        text.split(',').filter(|name| !name.is_empty()).map(String::from).collect::<Vec<_>>()
    };
    let aliases = aliases.map(list);
    change(client, screen, Change::SetHost { name, ip, ether, aliases, relay, domains }).await
}

pub(crate) async fn remove(
    args: RemoveArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    change(client, screen, Change::RemoveHost { name: args.name }).await
}

pub(crate) async fn export(
    args: ExportArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let what = match args.what {
        What::Hosts => "hosts",
        What::Files => "files",
        What::Config => "config",
    };
    table(client, screen, &Question::Export { what: what.into() }).await
}

pub(crate) async fn import(
    args: ImportArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let ImportArgs { what, file, force } = args;
    let mut text = String::new();
    let read = match file.as_str() {
        "-" => std::io::stdin().read_to_string(&mut text).map(|_| ()),
        path => std::fs::read_to_string(path).map(|read| text = read),
    };
    read.map_err(|error| Failure::new(Exit::Failed, "file", format!("{file}: {error}")))?;
    let wanted = match what {
        What::Hosts => Change::ImportHosts { text, force },
        What::Files => Change::ImportFiles { text, force },
        What::Config => Change::ImportConfig { text },
    };
    // Whoever reads it wants to know which file the line is in.
    change(client, screen, wanted).await.map_err(|mut failure| {
        failure.error.message = format!("{file}: {}", failure.error.message);
        failure
    })
}
