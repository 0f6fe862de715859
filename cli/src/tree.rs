//! `barid tree`: the controller, its direct children with their links, and who is behind each.

use std::collections::BTreeMap;

use controller::sets::{fold, natural_cmp};
use controller::types::{HostInfo, LinkInfo, Status};
use serde_json::json;

use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::{Screen, is_utf8};
use crate::units::{show_bytes, show_count, show_duration, since};

/// Options of `barid tree`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {}

/// Shows the tree.
pub(crate) async fn main(_: Args, client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
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
    let [next, last, past, past_last] = if fine { FINE } else { ASCII };
    let mut behind: BTreeMap<&str, Vec<&HostInfo>> = BTreeMap::new();
    for host in hosts {
        behind.entry(&host.via).or_default().push(host);
    }
    links.sort_by(|a, b| natural_cmp(&a.name, &b.name));
    let elsewhere = |host: &HostInfo| !links.iter().any(|link| link.name == host.via);
    let lost: Vec<&HostInfo> = hosts.iter().filter(|host| elsewhere(host)).collect();
    let Status { listen, version, nodes, up, open_orders, .. } = status;
    let (nodes, up, open) = (show_count(*nodes), show_count(*up), show_count(*open_orders));
    let mut text = format!(
        "controller  {listen}  version {version}  {nodes} nodes, {up} up  {open} open orders\n"
    );
    for (i, link) in links.iter().enumerate() {
        let is_last = i + 1 == links.len() && lost.is_empty();
        let (branch, beside) = if is_last { (last, past_last) } else { (next, past) };
        text.push_str(&format!("{branch}{}\n", link_line(link)));
        let mut members = behind.remove(link.name.as_str()).unwrap_or_default();
        members.retain(|host| host.name != link.name);
        push_members(&mut text, beside, &members);
    }
    if !lost.is_empty() {
        text.push_str(&format!("{last}(by no known way)\n"));
        push_members(&mut text, past_last, &lost);
    }
    text
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
    format!("{}{site}  up {age}  {}  rtt {rtt}  {bytes}", link.name, link.address)
}

/// The nodes behind a link, folded: relays and hosts, up and down.
fn push_members(text: &mut String, beside: &str, members: &[&HostInfo]) {
    let mut kinds: BTreeMap<(bool, bool), Vec<&str>> = BTreeMap::new();
    for host in members {
        kinds.entry((host.role != "relay", !host.up)).or_default().push(&host.name);
    }
    for ((is_host, is_down), names) in kinds {
        let state = if is_down { "down" } else { "up" };
        let role = match (is_host, names.len()) {
            (true, 1) => "host",
            (true, _) => "hosts",
            (false, 1) => "relay",
            (false, _) => "relays",
        };
        let count = show_count(names.len() as u64);
        text.push_str(&format!("{beside}  {state:4}  {count} {role}  {}\n", fold(&names)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, role: &str, via: &str, up: bool) -> HostInfo {
        let (name, role, via) = (name.into(), role.into(), via.into());
        let (site, labels) = ("lyon".into(), Default::default());
        HostInfo { id: 1, name, site, role, up, via, enrolled_ms: 0, labels }
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
        };
        let mut hosts: Vec<HostInfo> =
            (1..=3).map(|i| host(&format!("n{i}"), "host", "r1", i != 3)).collect();
        hosts.push(host("r1", "relay", "r1", true));
        hosts.push(host("x1", "host", "", false));
        let text = draw(&status, vec![link("r1"), link("db")], &hosts, false);
        assert_eq!(
            text,
            "controller  [::]:7400  version 0.1.0  5 nodes, 4 up  0 open orders\n\
             |- db  site lyon  DOWN  sent 2.0 KiB (1.0 KiB content), received 10 B\n\
             |- r1  site lyon  DOWN  sent 2.0 KiB (1.0 KiB content), received 10 B\n\
             |    up    2 hosts  n[1-2]\n\
             |    down  1 host  n3\n\
             `- (by no known way)\n     down  1 host  x1\n"
        );
    }
}
