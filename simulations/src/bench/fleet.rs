//! Fleets of hundreds of real processes, started in waves.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use simulations::lab::{Lab, Machine};
use tests::{Fleet, Place, Spec, wait_for};

use crate::api::Api;

/// How many nodes start at once: enrolling is work for the controller, too.
const WAVE: usize = 24;
/// Where nodes listen in a laboratory, where nobody else does.
const PORT: u16 = 7000;
/// Of so many nodes that are not up the log is shown.
const LOGS_SHOWN: usize = 3;
/// Nodes beat as they would in the field; redialling is quick, so that a fleet is up soon.
const PACE: &str = "redial_base_ms = 200\nredial_cap_ms = 2000\n";

/// A fleet with a connection to its API.
pub(crate) struct Bench {
    pub(crate) fleet: Fleet,
    pub(crate) api: Api,
    nodes: u64,
}

impl Bench {
    /// A controller and one relay for each entry of `hosts`, with so many hosts behind it.
    pub(crate) fn start(barid: &Path, hosts: &[usize]) -> Result<Bench> {
        Bench::placed(barid, hosts, &std::env::temp_dir(), BTreeMap::new())
    }

    /// The same in a laboratory: each node on its machine, the relays on the gateways.
    pub(crate) fn in_lab(barid: &Path, lab: &Lab) -> Result<Bench> {
        let at = |machine: &Machine| Place {
            before: ["ip", "netns", "exec", &machine.namespace].map(String::from).to_vec(),
            listen: Some(format!("{}:{PORT}", machine.address)),
        };
        let mut places = BTreeMap::from([("controller".to_owned(), at(&lab.root))]);
        for (no, site) in (1..).zip(&lab.sites) {
            places.insert(relay(no), at(&site.gateway));
            places.extend((1..).zip(&site.hosts).map(|(n, machine)| (host(no, n), at(machine))));
        }
        let hosts: Vec<_> = lab.sites.iter().map(|site| site.hosts.len()).collect();
        Bench::placed(barid, &hosts, lab.scratch(), places)
    }

    fn placed(
        barid: &Path,
        hosts: &[usize],
        dir: &Path,
        places: BTreeMap<String, Place>,
    ) -> Result<Bench> {
        let fleet = Fleet::placed(barid.to_owned(), PACE, dir, places)?;
        let api = Api::connect(&fleet.state("controller").join("barid.sock"))?;
        let mut bench = Bench { fleet, api, nodes: 0 };
        for site in 1..=hosts.len() {
            bench.add(&spec("relay", &relay(site), site, "controller"))?;
        }
        bench.wait()?;
        for (at, count) in hosts.iter().enumerate() {
            for number in 1..=*count {
                bench.add(&spec("host", &host(at + 1, number), at + 1, &relay(at + 1)))?;
                if bench.nodes.is_multiple_of(WAVE as u64) {
                    bench.wait()?;
                }
            }
        }
        bench.wait()?;
        Ok(bench)
    }

    /// Starts every relay again, so that nothing is left of what its link was like before.
    pub(crate) fn renew_uplinks(&mut self, sites: usize) -> Result<()> {
        for site in 1..=sites {
            self.fleet.kill(&relay(site))?;
        }
        // Not before it was noticed is it worth waiting for everybody.
        let below = self.nodes;
        tests::wait_for("the relays to be missed", tests::LIMIT, || {
            let hosts = self.api.ask("GET", "/v1/hosts", None)?;
            let hosts = hosts.as_array().context("a list of hosts")?;
            let up = hosts.iter().filter(|host| host["up"] == true).count() as u64;
            Ok((up + sites as u64 <= below).then_some(()))
        })?;
        for site in 1..=sites {
            self.fleet.restart(&relay(site))?;
        }
        self.wait()
    }

    /// Connects anew, after the controller was killed.
    pub(crate) fn reconnect(&mut self) -> Result<()> {
        let socket = self.fleet.state("controller").join("barid.sock");
        self.api =
            wait_for("the controller to answer", tests::LIMIT, || Ok(Api::connect(&socket).ok()))?;
        Ok(())
    }

    /// Starts one node. Does not wait for it.
    pub(crate) fn add(&mut self, spec: &Spec) -> Result<()> {
        let new = json!({
            "role": spec.role, "site": spec.site, "name": spec.name, "ttl_s": 3600,
        });
        let made = self.api.ask("POST", "/v1/tokens", Some(&new))?;
        let token = made["token"].as_str().context("the answer holds the token")?;
        let mut args = ["--name", &spec.name, "--join", token].map(String::from).to_vec();
        self.nodes += 1;
        self.fleet.start_node(spec, &mut args)
    }

    /// Waits until everybody is reachable. If somebody is not, its log says why.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let waited = self.fleet.wait_up(self.nodes);
        if waited.is_err() {
            let hosts = self.api.ask("GET", "/v1/hosts", None)?;
            let hosts = hosts.as_array().context("a list of hosts")?;
            let is_up = |name: &str| hosts.iter().any(|h| h["name"] == name && h["up"] == true);
            let names = self.fleet.names().filter(|name| *name != "controller");
            for name in names.filter(|name| !is_up(name)).take(LOGS_SHOWN) {
                let log = self.fleet.log(name);
                let tail = log.lines().rev().take(10).collect::<Vec<_>>();
                let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n  ");
                eprintln!("{name} is not up; its log ends:\n  {tail}");
            }
        }
        waited
    }

    /// The process ids of the nodes whose names end so: `-relay`, or hold it: `-host`.
    pub(crate) fn pids(&self, word: &str) -> Result<Vec<u32>> {
        let names = self.fleet.names().filter(|name| name.contains(word));
        names.map(|name| self.fleet.pid(name)).collect()
    }

    /// The controller's own links.
    pub(crate) fn links(&mut self) -> Result<Vec<Link>> {
        let links = self.api.ask("GET", "/v1/links", None)?;
        let links = links.as_array().context("a list of links")?;
        Ok(links.iter().map(Link::read).collect())
    }

    /// `true` everywhere. Returns when the order is closed.
    pub(crate) fn run_true(&mut self) -> Result<Value> {
        let run = json!({
            "targets": { "all": true }, "argv": ["true"],
            "reach_ms": 15_000, "timeout_ms": 60_000, "output_limit": 192 << 10,
        });
        let order = self.api.ask("POST", "/v1/runs", Some(&run))?;
        self.api.follow(order["id"].as_str().context("an order has an id")?)
    }
}

/// What has crossed one of the controller's links.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) content: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Link {
    pub(crate) fn read(value: &Value) -> Link {
        let number = |key: &str| value[key].as_u64().unwrap_or_default();
        Link {
            name: value["name"].as_str().unwrap_or_default().into(),
            content: number("content_sent"),
            sent: number("wire_sent"),
            received: number("wire_received"),
        }
    }

    /// What was added since the same link was read before.
    pub(crate) fn since(&self, before: &[Link]) -> Link {
        let before = before.iter().find(|link| link.name == self.name);
        let less = |now: u64, of: fn(&Link) -> u64| now.saturating_sub(before.map_or(0, of));
        Link {
            name: self.name.clone(),
            content: less(self.content, |link| link.content),
            sent: less(self.sent, |link| link.sent),
            received: less(self.received, |link| link.received),
        }
    }
}

/// The name of a site's relay.
pub(crate) fn relay(site: usize) -> String {
    format!("site{site}-relay")
}

/// The name of a host.
pub(crate) fn host(site: usize, number: usize) -> String {
    format!("site{site}-host{number}")
}

/// What a node is to be.
pub(crate) fn spec(role: &'static str, name: &str, site: usize, parent: &str) -> Spec {
    Spec {
        role,
        name: name.into(),
        site: format!("site{site}"),
        parents: vec![parent.into()],
        config: String::new(),
    }
}
