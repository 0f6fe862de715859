//! `barid tree what-if --lose NODE`: what would become of the tree without a relay or a link.
//!
//! The controller knows who is behind whom, and each node knows its parents in their order. So the
//! nodes are asked, and what they would do is thought through: whoever loses its parent takes the
//! first of its list that is up, not behind itself, and not full; whoever is behind it stays there.
//! Nothing is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use controller::sets::{fold, natural_cmp};
use controller::types::{HostInfo, NewSurvey, OrderDetail, OrderEvent, OrderInfo, Targets};
use serde::Serialize;

use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::Screen;
use crate::units::{millis, parse_duration, show_count};

const LOSING: &str = "\
Nodes are asked for their parents; those that do not answer are named, and count as having none.
Whoever loses its parent takes the first of its list that is up and not full. A node looks who
answers at those of its parents' addresses where it has never been.

Examples:
  barid tree what-if --lose relay1               the relay is gone
  barid tree what-if --lose controller:relay1    the link between the two is gone
  barid tree what-if --lose relay1,relay2";

const CONTROLLER: &str = "controller";

/// Options of `barid tree what-if`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = LOSING)]
pub(crate) struct WhatIfArgs {
    /// Relays, or links as PARENT:CHILD
    #[arg(long, value_name = "RELAY|LINK", value_delimiter = ',', required = true)]
    lose: Vec<String>,
    /// How long to wait for the answer of a node
    #[arg(short = 't', long, value_name = "REACH", default_value = "15s")]
    #[arg(value_parser = parse_duration)]
    reach: Duration,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Survey {
    /// Addresses in their order, with the number of who has answered there.
    parents: Vec<(String, Option<u32>)>,
    /// How many children it takes.
    children: usize,
}

/// What would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Future {
    /// Who loses its parent.
    orphans: Vec<String>,
    /// Who gets new children, and which.
    gains: Vec<Gain>,
    /// Who has no way to the controller any more, the lost left out.
    cut_off: Vec<String>,
    /// Of them those that have an address at which nobody has answered them yet.
    unsure: Vec<String>,
    /// Relays that could not take all who would come.
    full: Vec<String>,
    /// Nodes whose parents are not known, since they did not answer.
    unknown: Vec<String>,
}

/// New children of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Gain {
    /// The node.
    parent: String,
    /// Who comes.
    children: Vec<String>,
    /// How many children it has then, and how many it takes; 0: not known.
    then: usize,
    most: usize,
}

/// What is gone.
#[derive(Debug, Default)]
struct Lost<'a> {
    nodes: BTreeSet<&'a str>,
    /// Parent and child.
    links: BTreeSet<(&'a str, &'a str)>,
}

/// Thinks it through, and shows it.
pub(crate) async fn what_if(
    args: WhatIfArgs,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let hosts: Vec<HostInfo> = client.get("/v1/hosts").await?;
    let lost = lost(&hosts, &args.lose)?;
    let concerned = |host: &HostInfo| host.role == "relay" || lost.takes_from(host);
    let surveys = ask(client, &hosts, concerned, args.reach).await?;
    let future = Tree::new(&hosts, &surveys).without(&lost);
    if screen.json {
        screen.json(&future)?;
    } else {
        screen.print(&words(&hosts, &args.lose, &future))?;
    }
    let good = future.cut_off.is_empty() && future.full.is_empty();
    Ok(if good { Exit::Ok } else { Exit::Failed })
}

/// What is meant by the names of what is lost.
fn lost<'a>(hosts: &[HostInfo], names: &'a [String]) -> Result<Lost<'a>, Failure> {
    let bad = |message: String, help: &str| {
        Failure::new(Exit::Usage, "bad-request", message).with_help(help)
    };
    let mut lost = Lost::default();
    for name in names {
        let find = |name: &str| hosts.iter().find(|host| host.name == name);
        if let Some((parent, child)) = name.split_once(':') {
            match find(child) {
                Some(host) if host.parent == parent => drop(lost.links.insert((parent, child))),
                Some(host) if host.parent.is_empty() => {
                    let message = format!("no way to {child} is known");
                    return Err(bad(message, "it has no link that could be lost"));
                }
                Some(host) => {
                    let message = format!("{child} is behind {}, not {parent}", host.parent);
                    return Err(bad(message, "a link is named as PARENT:CHILD"));
                }
                None => return Err(bad(format!("no node {child}"), "barid hosts lists them")),
            }
            continue;
        }
        match find(name) {
            Some(host) if host.role == "relay" => drop(lost.nodes.insert(name)),
            Some(_) => {
                let message = format!("{name} is a host: nobody is behind it");
                return Err(bad(message, "name a relay, or a link as PARENT:CHILD"));
            }
            None => return Err(bad(format!("no relay {name}"), "barid tree lists them")),
        }
    }
    Ok(lost)
}

/// A relay without which others have no way to the controller.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SinglePoint {
    /// The relay.
    pub(crate) relay: String,
    /// How many nodes would be cut off.
    pub(crate) cut_off: usize,
}

/// Asks all nodes for their parents. Returns the relays whose loss alone would cut somebody off,
/// and who has not answered.
pub(crate) async fn single_points(
    client: &Client,
    hosts: &[HostInfo],
    reach: Duration,
) -> Result<(Vec<SinglePoint>, Vec<String>), Failure> {
    let concerned = |host: &HostInfo| host.role == "relay" || host.parent != CONTROLLER;
    let surveys = ask(client, hosts, concerned, reach).await?;
    let silent = hosts.iter().filter(|host| host.up && concerned(host));
    let silent = silent.filter(|host| !surveys.contains_key(&host.name));
    Ok((points(hosts, &surveys), silent.map(|host| host.name.clone()).collect()))
}

/// Who might have another parent counts as if it had one.
fn points(hosts: &[HostInfo], surveys: &BTreeMap<String, Survey>) -> Vec<SinglePoint> {
    let tree = Tree::new(hosts, surveys);
    let relays = hosts.iter().filter(|host| host.up && host.role == "relay");
    let relays = relays.filter(|relay| tree.children.contains_key(relay.name.as_str()));
    let point = |relay: &HostInfo| {
        let lost = Lost { nodes: BTreeSet::from([relay.name.as_str()]), ..Lost::default() };
        let future = tree.without(&lost);
        let perhaps: BTreeSet<&str> =
            future.unsure.iter().chain(&future.unknown).map(String::as_str).collect();
        let is_certain = |name: &&String| {
            let (mut at, mut seen) = (name.as_str(), BTreeSet::new());
            while seen.insert(at) && !perhaps.contains(at) {
                match tree.hosts.get(at) {
                    Some(host) => at = host.parent.as_str(),
                    None => return true,
                }
            }
            !perhaps.contains(at)
        };
        let cut_off = future.cut_off.iter().filter(is_certain).count();
        (cut_off > 0).then(|| SinglePoint { relay: relay.name.clone(), cut_off })
    };
    relays.filter_map(point).collect()
}

/// Asks nodes that are up for their parents.
async fn ask(
    client: &Client,
    hosts: &[HostInfo],
    whom: impl Fn(&HostInfo) -> bool,
    reach: Duration,
) -> Result<BTreeMap<String, Survey>, Failure> {
    let asked = hosts.iter().filter(|host| host.up && whom(host));
    let names: Vec<&str> = asked.map(|host| host.name.as_str()).collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let targets = Targets { sets: vec![fold(&names)], ..Targets::default() };
    let new = NewSurvey { targets, reach_ms: millis(reach) };
    let order: OrderInfo = client.post("/v1/tree/survey", &new).await?;
    let path = format!("/v1/orders/{}", order.id);
    let detail = loop {
        let mut events = client.get_lines::<OrderEvent>(&format!("{path}/events")).await?;
        while let Some(event) = events.next().await? {
            if let OrderEvent::Closed { .. } | OrderEvent::Lagged = event {
                break;
            }
        }
        let detail: OrderDetail = client.get(&path).await?;
        if detail.pending.is_empty() {
            break detail;
        }
    };
    let answers = detail.answers.iter().filter(|answer| answer.state == "ok");
    Ok(answers
        .flat_map(|answer| {
            let survey = read(&answer.stdout);
            answer.hosts.iter().map(move |host| (host.clone(), survey.clone()))
        })
        .collect())
}

/// What a node has said; lines that are not known are left out.
fn read(text: &str) -> Survey {
    let mut survey = Survey::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["parent", address, host] => survey.parents.push((address.into(), host.parse().ok())),
            ["children", most] => survey.children = most.parse().unwrap_or(0),
            _ => {}
        }
    }
    survey
}

impl Lost<'_> {
    /// Whether a node loses its parent.
    fn takes_from(&self, host: &HostInfo) -> bool {
        let (parent, name) = (host.parent.as_str(), host.name.as_str());
        self.nodes.contains(parent) || self.links.contains(&(parent, name))
    }
}

/// The tree as it is now.
struct Tree<'a> {
    hosts: BTreeMap<&'a str, &'a HostInfo>,
    surveys: &'a BTreeMap<String, Survey>,
    names: BTreeMap<u32, &'a str>,
    /// Who has answered at an address, as anybody knows.
    known: BTreeMap<&'a str, u32>,
    children: BTreeMap<&'a str, usize>,
}

impl<'a> Tree<'a> {
    fn new(hosts: &'a [HostInfo], surveys: &'a BTreeMap<String, Survey>) -> Tree<'a> {
        let mut names: BTreeMap<u32, &str> =
            hosts.iter().map(|host| (host.id, host.name.as_str())).collect();
        names.insert(0, CONTROLLER);
        let parents = surveys.values().flat_map(|survey| &survey.parents);
        let known =
            parents.filter_map(|(address, host)| Some((address.as_str(), (*host)?))).collect();
        let mut children: BTreeMap<&str, usize> = BTreeMap::new();
        for host in hosts.iter().filter(|host| host.up) {
            *children.entry(&host.parent).or_default() += 1;
        }
        let hosts = hosts.iter().map(|host| (host.name.as_str(), host)).collect();
        Tree { hosts, surveys, names, known, children }
    }

    fn without(&self, lost: &Lost<'a>) -> Future {
        let mut future = Future::default();
        let mut counts = self.children.clone();
        let (mut gains, mut full) = (BTreeMap::<&str, Vec<&str>>::new(), BTreeSet::new());
        let mut parents: BTreeMap<&str, &str> =
            self.hosts.iter().map(|(name, host)| (*name, host.parent.as_str())).collect();
        let mut orphans: Vec<&str> = self
            .hosts
            .values()
            .filter(|host| host.up && lost.takes_from(host))
            .map(|host| host.name.as_str())
            .filter(|name| !lost.nodes.contains(name))
            .collect();
        orphans.sort_by(|a, b| natural_cmp(a, b));
        let mut unsure = BTreeSet::new();
        for &name in &orphans {
            parents.insert(name, "");
            let Some(survey) = self.surveys.get(name) else {
                future.unknown.push(name.into());
                continue;
            };
            for (address, host) in &survey.parents {
                let host = host.or_else(|| self.known.get(address.as_str()).copied());
                let Some(&to) = host.and_then(|host| self.names.get(&host)) else {
                    unsure.insert(name);
                    continue;
                };
                if !self.takes(lost, &parents, name, to) {
                    continue;
                }
                let now = counts.entry(to).or_default();
                let most = self.surveys.get(to).map_or(0, |survey| survey.children);
                if most > 0 && *now >= most {
                    full.insert(to);
                    continue;
                }
                *now += 1;
                parents.insert(name, to);
                gains.entry(to).or_default().push(name);
                break;
            }
        }
        let mut cut_off: Vec<&str> = self
            .hosts
            .values()
            .map(|host| host.name.as_str())
            .filter(|name| self.hosts[name].up && !lost.nodes.contains(name))
            .filter(|name| !leads_up(&parents, lost, name))
            .collect();
        cut_off.sort_by(|a, b| natural_cmp(a, b));
        let own = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        future.unsure = own(&cut_off);
        future.unsure.retain(|name| unsure.contains(name.as_str()));
        (future.orphans, future.cut_off) = (own(&orphans), own(&cut_off));
        future.full = full.into_iter().map(String::from).collect();
        let gain = |(parent, children): (&str, Vec<&str>)| Gain {
            then: counts.get(parent).copied().unwrap_or_default(),
            most: self.surveys.get(parent).map_or(0, |survey| survey.children),
            children: own(&children),
            parent: parent.into(),
        };
        future.gains = gains.into_iter().map(gain).collect();
        future
    }

    /// Whether a node may take another: it answers, and is not behind it.
    fn takes(
        &self,
        lost: &Lost<'_>,
        parents: &BTreeMap<&str, &str>,
        child: &str,
        to: &str,
    ) -> bool {
        if lost.nodes.contains(to) || lost.links.contains(&(to, child)) {
            return false;
        }
        let is_up = to == CONTROLLER || self.hosts.get(to).is_some_and(|host| host.up);
        let mut at = to;
        let mut seen = BTreeSet::new();
        while let Some(&parent) = parents.get(at).filter(|_| seen.insert(at)) {
            if at == child {
                return false;
            }
            at = parent;
        }
        is_up
    }
}

/// Whether the way from a node upward ends at the controller.
fn leads_up(parents: &BTreeMap<&str, &str>, lost: &Lost<'_>, name: &str) -> bool {
    let (mut at, mut seen) = (name, BTreeSet::new());
    while at != CONTROLLER {
        if !seen.insert(at) || lost.nodes.contains(at) {
            return false;
        }
        match parents.get(at) {
            Some(&parent) => at = parent,
            None => return false,
        }
    }
    true
}

fn words(hosts: &[HostInfo], lose: &[String], future: &Future) -> String {
    let count = |names: &[String]| show_count(names.len() as u64);
    let relays = hosts.iter().filter(|host| host.role == "relay");
    let relays: BTreeSet<&str> = relays.map(|host| host.name.as_str()).collect();
    let orphans = match future.orphans.len() {
        1 => "1 node loses its parent".to_owned(),
        _ => format!("{} nodes lose their parent", count(&future.orphans)),
    };
    let are = if future.cut_off.len() == 1 { "is" } else { "are" };
    let cut_off = count(&future.cut_off);
    let mut text = format!("without {}: {orphans}, {cut_off} {are} cut off\n", lose.join(", "));
    for Gain { parent, children, then, most } in &future.gains {
        let of = match most {
            0 => String::new(),
            most => format!(" of {}", show_count(*most as u64)),
        };
        let then = show_count(*then as u64);
        let line = format!("  to {parent}  {}  (then {then}{of})\n", fold(children));
        text.push_str(&line);
    }
    let mut line = |what: &str, names: &[String]| {
        if !names.is_empty() {
            let behind = names.iter().filter(|name| relays.contains(name.as_str())).count();
            let with = if behind > 0 { format!(", {behind} of them relays") } else { "".into() };
            text.push_str(&format!("  {what}  {}  ({}{with})\n", fold(names), count(names)));
        }
    };
    line("cut off", &future.cut_off);
    line("cut off unless somebody answers where nobody yet has", &future.unsure);
    line("full, so that some go elsewhere or nowhere", &future.full);
    line("did not say which parents they have", &future.unknown);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(id: u32, name: &str, role: &str, parent: &str) -> HostInfo {
        let (name, role, parent) = (name.into(), role.into(), parent.into());
        HostInfo { id, name, site: "lyon".into(), role, up: true, parent, ..HostInfo::default() }
    }

    /// Two relays at the controller, one below the first, hosts behind each.
    fn fleet() -> Vec<HostInfo> {
        vec![
            host(1, "r1", "relay", "controller"),
            host(2, "r2", "relay", "controller"),
            host(3, "r3", "relay", "r1"),
            host(4, "web1", "host", "r1"),
            host(5, "web2", "host", "r1"),
            host(6, "deep", "host", "r3"),
            host(7, "lone", "host", "r1"),
            HostInfo { up: false, ..host(8, "off", "host", "r1") },
        ]
    }

    fn survey(children: usize, parents: &[(&str, Option<u32>)]) -> Survey {
        let parents = parents.iter().map(|(address, id)| (address.to_string(), *id)).collect();
        Survey { parents, children }
    }

    fn future(lose: &[&str], surveys: &[(&str, Survey)]) -> Future {
        let (hosts, lose) = (fleet(), lose.iter().map(|l| l.to_string()).collect::<Vec<_>>());
        let surveys = surveys.iter().map(|(n, s)| (n.to_string(), s.clone())).collect();
        let lost = lost(&hosts, &lose).expect("they are there");
        Tree::new(&hosts, &surveys).without(&lost)
    }

    #[test]
    fn orphans_take_the_first_that_is_up_and_who_is_behind_them_comes_along() {
        let both = survey(0, &[("a:1", Some(1)), ("b:1", Some(2))]);
        let surveys = [
            ("r2", survey(2_000, &[("c:1", Some(0))])),
            ("r3", survey(2_000, &[("a:1", Some(1)), ("d:1", Some(3)), ("b:1", None)])),
            ("web1", both.clone()),
            ("web2", both),
            ("lone", survey(0, &[("a:1", Some(1)), ("x:1", None)])),
        ];
        let future = future(&["r1"], &surveys);
        assert_eq!(future.orphans, ["lone", "r3", "web1", "web2"]);
        let gain = Gain {
            parent: "r2".into(),
            children: vec!["r3".into(), "web1".into(), "web2".into()],
            then: 3,
            most: 2_000,
        };
        assert_eq!(future.gains, [gain]);
        assert_eq!((future.cut_off.as_slice(), future.unsure.len()), (&["lone".to_owned()][..], 1));
        let text = words(&fleet(), &["r1".into()], &future);
        assert_eq!(
            text,
            "without r1: 4 nodes lose their parent, 1 is cut off\n  \
             to r2  r3,web[1-2]  (then 3 of 2,000)\n  \
             cut off  lone  (1)\n  \
             cut off unless somebody answers where nobody yet has  lone  (1)\n"
        );
    }

    #[test]
    fn a_relay_is_a_single_point_for_who_has_no_other_way() {
        let survey_of = |addresses: &[(&str, Option<u32>)]| survey(0, addresses);
        let both = survey_of(&[("a:1", Some(1)), ("b:1", Some(2))]);
        let mut surveys: BTreeMap<String, Survey> = [
            ("r1", survey_of(&[("c:1", Some(0))])),
            ("r2", survey_of(&[("c:1", Some(0))])),
            ("r3", both.clone()),
            ("web1", both.clone()),
            ("web2", survey_of(&[("a:1", Some(1)), ("x:1", None)])),
            ("deep", survey_of(&[("d:1", Some(3))])),
            ("lone", survey_of(&[("a:1", Some(1))])),
        ]
        .map(|(name, survey)| (name.to_owned(), survey))
        .into();
        let point = |relay: &str, cut_off| SinglePoint { relay: relay.into(), cut_off };
        // web2 has an address that nobody has tried yet, so it is not told to be cut off.
        assert_eq!(points(&fleet(), &surveys), [point("r1", 1), point("r3", 1)]);
        surveys.insert("r3".into(), survey_of(&[("a:1", Some(1))]));
        assert_eq!(points(&fleet(), &surveys), [point("r1", 3), point("r3", 1)]);
        // Of r3, and so of who is behind it, nothing is known.
        surveys.remove("r3");
        assert_eq!(points(&fleet(), &surveys), [point("r1", 1), point("r3", 1)]);
    }

    #[test]
    fn a_full_relay_takes_nobody_and_who_is_behind_the_cut_off_is_cut_off() {
        let both = survey(0, &[("a:1", Some(1)), ("b:1", Some(2))]);
        let surveys = [
            ("r2", survey(1, &[("c:1", Some(0))])),
            ("r3", survey(2_000, &[("a:1", Some(1))])),
            ("web1", both.clone()),
            ("web2", both),
        ];
        let future = future(&["r1"], &surveys);
        assert_eq!(future.full, ["r2"]);
        assert_eq!(future.gains[0].children, ["web1"]);
        assert_eq!(future.cut_off, ["deep", "lone", "r3", "web2"]);
        assert_eq!(future.unknown, ["lone"]);
    }

    #[test]
    fn a_lost_link_is_lost_for_its_child_alone() {
        let surveys = [
            ("r1", survey(2_000, &[("c:1", Some(0))])),
            ("r2", survey(2_000, &[("c:1", Some(0)), ("a:1", Some(1))])),
        ];
        let future = future(&["controller:r2"], &surveys);
        assert_eq!(future.orphans, ["r2"]);
        assert_eq!(future.gains[0].parent, "r1");
        assert!(future.cut_off.is_empty());
    }

    #[test]
    fn what_cannot_be_lost_is_said() {
        let hosts = fleet();
        for (name, words) in [
            ("web1", "web1 is a host"),
            ("r9", "no relay r9"),
            ("r2:web1", "web1 is behind r1, not r2"),
            ("r2:web9", "no node web9"),
        ] {
            let names = [name.to_owned()];
            let failure = lost(&hosts, &names).expect_err("it cannot be lost");
            let message = &failure.error.message;
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn what_nodes_say_is_read() {
        let said = "parent a:1 4\nparent b.example:7400 -\nchildren 20\nlater 1 2 3\n";
        assert_eq!(read(said), survey(20, &[("a:1", Some(4)), ("b.example:7400", None)]));
    }
}
