//! The inventory of a mesh that has never enrolled anybody: an authority, and rows for its hosts.
//!
//! The rows are those that `docs/store.md` describes. A controller that is started in this folder
//! afterwards knows everybody, and nobody is linked yet.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use certs::{Authority, Credentials, Identity, MeshId, NodeKey, Role};
use redb::{Database, TableDefinition};
use serde_json::json;

const HOSTS: TableDefinition<u32, &[u8]> = TableDefinition::new("controller.hosts.v1");
const NAMES: TableDefinition<&str, u32> = TableDefinition::new("controller.names.v1");
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A host that could enrol and has not had to.
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    pub(crate) credentials: Credentials,
}

/// Everybody, in the order of their numbers, the first of which is 1.
pub struct Roll {
    /// The hosts.
    pub members: Vec<Member>,
}

impl Roll {
    /// Makes an authority in a controller's empty state folder, and hosts of these names and sites.
    pub fn found(state: &Path, hosts: &[(String, String)]) -> Result<Roll> {
        let now = SystemTime::now();
        let authority = Authority::create(&state.join("authority"), MeshId::random(), now)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = hosts.len().div_ceil(threads).max(1);
        let members = std::thread::scope(|scope| {
            let shares = hosts.chunks(share).enumerate().map(|(at, hosts)| {
                let (authority, first) = (&authority, 1 + at * share);
                scope.spawn(move || {
                    let numbered = (first..).zip(hosts);
                    numbered.map(|(id, host)| issue(authority, Role::Host, id, host, now)).collect()
                })
            });
            let shares: Vec<_> = shares.collect();
            let mut members = Vec::with_capacity(hosts.len());
            for share in shares {
                let made: Result<Vec<Member>> =
                    share.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                members.extend(made?);
            }
            anyhow::Ok(members)
        })?;
        enter(&state.join("controller.redb"), members.iter().map(Row::of), now)?;
        Ok(Roll { members })
    }
}

/// Makes an authority in a controller's empty state folder, and enters hosts of which only the names
/// exist, numbered from 1. Returns a relay, numbered after them, that may speak for them.
pub fn enlist(state: &Path, hosts: &[(String, String)], relay: &str) -> Result<Member> {
    let now = SystemTime::now();
    let authority = Authority::create(&state.join("authority"), MeshId::random(), now)?;
    let host = (relay.to_owned(), relay.to_owned());
    let relay = issue(&authority, Role::Relay, hosts.len() + 1, &host, now)?;
    let rows = (1..).zip(hosts).map(|(id, (name, site))| Row {
        id,
        name,
        site,
        role: "host",
        key: certs::random(),
    });
    enter(&state.join("controller.redb"), rows.chain([Row::of(&relay)]), now)?;
    Ok(relay)
}

fn issue(
    authority: &Authority,
    role: Role,
    id: usize,
    (name, site): &(String, String),
    now: SystemTime,
) -> Result<Member> {
    let (key, id) = (NodeKey::generate(), u32::try_from(id)?);
    let (name, site) = (name.clone(), site.clone());
    let who = Identity { mesh: authority.mesh(), id, role, name, site };
    let certificate = authority.issue(&key.csr(), &who, LIFETIME, now)?;
    let (ca, order_key) = (authority.certificate().to_vec(), authority.order_signer().key());
    let credentials = Credentials::new(key, certificate, ca, order_key)?;
    let Identity { name, site, .. } = who;
    Ok(Member { name, site, credentials })
}

/// A node as the inventory has it.
struct Row<'a> {
    id: u32,
    name: &'a str,
    site: &'a str,
    role: &'static str,
    key: [u8; 32],
}

impl Row<'_> {
    fn of(member: &Member) -> Row<'_> {
        let Identity { id, role, name, site, .. } = member.credentials.identity();
        let role = if role.serves() { "relay" } else { "host" };
        Row { id: *id, name, site, role, key: member.credentials.key().public() }
    }
}

fn enter<'a>(path: &Path, rows: impl Iterator<Item = Row<'a>>, now: SystemTime) -> Result<()> {
    let enrolled_ms = u64::try_from(now.duration_since(UNIX_EPOCH)?.as_millis())?;
    let database = Database::create(path).with_context(|| path.display().to_string())?;
    let txn = database.begin_write()?;
    {
        let (mut hosts, mut names) = (txn.open_table(HOSTS)?, txn.open_table(NAMES)?);
        for Row { id, name, site, role, key } in rows {
            let row = json!({
                "name": name, "site": site, "role": role, "key": key, "enrolled_ms": enrolled_ms,
            });
            hosts.insert(id, serde_json::to_vec(&row)?.as_slice())?;
            names.insert(name, id)?;
        }
    }
    Ok(txn.commit()?)
}
