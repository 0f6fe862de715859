//! A site in network namespaces, behind an emulated line: whole packets of the kernel's own stack,
//! so that nothing of a blackout or a half-open line is told to anybody by a socket.
//!
//! On the line both ends beat every five seconds, as the controller wants it, so it is missed after
//! fifteen. Needs root, TUN and namespaces; where they are absent each story says so and passes.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use simulations::lab::{self, Lab, Machine, Plan};
use simulations::wan::{Link, Loss, Profile, Shape, Way};
use tests::{Fleet, LIMIT, Place, Spec, listing, sample_tree, wait_for};

use crate::order;

const RELAY: &str = "site1-relay";
const HOSTS: [&str; 2] = ["site1-host1", "site1-host2"];
const DEST: &str = "/srv/app";
const PORT: u16 = 7000;
/// Less than it takes to miss three beats, and more.
/// Both ends of a link beat as slowly from the first moment, so that it is stale after 15 s.
const PACE: &str = "beat_interval_ms = 5000\nredial_base_ms = 200\nredial_cap_ms = 2000\n";
const SHORT: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(20);

/// A laboratory of so many sites with so many machines for hosts in each; without one it is said
/// why.
pub(crate) fn lab(profile: &str, sites: usize, hosts: usize) -> Result<Option<Lab>> {
    if let Err(reason) = lab::check() {
        println!("skipped: {reason}");
        return Ok(None);
    }
    let profile = Profile::named(profile)?;
    Ok(Some(Lab::build(&Plan { sites, hosts, profile, seed: 5 })?))
}

/// Where a node runs that has a machine.
pub(crate) fn on(machine: &Machine) -> Place {
    Place {
        before: ["ip", "netns", "exec", &machine.namespace].map(String::from).to_vec(),
        listen: Some(format!("{}:{PORT}", machine.address)),
    }
}

/// A controller, and hosts behind a relay at the other end of such a line, each on a machine. The
/// fleet must end before the laboratory does.
pub(crate) fn one_site(
    profile: &str,
    pace: &str,
    relay: &Spec,
    hosts: &[String],
) -> Result<Option<(Fleet, Lab)>> {
    let Some(lab) = lab(profile, 1, hosts.len())? else { return Ok(None) };
    let site = &lab.sites[0];
    let mut places = BTreeMap::from([
        ("controller".to_owned(), on(&lab.root)),
        (relay.name.clone(), on(&site.gateway)),
    ]);
    places.extend(hosts.iter().cloned().zip(site.hosts.iter().map(on)));
    let mut fleet = Fleet::placed(tests::binary()?, pace, lab.scratch(), places)?;
    fleet.add(relay)?;
    fleet.wait_up(1)?;
    for host in hosts {
        fleet.add(&Spec::new("host", host, &relay.name).at(&relay.site))?;
    }
    fleet.wait_up(1 + hosts.len() as u64)?;
    Ok(Some((fleet, lab)))
}

/// A site; it ends before its line does.
struct World {
    fleet: Fleet,
    lab: Lab,
}

impl World {
    /// Two hosts behind a relay at the other end of such a line.
    fn new(profile: &str) -> Result<Option<World>> {
        let relay = Spec::new("relay", RELAY, "controller").at("site1");
        let site = one_site(profile, PACE, &relay, &HOSTS.map(String::from))?;
        Ok(site.map(|(fleet, lab)| World { fleet, lab }))
    }

    fn line(&self) -> &Link {
        self.lab.sites[0].link()
    }

    /// Gives a push of so many bytes, and waits until some of it has come down the line.
    fn push(&self, name: &str, bytes: usize) -> Result<String> {
        let source = self.fleet.path().join(name);
        sample_tree(&source, bytes)?;
        let before = self.line().traffic().down.delivered.bytes;
        let text = source.to_str().context("a plain path")?;
        let id = order(&self.fleet, &["push", text, "--dest", DEST, "-a", "--async", "--json"])?;
        wait_for("some of the push to come down", LIMIT, || {
            let now = self.line().traffic().down.delivered.bytes;
            Ok((now > before + bytes as u64 / 10).then_some(()))
        })?;
        Ok(id)
    }

    /// Waits for the push, and compares.
    fn wait_pushed(&self, id: &str, name: &str) -> Result<()> {
        self.fleet.wait_states(id, &[("ok", 2)])?;
        for host in HOSTS {
            let there = listing(&self.fleet.at(host, DEST))?;
            assert_eq!(there, listing(&self.fleet.path().join(name))?, "{host}");
        }
        Ok(())
    }

    /// How often a node has said that it has lost a link.
    fn losses(&self, node: &str) -> usize {
        self.fleet.log(node).matches(" unlinked").count()
    }

    /// Waits until the tree says that the relay has missed two beats, while its link still stands.
    fn wait_suspect(&self) -> Result<()> {
        wait_for("the relay to be suspect", LIMIT, || {
            let tree = self.fleet.json(&["tree", "--json"])?;
            let link = &tree["links"][0];
            assert_ne!(link["since_ms"], 0, "it was given up unsuspected: {link:#}");
            Ok((link["suspect"] == true).then_some(()))
        })
    }

    /// Waits until both ends of the line have noticed that nothing comes any more.
    fn wait_missed(&self, before: [usize; 2]) -> Result<()> {
        wait_for("both ends to notice", LIMIT, || {
            let now = ["controller", RELAY].map(|node| self.losses(node));
            Ok((now[0] > before[0] && now[1] > before[1]).then_some(()))
        })
    }
}

#[test]
fn a_short_blackout_costs_no_link_and_a_long_one_nothing_but_time() -> Result<()> {
    let Some(mut world) = World::new("weak")? else { return Ok(()) };
    let ends = ["controller", RELAY];
    let before = ends.map(|node| world.losses(node));
    let id = world.push("short", 1_500_000)?;
    world.line().darken(SHORT);
    world.wait_pushed(&id, "short")?;
    assert_eq!(ends.map(|node| world.losses(node)), before, "the link has lived through it");
    let dark = world.line().traffic().down.blacked_out.packets;
    assert!(dark > 0, "nothing met the dark");

    let id = world.push("long", 2_500_000)?;
    world.line().darken(LONG);
    world.wait_missed(before)?;
    world.wait_pushed(&id, "long")?;
    world.fleet.wait_up(3)?;
    let traffic = world.line().traffic();
    assert!(traffic.down.blacked_out.packets > dark, "nothing met the dark: {traffic:?}");
    // Four megabytes to a site of two hosts, once, and what was lost and is QUIC's own.
    assert!(traffic.down.pushed.bytes < 5_500_000, "{traffic:?}");
    Ok(())
}

#[test]
fn a_line_that_is_half_open_is_noticed_at_both_ends() -> Result<()> {
    let Some(mut world) = World::new("clean10")? else { return Ok(()) };
    let whole = Profile::named("clean10")?;
    let marks = world.fleet.path().join("marks");
    fs::create_dir(&marks)?;
    for (way, open, name) in [(Way::Down, whole.down, "down"), (Way::Up, whole.up, "up")] {
        let before = ["controller", RELAY].map(|node| world.losses(node));
        let shut = Shape { loss: Loss::Random(1.0), ..open.clone() };
        world.line().reshape(way, shut)?;
        // Given while nobody has noticed: it waits for them, and happens once.
        let line = format!("echo $BARID_NODE >> {}/$BARID_NODE-{name}", marks.display());
        let id = order(&world.fleet, &["run", "-a", "--defer", "--async", "--json", &line])?;
        if way == Way::Up {
            world.wait_suspect()?;
        }
        world.wait_missed(before)?;
        world.line().reshape(way, open)?;
        world.fleet.wait_states(&id, &[("ok", 2)])?;
        world.fleet.wait_up(3)?;
        for host in HOSTS {
            let mark = fs::read_to_string(marks.join(format!("{host}-{name}")))?;
            assert_eq!(mark, format!("{host}\n"), "{name}");
        }
    }
    Ok(())
}

/// The relay dies twenty times while a push goes through it; what it had crosses the line once.
#[test]
fn a_relay_that_is_killed_twenty_times_brings_the_push_to_its_end() -> Result<()> {
    const BYTES: u64 = 4_000_000;
    const KILLS: u64 = 20;
    /// What the line holds (10 Mbit/s, 100 ms), a quarter more, a handshake and a piece.
    const IN_FLIGHT: u64 = 230_000;
    let Some(mut world) = World::new("weak")? else { return Ok(()) };
    let before = world.line().traffic().down.pushed.bytes;
    let id = world.push("often", usize::try_from(BYTES)?)?;
    for _ in 0..KILLS {
        world.fleet.kill(RELAY)?;
        world.fleet.restart(RELAY)?;
        let now = world.line().traffic().down.delivered.bytes;
        let over = || world.fleet.order(&id).is_ok_and(|now| now["order"]["states"]["ok"] == 2);
        wait_for("more of it to come down", LIMIT, || {
            let moved = world.line().traffic().down.delivered.bytes;
            Ok((moved > now + BYTES / (KILLS + 10) || over()).then_some(()))
        })?;
    }
    world.wait_pushed(&id, "often")?;
    let pushed = world.line().traffic().down.pushed.bytes - before;
    let most = BYTES + BYTES / 15 + KILLS * IN_FLIGHT;
    assert!(pushed < most, "{pushed} bytes went down the line, at most {most} should");
    Ok(())
}
