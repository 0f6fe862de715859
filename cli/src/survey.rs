//! `barid tree path` and `barid tree check`: the way to a node, and what is weak about the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use controller::sets::{fold, natural_cmp};
use controller::types::HostInfo;
use serde::Serialize;

use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::hosts::state;
use crate::screen::Screen;
use crate::units::{parse_duration, show_count};
use crate::whatif::{SinglePoint, single_points};

/// A relay with more than this has more than it takes by default.
const MANY: usize = 1_800;

/// Options of `barid tree path`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PathArgs {
    /// The relay or host
    #[arg(value_name = "NAME")]
    name: String,
}

/// Options of `barid tree check`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// How long to wait for the answer of a node
    #[arg(short = 't', long, value_name = "REACH", default_value = "15s")]
    #[arg(value_parser = parse_duration)]
    reach: Duration,
}

/// A node on the way to another.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Step<'a> {
    name: &'a str,
    role: &'a str,
    site: &'a str,
    state: &'static str,
}

/// Shows the way from the controller to a node.
pub(crate) async fn path(
    args: PathArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let hosts: Vec<HostInfo> = client.get("/v1/hosts").await?;
    let steps = way(&hosts, &args.name).ok_or_else(|| {
        let message = format!("no node {}", args.name);
        Failure::new(Exit::Usage, "unknown-host", message).with_help("barid hosts lists them")
    })?;
    if screen.json {
        screen.json(&steps)?;
    } else {
        let mut text = String::from("controller\n");
        for (depth, step) in steps.iter().enumerate() {
            let site = match step.site {
                "" => String::new(),
                site => format!("  site {site}"),
            };
            let indent = "  ".repeat(depth + 1);
            text.push_str(&format!("{indent}{}  {}{site}  {}\n", step.name, step.role, step.state));
        }
        screen.print(&text)?;
        if !is_known(&hosts, &args.name) {
            screen
                .say("nobody knows the way to it: it has not been connected yet, or not lately")?;
        }
    }
    let up = steps.iter().all(|step| !["down", "stale"].contains(&step.state));
    Ok(if up && is_known(&hosts, &args.name) { Exit::Ok } else { Exit::Missed })
}

fn is_known(hosts: &[HostInfo], name: &str) -> bool {
    hosts.iter().any(|host| host.name == name && !host.parent.is_empty())
}

/// From below the controller to the node itself. None: there is no such node.
fn way<'a>(hosts: &'a [HostInfo], name: &str) -> Option<Vec<Step<'a>>> {
    let by_name: BTreeMap<&str, &HostInfo> =
        hosts.iter().map(|host| (host.name.as_str(), host)).collect();
    let (mut steps, mut seen) = (Vec::new(), BTreeSet::new());
    let mut at = *by_name.get(name)?;
    // What relays say of each other need not be a tree.
    while seen.insert(at.name.as_str()) {
        let (name, role, site) = (&at.name, &at.role, &at.site);
        steps.push(Step { name, role, site, state: state(at) });
        match by_name.get(at.parent.as_str()) {
            Some(parent) => at = parent,
            None => break,
        }
    }
    steps.reverse();
    Some(steps)
}

/// Something to know of the tree.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    kind: &'static str,
    what: String,
    text: String,
}

/// Says what is weak about the tree. Nodes are asked which parents they could have.
pub(crate) async fn check(
    args: CheckArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let hosts: Vec<HostInfo> = client.get("/v1/hosts").await?;
    let (points, silent) = single_points(client, &hosts, args.reach).await?;
    let findings = examine(&hosts, &points, &silent);
    if screen.json {
        screen.json(&findings)?;
    } else {
        for finding in &findings {
            screen.print(&format!("{:15}  {}  {}\n", finding.kind, finding.what, finding.text))?;
        }
        if findings.is_empty() {
            screen.say(&format!("{} nodes, nothing found", show_count(hosts.len() as u64)))?;
        }
    }
    Ok(if findings.is_empty() { Exit::Ok } else { Exit::Failed })
}

fn examine(hosts: &[HostInfo], points: &[SinglePoint], silent: &[String]) -> Vec<Finding> {
    let mut children: BTreeMap<&str, Vec<&HostInfo>> = BTreeMap::new();
    let mut sites: BTreeMap<&str, (Vec<&HostInfo>, Vec<&HostInfo>)> = BTreeMap::new();
    for host in hosts {
        children.entry(host.parent.as_str()).or_default().push(host);
        let (relays, leaves) = sites.entry(host.site.as_str()).or_default();
        if host.role == "relay" { relays.push(host) } else { leaves.push(host) }
    }
    let mut found = Vec::new();
    let mut tell = |kind, what: String, text: String| found.push(Finding { kind, what, text });
    for (site, (relays, leaves)) in &sites {
        let past: Vec<&str> = leaves
            .iter()
            .filter(|host| host.parent == "controller" && !relays.is_empty())
            .map(|host| host.name.as_str())
            .collect();
        if !past.is_empty() {
            let text = format!("linked to the controller though {} has a relay", site_name(site));
            tell("past its relay", fold(&past), text);
        }
    }
    for (site, parent, behind) in elsewhere(hosts) {
        let (site, other) = (site_name(site), site_name(&parent.site));
        let text = format!("linked to {}, of {other}, though {site} has a relay", parent.name);
        tell("other site", fold(&behind), text);
    }
    for SinglePoint { relay, cut_off } in points {
        let text = match cut_off {
            1 => "without it 1 node is cut off".to_owned(),
            more => format!("without it {} nodes are cut off", show_count(*more as u64)),
        };
        tell("single point", relay.clone(), text);
    }
    for host in hosts.iter().filter(|host| host.role == "relay") {
        let own = children.get(host.name.as_str()).map_or(0, Vec::len);
        if own >= MANY {
            let text = format!("has {} children", show_count(own as u64));
            tell("full", host.name.clone(), text);
        }
        if own == 0 {
            let text = "a relay without children".to_owned();
            tell("idle", host.name.clone(), text);
        }
        let around = way(hosts, &host.name).unwrap_or_default();
        if around.first().is_some_and(|first| is_below_a_node(hosts, first.name)) {
            tell("loop", host.name.clone(), "is below itself, as relays say".to_owned());
        }
    }
    let mut lost: Vec<&str> =
        hosts.iter().filter(|host| host.parent.is_empty()).map(|host| host.name.as_str()).collect();
    lost.sort_by(|a, b| natural_cmp(a, b));
    if !lost.is_empty() {
        tell("no known way", fold(&lost), "not connected yet, or not lately".to_owned());
    }
    let mut silent: Vec<&str> = silent.iter().map(String::as_str).collect();
    silent.sort_by(|a, b| natural_cmp(a, b));
    if !silent.is_empty() {
        tell("no answer", fold(&silent), "did not say which parents it could have".to_owned());
    }
    found
}

/// Hosts that are linked to a relay of another site while one of their own site is up: their
/// content crosses the line of the other. By site and relay.
fn elsewhere(hosts: &[HostInfo]) -> Vec<(&str, &HostInfo, Vec<&str>)> {
    let relays = hosts.iter().filter(|host| host.role == "relay");
    let relays: BTreeMap<&str, &HostInfo> = relays.map(|r| (r.name.as_str(), r)).collect();
    let up = relays.values().filter(|relay| relay.up);
    let with: BTreeSet<&str> = up.map(|relay| relay.site.as_str()).collect();
    let mut found: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for host in hosts.iter().filter(|host| host.role != "relay" && !host.site.is_empty()) {
        let Some(parent) = relays.get(host.parent.as_str()) else { continue };
        if parent.site != host.site && with.contains(host.site.as_str()) {
            let key = (host.site.as_str(), parent.name.as_str());
            found.entry(key).or_default().push(host.name.as_str());
        }
    }
    let found = found.into_iter();
    found.map(|((site, relay), behind)| (site, relays[relay], behind)).collect()
}

/// Whether the way to a node, which should begin below the controller, begins below another.
fn is_below_a_node(hosts: &[HostInfo], name: &str) -> bool {
    let host = hosts.iter().find(|host| host.name == name);
    host.is_some_and(|host| hosts.iter().any(|other| other.name == host.parent))
}

fn site_name(site: &str) -> String {
    if site.is_empty() { "the hosts without a site".into() } else { format!("site {site}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, role: &str, parent: &str, up: bool) -> HostInfo {
        let (name, role, parent) = (name.into(), role.into(), parent.into());
        HostInfo { id: 1, name, site: "lyon".into(), role, up, parent, ..HostInfo::default() }
    }

    #[test]
    fn the_way_begins_below_the_controller() {
        let hosts = [
            host("r1", "relay", "controller", true),
            host("r2", "relay", "r1", false),
            host("web", "host", "r2", false),
        ];
        let way = way(&hosts, "web").expect("it is there");
        let names: Vec<_> = way.iter().map(|step| (step.name, step.state)).collect();
        assert_eq!(names, [("r1", "up"), ("r2", "down"), ("web", "down")]);
        assert_eq!(super::way(&hosts, "nobody"), None);
    }

    #[test]
    fn what_is_weak_is_found() {
        let hosts = [
            host("r1", "relay", "controller", true),
            host("web1", "host", "r1", true),
            host("web2", "host", "controller", true),
            host("new1", "host", "", false),
            host("new2", "host", "", false),
            host("a", "relay", "b", true),
            host("b", "relay", "a", true),
        ];
        let point = SinglePoint { relay: "r1".into(), cut_off: 1 };
        let found: Vec<(&str, String)> = examine(&hosts, &[point], &["web2".to_owned()])
            .into_iter()
            .map(|found| (found.kind, found.what))
            .collect();
        let pair = |kind, what: &str| (kind, what.to_owned());
        assert_eq!(
            found,
            [
                pair("past its relay", "web2"),
                pair("single point", "r1"),
                pair("loop", "a"),
                pair("loop", "b"),
                pair("no known way", "new[1-2]"),
                pair("no answer", "web2"),
            ]
        );
        let alone = [
            host("r1", "relay", "controller", true),
            host("web1", "host", "r1", true),
            host("web2", "host", "r1", true),
            host("r2", "relay", "r1", true),
        ];
        assert_eq!(examine(&alone[..3], &[], &[]), []);
        let idle = examine(&alone, &[], &[]);
        assert_eq!(idle.iter().map(|found| found.kind).collect::<Vec<_>>(), ["idle"]);
        let mut many: Vec<_> =
            (0..MANY).map(|n| host(&format!("n{n}"), "relay", "r1", true)).collect();
        many.push(host("r1", "relay", "controller", true));
        let full: Vec<_> =
            examine(&many, &[], &[]).into_iter().filter(|found| found.kind == "full").collect();
        assert_eq!((full.len(), full[0].what.as_str()), (1, "r1"));
        assert!(full[0].text.starts_with("has 1"), "{}", full[0].text);
    }

    #[test]
    fn who_is_behind_a_relay_of_another_site_is_found_while_his_own_is_up() {
        let at = |site: &str, host: HostInfo| HostInfo { site: site.into(), ..host };
        let mut hosts = [
            host("r1", "relay", "controller", true),
            at("oslo", host("r2", "relay", "controller", true)),
            host("web1", "host", "r2", true),
            host("web2", "host", "r2", true),
            at("oslo", host("db1", "host", "r2", true)),
            at("bern", host("db2", "host", "r2", true)),
            at("", host("db3", "host", "r2", true)),
            host("web3", "host", "r1", true),
        ];
        let found = examine(&hosts, &[], &[]);
        let found: Vec<_> = found.iter().map(|f| (f.kind, f.what.as_str(), &*f.text)).collect();
        let text = "linked to r2, of site oslo, though site lyon has a relay";
        assert_eq!(found, [("other site", "web[1-2]", text)]);
        hosts[0].up = false;
        assert_eq!(examine(&hosts, &[], &[]), []);
    }
}
