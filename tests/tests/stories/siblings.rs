//! A hundred hosts at one relay, four of them bad: one takes a kilobyte a second, one is stopped,
//! one hears and is never heard, one has a full disk. The ninety-six others get
//! all that is theirs, and the relay stays within what it may keep for each child.

use anyhow::{Context, Result};
use rustix::process::Signal;
use simulations::wan::{Loss, Profile, Shape, UdpLink, Way};
use tests::{Fleet, LIMIT, Spec, listing, noise, sample_tree, wait_for};

use crate::full_disk::Disk;
use crate::metrics::scrape;
use crate::order;

const RELAY: &str = "r1";
const SIBLINGS: u64 = 96;
/// How many start at once.
const WAVE: u64 = 16;
const BYTES: usize = 1_000_000;
const LARGE: usize = 30_000_000;
/// What the relay may keep for a host that does not acknowledge it, in KiB, and by how much two
/// pushes to hosts that are well may differ for each of them.
const UNACKNOWLEDGED: u64 = 4 << 10;
const NOISE: u64 = 128;

fn spec(role: &'static str, name: &str, parent: &str) -> Spec {
    Spec::new(role, name, parent).at("lyon")
}

/// The most that the relay has ever had in memory, in KiB.
fn peak(fleet: &Fleet) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", fleet.pid(RELAY)?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a peak")?;
    Ok(line.split_whitespace().next().context("a number")?.parse()?)
}

/// Gives a push of a tree that nobody has yet.
fn push(fleet: &Fleet, (name, bytes): (&str, usize), to: &[&str]) -> Result<String> {
    let source = fleet.path().join(name);
    sample_tree(&source, 0)?;
    let seed = name.len() as u64;
    std::fs::write(source.join("big"), noise(seed, bytes))?;
    let text = source.to_str().context("a plain path")?;
    let dest = format!("/srv/{name}");
    order(fleet, &[&["push", text, "--dest", &dest, "--async", "--json"], to].concat())
}

/// Waits until all siblings are `ok`, whatever the others do.
fn wait_siblings(fleet: &Fleet, id: &str) -> Result<()> {
    wait_for("every sibling to be well", LIMIT * 2, || {
        let detail = fleet.order(id)?;
        let answers = detail["answers"].as_array().context("answers")?;
        let ok = answers.iter().filter(|answer| answer["state"] == "ok");
        let hosts = ok.filter_map(|answer| answer["hosts"].as_array()).flatten();
        let well = hosts.filter(|host| host.as_str().is_some_and(|name| name.starts_with("good")));
        Ok((well.count() as u64 == SIBLINGS).then_some(()))
    })
}

#[test]
fn four_bad_children_hold_none_of_ninety_six_up() -> Result<()> {
    let mut fleet = Fleet::new()?;
    fleet.add(&spec("relay", RELAY, "controller"))?;
    fleet.wait_up(1)?;
    let relay = fleet.listen(RELAY)?.parse()?;
    let line = |seed| -> Result<UdpLink> {
        Ok(UdpLink::start("127.0.0.1:0".parse()?, relay, &Profile::named("lan")?, seed)?)
    };
    let (drip, mute) = (line(1)?, line(2)?);
    for no in 1..=SIBLINGS {
        fleet.add(&spec("host", &format!("good{no}"), RELAY))?;
        if no.is_multiple_of(WAVE) {
            fleet.wait_up(1 + no)?;
        }
    }
    fleet.add(&spec("host", "stopped", RELAY))?;
    let disk = Disk::mount(&fleet.state("full"), 48);
    if disk.is_some() {
        fleet.add(&spec("host", "full", RELAY).with("min_free_mib = 16\n"))?;
    }
    for (name, line) in [("drip", &drip), ("mute", &mute)] {
        fleet.route(RELAY, line.address().to_string());
        fleet.add(&spec("host", name, RELAY))?;
    }
    let bad = 3 + u64::from(disk.is_some());
    fleet.wait_up(1 + SIBLINGS + bad)?;

    let all_well = push(&fleet, ("before", BYTES), &["-a"])?;
    wait_siblings(&fleet, &all_well)?;
    let before = peak(&fleet)?;

    fleet.signal("stopped", Signal::STOP)?;
    drip.link().reshape(Way::Down, Shape { rate: Some(8_000), queue: 64_000, ..Shape::open() })?;
    mute.link().reshape(Way::Up, Shape { loss: Loss::Random(1.0), ..Shape::open() })?;
    if let Some(disk) = &disk {
        disk.fill(8 << 20)?;
    }
    // Far more than the relay may keep in memory for them.
    push(&fleet, ("large", LARGE), &["-w", "drip,mute,stopped"])?;
    let push = push(&fleet, ("after", BYTES), &["-a"])?;
    // Orders overtake the push, and come to every sibling as well.
    let run = order(&fleet, &["run", "-a", "--async", "--json", "--", "true"])?;
    wait_siblings(&fleet, &run)?;
    wait_siblings(&fleet, &push)?;
    wait_for("the large push to have come to the relay", LIMIT, || {
        let bytes = scrape(&fleet, RELAY, "/metrics")?.value("barid_store_bytes", &[]);
        Ok(bytes.is_some_and(|bytes| bytes > (LARGE + 2 * BYTES) as f64).then_some(()))
    })?;
    let (after, most) = (peak(&fleet)?, bad * UNACKNOWLEDGED + SIBLINGS * NOISE);
    println!("siblings: the relay had {before} KiB, and has {after} beside {bad} bad children");
    assert!(after < before + most, "{before} KiB have become {after}, at most {most} more");

    let pushed = fleet.order(&push)?;
    for name in ["drip", "mute", "stopped"] {
        let ok = crate::answer(&pushed, name).is_ok_and(|answer| answer["state"] == "ok");
        assert!(!ok, "{name} is not bad at all");
    }
    let expected = listing(&fleet.path().join("after"))?;
    for no in [1, SIBLINGS / 2, SIBLINGS] {
        let host = format!("good{no}");
        assert_eq!(listing(&fleet.at(&host, "/srv/after"))?, expected, "{host}");
    }
    Ok(())
}
