//! `barid domain`, `barid host` and `barid file`: the commands by the names that people look for.

use controller::fleet::types::{FileDomains, Question};

use super::hosts::{ExportArgs, ImportArgs, What};
use super::{
    Command, ask, check, content, dist, domains, edit, files, here, hosts, ldist, run, verify,
};
use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::Screen;

/// Options of `barid domain`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DomainArgs {
    #[command(subcommand)]
    verb: DomainVerb,
}

/// What can be done with domains.
#[derive(Clone, Debug, clap::Subcommand)]
enum DomainVerb {
    /// Show all domains, or those below one
    Tree(domains::DomainsArgs),
    /// Make a domain below an existing one, or a new view
    Create(domains::CreateArgs),
    /// Remove a domain that has neither files nor domains nor hosts
    Delete(domains::DeleteArgs),
    /// Make a domain that shares the files of another
    Clone(domains::PairArgs),
    /// Say what differs between what two domains get
    Compare(domains::PairArgs),
    /// Show the members of domains
    Hosts(hosts::HostsArgs),
    /// Show the files that domains get
    Files(domains::ListArgs),
    /// Print levels, domains and frequencies as text
    Export,
    /// Take levels, domains and frequencies from a text
    Import(FromArgs),
}

/// Options of `barid host`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HostArgs {
    #[command(subcommand)]
    verb: HostVerb,
}

/// What can be done with host records.
#[derive(Clone, Debug, clap::Subcommand)]
enum HostVerb {
    /// Show the domains of hosts
    Show(hosts::DomainArgs),
    /// Record a host, or change something about it
    Set(hosts::SetArgs),
    /// Remove the record of a host
    Remove(hosts::RemoveArgs),
    /// List hosts of which something is not known, and what
    Unknown,
    /// Show the clients of relays
    Network(hosts::NetworkArgs),
    /// Print the hosts file
    Table(hosts::MkhostArgs),
    /// Print the ethers file
    Ethers,
    /// Print host records with another relay; nothing is stored
    Move(hosts::ChslaveArgs),
    /// Print host records as text
    #[command(alias = "list")]
    Export,
    /// Take all host records from a text
    Import(FromArgs),
}

/// Options of `barid file`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FileArgs {
    #[command(subcommand)]
    verb: FileVerb,
}

/// What can be done with files under control.
#[derive(Clone, Debug, clap::Subcommand)]
enum FileVerb {
    /// Show all files under control and who gets them
    List,
    /// Show who gets files
    Show(files::FileArgs),
    /// Put a file or folder under control
    Install(files::InstallArgs),
    /// Change content
    Edit(edit::EditArgs),
    /// Remove a lock that was left by accident
    Unlock(files::OneArgs),
    /// Print content
    Cat(files::PathsArgs),
    /// List files with their attributes
    Ls(files::LsArgs),
    /// Copy content out of or into a file under control
    Cp(content::CpArgs),
    /// Compare the content of two files
    Cmp(content::CmpArgs),
    /// Show how two revisions of a file differ
    Diff(content::DiffArgs),
    /// Show the revisions of a file
    History(files::OneArgs),
    /// Make an earlier revision the newest again
    Rollback(files::RollbackArgs),
    /// Let one file share the content of another
    Merge(files::MergeArgs),
    /// Let the content of a file be made from the host records, whenever these change
    Generator(files::GeneratorArgs),
    /// Change how often a file is distributed
    Frequency(files::FreqArgs),
    /// Set what each client runs after that file was updated there
    Command(files::ShellArgs),
    /// Set what edits a file
    Editor(files::SetEditArgs),
    /// Change the mode of files
    Chmod(files::ChmodArgs),
    /// Change the owner of files
    Chown(files::ChownArgs),
    /// Change the group of files
    Chgrp(files::ChgrpArgs),
    /// End the distribution of files
    Remove(files::PathsArgs),
    /// At a relay: is it still being fed, and does it still reach those below it?
    Check(check::CheckArgs),
    /// At a relay: let its clients put right what distributions have brought them
    Restore(ldist::LdistArgs),
    /// Print what a frequency brings to whom, as a Distfile
    Build(dist::BuildArgs),
    /// Let a file go only to hosts that subscribe
    Optional(here::OptionalArgs),
    /// On a host: get an optional file, and its updates from now on
    Subscribe(here::WishArgs),
    /// On a host: get no updates of it any more
    Unsubscribe(here::WishArgs),
    /// On a host: show what is offered to it; with files, at the controller: who has subscribed
    Subscriptions(here::SubscriptionsArgs),
    /// On a host: ask for files now
    Request(here::RequestArgs),
    /// Show who still lacks the newest version
    Status(files::StatusArgs),
    /// Distribute now
    Dist(dist::DistArgs),
    /// Show which files are not as they should be, and at whom
    Verify(verify::VerifyArgs),
    /// Show when frequencies are due
    Schedule(dist::ScheduleArgs),
    /// Print all entries as text
    Export,
    /// Take all entries from a text
    Import(FromArgs),
}

/// Where a text comes from.
#[derive(Clone, Debug, clap::Args)]
struct FromArgs {
    /// The text; `-` is standard input
    #[arg(value_name = "FILE")]
    file: String,
    /// Also if something goes that is there now
    #[arg(short = 'f', long)]
    force: bool,
}

impl FromArgs {
    fn import(self, what: What) -> Command {
        Command::Import(ImportArgs { what, file: self.file, force: self.force })
    }
}

fn export(what: What) -> Command {
    Command::Export(ExportArgs { what })
}

/// `barid domain`
pub(crate) async fn domain(
    args: DomainArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let command = match args.verb {
        DomainVerb::Tree(args) => Command::Domains(args),
        DomainVerb::Create(args) => Command::Create(args),
        DomainVerb::Delete(args) => Command::Delete(args),
        DomainVerb::Clone(args) => Command::Clone(args),
        DomainVerb::Compare(args) => Command::Compare(args),
        DomainVerb::Hosts(args) => Command::Hosts(args),
        DomainVerb::Files(args) => Command::List(args),
        DomainVerb::Export => export(What::Config),
        DomainVerb::Import(args) => args.import(What::Config),
    };
    run(command, client, screen).await
}

/// `barid host`
pub(crate) async fn host(
    args: HostArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let command = match args.verb {
        HostVerb::Show(args) => Command::Domain(args),
        HostVerb::Set(args) => Command::Sethost(args),
        HostVerb::Remove(args) => Command::Rmhost(args),
        HostVerb::Unknown => Command::Hosts(hosts::HostsArgs::unknown()),
        HostVerb::Network(args) => Command::Network(args),
        HostVerb::Table(args) => Command::Mkhost(args),
        HostVerb::Ethers => Command::Mkether,
        HostVerb::Move(args) => Command::Chslave(args),
        HostVerb::Export => export(What::Hosts),
        HostVerb::Import(args) => args.import(What::Hosts),
    };
    run(command, client, screen).await
}

/// `barid file`
pub(crate) async fn file(
    args: FileArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let command = match args.verb {
        FileVerb::List => return list(client, screen).await,
        FileVerb::Show(args) => Command::File(args),
        FileVerb::Install(args) => Command::Install(args),
        FileVerb::Edit(args) => Command::Edit(args),
        FileVerb::Unlock(args) => Command::Unlock(args),
        FileVerb::Cat(args) => Command::Cat(args),
        FileVerb::Ls(args) => Command::Ls(args),
        FileVerb::Cp(args) => Command::Cp(args),
        FileVerb::Cmp(args) => Command::Cmp(args),
        FileVerb::Diff(args) => Command::Diff(args),
        FileVerb::History(args) => Command::History(args),
        FileVerb::Rollback(args) => Command::Rollback(args),
        FileVerb::Merge(args) => Command::Mrg(args),
        FileVerb::Generator(args) => Command::Generator(args),
        FileVerb::Frequency(args) => Command::Freq(args),
        FileVerb::Command(args) => Command::Shell(args),
        FileVerb::Editor(args) => Command::Setedit(args),
        FileVerb::Chmod(args) => Command::Chmod(args),
        FileVerb::Chown(args) => Command::Chown(args),
        FileVerb::Chgrp(args) => Command::Chgrp(args),
        FileVerb::Remove(args) => Command::Rm(args),
        FileVerb::Check(args) => Command::Check(args),
        FileVerb::Restore(args) => Command::Ldist(args),
        FileVerb::Build(args) => Command::Build(args),
        FileVerb::Optional(args) => Command::Optional(args),
        FileVerb::Subscribe(args) => return here::wish(args, true, client, screen).await,
        FileVerb::Unsubscribe(args) => return here::wish(args, false, client, screen).await,
        FileVerb::Subscriptions(args) => Command::Subscriptions(args),
        FileVerb::Request(args) => Command::Request(args),
        FileVerb::Status(args) => Command::Status(args),
        FileVerb::Dist(args) => Command::Dist(args),
        FileVerb::Verify(args) => Command::Verify(args),
        FileVerb::Schedule(args) => Command::Schedule(args),
        FileVerb::Export => export(What::Files),
        FileVerb::Import(args) => args.import(What::Files),
    };
    run(command, client, screen).await
}

async fn list(client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
    let all: Vec<FileDomains> = ask(client, &Question::Files { paths: Vec::new() }).await?;
    if screen.json {
        screen.json(&all)?;
    } else {
        all.iter().try_for_each(|file| files::show_file(file, true, screen))?;
    }
    Ok(Exit::Ok)
}
