//! A mesh for a crowd: a real controller, real relays in tiers, and virtual hosts behind them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use mesh::State;
use protos::{Answer, OrderBody, Work};
use serde_json::{Value, json};
use simulations::crowd::{Crowd, Roll};
use tests::{Fleet, Spec, wait_for};

use crate::api::Api;
use crate::fleet::Link;
use crate::proc::{Memory, Usage};

/// How long it may take until everybody is linked.
const LINK_LIMIT: Duration = Duration::from_secs(300);
const BEAT: Duration = Duration::from_secs(10);
/// A host in ten thousand beats as seldom as one that is far away.
const PACE: &str = "beat_interval_ms = 10000\nredial_base_ms = 200\nredial_cap_ms = 2000\n";
/// What a command prints that is named so.
pub(crate) const EQUAL: &str = "equal";
pub(crate) const NEAR: &str = "near";
/// How much [`NEAR`] prints.
pub(crate) const NEAR_BYTES: usize = 10_000;

/// How relays stand above the hosts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// None: all hosts at the controller.
    Flat,
    /// So many relays at the controller.
    Two(usize),
    /// So many relays at the controller, and so many below each of them.
    Three(usize, usize),
}

/// The mesh.
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) api: Api,
    pub(crate) crowd: Crowd,
    pub(crate) hosts: usize,
    relays: usize,
}

/// What one run has cost.
pub(crate) struct Cost {
    pub(crate) time: Duration,
    /// Over all links of the controller, as UDP payload.
    pub(crate) down: u64,
    pub(crate) up: u64,
    /// Processor time.
    pub(crate) controller: Duration,
    pub(crate) relays: Duration,
    pub(crate) crowd: Duration,
}

impl World {
    /// Starts it, and waits until everybody is linked.
    pub(crate) fn start(barid: &Path, shape: Shape, hosts: usize) -> Result<World> {
        let names = names(hosts, shape);
        let mut roll = None;
        let fleet = Fleet::prepared(barid.to_owned(), PACE, &[], |state| {
            roll = Some(Roll::found(state, &names)?);
            Ok(())
        });
        let (mut fleet, roll) = (fleet?, roll.context("the state was prepared")?);
        let api = Api::connect(&fleet.state("controller").join("barid.sock"))?;
        let (lowest, relays) = raise(&mut fleet, shape)?;
        let share = hosts.div_ceil(lowest.len());
        let mut members = roll.members.into_iter();
        let mut sites = Vec::new();
        for parent in &lowest {
            let parent = fleet.listen(parent)?.parse().context("where a relay listens")?;
            sites.push((parent, members.by_ref().take(share).collect()));
        }
        let crowd = Crowd::start(sites, BEAT, Arc::new(answer))?;
        let mut world = World { fleet, api, crowd, hosts, relays };
        world.wait()?;
        Ok(world)
    }

    /// Waits until everybody is linked, and the controller knows.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let nodes = self.hosts + self.relays;
        wait_for("everybody to be linked", LINK_LIMIT, || Ok((self.up()? == nodes).then_some(())))
    }

    /// How many nodes the controller reaches.
    pub(crate) fn up(&mut self) -> Result<usize> {
        let status = self.api.ask("GET", "/v1/status", None)?;
        let count = status["up"].as_u64().context("how many are up")?;
        Ok(usize::try_from(count)?)
    }

    /// A run over all hosts, to its end.
    pub(crate) fn run(&mut self, what: &str) -> Result<Cost> {
        let run = json!({
            "targets": { "sets": ["@role:host"] }, "argv": [what],
            "reach_ms": 60_000, "timeout_ms": 60_000, "output_limit": 192 << 10,
        });
        let (links, used) = (self.links()?, self.used()?);
        let begun = Instant::now();
        let order = self.api.ask("POST", "/v1/runs", Some(&run))?;
        let order = self.api.follow(order["id"].as_str().context("an order has an id")?)?;
        let time = begun.elapsed();
        ensure!(order["states"]["ok"] == self.hosts, "not all is well: {}", order["states"]);
        let links: Vec<_> = self.links()?.iter().map(|link| link.since(&links)).collect();
        let now = self.used()?;
        let [controller, relays, crowd] = [0, 1, 2].map(|n| now[n].since(&used[n]).own);
        let down = links.iter().map(|link| link.sent).sum();
        let up = links.iter().map(|link| link.received).sum();
        Ok(Cost { time, down, up, controller, relays, crowd })
    }

    /// Resident memory: the controller's, and that of the largest relay.
    pub(crate) fn memory(&self) -> Result<[Option<Memory>; 2]> {
        let controller = Memory::of(self.fleet.pid("controller")?)?;
        let relays = self.relays()?.into_iter().map(Memory::of).collect::<Result<Vec<_>>>()?;
        let largest = relays.into_iter().max_by_key(|memory| memory.resident);
        Ok([Some(controller), largest])
    }

    fn used(&self) -> Result<[Usage; 3]> {
        let controller = Usage::of(self.fleet.pid("controller")?)?;
        Ok([controller, Usage::sum(&self.relays()?)?, Usage::of(std::process::id())?])
    }

    fn relays(&self) -> Result<Vec<u32>> {
        let names = self.fleet.names().filter(|name| *name != "controller");
        names.map(|name| self.fleet.pid(name)).collect()
    }

    fn links(&mut self) -> Result<Vec<Link>> {
        let links = self.api.ask("GET", "/v1/links", None)?;
        let links: &Vec<Value> = links.as_array().context("a list of links")?;
        Ok(links.iter().map(Link::read).collect())
    }
}

/// Starts the relays. Returns the names of those below which hosts are, and how many there are.
fn raise(fleet: &mut Fleet, shape: Shape) -> Result<(Vec<String>, usize)> {
    let (first, below) = match shape {
        Shape::Flat => return Ok((vec!["controller".into()], 0)),
        Shape::Two(relays) => (relays, 0),
        Shape::Three(relays, below) => (relays, below),
    };
    let mut lowest = Vec::new();
    for n in 1..=first {
        let name = format!("relay{n}");
        fleet.add(&spec(&name, "controller"))?;
        for m in 1..=below {
            let lower = format!("relay{n}-{m}");
            fleet.add(&spec(&lower, &name))?;
            lowest.push(lower);
        }
        if below == 0 {
            lowest.push(name);
        }
    }
    Ok((lowest, first * (1 + below)))
}

fn spec(name: &str, parent: &str) -> Spec {
    Spec {
        role: "relay",
        name: name.into(),
        site: name.into(),
        parents: vec![parent.into()],
        config: String::new(),
    }
}

/// Names as they grow in the field, where hardly two follow one rule, and their sites.
fn names(hosts: usize, shape: Shape) -> Vec<(String, String)> {
    let sites = match shape {
        Shape::Flat => 1,
        Shape::Two(relays) => relays,
        Shape::Three(relays, below) => relays * below,
    };
    let share = hosts.div_ceil(sites);
    let name = |n: usize| {
        // A mixture that is the same at each run.
        let mixed = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let (a, b, c) = (mixed % 251, mixed / 251 % 17, mixed / 4_267 % 90_000);
        match mixed % 5 {
            0 => format!("ip-10-{b}-{a}-{n}"),
            1 => format!("db{n:05}-{}", ["eu", "us", "ap"][usize::try_from(b % 3).unwrap_or(0)]),
            2 => format!("k8s-{c:x}-{n}"),
            3 => format!("web{b}x{n}"),
            _ => format!("node-{n:x}.rack{a}"),
        }
    };
    (0..hosts).map(|n| (name(n), format!("site{}", n / share + 1))).collect()
}

/// What the virtual hosts answer: all the same, or each the same but for its name and a time.
fn answer(name: &str, order: &OrderBody) -> (State, Answer) {
    let Work::Run(run) = &order.work else { return (State::Ok, Answer::default()) };
    let near = run.argv.first().is_some_and(|word| *word == NEAR.as_bytes());
    let stdout: Bytes = match near {
        false => Bytes::from_static(b"Linux 6.12.0 x86_64\n"),
        true => report(name),
    };
    (State::Ok, Answer { stdout_size: stdout.len() as u64, stdout, ..Answer::default() })
}

/// A status page of [`NEAR_BYTES`], in which the name and the time stand twice each.
fn report(name: &str) -> Bytes {
    let nanos = name.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
    let at = format!("2026-05-04 03:{:02}:{:02}", nanos % 60, nanos / 60 % 60);
    let mut text = format!("{name} status at {at}\n");
    let end = format!("{name}: checked at {at}\n");
    for line in 0.. {
        let next = format!("unit {line:04}: active (running), {} restarts\n", line % 3);
        if text.len() + next.len() + end.len() > NEAR_BYTES {
            break;
        }
        text += &next;
    }
    text += &end;
    text.into()
}
