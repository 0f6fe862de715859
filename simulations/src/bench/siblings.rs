//! Ninety-six hosts at one relay, and four slow ones beside them: how much longer it takes until
//! the last of the ninety-six has what it is to have.
//!
//! Rounds in which all are well and rounds in which four are not take turns, each with content of
//! its own, to the same hundred hosts. Of the four, one takes a kilobyte a second, one is stopped,
//! one hears and is never heard, and one has a full disk. All share the processors, and hosts that
//! are slow leave more of them to the others: this shows what waits for them, not what they cost.
//! What they cost the relay is memory: the most that it has in a round is read beside its bound.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::json;
use simulations::wan::{Loss, Profile, Shape, UdpLink, Way};
use tests::{Fleet, Spec, wait_for};

use crate::api::Api;
use crate::proc;
use crate::table::{self, Spread};

const RELAY: &str = "relay";
const SIBLINGS: usize = 96;
/// How many start at once.
const WAVE: usize = 16;
/// What a round pushes.
const BYTES: usize = 4_000_000;
/// Rounds of each kind at most, and how long they may take together.
const ROUNDS: usize = 10;
const ALL: Duration = Duration::from_secs(300);
/// What a relay should have in memory at most, whatever its children do, in KiB.
const BOUND: u64 = 256 << 10;
const LIMIT: Duration = Duration::from_secs(120);

/// The hundred.
struct World {
    /// Without the right to mount one there are three slow hosts. It goes before the folder that it
    /// is in.
    disk: Option<Disk>,
    fleet: Fleet,
    api: Api,
    drip: UdpLink,
    mute: UdpLink,
    pushed: u64,
}

/// A small disk for the state of a host.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

impl Disk {
    fn mount(dir: &Path) -> Result<Option<Disk>> {
        fs::create_dir_all(dir)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=96m,mode=0700", "tmpfs"]).arg(dir);
        let is_mounted = mount.output().is_ok_and(|output| output.status.success());
        Ok(is_mounted.then(|| Disk(dir.into())))
    }

    fn fill(&self) -> Result<()> {
        let stat = rustix::fs::statvfs(&self.0)?;
        let free = usize::try_from(stat.f_bavail * stat.f_frsize)?;
        Ok(fs::write(self.0.join("ballast"), vec![7; free.saturating_sub(2 << 20)])?)
    }

    fn clear(&self) -> Result<()> {
        Ok(fs::remove_file(self.0.join("ballast"))?)
    }
}

/// Measures both.
pub(crate) fn measure(barid: &Path) -> Result<()> {
    let mut world = World::start(barid)?;
    let slow = world.slow();
    // What has never been pushed before costs the first one something.
    world.round()?;
    let (begun, mut times, mut memory) = (Instant::now(), [Vec::new(), Vec::new()], [0, 0]);
    while times[1].len() < ROUNDS && begun.elapsed() < ALL {
        times[0].push(world.watched(&mut memory[0])?);
        world.hurt()?;
        let beside = world.watched(&mut memory[1])?;
        world.heal()?;
        times[1].push(beside);
    }
    let [well, beside] = times.map(Spread::of);
    let least = well.rank(0.5).as_secs_f64();
    let row = |what: String, spread: &Spread, peak: u64| {
        let ratio = table::ratio(spread.rank(0.5).as_secs_f64(), least);
        let of_bound = format!("{} %", (peak * 100).div_ceil(BOUND));
        let memory = vec![table::memory(peak), of_bound];
        [vec![what], spread.cells().to_vec(), vec![ratio], memory].concat()
    };
    table::heading("Slow children beside 96 siblings: a push, to the last of the 96");
    let head = [
        "who is beside them",
        "rounds",
        "p50",
        "p99",
        "min",
        "max",
        "p50 / well",
        "relay, peak",
        "of 256 MiB",
    ];
    let rows = [
        row(format!("{slow} that are well"), &well, memory[0]),
        row(format!("{slow} that are slow, stopped, silent or full"), &beside, memory[1]),
    ];
    table::print(&head, &rows);
    Ok(())
}

impl World {
    fn start(barid: &Path) -> Result<World> {
        let mut fleet = Fleet::with(barid.to_owned(), tests::PACE)?;
        let api = Api::connect(&fleet.state("controller").join("barid.sock"))?;
        fleet.add(&Spec::new("relay", RELAY, "controller").at("site1"))?;
        fleet.wait_up(1)?;
        let relay = fleet.listen(RELAY)?.parse()?;
        let line = |seed| -> Result<UdpLink> {
            Ok(UdpLink::start("127.0.0.1:0".parse()?, relay, &Profile::named("lan")?, seed)?)
        };
        let (drip, mute) = (line(1)?, line(2)?);
        let host = |name: &str| Spec::new("host", name, RELAY).at("site1");
        for no in 1..=SIBLINGS {
            fleet.add(&host(&format!("good{no}")))?;
            if no.is_multiple_of(WAVE) {
                fleet.wait_up(1 + no as u64)?;
            }
        }
        fleet.add(&host("stopped"))?;
        let disk = Disk::mount(&fleet.state("full"))?;
        fleet.add(&host("full").with("min_free_mib = 8\n"))?;
        for (name, line) in [("drip", &drip), ("mute", &mute)] {
            fleet.route(RELAY, line.address().to_string());
            fleet.add(&host(name))?;
        }
        fleet.wait_up(1 + SIBLINGS as u64 + 4)?;
        Ok(World { disk, fleet, api, drip, mute, pushed: 0 })
    }

    fn slow(&self) -> usize {
        3 + usize::from(self.disk.is_some())
    }

    /// A round, and the most memory that the relay has had in it, in KiB, if that is more.
    fn watched(&mut self, most: &mut u64) -> Result<Duration> {
        let relay = self.fleet.pid(RELAY)?;
        proc::forget_peak(relay)?;
        let took = self.round()?;
        *most = (*most).max(proc::peak(relay)?);
        Ok(took)
    }

    /// A push of new content to everybody. Returns when the last sibling had it, from the question.
    fn round(&mut self) -> Result<Duration> {
        self.pushed += 1;
        let source = self.fleet.path().join(format!("source{}", self.pushed));
        fs::create_dir(&source)?;
        fs::write(source.join("file"), tests::noise(self.pushed, BYTES))?;
        let push = json!({
            "source": source, "dest": format!("/srv/{}", self.pushed),
            "targets": { "all": true },
            "reach_ms": 15_000, "hold_ms": 3_600_000, "all_at_once": true,
        });
        let begun = Instant::now();
        let last = self.api.last_line("POST", "/v1/pushes", Some(&push))?;
        let id = last["order"]["id"].as_str().with_context(|| format!("not ordered: {last}"))?;
        wait_for("every sibling to be well", LIMIT, || {
            let detail = self.api.ask("GET", &format!("/v1/orders/{id}"), None)?;
            let answers = detail["answers"].as_array().context("answers")?;
            let ok = answers.iter().filter(|answer| answer["state"] == "ok");
            let hosts = ok.filter_map(|answer| answer["hosts"].as_array()).flatten();
            let names = hosts.filter_map(|host| host.as_str());
            Ok((names.filter(|name| name.starts_with("good")).count() == SIBLINGS).then_some(()))
        })?;
        Ok(begun.elapsed())
    }

    /// Makes the four as they should not be.
    fn hurt(&mut self) -> Result<()> {
        self.fleet.signal("stopped", Signal::STOP)?;
        let thin = Shape { rate: Some(8_000), queue: 64_000, ..Shape::open() };
        self.drip.link().reshape(Way::Down, thin)?;
        let deaf = Shape { loss: Loss::Random(1.0), ..Shape::open() };
        self.mute.link().reshape(Way::Up, deaf)?;
        self.disk.as_ref().map_or(Ok(()), Disk::fill)
    }

    /// Makes them well again, and waits until they have what they have missed.
    fn heal(&mut self) -> Result<()> {
        self.fleet.signal("stopped", Signal::CONT)?;
        self.drip.link().reshape(Way::Down, Shape::open())?;
        self.mute.link().reshape(Way::Up, Shape::open())?;
        self.disk.as_ref().map_or(Ok(()), Disk::clear)?;
        self.fleet.wait_up(1 + SIBLINGS as u64 + 4)?;
        wait_for("everybody to have an outcome", LIMIT, || {
            let orders = self.api.ask("GET", "/v1/orders", None)?;
            let orders = orders.as_array().context("a list of orders")?;
            let open = |order: &serde_json::Value| {
                let open = ["pending", "waiting", "not-reached", "relay-lost"];
                open.iter().any(|state| order["states"].get(*state).is_some())
            };
            Ok((!orders.iter().any(open)).then_some(()))
        })
    }
}
