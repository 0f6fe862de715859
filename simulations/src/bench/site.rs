//! What the benchmarks in a laboratory share: the options, what crossed the links, and the tools
//! with their lists of machines.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use simulations::lab::{self, Lab, Plan};
use simulations::wan::{Profile, Traffic};

use crate::ssh::Ssh;
use crate::table::{self, Spread};

/// What the dice of the links begin with.
const SEED: u64 = 20_260_714;

/// What stands for TCP where there is none.
pub(crate) const OURS: &str = "-";

/// What to build, and how long and often to try.
pub(crate) struct Options {
    pub(crate) sites: usize,
    pub(crate) hosts: usize,
    pub(crate) profiles: Vec<String>,
    /// Congestion controls of TCP, for the peers.
    pub(crate) controls: Vec<String>,
    pub(crate) repeats: usize,
    /// Without the peers.
    pub(crate) alone: bool,
    /// Words one of which the name of a peer must hold. None: all peers.
    pub(crate) only: Vec<String>,
    /// For each measurement.
    pub(crate) limit: Duration,
}

impl Options {
    /// A laboratory whose links have no limits yet. None, and a word: there cannot be one here.
    pub(crate) fn lab(&self) -> Result<Option<Lab>> {
        if let Err(reason) = lab::check() {
            println!("\nskipped: {reason}");
            return Ok(None);
        }
        let profile = Profile::named("lan")?;
        let plan = Plan { sites: self.sites, hosts: self.hosts, profile, seed: SEED };
        Ok(Some(Lab::build(&plan)?))
    }

    /// Whether this peer is asked for.
    pub(crate) fn wants(&self, peer: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| peer.contains(word.as_str()))
    }

    /// The controls that this kernel has.
    pub(crate) fn controls(&self) -> Vec<&str> {
        let path = "/proc/sys/net/ipv4/tcp_available_congestion_control";
        let there = fs::read_to_string(path).unwrap_or_default();
        let is_there = |name: &&String| {
            let is = there.split_whitespace().any(|word| word == name.as_str());
            if !is {
                println!("\nTCP on {name}: skipped, this kernel has {}", there.trim());
            }
            is
        };
        self.controls.iter().filter(is_there).map(String::as_str).collect()
    }
}

/// What has crossed each site's link so far.
pub(crate) struct Crossed(Vec<Traffic>);

impl Crossed {
    pub(crate) fn now(lab: &Lab) -> Crossed {
        Crossed(lab.sites.iter().map(|site| site.link().traffic()).collect())
    }

    /// Cells: bytes that came down and up the busiest link since then, and the share of packets
    /// that were dropped at the queue, all links together.
    pub(crate) fn cells(&self, lab: &Lab) -> [String; 3] {
        let now = Crossed::now(lab).0;
        let most = |of: fn(&Traffic) -> u64| {
            let each = now.iter().zip(&self.0).map(|(now, then)| of(now) - of(then));
            each.max().unwrap_or_default()
        };
        let all = |of: fn(&Traffic) -> u64| {
            now.iter().zip(&self.0).map(|(now, then)| of(now) - of(then)).sum::<u64>()
        };
        // What left the queue has used the link, whether it arrived or not.
        let down = most(|t| t.down.delivered.bytes + t.down.lost.bytes);
        let up = most(|t| t.up.delivered.bytes + t.up.lost.bytes);
        let full = all(|t| t.down.overflowed.packets + t.up.overflowed.packets);
        let packets = all(|t| t.down.pushed.packets + t.up.pushed.packets);
        let dropped = format!("{:.2} %", 100.0 * full as f64 / packets.max(1) as f64);
        [table::bytes(down), table::bytes(up), dropped]
    }
}

/// Cells: how many, least, median, most; with what is beyond the limit as such.
pub(crate) fn spread(
    times: &[Option<Duration>],
    limit: Duration,
) -> (Option<Duration>, [String; 4]) {
    // What did not end counts as the longest.
    let all: Vec<_> = times.iter().map(|time| time.unwrap_or(Duration::MAX)).collect();
    let (count, spread) = (all.len(), Spread::of(all));
    let cell = |share: f64| match spread.rank(share) {
        Duration::MAX => format!("> {:.0} s", limit.as_secs_f64()),
        time => table::time(time),
    };
    let median = Some(spread.rank(0.5)).filter(|median| *median < Duration::MAX);
    (median, [count.to_string(), cell(0.0), cell(0.5), cell(1.0)])
}

/// A ratio of two times, if both are there.
pub(crate) fn ratio(one: Option<Duration>, other: Option<Duration>) -> String {
    match (one, other) {
        (Some(one), Some(other)) => {
            format!("{:.2}", one.as_secs_f64() / other.as_secs_f64().max(1e-9))
        }
        _ => "-".into(),
    }
}

/// Files and words that the tools need.
pub(crate) struct Tools {
    /// All hosts, folded as pdsh and clush write them.
    pub(crate) set: String,
    pub(crate) topology: PathBuf,
    pub(crate) inventory: PathBuf,
    /// For ssh.
    pub(crate) config: PathBuf,
    pub(crate) kept: PathBuf,
}

impl Tools {
    pub(crate) fn new(lab: &Lab, ssh: &Ssh) -> Result<Tools> {
        let folded = lab.sites.iter().filter(|site| !site.hosts.is_empty()).map(|site| {
            let [a, b, c, first] = site.hosts[0].address.octets();
            format!("{a}.{b}.{c}.[{first}-{}]", usize::from(first) + site.hosts.len() - 1)
        });
        let folded: Vec<_> = folded.collect();
        let name = fs::read_to_string("/proc/sys/kernel/hostname")?;
        let name = name.trim().split('.').next().context("a host name")?;
        let gateways: Vec<_> =
            lab.sites.iter().map(|site| site.gateway.address.to_string()).collect();
        let routes = gateways.iter().zip(&folded).map(|(gw, set)| format!("{gw}: {set}\n"));
        let topology = lab.scratch().join("topology.conf");
        let routes: String = routes.collect();
        fs::write(&topology, format!("[routes]\n{name}: {}\n{routes}", gateways.join(",")))?;
        let inventory = lab.scratch().join("inventory");
        let hosts = lab.sites.iter().flat_map(|site| &site.hosts);
        let hosts: String = hosts.map(|host| format!("{}\n", host.address)).collect();
        let python = "ansible_python_interpreter=/usr/bin/python3";
        fs::write(&inventory, format!("[all]\n{hosts}[all:vars]\n{python}\n"))?;
        let set = folded.join(",");
        let (config, kept) = (ssh.config(false), ssh.config(true));
        Ok(Tools { set, topology, inventory, config, kept })
    }
}
