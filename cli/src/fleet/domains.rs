//! Commands about domains.

use controller::fleet::types::{Change, Compared, DomainFiles, Question};

use super::{ask, change};
use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::Screen;

/// What `create` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// Its name, as in new.osgrp.adm; one word is a new view
    #[arg(value_name = "DOMAIN")]
    domain: String,
}

/// What `delete` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// Also its files and sub-domains; its hosts get an unknown value
    #[arg(short = 'f', long)]
    force: bool,
    /// Its name
    #[arg(value_name = "DOMAIN")]
    domain: String,
}

/// Two domains.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PairArgs {
    /// One domain
    #[arg(value_name = "DOMAIN")]
    one: String,
    /// The other one
    #[arg(value_name = "OTHER")]
    other: String,
}

/// What `list` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// The domains; `common` stands for any word
    #[arg(value_name = "DOMAIN", required = true)]
    domains: Vec<String>,
}

/// What `domains` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DomainsArgs {
    /// Only those below this one
    #[arg(value_name = "DOMAIN")]
    below: Option<String>,
}

pub(crate) async fn create(
    args: CreateArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    change(client, screen, Change::CreateDomain { domain: args.domain }).await
}

pub(crate) async fn delete(
    args: DeleteArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let DeleteArgs { force, domain } = args;
    change(client, screen, Change::DeleteDomain { domain, force }).await
}

pub(crate) async fn clone(
    args: PairArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    change(client, screen, Change::CloneDomain { from: args.one, to: args.other }).await
}

pub(crate) async fn compare(
    args: PairArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let PairArgs { one, other } = args;
    let question = Question::Compare { one: one.clone(), other: other.clone() };
    let compared: Compared = ask(client, &question).await?;
    let same = compared.only_one.is_empty()
        && compared.only_other.is_empty()
        && compared.different.is_empty();
    if screen.json {
        screen.json(&compared)?;
    } else {
        let groups = [
            (format!("Only to {one}:"), &compared.only_one),
            (format!("Only to {other}:"), &compared.only_other),
            ("To both, with different content:".into(), &compared.different),
            ("To both, identical content from separate sources:".into(), &compared.identical),
            ("To both, from one shared source:".into(), &compared.shared),
        ];
        for (heading, paths) in groups.into_iter().filter(|(_, paths)| !paths.is_empty()) {
            screen.print(&format!("{heading}\n"))?;
            paths.iter().try_for_each(|path| screen.print(&format!("{path}\n")))?;
        }
    }
    Ok(if same { Exit::Ok } else { Exit::Failed })
}

pub(crate) async fn list(
    args: ListArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let lists: Vec<DomainFiles> = ask(client, &Question::List { domains: args.domains }).await?;
    if screen.json {
        screen.json(&lists)?;
        return Ok(Exit::Ok);
    }
    for DomainFiles { domain, files } in lists {
        screen.print(&format!("Files distributed to domain {domain}:\n"))?;
        for file in files {
            let optional = if file.optional { " optional" } else { "" };
            screen.print(&format!("{} {}{optional}\n", file.frequency, file.path))?;
        }
    }
    Ok(Exit::Ok)
}

pub(crate) async fn domains(
    args: DomainsArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let names: Vec<String> = ask(client, &Question::Domains { below: args.below }).await?;
    if screen.json {
        screen.json(&names)?;
    } else {
        names.iter().try_for_each(|name| screen.print(&format!("{name}\n")))?;
    }
    Ok(Exit::Ok)
}
