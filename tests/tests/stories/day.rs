//! A day of two sites behind bad lines, in some minutes: lines are cut, half open and dark, relays,
//! hosts and the controller die and come back, and all the while there is work. In the evening
//! everything has happened, once, and nothing is left to be told.
//!
//! All intervals are configured shorter by about the same: an hour is six seconds, a certificate
//! lives nine hours, a schedule is due every ten. Needs root, TUN and namespaces; where they are
//! absent it says so and passes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use simulations::lab::Lab;
use simulations::wan::{Link, Loss, Profile, Shape, Way};
use tests::{Fleet, LIMIT, Spec, listing, sample_tree, show, wait_for};

use crate::alerts::{lines, wait_alerts};
use crate::domains::Site;
use crate::namespaces::{lab, on};
use crate::order;

const HOUR: Duration = Duration::from_secs(6);
const PACE: &str = "beat_interval_ms = 1000\nredial_base_ms = 200\nredial_cap_ms = 2000\n\
                    return_base_ms = 2000\nreturn_cap_ms = 5000\n";
/// Nine hours.
const LIFE: &str = "54s";
const ALERTS: &str = "clear_s = 1\ngather_s = 1\nreturning_s = 5\ndamp_s = 1\n\
                      rules.host-lost.hold_s = 1\nrules.relay-lost.hold_s = 1\n";
const SITES: [(&str, &str, &[&str]); 2] =
    [("r1", "weak", &["h1", "h2", "h3"]), ("r2", "veryweak", &["h4"])];
const HOSTS: [&str; 4] = ["h1", "h2", "h3", "h4"];
const DEST: &str = "/srv/app";

/// What happens, at the beginning of which hour.
#[derive(Clone, Copy, Debug)]
enum What {
    Dark(usize),
    Shut(usize, Way),
    Mend(usize),
    Kill(&'static str),
    Start(&'static str),
    Stop(&'static str),
    Go(&'static str),
}

const DAY: &[(u32, What)] = &[
    (1, What::Dark(0)),
    (4, What::Mend(0)),
    (5, What::Kill("r2")),
    (6, What::Shut(0, Way::Down)),
    (8, What::Start("r2")),
    (8, What::Mend(0)),
    (8, What::Kill("h2")),
    (9, What::Kill("controller")),
    (11, What::Start("controller")),
    (12, What::Start("h2")),
    (13, What::Shut(1, Way::Up)),
    (15, What::Mend(1)),
    (15, What::Kill("r1")),
    (15, What::Kill("h4")),
    (18, What::Start("r1")),
    (18, What::Start("h4")),
    (19, What::Stop("h1")),
    (19, What::Dark(1)),
    (21, What::Go("h1")),
    (21, What::Mend(1)),
    (21, What::Kill("r1")),
    (22, What::Start("r1")),
];

/// It ends before its lines do.
struct World {
    site: Site,
    marks: PathBuf,
    lab: Lab,
}

impl World {
    fn new() -> Result<Option<World>> {
        let hosts = SITES.iter().map(|(_, _, hosts)| hosts.len()).max().unwrap_or_default();
        let Some(lab) = lab("clean10", SITES.len(), hosts)? else { return Ok(None) };
        let mut places = BTreeMap::from([("controller".to_owned(), on(&lab.root))]);
        for ((relay, _, hosts), site) in SITES.iter().zip(&lab.sites) {
            places.insert((*relay).to_owned(), on(&site.gateway));
            for (host, machine) in hosts.iter().zip(&site.hosts) {
                places.insert((*host).to_owned(), on(machine));
            }
        }
        let options = ["--certificate", LIFE];
        let mut fleet =
            Fleet::placed_with(tests::binary()?, PACE, lab.scratch(), places, &options)?;
        let told = fleet.path().join("told");
        let channel = format!("channels.file.file = {{ path = \"{}\" }}\n", told.display());
        fs::write(fleet.state("controller").join("alerts.toml"), format!("{ALERTS}{channel}"))?;
        for (relay, _, hosts) in SITES {
            fleet.add(&Spec::new("relay", relay, "controller").at(relay))?;
            for host in hosts {
                let parents = [relay, "controller"].map(String::from).to_vec();
                fleet.add(&Spec { parents, ..Spec::new("host", host, relay).at(relay) })?;
            }
        }
        fleet.wait_up((SITES.len() + HOSTS.len()) as u64)?;
        let marks = fleet.path().join("marks");
        fs::create_dir(&marks)?;
        let site = Site::new(fleet)?;
        let world = World { site, marks, lab };
        (0..SITES.len()).try_for_each(|no| world.mend(no))?;
        Ok(Some(world))
    }

    fn line(&self, no: usize) -> &Link {
        self.lab.sites[no].link()
    }

    /// The line is as weak as it always is.
    fn mend(&self, no: usize) -> Result<()> {
        let usual = Profile::named(SITES[no].1)?;
        self.line(no).reshape(Way::Down, usual.down)?;
        Ok(self.line(no).reshape(Way::Up, usual.up)?)
    }

    fn shut(&self, no: usize, way: Way) -> Result<()> {
        let usual = Profile::named(SITES[no].1)?;
        let open = match way {
            Way::Down => usual.down,
            Way::Up => usual.up,
        };
        Ok(self.line(no).reshape(way, Shape { loss: Loss::Random(1.0), ..open })?)
    }

    fn happen(&mut self, what: What) -> Result<()> {
        match what {
            What::Dark(no) => [Way::Down, Way::Up].into_iter().try_for_each(|w| self.shut(no, w)),
            What::Shut(no, way) => self.shut(no, way),
            What::Mend(no) => self.mend(no),
            What::Kill(node) => self.site.fleet.kill(node),
            What::Start(node) => self.site.fleet.restart(node),
            What::Stop(node) => self.site.fleet.signal(node, Signal::STOP),
            What::Go(node) => self.site.fleet.signal(node, Signal::CONT),
        }
    }

    /// Gives a command to these hosts that waits for whoever is away, and marks where it ran.
    fn mark(&self, hosts: &str, name: &str, expires: &str) -> Result<String> {
        let line = format!("echo {name} >> {}/$BARID_NODE", self.marks.display());
        let args = ["run", "-w", hosts, "--defer", "--expires", expires, "--async", "--json"];
        order(&self.site.fleet, &[&args[..], &["--", &line]].concat())
    }

    fn push(&self, name: &str) -> Result<String> {
        let source = self.site.fleet.path().join(name);
        sample_tree(&source, 100_000)?;
        fs::write(source.join("version"), name)?;
        let source = source.to_str().context("a plain path")?;
        order(&self.site.fleet, &["push", source, "--dest", DEST, "-a", "--async", "--json"])
    }
}

#[test]
fn in_the_evening_everything_has_happened_once_and_is_known() -> Result<()> {
    let Some(mut world) = World::new()? else { return Ok(()) };
    let config = crate::domains::CONFIG.replace("0 * * * *", "* * * * *");
    world.site.write("config", &config.replacen("automatic = false\n", "", 1))?;
    world.site.done("-o import config config")?;
    let (mut runs, mut pushes) = (Vec::new(), Vec::new());
    let (mut late, mut is_there) = (None, true);
    let begun = Instant::now();
    for hour in 0..24 {
        for (_, what) in DAY.iter().filter(|(at, _)| *at == hour) {
            world.happen(*what)?;
            match what {
                What::Kill("controller") => is_there = false,
                What::Start("controller") => is_there = true,
                _ => {}
            }
        }
        if is_there {
            runs.push((hour, world.mark("h[1-4]", &format!("hour{hour}"), "1h")?));
        }
        if is_there && hour % 4 == 0 {
            let name = format!("tree{hour}");
            pushes.push((name.clone(), world.push(&name)?));
            world.site.write("motd", &format!("it is {hour}\n"))?;
            world.site.done(match hour {
                0 => "-o install ./motd common.adm:/etc/motd hour",
                _ => "-o cp ./motd common.adm:/etc/motd",
            })?;
        }
        if hour == 8 {
            // h2 is away, and comes back when this is over.
            late = Some(world.mark("h2", "too-late", "2s")?);
        }
        wait_for("the hour to be over", LIMIT, || {
            Ok((begun.elapsed() >= HOUR * (hour + 1)).then_some(()))
        })?;
        let alerts = world.site.fleet.barid(&["alerts"])?;
        println!("after hour {hour}:\n{}", show(&alerts.stdout));
    }

    let fleet = &mut world.site.fleet;
    fleet.wait_up((SITES.len() + HOSTS.len()) as u64)?;
    for (_, id) in &runs {
        fleet.wait_states(id, &[("ok", HOSTS.len() as u64)])?;
    }
    let late = late.context("it was given")?;
    fleet.wait_states(&late, &[("not-reached", 1)])?;
    let (last, id) = pushes.last().context("there were some")?;
    fleet.wait_states(id, &[("ok", HOSTS.len() as u64)])?;
    for host in HOSTS {
        let marks = fs::read_to_string(world.marks.join(host))?;
        let mut marks: Vec<_> = marks.lines().map(String::from).collect();
        let mut given: Vec<_> = runs.iter().map(|(hour, _)| format!("hour{hour}")).collect();
        marks.sort_unstable();
        given.sort_unstable();
        assert_eq!(marks, given, "{host}: each run once, and what was too late never");
        let there = listing(&fleet.at(host, DEST))?;
        assert_eq!(there, listing(&fleet.path().join(last))?, "{host}");
    }
    for (name, id) in &pushes {
        let detail = fleet.order(id)?;
        let states = detail["order"]["states"].as_object().context("states")?;
        let known = states.keys().all(|state| ["ok", "superseded"].contains(&state.as_str()));
        assert!(known, "{name}: {states:?}");
    }
    for (relay, _, hosts) in SITES {
        for node in hosts.iter().chain([&relay]) {
            let log = fleet.log(node);
            assert!(log.contains("the certificate is renewed"), "{node}: {log}");
        }
    }

    wait_alerts(fleet, &[])?;
    let told = fleet.path().join("told");
    let words = wait_for("the end of each alert to be told", LIMIT, || {
        let words = lines(&told)?;
        let mut on = BTreeSet::new();
        for word in &words {
            let (sign, key) = word.split_at(1);
            match sign {
                "+" => on.insert(key),
                _ => on.remove(key),
            };
        }
        Ok(on.is_empty().then_some(words))
    })?;
    for wanted in ["relay-lost/r1", "relay-lost/r2", "host-lost/h2"] {
        assert!(words.contains(&format!("+{wanted}")), "{wanted} is not in {words:?}");
    }
    let causes = ["relay-lost/", "host-lost/", "below-lost/"];
    let is_meant = |word: &String| causes.iter().any(|cause| word[1..].starts_with(cause));
    assert!(words.iter().all(is_meant), "{words:?}");

    let motd = fs::read_to_string(world.site.fleet.path().join("motd"))?;
    wait_for("the last file under control to be everywhere", 3 * LIMIT, || {
        let lacking = show(&world.site.fdist("-o status")?.stdout);
        Ok(lacking.is_empty().then_some(()))
    })?;
    for host in HOSTS {
        assert_eq!(world.site.at(host, "/etc/motd").as_ref(), Some(&motd), "{host}");
    }
    Ok(())
}
