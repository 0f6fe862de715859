//! `barid store`: how full a content store is, whether it is undamaged, and making it smaller.
//!
//! Without `--state` it is the controller's, while it runs; with it that of a node on this machine
//! that does not run, since a store belongs to one process.

use std::path::{Path, PathBuf};

use certs::Role;
use content::Store;
use controller::types::{StoreCheck, StoreInfo, StoreSweep};
use relay::Journal;

use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::join;
use crate::screen::Screen;
use crate::units::{show_bytes, show_count};

/// How many damaged objects are named.
const NAMED: usize = 20;

/// Options of `barid store`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
    /// The state folder of a node that does not run [default: ask the controller about its own]
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Subcommand)]
enum Verb {
    /// How many objects and bytes there are, and what is free on the disk
    Usage,
    /// Read every object and compare it with its name; what is damaged is removed, and fetched
    /// again by whoever needs it. Exit code 1 if there is any
    Check,
    /// Remove what no valid order, no tree in place and no release that is kept needs
    Gc,
}

/// Asks, or looks.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    match (args.verb, args.state.as_deref()) {
        (Verb::Usage, None) => usage(screen, &client.get("/v1/store").await?),
        (Verb::Usage, Some(state)) => usage(screen, &usage_of(state)?),
        (Verb::Check, None) => checked(screen, &client.post("/v1/store/check", &()).await?),
        (Verb::Check, Some(state)) => {
            let checked_store = open(state)?.check().map_err(|error| Failure::local(&error))?;
            let damaged = checked_store.damaged.iter().map(ToString::to_string).collect();
            let (good, bytes) = (checked_store.good, checked_store.bytes);
            checked(screen, &StoreCheck { good, bytes, damaged })
        }
        (Verb::Gc, None) => swept(screen, &client.post("/v1/store/gc", &()).await?),
        (Verb::Gc, Some(state)) => {
            let store = open(state)?;
            let before = store.usage().map_err(|error| Failure::local(&error))?;
            relay::sweep_store(&store, &journal(state)?)
                .map_err(|error| Failure::local(&*error))?;
            let after = store.usage().map_err(|error| Failure::local(&error))?;
            let objects = before.objects.saturating_sub(after.objects);
            swept(screen, &StoreSweep { objects, bytes: before.bytes.saturating_sub(after.bytes) })
        }
    }
}

/// The store of a node that does not run.
fn open(state: &Path) -> Result<Store, Failure> {
    let path = state.join("store");
    if !path.join("index.redb").is_file() {
        let message = format!("{}: there is no content store", path.display());
        return Err(Failure::usage(message, "name the state folder of a node, as --state has it"));
    }
    Store::open(path).map_err(|error| {
        Failure::local(&error).with_help("a store belongs to one process: stop the node first")
    })
}

fn journal(state: &Path) -> Result<Journal, Failure> {
    let journal = Journal::with_daybook(&state.join("node.redb"), 4 << 20);
    journal.map_err(|error| Failure::local(&error))
}

/// How full the store of a node is that does not run, and how full it may become.
fn usage_of(state: &Path) -> Result<StoreInfo, Failure> {
    let store = open(state)?;
    let usage = store.usage().map_err(|error| Failure::local(&error))?;
    let (mut max, mut spare) = (None, None);
    if let Some(credentials) = join::load(state)? {
        let caches = credentials.identity().role == Role::Relay;
        let known = relay::spare_in_store(&store, &journal(state)?);
        let known = known.map_err(|error| Failure::local(&*error))?;
        let needed = usage.bytes.saturating_sub(known);
        max = Some(join::settings(state)?.bounds_around(needed, caches, store.disk()).max);
        spare = Some(known);
    }
    let max = max.filter(|max| *max < u64::MAX);
    let (objects, bytes, free) = (usage.objects, usage.bytes, store.free());
    Ok(StoreInfo { objects, bytes, free, max, spare })
}

fn usage(screen: &mut Screen, info: &StoreInfo) -> Result<Exit, Failure> {
    if screen.json {
        screen.json(info)?;
        return Ok(Exit::Ok);
    }
    let (objects, bytes) = (show_count(info.objects), show_bytes(info.bytes));
    let most = info.max.map(|max| format!(" of at most {}", show_bytes(max)));
    let spare = info.spare.map(|spare| format!(", of which {} could go", show_bytes(spare)));
    let (most, spare) = (most.unwrap_or_default(), spare.unwrap_or_default());
    let free = show_bytes(info.free);
    screen.print(&format!(
        "{objects} objects, {bytes}{most}{spare}; {free} are free on the disk\n"
    ))?;
    Ok(Exit::Ok)
}

fn checked(screen: &mut Screen, check: &StoreCheck) -> Result<Exit, Failure> {
    let exit = if check.damaged.is_empty() { Exit::Ok } else { Exit::Failed };
    if screen.json {
        screen.json(check)?;
        return Ok(exit);
    }
    let (good, bytes) = (show_count(check.good), show_bytes(check.bytes));
    screen.print(&format!("{good} objects with {bytes} are what their names say\n"))?;
    for id in check.damaged.iter().take(NAMED) {
        screen.warn(&format!("{id} was damaged and is removed"))?;
    }
    if let Some(more) = check.damaged.len().checked_sub(NAMED).filter(|more| *more > 0) {
        screen.warn(&format!("and {more} more"))?;
    }
    if !check.damaged.is_empty() {
        screen.help(
            "look at the disk; a node fetches what it needs, a controller needs the source",
        )?;
    }
    Ok(exit)
}

fn swept(screen: &mut Screen, sweep: &StoreSweep) -> Result<Exit, Failure> {
    if screen.json {
        screen.json(sweep)?;
        return Ok(Exit::Ok);
    }
    let (objects, bytes) = (show_count(sweep.objects), show_bytes(sweep.bytes));
    screen.print(&format!("removed {objects} objects, {bytes}\n"))?;
    Ok(Exit::Ok)
}
