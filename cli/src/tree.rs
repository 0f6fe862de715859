//! `barid tree`: the controller, its direct children with their links, and who is below each.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use controller::sets::{fold, natural_cmp};
use controller::types::{HostInfo, LinkInfo, Status};
use serde_json::json;

use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::hosts::state;
use crate::screen::{Screen, is_utf8};
use crate::units::{show_bytes, show_count, show_duration, since};
use crate::{cap, delegate, steer, survey, whatif};

/// Options of `barid tree`.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What `barid tree` can do apart from showing it.
#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Show the way to a node
    Path(survey::PathArgs),
    /// Say what is weak about the tree
    Check(survey::CheckArgs),
    /// Give nodes other parents
    Move(Box<steer::MoveArgs>),
    /// Have the children of a relay find another parent
    Drain(steer::DrainArgs),
    /// Say what would become of the tree without a relay or a link; nothing is changed
    WhatIf(whatif::WhatIfArgs),
    /// Say how much content the link of a site or node may carry
    Cap(cap::CapArgs),
    /// Let the operators of a relay run commands below it, also while its site is cut off
    Delegate(Box<delegate::DelegateArgs>),
}

/// Shows the tree, or changes it.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    match args.verb {
        Some(Verb::Path(args)) => survey::path(args, client, screen).await,
        Some(Verb::Check(args)) => survey::check(args, client, screen).await,
        Some(Verb::Move(args)) => steer::move_to(*args, client, screen).await,
        Some(Verb::Drain(args)) => steer::drain(args, client, screen).await,
        Some(Verb::WhatIf(args)) => whatif::what_if(args, client, screen).await,
        Some(Verb::Cap(args)) => cap::main(args, client, screen).await,
        Some(Verb::Delegate(args)) => delegate::main(*args, client, screen).await,
        None => show(client, screen).await,
    }
}

async fn show(client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
    let status: Status = client.get("/v1/status").await?;
    let links: Vec<LinkInfo> = client.get("/v1/links").await?;
    let hosts: Vec<HostInfo> = client.get("/v1/hosts").await?;
    match screen.json {
        true => screen.json(&json!({ "status": status, "links": links, "hosts": hosts }))?,
        false => screen.print(&draw(&status, links, &hosts, is_utf8()))?,
    }
    Ok(Exit::Ok)
}

/// How branches are drawn: to the next child, to the last, past a child, past the last.
const FINE: [&str; 4] = ["├─ ", "└─ ", "│  ", "   "];
const ASCII: [&str; 4] = ["|- ", "`- ", "|  ", "   "];

fn draw(status: &Status, mut links: Vec<LinkInfo>, hosts: &[HostInfo], fine: bool) -> String {
    let marks = if fine { FINE } else { ASCII };
    let [next, last, past, past_last] = marks;
    links.sort_by(|a, b| natural_cmp(&a.name, &b.name));
    let mut wood = Wood::new(marks, hosts);
    wood.seen.extend(status.relay.as_deref());
    let Status { listen, version, nodes, up, open_orders, .. } = status;
    let (nodes, up, open) = (show_count(*nodes), show_count(*up), show_count(*open_orders));
    let root = status.relay.as_deref().unwrap_or("controller");
    let mut text = format!(
        "{root}  {listen}  version {version}  {nodes} nodes, {up} up  {open} open orders\n"
    );
    if !status.degraded.is_empty() {
        text.push_str(&format!("{past}  degraded: {}\n", status.degraded));
    }
    let mut drawn = Vec::new();
    for link in &links {
        wood.text = String::new();
        wood.seen.insert(&link.name);
        wood.push_below(&link.name, "");
        drawn.push((link_line(link), std::mem::take(&mut wood.text)));
    }
    let lost: Vec<&HostInfo> =
        hosts.iter().filter(|h| !wood.seen.contains(h.name.as_str())).collect();
    if !lost.is_empty() {
        wood.push_leaves("", &lost);
        drawn.push(("(by no known way)".into(), wood.text));
    }
    for (i, (line, below)) in drawn.iter().enumerate() {
        let is_last = i + 1 == drawn.len();
        let (branch, beside) = if is_last { (last, past_last) } else { (next, past) };
        text.push_str(&format!("{branch}{line}\n"));
        below.lines().for_each(|line| text.push_str(&format!("{beside}{line}\n")));
    }
    text
}

/// The nodes below the controller's links, while they are drawn.
struct Wood<'a> {
    marks: [&'static str; 4],
    children: BTreeMap<&'a str, Vec<&'a HostInfo>>,
    /// Who was drawn: what relays say of each other need not be a tree.
    seen: HashSet<&'a str>,
    text: String,
}

impl<'a> Wood<'a> {
    fn new(marks: [&'static str; 4], hosts: &'a [HostInfo]) -> Wood<'a> {
        let mut children: BTreeMap<&str, Vec<&HostInfo>> = BTreeMap::new();
        for host in hosts.iter().filter(|host| !host.parent.is_empty()) {
            children.entry(&host.parent).or_default().push(host);
        }
        Wood { marks, children, seen: HashSet::new(), text: String::new() }
    }

    /// The children of a node: hosts folded, and each relay with its own.
    fn push_below(&mut self, parent: &str, beside: &str) {
        let mut children = self.children.get(parent).cloned().unwrap_or_default();
        children.retain(|child| self.seen.insert(&child.name));
        children.sort_by(|a, b| natural_cmp(&a.name, &b.name));
        let (hosts, relays): (Vec<_>, Vec<_>) =
            children.into_iter().partition(|child| child.role != "relay");
        self.push_leaves(beside, &hosts);
        let [next, last, past, past_last] = self.marks;
        for (i, relay) in relays.iter().enumerate() {
            let is_last = i + 1 == relays.len();
            let (branch, deeper) = if is_last { (last, past_last) } else { (next, past) };
            let site = match relay.site.as_str() {
                "" => String::new(),
                site => format!("  site {site}"),
            };
            let line = format!("{beside}{branch}{}{site}  {}\n", relay.name, state(relay));
            self.text.push_str(&line);
            self.push_below(&relay.name, &format!("{beside}{deeper}"));
        }
    }

    /// Nodes that are not drawn one by one, folded: relays and hosts, up, degraded, stale and down.
    fn push_leaves(&mut self, beside: &str, members: &[&HostInfo]) {
        let mut kinds: BTreeMap<(bool, u8), Vec<&HostInfo>> = BTreeMap::new();
        for host in members {
            let states = ["up", "degraded", "stale", "down"];
            let rank = states.iter().position(|word| *word == state(host));
            let rank = u8::try_from(rank.unwrap_or_default()).unwrap_or_default();
            kinds.entry((host.role != "relay", rank)).or_default().push(host);
        }
        for ((is_host, _), members) in kinds {
            let role = match (is_host, members.len()) {
                (true, 1) => "host",
                (true, _) => "hosts",
                (false, 1) => "relay",
                (false, _) => "relays",
            };
            let count = show_count(members.len() as u64);
            let names: Vec<&str> = members.iter().map(|host| host.name.as_str()).collect();
            let state = state(members[0]);
            let line = format!("{beside}  {state:4}  {count} {role}  {}\n", fold(&names));
            self.text.push_str(&line);
        }
    }
}

fn link_line(link: &LinkInfo) -> String {
    let site = match link.site.as_str() {
        "" => String::new(),
        site => format!("  site {site}"),
    };
    let (sent, received) = (show_bytes(link.wire_sent), show_bytes(link.wire_received));
    let content = show_bytes(link.content_sent);
    let bytes = format!("sent {sent} ({content} content), received {received}");
    if link.since_ms == 0 {
        return format!("{}{site}  DOWN  {bytes}", link.name);
    }
    let (rtt, age) = (link.rtt_us, show_duration(since(link.since_ms)));
    let rtt = format!("{}.{} ms", rtt / 1_000, rtt / 100 % 10);
    let cap = match link.cap {
        0 => String::new(),
        cap => format!("  cap {}", relay::show_rate(cap)),
    };
    let yields = if link.yields { "  gives way" } else { "" };
    let silent = show_duration(Duration::from_millis(link.silent_ms));
    let suspect = match link.suspect {
        true => format!("  SUSPECT: nothing heard for {silent}"),
        false => String::new(),
    };
    let (name, address) = (&link.name, &link.address);
    format!("{name}{site}  up {age}{suspect}  {address}  rtt {rtt}{cap}{yields}  {bytes}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, role: &str, parent: &str, up: bool) -> HostInfo {
        let (name, role, parent) = (name.into(), role.into(), parent.into());
        HostInfo { id: 1, name, site: "lyon".into(), role, up, parent, ..HostInfo::default() }
    }

    #[test]
    fn children_with_what_is_behind_them() {
        let status = Status {
            mesh: "m".into(),
            version: "0.1.0".into(),
            listen: "[::]:7400".into(),
            nodes: 5,
            up: 4,
            open_orders: 0,
            degraded: String::new(),
            retired: 0,
            retired_until_ms: 0,
            events_retired: 0,
            events_retired_until_ms: 0,
            relay: None,
        };
        let link = |name: &str| LinkInfo {
            name: name.into(),
            site: "lyon".into(),
            address: String::new(),
            since_ms: 0,
            rtt_us: 0,
            nodes: 1,
            up: 0,
            wire_sent: 2048,
            wire_received: 10,
            content_sent: 1024,
            content_received: 0,
            cap: 0,
            carries: 0,
            yields: false,
            silent_ms: 0,
            suspect: false,
        };
        let mut hosts: Vec<HostInfo> =
            (1..=3).map(|i| host(&format!("n{i}"), "host", "r1", i != 3)).collect();
        hosts.push(host("r1", "relay", "controller", true));
        hosts.push(host("db", "host", "controller", false));
        hosts.push(host("r2", "relay", "r1", true));
        hosts.push(host("r3", "relay", "r2", false));
        hosts.push(host("m1", "host", "r2", true));
        hosts.last_mut().expect("m1").degraded = true;
        hosts.push(host("loop1", "relay", "loop2", true));
        hosts.push(host("loop2", "relay", "loop1", true));
        hosts.push(host("x1", "host", "", false));
        let text = draw(&status, vec![link("r1"), link("db")], &hosts, false);
        assert_eq!(
            text,
            "controller  [::]:7400  version 0.1.0  5 nodes, 4 up  0 open orders\n\
             |- db  site lyon  DOWN  sent 2.0 KiB (1.0 KiB content), received 10 B\n\
             |- r1  site lyon  DOWN  sent 2.0 KiB (1.0 KiB content), received 10 B\n\
             |    up    2 hosts  n[1-2]\n\
             |    down  1 host  n3\n\
             |  `- r2  site lyon  up\n\
             |       degraded  1 host  m1\n\
             |     `- r3  site lyon  down\n\
             `- (by no known way)\n\
             \x20    up    2 relays  loop[1-2]\n\
             \x20    down  1 host  x1\n"
        );
    }
}
