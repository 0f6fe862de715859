//! The same push to hosts that may fetch from each other and to as many that may not, where the
//! port of their relay is not what they wait for: does it cost them anything?
//!
//! Two relays of one controller, each behind an emulated line and with its hosts on loopback, get
//! a file of their own in turns; the one has the default settings, the other `fanout = 0`. Once the
//! line of the relays is the limit, once the processors that all of them share are.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use simulations::wan::{Profile, UdpLink};
use tests::{Fleet, Spec, wait_for};

use crate::api::Api;
use crate::table::{self, Spread};

/// The relays: who their hosts get content from, and the lines in their settings.
const SITES: [(&str, &str); 2] =
    [("the relay alone", "[siblings]\nfanout = 0\n"), ("siblings, by default", "")];
/// Hosts of each. By default siblings help from the fifteenth on, if a part of a push has 8 MiB.
const HOSTS: usize = 24;
/// How many start at once.
const WAVE: usize = 12;
/// What the line of both relays is like, and the MiB of each push.
const LINES: [(&str, usize); 2] = [("mid50", 32), ("lan", 64)];
const ROUNDS: usize = 7;
/// Rounds of one line may take so long together.
const ALL: Duration = Duration::from_secs(240);
const LIMIT: Duration = Duration::from_secs(120);
/// Begins the line of a host's metrics that says what it has fetched from siblings.
const RECEIVED: &str = "barid_sibling_bytes_total{dir=\"received\"}";

/// A controller with both sites.
struct World {
    fleet: Fleet,
    api: Api,
    _lines: Vec<UdpLink>,
    pushed: u64,
}

/// Measures both lines.
pub(crate) fn measure(barid: &Path, work: &Path) -> Result<()> {
    let mut rows = Vec::new();
    for (profile, mib) in LINES {
        let mut world = World::start(barid, work, profile)?;
        for site in 0..SITES.len() {
            world.round(site, mib)?;
        }
        let before = world.shared()?;
        let (begun, mut times) = (Instant::now(), SITES.map(|_| Vec::new()));
        while times[1].len() < ROUNDS && begun.elapsed() < ALL {
            // Whoever is first in one round is last in the next.
            let first = times[1].len() % 2;
            for site in [first, 1 - first] {
                times[site].push(world.round(site, mib)?);
            }
        }
        let rounds = times[1].len();
        let shared = (world.shared()? - before) / (rounds * HOSTS * (mib << 20)) as f64;
        let (times, shares) = (times.map(Spread::of), [0.0, shared]);
        let alone = times[0].rank(0.5).as_secs_f64();
        for (((what, _), times), share) in SITES.iter().zip(&times).zip(shares) {
            let ratio = table::ratio(times.rank(0.5).as_secs_f64(), alone);
            let head = vec![profile.to_owned(), (*what).to_owned(), format!("{mib} MiB")];
            let tail = vec![ratio, format!("{:.0} %", share * 100.0)];
            rows.push([head, times.cells().to_vec(), tail].concat());
        }
    }
    table::heading("Hosts that fetch from each other, where the port is not the limit");
    println!("{HOSTS} hosts at a relay; the time to the last of them.\n");
    let head = [
        "the relay's line",
        "hosts get it from",
        "push",
        "rounds",
        "p50",
        "p99",
        "min",
        "max",
        "p50 / alone",
        "bytes from siblings",
    ];
    table::print(&head, &rows);
    Ok(())
}

fn relay(site: usize) -> String {
    format!("relay{site}")
}

fn host(site: usize, n: usize) -> String {
    format!("s{site}h{n}")
}

impl World {
    fn start(barid: &Path, work: &Path, profile: &str) -> Result<World> {
        let mut fleet = Fleet::placed(barid.into(), tests::PACE, work, Default::default())?;
        let api = Api::connect(&fleet.state("controller").join("barid.sock"))?;
        let (controller, profile) =
            (fleet.listen("controller")?.parse()?, Profile::named(profile)?);
        let (mut lines, mut nodes) = (Vec::new(), 0);
        for (site, (_, settings)) in SITES.iter().enumerate() {
            let line = UdpLink::start("127.0.0.1:0".parse()?, controller, &profile, site as u64)?;
            fleet.route("controller", line.address().to_string());
            lines.push(line);
            let (relay, place) = (relay(site), format!("site{site}"));
            fleet.add(&Spec::new("relay", &relay, "controller").at(&place).with(settings))?;
            nodes += 1;
            for n in 1..=HOSTS {
                fleet.add(&Spec::new("host", &host(site, n), &relay).at(&place))?;
                nodes += 1;
                if n.is_multiple_of(WAVE) {
                    fleet.wait_up(nodes)?;
                }
            }
        }
        fleet.wait_up(nodes)?;
        Ok(World { fleet, api, _lines: lines, pushed: 0 })
    }

    /// A push of a new file to one site. Returns when the last host had it, from the question.
    fn round(&mut self, site: usize, mib: usize) -> Result<Duration> {
        self.pushed += 1;
        let source = self.fleet.path().join(format!("source{}", self.pushed));
        fs::write(&source, tests::noise(self.pushed, mib << 20))?;
        // Each push is a first one: hosts have nothing that it could build on.
        let (dest, hosts) = (format!("/srv/file{}", self.pushed), format!("s{site}h[1-{HOSTS}]"));
        let push = json!({
            "source": source, "dest": dest, "targets": { "sets": [hosts] },
            "reach_ms": 60_000, "hold_ms": 3_600_000, "all_at_once": true,
        });
        let begun = Instant::now();
        let last = self.api.last_line("POST", "/v1/pushes", Some(&push))?;
        let id = last["order"]["id"].as_str().with_context(|| format!("not ordered: {last}"))?;
        wait_for("every host to have it", LIMIT, || {
            let detail = self.api.ask("GET", &format!("/v1/orders/{id}"), None)?;
            Ok((detail["order"]["states"]["ok"] == HOSTS).then_some(()))
        })?;
        let took = begun.elapsed();
        fs::remove_file(source)?;
        for n in 1..=HOSTS {
            fs::remove_file(self.fleet.at(&host(site, n), &dest))?;
        }
        Ok(took)
    }

    /// Bytes that hosts have fetched from siblings until now.
    fn shared(&self) -> Result<f64> {
        let mut sum = 0.0;
        for n in 1..=HOSTS {
            let socket = self.fleet.state(&host(1, n)).join("node.sock");
            let page = Api::connect(&socket)?.text("/metrics")?;
            let line = page.lines().find_map(|line| line.strip_prefix(RECEIVED));
            sum += line.context("bytes from siblings")?.trim().parse::<f64>()?;
        }
        Ok(sum)
    }
}
