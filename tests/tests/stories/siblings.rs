//! A hundred hosts at one relay, four of them bad: one takes a kilobyte a second, one is stopped,
//! one is heard but never says that it has anything, one has a full disk. The ninety-six others get
//! all that is theirs, and the relay stays within what it may keep for each child.

use anyhow::{Context, Result};
use rustix::process::Signal;
use simulations::wan::{Loss, Profile, Shape, UdpLink, Way};
use tests::{Fleet, LIMIT, Spec, listing, sample_tree, wait_for};

use crate::full_disk::Disk;
use crate::order;

const RELAY: &str = "r1";
const SIBLINGS: u64 = 96;
/// How many start at once.
const WAVE: u64 = 16;
const BYTES: usize = 1_000_000;
/// What the relay may keep unacknowledged of content for a host (`send_window` of a host's link),
/// and what it may grow by for each host that is well, in KiB: buffers of its connection.
const UNACKNOWLEDGED: u64 = 4 << 10;
const EACH: u64 = 512;

fn spec(role: &'static str, name: &str, parent: &str) -> Spec {
    Spec::new(role, name, parent).at("lyon")
}

fn kib(fleet: &Fleet, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", fleet.pid(RELAY)?))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("a field")?;
    Ok(line.split_whitespace().next().context("a number")?.parse()?)
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

    fleet.signal("stopped", Signal::STOP)?;
    drip.link().reshape(Way::Down, Shape { rate: Some(8_000), queue: 64_000, ..Shape::open() })?;
    mute.link().reshape(Way::Up, Shape { loss: Loss::Random(1.0), ..Shape::open() })?;
    if let Some(disk) = &disk {
        disk.fill(8 << 20)?;
    }
    let before = kib(&fleet, "VmRSS:")?;
    let source = fleet.path().join("source");
    sample_tree(&source, BYTES)?;
    let text = source.to_str().context("a plain path")?;
    let push = ["push", text, "--dest", "/srv/app", "-a", "--async", "--json"];
    let push = order(&fleet, &push)?;
    // Orders overtake the push, and come to every sibling as well.
    let run = order(&fleet, &["run", "-a", "--async", "--json", "--", "true"])?;
    wait_siblings(&fleet, &run)?;
    wait_siblings(&fleet, &push)?;
    let grown = kib(&fleet, "VmHWM:")?.saturating_sub(before);
    let most = bad * UNACKNOWLEDGED + SIBLINGS * EACH;
    println!("siblings: the relay has grown by {grown} KiB of {most}");
    assert!(grown < most, "the relay has grown by {grown} KiB, at most {most} are its to keep");

    let pushed = fleet.order(&push)?;
    for name in ["drip", "mute", "stopped"] {
        let ok = crate::answer(&pushed, name).is_ok_and(|answer| answer["state"] == "ok");
        assert!(!ok, "{name} is not bad at all");
    }
    let expected = listing(&source)?;
    for no in [1, SIBLINGS / 2, SIBLINGS] {
        let host = format!("good{no}");
        assert_eq!(listing(&fleet.at(&host, "/srv/app"))?, expected, "{host}");
    }
    Ok(())
}
