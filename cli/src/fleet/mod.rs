//! The commands about domains, hosts and files: what `barid domain`, `host` and `file` and
//! `fdist -o` have in common.
//!
//! A command asks or changes one thing through the API and prints the answer. Names of commands
//! are the traditional ones; `verbs` gives the same things the names that people would look for.

mod check;
mod content;
mod dist;
mod domains;
mod edit;
mod files;
mod here;
mod hosts;
mod ldist;
mod report;
pub(crate) mod verbs;
mod verify;

use controller::fleet::types::{Author, Change, Changed, NewChange, Question};
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::Screen;

/// The commands.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a domain below an existing one, or a new view
    Create(domains::CreateArgs),
    /// Remove a domain that has neither files nor domains nor hosts
    Delete(domains::DeleteArgs),
    /// Make a domain that shares the files of another
    Clone(domains::PairArgs),
    /// Say what differs between what two domains get
    Compare(domains::PairArgs),
    /// Show the domains of hosts
    Domain(hosts::DomainArgs),
    /// Show the members of domains
    Hosts(hosts::HostsArgs),
    /// Show the files that domains get
    List(domains::ListArgs),
    /// Show all domains
    Domains(domains::DomainsArgs),
    /// Put a file or folder under control
    Install(files::InstallArgs),
    /// Show who gets files
    File(files::FileArgs),
    /// Change how often a file is distributed
    Freq(files::FreqArgs),
    /// Let one file share the content of another
    Mrg(files::MergeArgs),
    /// Let the content of a file be made from the host records, whenever these change
    Generator(files::GeneratorArgs),
    /// Set what edits a file
    Setedit(files::SetEditArgs),
    /// Set what each client runs after that file was updated there
    Shell(files::ShellArgs),
    /// Change content
    Edit(edit::EditArgs),
    /// Remove a lock that was left by accident
    Unlock(files::OneArgs),
    /// Print content
    Cat(files::PathsArgs),
    /// Change the mode of files
    Chmod(files::ChmodArgs),
    /// Change the owner of files
    Chown(files::ChownArgs),
    /// Change the group of files
    Chgrp(files::ChgrpArgs),
    /// Compare the content of two files
    Cmp(content::CmpArgs),
    /// Copy content out of or into a file under control
    Cp(content::CpArgs),
    /// List files with their attributes
    Ls(files::LsArgs),
    /// End the distribution of files
    Rm(files::PathsArgs),
    /// Distribute now
    Dist(dist::DistArgs),
    /// Show which files are not as they should be, and at whom
    Verify(verify::VerifyArgs),
    /// Show when frequencies are due
    Schedule(dist::ScheduleArgs),
    /// At a relay: is it still being fed, and does it still reach those below it?
    Check(check::CheckArgs),
    /// At a relay: let its clients put right what distributions have brought them
    Ldist(ldist::LdistArgs),
    /// Print what a frequency brings to whom, as a Distfile
    Build(dist::BuildArgs),
    /// Let a file go only to hosts that subscribe
    Optional(here::OptionalArgs),
    /// Let a host get an optional file and its updates
    Subscribe(here::HostWishArgs),
    /// Let a host get no updates of it any more
    Unsubscribe(here::HostWishArgs),
    /// Show who has subscribed; without a file, what is offered to this host
    Subscriptions(here::SubscriptionsArgs),
    /// On a host: ask for files now
    Request(here::RequestArgs),
    /// Show who still lacks the newest version
    Status(files::StatusArgs),
    /// Show the report of an hour or a day
    Report(report::ReportArgs),
    /// Show the revisions of a file
    History(files::OneArgs),
    /// Show how two revisions of a file differ
    Diff(content::DiffArgs),
    /// Make an earlier revision the newest again
    Rollback(files::RollbackArgs),
    /// Print the hosts file
    Mkhost(hosts::MkhostArgs),
    /// Print the ethers file
    Mkether,
    /// Print host records with another relay; nothing is stored
    Chslave(hosts::ChslaveArgs),
    /// Show the clients of relays
    Network(hosts::NetworkArgs),
    /// Record a host, or change something about it
    Sethost(hosts::SetArgs),
    /// Remove the record of a host
    Rmhost(hosts::RemoveArgs),
    /// Print host records, entries or the configuration as text
    Export(hosts::ExportArgs),
    /// Take host records, entries or the configuration from a text
    Import(hosts::ImportArgs),
}

/// Does what a command says.
pub(crate) async fn run(
    command: Command,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    match command {
        Command::Create(args) => domains::create(args, client, screen).await,
        Command::Delete(args) => domains::delete(args, client, screen).await,
        Command::Clone(args) => domains::clone(args, client, screen).await,
        Command::Compare(args) => domains::compare(args, client, screen).await,
        Command::Domain(args) => hosts::domain(args, client, screen).await,
        Command::Hosts(args) => hosts::hosts(args, client, screen).await,
        Command::List(args) => domains::list(args, client, screen).await,
        Command::Domains(args) => domains::domains(args, client, screen).await,
        Command::Install(args) => files::install(args, client, screen).await,
        Command::File(args) => files::file(args, client, screen).await,
        Command::Freq(args) => files::freq(args, client, screen).await,
        Command::Mrg(args) => files::merge(args, client, screen).await,
        Command::Setedit(args) => files::set_edit(args, client, screen).await,
        Command::Shell(args) => files::shell(args, client, screen).await,
        Command::Edit(args) => edit::edit(args, client, screen).await,
        Command::Unlock(args) => files::unlock(args, client, screen).await,
        Command::Cat(args) => content::cat(args, client, screen).await,
        Command::Chmod(args) => files::chmod(args, client, screen).await,
        Command::Chown(args) => files::chown(args, client, screen).await,
        Command::Chgrp(args) => files::chgrp(args, client, screen).await,
        Command::Cmp(args) => content::cmp(args, client, screen).await,
        Command::Cp(args) => content::cp(args, client, screen).await,
        Command::Ls(args) => files::ls(args, client, screen).await,
        Command::Rm(args) => files::rm(args, client, screen).await,
        Command::Dist(args) => dist::dist(args, client, screen).await,
        Command::Verify(args) => verify::verify(args, client, screen).await,
        Command::Schedule(args) => dist::schedule(args, client, screen).await,
        Command::Check(args) => check::check(args, screen).await,
        Command::Ldist(args) => ldist::ldist(args, screen).await,
        Command::Build(args) => dist::build(args, client, screen).await,
        Command::Optional(args) => here::optional(args, client, screen).await,
        Command::Subscribe(args) => here::wish(args.into(), true, client, screen).await,
        Command::Unsubscribe(args) => here::wish(args.into(), false, client, screen).await,
        Command::Subscriptions(args) => here::subscriptions(args, client, screen).await,
        Command::Request(args) => here::request(args, screen).await,
        Command::Status(args) => files::status(args, client, screen).await,
        Command::Report(args) => report::report(args, client, screen).await,
        Command::History(args) => files::history(args, client, screen).await,
        Command::Diff(args) => content::diff(args, client, screen).await,
        Command::Rollback(args) => files::rollback(args, client, screen).await,
        Command::Mkhost(args) => hosts::mkhost(args, client, screen).await,
        Command::Generator(args) => files::generator(args, client, screen).await,
        Command::Mkether => hosts::mkether(client, screen).await,
        Command::Chslave(args) => hosts::chslave(args, client, screen).await,
        Command::Network(args) => hosts::network(args, client, screen).await,
        Command::Sethost(args) => hosts::set(args, client, screen).await,
        Command::Rmhost(args) => hosts::remove(args, client, screen).await,
        Command::Export(args) => hosts::export(args, client, screen).await,
        Command::Import(args) => hosts::import(args, client, screen).await,
    }
}

async fn ask<T: DeserializeOwned>(client: &Client, question: &Question) -> Result<T, Failure> {
    client.post("/v1/fleet/ask", question).await
}

async fn ask_change(client: &Client, change: Change) -> Result<Changed, Failure> {
    client.post("/v1/fleet/change", &NewChange { by: author(), change }).await
}

/// Makes a change, and says what there is to say of it.
async fn change(client: &Client, screen: &mut Screen, change: Change) -> Result<Exit, Failure> {
    let changed = ask_change(client, change).await?;
    if screen.json {
        screen.json(&changed)?;
    } else {
        changed.notes.iter().try_for_each(|note| screen.print(&format!("{note}\n")))?;
    }
    Ok(Exit::Ok)
}

/// Who we are, as the history tells it.
fn author() -> Author {
    let user = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let uid = || format!("uid {}", rustix::process::getuid().as_raw());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let user = user.filter(|user| !user.is_empty()).unwrap_or_else(uid);
    Author { user, host, pid: std::process::id() }
}

/// A path here, as the controller on this machine can find it.
fn absolute(path: &str) -> Result<String, Failure> {
    let wrong =
        |error: std::io::Error| Failure::new(Exit::Failed, "file", format!("{path}: {error}"));
    let found = std::fs::canonicalize(path).map_err(wrong)?;
    found.into_os_string().into_string().map_err(|_| {
        let message = format!("{path}: the path is not UTF-8");
        Failure::new(Exit::Failed, "file", message)
    })
}

/// Whether a text is a domainpath and not a path here.
fn is_domainpath(text: &str) -> bool {
    text.parse::<controller::fleet::domain::DomainPath>().is_ok()
}
